"""The kernel's state: what is gone of each budget, who is halted, what is open. Plain values; a step makes new ones.

It is what the log's entries make of it (kernel/transition.py): read again in their order they give the same state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from blake3 import blake3

from kernel.arithmetic import renewed
from kernel.contagion import Prevention

TOGETHER = ""
"""In the place of an agent's id: an account that all agents of a budget share."""
RATE = "rate"
"""The unit of what a rate gives: turns."""


type AccountKey = tuple[str, str, str]
"""Which account: of which budget and unit, and of which agent, or `TOGETHER` for the one of all agents."""
UNMET = -1
"""As far as the news of a ledger are taken that no life of this lane before has asked."""
LOST = ("lost log", "")
"""Budget and unit of the accounts that mark the loss of a part of the log; no budget has a space in its name.

`window` of the one of all agents is the moment of the loss in microseconds since 1970, that of an agent's its epoch
and session then.
"""


class Account(NamedTuple):
    """What is gone of one amount within a window: for good, and until it is settled.

    `places` are the destinations that an account of new ones has counted, `trail` is a hash over them in their order.
    """

    window: int = 0
    spent: int = 0
    held: int = 0
    places: frozenset[str] = frozenset()
    trail: str = ""

    def in_window(self, window: int) -> Account:
        """The account as it stands in a window: as it is, or nothing of it where another has begun."""
        if self.window == window:
            return self
        return self._replace(window=window) if renewed(self.window, 1, window) else Account(window)


class Halt(NamedTuple):
    """Why an agent is halted, since when (microseconds since 1970), by which rule or budget, at whose word.

    `sources` are the client addresses from which it came: nobody without an identity comes from them, either. `entry`
    is what halted it, as LANE/SEQ, and `why` says it in words. `heard`: another process did it, and told it.
    """

    reason: str
    since_us: int
    rule: str | None
    by: str
    sources: tuple[str, ...] = ()
    entry: str = ""
    why: str = ""
    heard: bool = False


class Switch(NamedTuple):
    """Whether the system is halted, which is everybody. A release of all ends an epoch and with it the halt."""

    epoch: int = 0
    halt: Halt | None = None

    def halted(self, halt: Halt) -> Switch:
        """Halted; what is halted already stays so for its first reason."""
        return self if self.halt is not None else self._replace(halt=halt)

    def released(self, epoch: int | None = None) -> Switch:
        """Released, into the epoch that a ledger counts, or the next one."""
        return Switch(max(epoch or 0, self.epoch + 1))


class Quarantine(NamedTuple):
    """Who lets an agent only read for now, since when (microseconds since 1970), by which entry, and why.

    `heard`: another process did it, and told it.
    """

    since_us: int
    by: str
    entry: str
    why: str
    heard: bool = False


class Preventive(NamedTuple):
    """What holds an agent back because another one was halted: `action` is the word of the policy for it.

    `path` goes from the origin, whose halt it was, along the edges to the agent, in `hop` steps; `entry` is what put it
    into force, at `since_us`. `until_us` is its end, 0 of a halt. `degraded`: it was to be more, and the blast radius
    did not allow that. Times are in microseconds since 1970.
    """

    action: Prevention
    until_us: int
    origin: str
    path: tuple[str, ...]
    hop: int
    entry: str
    since_us: int
    degraded: bool = False

    @property
    def why(self) -> str:
        return f"the halt of {self.origin} spread"

    def is_in_force(self, now_us: int) -> bool:
        """Until it ends. What halts does it by the halt, not by this."""
        return now_us < self.until_us

    def is_weaker(self, held: Preventive | None) -> bool:
        """True where what held an agent back when this came is more, and is not over yet."""
        if held is None or not held.is_in_force(self.since_us):
            return False
        return (self.action.severity, self.until_us) < (held.action.severity, held.until_us)


class Run(NamedTuple):
    """How often one request was repeated since `since_us`, each time with the same `outcome`."""

    since_us: int
    times: int
    outcome: str = ""


class Standing(NamedTuple):
    """How an agent stands. An epoch ends with a release; a session ends with its token, too.

    `refused` and `repeated` count by request; `trail` is a hash over every change of theirs, in order.
    """

    epoch: int = 0
    session: int = 0
    halt: Halt | None = None
    quarantined_until_us: int = 0
    quarantine: Quarantine | None = None
    refused: Mapping[str, Run] = {}
    repeated: Mapping[str, Run] = {}
    trail: str = ""
    preventive: Preventive | None = None

    def reads_only(self, now_us: int) -> bool:
        """Whether an agent may only read at a moment: an operator says so, or the halt of another agent."""
        return now_us < self.quarantined_until_us or self.prevented(Prevention.QUARANTINE, now_us)

    def prevented(self, action: Prevention, now_us: int) -> bool:
        """Whether this is what holds the agent back at a moment, because another one was halted."""
        held = self.preventive
        return held is not None and held.action is action and held.is_in_force(now_us)


class Draw(NamedTuple):
    """What a decision takes of an account, or does to a count: one item of `draws`.

    `agent` is the id of whom the account is for, None where it is for all agents of the budget. `lease` is the newest
    lease of the account, None where no ledger is asked.
    """

    budget: str
    agent: str | None
    unit: str
    window: int
    amount: int
    lease: int | None = None

    @property
    def key(self) -> AccountKey:
        return self.budget, self.unit, self.agent or TOGETHER


class OpenFlow(NamedTuple):
    """A flow that was let through and has not ended. `request` names what is asked, None where that is not known."""

    flow: str
    agent: str
    since_us: int
    request: str | None
    draws: tuple[Draw, ...]


class Leased(NamedTuple):
    """What of an account a ledger has leased to this process in a window, and what others have of it.

    `amount` is all that may be spent and held here in that window. `elsewhere` is what other processes had spent or
    held when the ledger was last asked. `lease` is the number of the newest lease.
    """

    window: int = 0
    amount: int = 0
    elsewhere: int = 0
    lease: int | None = None


class Lease(NamedTuple):
    """A lease that is not settled: of which account and window, and how much."""

    key: AccountKey
    window: int
    amount: int


type PaceKey = tuple[str, str]
"""The name of a rate, and the agent that it is for, or `TOGETHER`."""

UNTOUCHED = Account()
NOTHING_LEASED = Leased()
GOING = Switch()
UNKNOWN = Standing()
_LOST_TOGETHER: AccountKey = (*LOST, TOGETHER)


@dataclass(frozen=True, slots=True)
class Change:
    """What a step makes anew. `opened` and `closed` are decisions, as LANE/SEQ, `settled` are numbers of leases.

    `seen` is who asked, and when.
    """

    agents: Mapping[str, Standing] = field(default_factory=dict)
    accounts: Mapping[AccountKey, Account] = field(default_factory=dict)
    paces: Mapping[PaceKey, int] = field(default_factory=dict)
    opened: Mapping[str, OpenFlow] = field(default_factory=dict)
    closed: tuple[str, ...] = ()
    clock_ok: bool | None = None
    broken: bool = False
    taken_over: int | None = None
    pooled: bool | None = None
    ledger: str = ""
    workers: int = 1
    leased: Mapping[AccountKey, Leased] = field(default_factory=dict)
    leases: Mapping[int, Lease] = field(default_factory=dict)
    settled: tuple[int, ...] = ()
    heard: int | None = None
    switch: Switch | None = None
    seen: tuple[str, int] | None = None


NO_CHANGE = Change()


@dataclass(slots=True)
class State:
    """Everything. Read by steps, and changed by `take` alone.

    `clock_ok` is False from a jump of the clock until an operator accepts it; from then on `clock_accepted` lets
    windows that a wrong clock has begun be left again. `broken`: a contract did not hold.
    `taken_over`: as far as this lane has taken over what stands in lane `cli`, by the number there.
    `pooled`: a ledger says how much of each account this process may draw, and `ledger` is the option that names it.
    `heard`: as far as its news are taken; `UNMET` where another was asked before, or none.
    `workers`: how many processes serve from this home, each of which counts its share of repeated requests.
    `seen` is when each agent last asked for something, in microseconds since 1970.
    `switch`: whether everybody is halted.
    """

    agents: dict[str, Standing] = field(default_factory=dict)
    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    paces: dict[PaceKey, int] = field(default_factory=dict)
    open: dict[str, OpenFlow] = field(default_factory=dict)
    clock_ok: bool = True
    clock_accepted: bool = False
    broken: bool = False
    taken_over: int = -1
    seen: dict[str, int] = field(default_factory=dict)
    pooled: bool = False
    workers: int = 1
    leased: dict[AccountKey, Leased] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    heard: int = 0
    switch: Switch = GOING
    ledger: str = ""
    _sources: frozenset[str] | None = field(default=None, compare=False, repr=False)

    def agent(self, name: str) -> Standing:
        return self.agents.get(name, UNKNOWN)

    def account(self, key: AccountKey) -> Account:
        return self.accounts.get(key, UNTOUCHED)

    def lease(self, key: AccountKey, window: int) -> Leased:
        """What is leased of an account in a window."""
        found = self.leased.get(key, NOTHING_LEASED)
        return found if found.window == window else Leased(window)

    @property
    def lost_us(self) -> int | None:
        """When a part of the log was lost, in microseconds since 1970; None where none was."""
        marked = self.accounts.get(_LOST_TOGETHER)
        return None if marked is None else marked.window

    def closed_sources(self) -> frozenset[str]:
        """The client addresses from which a halted agent came."""
        if self._sources is None:
            halts = [each.halt for each in self.agents.values() if each.halt is not None]
            self._sources = frozenset(source for halt in halts for source in halt.sources)
        return self._sources

    def take(self, change: Change) -> None:
        """Go on from what a step made."""
        for name, standing in change.agents.items():
            if standing.halt is not self.agent(name).halt:
                self._sources = None
            self.agents[name] = standing
        self.accounts.update(change.accounts)
        self.paces.update(change.paces)
        self.open.update(change.opened)
        for decision in change.closed:
            self.open.pop(decision, None)
        if change.clock_ok is not None:
            self.clock_ok = change.clock_ok
            self.clock_accepted = self.clock_accepted or change.clock_ok
        self.broken = self.broken or change.broken
        if change.taken_over is not None:
            self.taken_over = max(self.taken_over, change.taken_over)
        if change.switch is not None:
            self.switch = change.switch
        if change.seen is not None:
            name, at = change.seen
            self.seen[name] = at
        self._take_leases(change)

    def _take_leases(self, change: Change) -> None:
        if change.pooled is not None:
            if change.ledger != self.ledger:
                self.ledger, self.heard = change.ledger, UNMET if change.pooled else 0
            elif self.heard == UNMET:
                self.heard = 0
            self.pooled, self.workers = change.pooled, change.workers
            if not self.pooled:
                self.leased, self.leases = {}, {}
        if change.heard is not None:
            self.heard = max(self.heard, change.heard)
        self.leased.update(change.leased)
        self.leases.update(change.leases)
        for number in change.settled:
            self.leases.pop(number, None)

    def copy(self) -> State:
        """The state as it is now; what comes later does not reach it."""
        return State(dict(self.agents), dict(self.accounts), dict(self.paces), dict(self.open), self.clock_ok,
                     self.clock_accepted, self.broken, self.taken_over, dict(self.seen), self.pooled,
                     self.workers, dict(self.leased), dict(self.leases), self.heard, self.switch,
                     self.ledger)


def turns_key(pace: PaceKey) -> AccountKey:
    """The account of the turns that a ledger leases of a rate."""
    return pace[0], RATE, pace[1]


def followed(trail: str, *said: object) -> str:
    """The hash over what was said before, and this."""
    return blake3("\0".join((trail, *map(str, said))).encode()).hexdigest(length=8)
