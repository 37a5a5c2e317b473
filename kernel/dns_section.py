"""`dns`, from text to values."""

from __future__ import annotations

from kernel.choices import choice, choices
from kernel.dns import ADDRESS_TYPES, ANSWERED_TYPES, MOST_CHARACTERS, MOST_LABELS, Dns
from kernel.document import Keys, Node, Reader
from kernel.quantity import count

DNS = Keys("dns", now=frozenset({"answer", "types", "max-labels", "max-name"}))
ANSWERS = frozenset({"allowed-names", "nothing"})
LATER_TYPES = frozenset({"CNAME", "SRV", "MX", "TXT", "PTR", "NS", "SOA", "CAA"})


def dns(reader: Reader, node: Node | None) -> Dns | None:
    """The `dns:` section; None where the file has none."""
    if node is None:
        return None
    found = reader.mapping(node, DNS) or {}
    answer = choice(reader, found, "answer", "E226", ANSWERS)
    types = choices(reader, found, "types", "E226", ANSWERED_TYPES | LATER_TYPES)
    if types is not None:
        _refuse_later(reader, found["types"])
    labels = reader.value(found, "max-labels", "E221", count)
    characters = reader.value(found, "max-name", "E221", count)
    return Dns(
        answer != "nothing",
        ADDRESS_TYPES if types is None else types & ANSWERED_TYPES,
        MOST_LABELS if labels is None else labels,
        MOST_CHARACTERS if characters is None else characters,
    )


def _refuse_later(reader: Reader, types: Node) -> None:
    """What such records say is chosen by whoever has the name, and nothing would look at it."""
    for word in reader.words(types, "types"):
        if word.text in LATER_TYPES:
            message = f"records of the type {word.text} belong to the language, and this version cannot answer them"
            hint = f"{', '.join(sorted(ANSWERED_TYPES))}; a question for any other is refused"
            reader.error("E180", word, message, hint)
