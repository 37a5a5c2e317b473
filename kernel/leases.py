"""What processes that share budgets and their ledger say to each other, as values.

A ledger keeps how much of each budget is gone, over all processes. A process draws on what was leased to it and on
nothing else, so whatever happens to it, to the ledger or between them, no more is drawn than there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

MOST = 2**53 - 1
"""The greatest number that every ledger counts exactly; greater ones are taken as this."""
LEASE_SECONDS = 15
"""How long a ledger waits for the heartbeat of a process before all that it holds counts as spent."""
CUT_OFF_SECONDS = 5
"""How long a process goes on without an answer to its heartbeat: then it refuses everything."""
CLOCKS_APART_US = 2_000_000
"""How far the clock of a process may be from the ledger's for its windows to be taken as the ledger's."""
PROCESSES_SHARE = 8
"""A grant is at most the remainder divided by this and by the processes that live, so that all may have of the last."""


class Purse(NamedTuple):
    """One account in one window. `agent` is "" for the one that all agents of the budget share."""

    budget: str
    unit: str
    agent: str
    window: int


class Ask(NamedTuple):
    """A process wants to draw on a purse: `want` units if they are to be had, `least` of them or none.

    `number` is its own count of asks, which grows within a run, so that one that is sent twice is granted once.
    `limit` is the budget's, as its policy has it. With `item` (a digest) the units are the different items that were
    ever asked for: one that is known costs nothing. With `each_us` the purse is a rate (GCRA) that gives `limit` turns
    at once and one more in that time: `least` of them are drawn at once, the others when the process likes, until it
    asks this rate again: what it has not drawn by then it gives up.
    """

    number: int
    purse: Purse
    limit: int
    least: int
    want: int
    item: str = ""
    each_us: int = 0


class Why(StrEnum):
    """Why an ask was granted nothing."""

    EXHAUSTED = "exhausted"
    FENCED = "fenced"
    """A later window of this purse has begun, or a later session or epoch of its agent."""
    CLOCK = "clock"
    """The clock of the process is not the ledger's."""
    STALE = "stale"
    """This ask or a later one of this run was answered, and this one has no lease: it never will. Ask anew."""
    RECOVERING = "recovering"
    """The ledger came back from an older state and waits for what processes have to say."""


class Grant(NamedTuple):
    """The answer to an ask. `lease` numbers what was granted, within one log; None where nothing was, or a known item.

    `elsewhere`: how much of the purse other processes have spent or hold. `wait_us`: when a rate gives the next turn.
    """

    number: int
    purse: Purse
    amount: int
    lease: int | None
    elsewhere: int
    wait_us: int = 0
    why: Why | None = None


class Settled(NamedTuple):
    """A lease is over: `used` of it are spent, the rest goes back. One for a new item is spent whole."""

    lease: int
    used: int


class Held(NamedTuple):
    """A lease that is not settled. `ask` is the number of the ask that it was granted for, by process `run`.

    In what a chain says, one with `amount` 0 only says that its number is taken: of a lease that is settled.
    """

    lease: int
    purse: Purse
    amount: int
    run: str
    ask: int


class Total(NamedTuple):
    """What a lane's own entries say of a purse: what its settled leases have spent of it, as of now."""

    purse: Purse
    limit: int
    used: int


class Kind(StrEnum):
    """What processes tell one another."""

    HALT = "halt"
    RELEASE = "release"
    QUARANTINE = "quarantine"
    SESSION = "session"
    """An agent's token is new: so is its session."""
    STANDING = "standing"
    """How far an agent's epoch and session have come where no ledger counted them."""
    PREVENTIVE = "preventive"
    HALT_ALL = "halt-all"
    RELEASE_ALL = "release-all"


@dataclass(frozen=True, slots=True)
class News:
    """Something that concerns all processes. `origin` is the entry that says it first, as LOG/LANE/SEQ, or the holder.

    `number` grows by one with each, and is 0 before the ledger has taken it. `epoch` and `session` are the agent's from
    then on: the ledger counts them, so that they are the same everywhere. `said` are the fields of the entry that every
    process writes of it.
    """

    kind: Kind
    agent: str
    origin: str
    said: Mapping[str, object] = field(default_factory=dict)
    number: int = 0
    epoch: int = 0
    session: int = 0
    at_us: int = 0


class Member(NamedTuple):
    """A process that has joined. `holder` is LOG/LANE, `run` one life of it, `said` what it tells of itself."""

    holder: str
    run: str
    seen_us: int
    alive: bool
    said: Mapping[str, object]


class Beat(NamedTuple):
    """The answer to a heartbeat: news after those that were seen, oldest first, and `seen`, up to where they are all.

    Not every number has news: a ledger that came back from an older state gives those that a process has seen to
    nothing else. While `seen` is less than the process has seen, it has not done so with all of them: ask again.
    `lost`: this process was silent for so long that all it held counts as spent. `server` changes when the ledger may
    have come back from an older state; `repost` asks the process for its totals and leases then.
    """

    server: str
    now_us: int
    alive: int
    news: tuple[News, ...]
    seen: int
    lost: bool = False
    repost: bool = False


class Balance(NamedTuple):
    """A purse as the ledger sees it. `stranded` is the part of `spent` that was held by processes that fell silent."""

    purse: Purse
    limit: int
    spent: int
    held: int
    stranded: int


class Roster(NamedTuple):
    """Every process, how many news there are, and of the purses that were asked for those that are drawn on."""

    server: str
    now_us: int
    balances: tuple[Balance, ...]
    members: tuple[Member, ...]
    news: int


@dataclass(frozen=True, slots=True)
class Overview:
    """All of a ledger: every purse, every lease that is not settled with its holder, every process."""

    server: str
    now_us: int
    balances: tuple[Balance, ...]
    leases: tuple[tuple[str, Held], ...]
    members: tuple[Member, ...]
    news: int
