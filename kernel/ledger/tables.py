"""What a ledger keeps, as tables of rows, and the draft in which a call collects its changes.

Where the rows are is the business of whoever calls: a call only reads the tables that it is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from kernel.leases import Purse

HEAD = (0,)
"""The key of the one row of the head."""


class Head(NamedTuple):
    """What there is once. `server` is the one that the last call came to, `changed_us` when that became another.

    `news`: how many there are. `tidied_us`: all that was long over by then is forgotten.
    """

    server: str
    changed_us: int = 0
    news: int = 0
    tidied_us: int = 0


class Account(NamedTuple):
    """What a purse has. `largest` is the greatest lease that was ever granted from it.

    `share` is the part of `spent` that each process was charged which has yet to report after a change of server.
    """

    limit: int = 0
    spent: int = 0
    held: int = 0
    stranded: int = 0
    largest: int = 0
    share: int = 0


class Part(NamedTuple):
    """What one holder has of a purse: by its leases that are settled or lost, and by those that live."""

    used: int = 0
    held: int = 0


class Lease(NamedTuple):
    """A lease that is not settled. `item`: it was granted for a new item, and is spent whole.

    `lost`: all of it counts as spent, as its holder fell silent. It is kept for a holder that has yet to write it down.
    """

    budget: str
    unit: str
    agent: str
    window: int
    amount: int
    run: str
    ask: int
    item: bool
    lost: bool = False

    @property
    def purse(self) -> Purse:
        return Purse(self.budget, self.unit, self.agent, self.window)


class Life(NamedTuple):
    """The newest life of a holder; `run` is "" of one that only its chain speaks of. `said` is JSON.

    `asked` is the greatest number of an ask that was answered. `lost`: it was silent for too long and has not
    been heard of since, or has not been told. `owes`: it has yet to say what its chain knows.
    """

    run: str
    seen_us: int
    said: str = "{}"
    asked: int = -1
    lost: bool = False
    owes: bool = False


class Count(NamedTuple):
    """A number that stands for itself."""

    number: int


class Standing(NamedTuple):
    """How often an agent was released, and how often its token became new."""

    epoch: int = 0
    session: int = 0


class Told(NamedTuple):
    """News. `said` is JSON."""

    kind: str
    agent: str
    origin: str
    said: str
    epoch: int
    session: int
    at_us: int


class Table[V](Protocol):
    """Rows by their keys, which are tuples of text and integers."""

    def get(self, key: tuple[str | int, ...], /) -> V | None: ...

    def under(self, *prefix: str | int) -> Iterable[tuple[tuple[Any, ...], V]]:
        """The rows whose keys begin so."""


_PURSE = ("budget", "unit", "agent", "window")


class Shape(NamedTuple):
    """The columns of a table's keys, and the kind of its rows."""

    key: tuple[str, ...]
    row: type[tuple[Any, ...]]


SHAPES = {
    "head": Shape(("one",), Head),
    "accounts": Shape(_PURSE, Account),
    "parts": Shape((*_PURSE, "holder"), Part),
    "items": Shape((*_PURSE, "item"), Count),
    "fences": Shape(("budget", "unit", "agent", "kind"), Count),
    "rates": Shape(_PURSE, Count),
    "hands": Shape((*_PURSE, "holder"), Count),
    "leases": Shape(("holder", "lease"), Lease),
    "asks": Shape(("holder", "of_run", "of_ask"), Count),
    "counters": Shape(("log",), Count),
    "lives": Shape(("holder",), Life),
    "standings": Shape(("agent",), Standing),
    "news": Shape(("number",), Told),
    "told": Shape(("kind", "agent", "origin"), Count),
}
"""All tables. Counts are: of a fence its newest window, of a rate when its next turn is due (microseconds), of a hand
its turns, of an ask its lease, of a log its newest lease, of what was told its number."""


class Tables(Protocol):
    """Where the rows are."""

    def table(self, name: str) -> Table[Any]: ...


class Changed[V]:
    """A table, and on top of it what a call puts in or takes out."""

    def __init__(self, base: Table[V]) -> None:
        self._base = base
        self.rows: dict[tuple[str | int, ...], V | None] = {}

    def get(self, key: tuple[str | int, ...]) -> V | None:
        return self.rows[key] if key in self.rows else self._base.get(key)

    def under(self, *prefix: str | int) -> list[tuple[tuple[Any, ...], V]]:
        """The rows whose keys begin so, in the order of their keys."""
        found: dict[tuple[Any, ...], V | None] = dict(self._base.under(*prefix))
        found |= {key: row for key, row in self.rows.items() if key[:len(prefix)] == prefix}
        return sorted([(key, row) for key, row in found.items() if row is not None], key=lambda pair: pair[0])

    def put(self, key: tuple[str | int, ...], row: V) -> None:
        self.rows[tuple(key)] = row

    def drop(self, key: tuple[str | int, ...]) -> None:
        self.rows[tuple(key)] = None


class Draft:
    """All tables as a call sees and changes them, and where and when it comes to the ledger.

    `server` names what holds the tables, `now_us` is the ledger's clock.
    """

    def __init__(self, tables: Tables, server: str, now_us: int) -> None:
        self.server, self.now_us = server, now_us
        self.head: Changed[Head] = Changed(tables.table("head"))
        self.accounts: Changed[Account] = Changed(tables.table("accounts"))
        self.parts: Changed[Part] = Changed(tables.table("parts"))
        self.items: Changed[Count] = Changed(tables.table("items"))
        self.fences: Changed[Count] = Changed(tables.table("fences"))
        self.rates: Changed[Count] = Changed(tables.table("rates"))
        self.hands: Changed[Count] = Changed(tables.table("hands"))
        self.leases: Changed[Lease] = Changed(tables.table("leases"))
        self.asks: Changed[Count] = Changed(tables.table("asks"))
        self.counters: Changed[Count] = Changed(tables.table("counters"))
        self.lives: Changed[Life] = Changed(tables.table("lives"))
        self.standings: Changed[Standing] = Changed(tables.table("standings"))
        self.news: Changed[Told] = Changed(tables.table("news"))
        self.told: Changed[Count] = Changed(tables.table("told"))

    def changes(self) -> dict[str, dict[tuple[str | int, ...], Any]]:
        """What is to be kept: by table and key the new row, None for one that goes."""
        tables = {name: getattr(self, name).rows for name in SHAPES}
        return {name: rows for name, rows in tables.items() if rows}


class Rows[V](dict[tuple[str | int, ...], V]):
    """A table in memory."""

    def under(self, *prefix: str | int) -> Iterable[tuple[tuple[Any, ...], V]]:
        return [(key, row) for key, row in self.items() if key[:len(prefix)] == prefix]


class InMemory:
    """All tables in memory."""

    def __init__(self) -> None:
        self._tables: dict[str, Rows[Any]] = {name: Rows() for name in SHAPES}

    def table(self, name: str) -> Rows[Any]:
        return self._tables[name]

    def copy(self) -> InMemory:
        """The tables as they are now, whatever is kept later: rows do not change."""
        copied = InMemory()
        copied._tables = {name: Rows(rows) for name, rows in self._tables.items()}
        return copied

    def keep(self, draft: Draft) -> None:
        """Make the changes of a draft, all of them."""
        for name, rows in draft.changes().items():
            table = self._tables[name]
            for key, row in rows.items():
                if row is None:
                    table.pop(key, None)
                else:
                    table[key] = row
