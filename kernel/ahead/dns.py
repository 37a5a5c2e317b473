"""`dns`, from text to values."""

from __future__ import annotations

from kernel.ahead.said import Dns
from kernel.choices import choice, choices
from kernel.document import Keys, Node, Reader
from kernel.quantity import count

DNS = Keys("dns", now=frozenset({"answer", "types", "max-labels", "max-name"}))
RECORD_TYPES = frozenset({"A", "AAAA", "CNAME", "HTTPS", "SVCB", "SRV", "MX", "TXT", "PTR", "NS", "SOA", "CAA"})


def dns(reader: Reader, node: Node | None) -> Dns | None:
    """The `dns:` section."""
    if node is None:
        return None
    found = reader.mapping(node, DNS) or {}
    return Dns(
        choice(reader, found, "answer", "E226", {"allowed-names", "nothing"}) or "allowed-names",
        choices(reader, found, "types", "E226", RECORD_TYPES),
        reader.value(found, "max-labels", "E221", count),
        reader.value(found, "max-name", "E221", count),
    )
