"""Prices from text to values: `prices:` of a policy, and the table that is shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kernel import normal
from kernel.document import Document, Keys, Node, Reader, did_you_mean, quote
from kernel.errors import NonCanonical, PatternError, PolicyError
from kernel.name_globs import globs
from kernel.prices import NO_PRICES, PROVIDERS, Price, Priced, Prices
from kernel.quantity import price, tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PRICE = Keys(
    "a price",
    now=frozenset({"models", "input", "cached", "written", "output", "context", "longest-output"}),
    required=("models", "input", "output", "context", "longest-output"),
    elsewhere={
        "cache-read": "write cached: what input costs that was cached before",
        "cache-write": "write written: what input costs that is cached for later",
    },
)
_TABLE = Keys("a table of prices", now=frozenset({"table", "providers"}), required=("table", "providers"))
_PROVIDER = Keys("a provider", now=frozenset({"source", "date", "prices"}), required=("source", "date", "prices"))


class Origin(NamedTuple):
    """Where the prices of a provider in a table come from, and of which day they are."""

    provider: str
    source: str
    date: str


def read_prices(reader: Reader, node: Node | None) -> Prices:
    """`prices:` of a policy: for each provider a list of prices."""
    entries = [] if node is None else reader.entries(node, "prices")
    for name, _ in entries:
        reader.parsed("E228", name, _provider)
    return Prices(own={name.text: tuple(_listed(reader, each)) for name, each in entries}) if entries else NO_PRICES


def _provider(text: str) -> str:
    """One that has a name here, or a host in the form in which hosts are compared."""
    try:
        known = text in PROVIDERS or ("." in text and normal.host(text).name == text)
    except NonCanonical:
        known = False
    if not known:
        hint = did_you_mean(text, PROVIDERS) or f"{', '.join(sorted(PROVIDERS))}, or the host at which models cost that"
        raise PatternError(f"{quote(text)} is no provider of models", hint)
    return text


def _listed(reader: Reader, node: Node) -> Iterator[Priced]:
    seen: set[str] = set()
    for item in reader.items(node, "the prices of a provider"):
        found = reader.mapping(item, PRICE)
        models = globs(reader, found, "models") if found is not None else None
        price = _price(reader, found) if found is not None else None
        for model in seen.intersection(models or ()):
            reader.error("E107", item, f"{model} has two prices", "take one of them out")
        seen.update(models or ())
        if models and price is not None:
            yield Priced(models, price)


def _price(reader: Reader, found: Mapping[str, Node]) -> Price | None:
    costs = {key: reader.value(found, key, "E220", price) for key in ("input", "cached", "written", "output")}
    taken, output = costs["input"], costs["output"]
    context, longest = (reader.value(found, key, "E221", tally) for key in ("context", "longest-output"))
    if taken is None or output is None or context is None or longest is None:
        return None
    cached, written = (taken if cost is None else cost for cost in (costs["cached"], costs["written"]))
    return Price(taken, cached, written, output, context, longest)


def read_table(document: Document) -> tuple[Prices, tuple[Origin, ...]]:
    """The prices of a table, and where they come from. Raises `PolicyError` with every finding."""
    reader = Reader(document.file)
    found = reader.mapping(document.root, _TABLE) or {}
    entries = reader.entries(found["providers"], "providers") if "providers" in found else []
    read = [(name.text, reader.mapping(each, _PROVIDER) or {}) for name, each in entries]
    lists = {name: tuple(_listed(reader, each["prices"])) for name, each in read if "prices" in each}
    origins = tuple(Origin(name, *(reader.text(each[key], key) or "" if key in each else "" for key in
                                   ("source", "date"))) for name, each in read)
    if reader.findings:
        raise PolicyError(reader.findings)
    return Prices(table=lists), origins
