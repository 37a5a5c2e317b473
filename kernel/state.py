"""The kernel's state: what is gone of each budget, who is halted, what is open. Plain values; a step makes new ones.

It is what the log's entries make of it (kernel/transition.py): read again in their order they give the same state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from kernel.arithmetic import renewed
from kernel.entry import EMPTY_SET

if TYPE_CHECKING:
    from kernel.bounds import Bound, Pace

_DOMAIN = b"governor/kernel/accounts/v1\0"
TOGETHER = ""
"""In the place of an agent's id: an account that all agents of a budget share."""


class AccountKey(NamedTuple):
    """Which account: `agent` is `TOGETHER` for the one of all agents of the budget."""

    budget: str
    unit: str
    agent: str


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

    `sources` are the client addresses from which it came: nobody without an identity comes from them, either.
    """

    reason: str
    since_us: int
    rule: str | None
    by: str
    sources: tuple[str, ...] = ()


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
    refused: Mapping[str, Run] = {}
    repeated: Mapping[str, Run] = {}
    trail: str = ""


class Draw(NamedTuple):
    """What a decision takes of an account, or does to a count: one item of `draws`.

    `agent` is the id of whom the account is for, None where it is for all agents of the budget.
    """

    budget: str
    agent: str | None
    unit: str
    window: int
    amount: int

    @property
    def key(self) -> AccountKey:
        return AccountKey(self.budget, self.unit, self.agent or TOGETHER)


class OpenFlow(NamedTuple):
    """A flow that was let through and has not ended. `request` names what is asked, None where that is not known."""

    flow: str
    agent: str
    since_us: int
    request: str | None
    draws: tuple[Draw, ...]


type PaceKey = tuple[str, str]
"""The name of a rate, and the agent that it is for, or `TOGETHER`."""

UNTOUCHED = Account()
UNKNOWN = Standing()
NO_ACCOUNTS: Mapping[AccountKey, Account] = {}


@dataclass(frozen=True, slots=True)
class Change:
    """What a step makes anew. `opened` and `closed` are decisions, as LANE/SEQ."""

    agents: Mapping[str, Standing] = field(default_factory=dict)
    accounts: Mapping[AccountKey, Account] = field(default_factory=dict)
    paces: Mapping[PaceKey, int] = field(default_factory=dict)
    opened: Mapping[str, OpenFlow] = field(default_factory=dict)
    closed: tuple[str, ...] = ()
    clock_ok: bool | None = None
    broken: bool = False


NO_CHANGE = Change()


@dataclass(slots=True)
class State:
    """Everything. Read by steps, and changed by `take` alone.

    `clock_ok` is False from a jump of the clock until an operator accepts it; from then on `clock_accepted` lets
    windows that a wrong clock has begun be left again. `broken`: a contract did not hold.
    """

    agents: dict[str, Standing] = field(default_factory=dict)
    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    paces: dict[PaceKey, int] = field(default_factory=dict)
    open: dict[str, OpenFlow] = field(default_factory=dict)
    clock_ok: bool = True
    clock_accepted: bool = False
    broken: bool = False
    _sources: frozenset[str] | None = field(default=None, compare=False, repr=False)

    def agent(self, name: str) -> Standing:
        return self.agents.get(name, UNKNOWN)

    def account(self, key: AccountKey) -> Account:
        return self.accounts.get(key, UNTOUCHED)

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

    def copy(self) -> State:
        """The state as it is now; what comes later does not reach it."""
        return State(dict(self.agents), dict(self.accounts), dict(self.paces), dict(self.open), self.clock_ok,
                     self.clock_accepted, self.broken)


def digest(state: State, change: Change, agent: str, bounds: Iterable[Bound], paces: Iterable[Pace]) -> str:
    """The hash over all that a step for this agent may read, after the change: `pre` and `post` of its entry."""
    standing = change.agents.get(agent) or state.agent(agent)
    said = []
    for bound in bounds:
        key = bound.key(agent)
        account = change.accounts.get(key) or state.accounts.get(key)
        if account is not None:
            window, spent, held, _, trail = account
            said.append(f"{key.budget}\t{key.unit}\t{bound.each}\t{window}\t{spent}\t{held}\t{trail}")
    for pace in paces:
        turn = pace.key(agent)
        due = change.paces.get(turn) or state.paces.get(turn)
        if due is not None:
            said.append(f"{pace.name}\t{pace.each}\t{due}")
    if not said and standing == UNKNOWN:
        return EMPTY_SET
    epoch, session, halt, quarantined_until_us, _, _, trail = standing
    said.append(f"{agent!a}\t{epoch}\t{session}\t{quarantined_until_us}\t{trail}")
    if halt is not None:
        said.append(f"{halt.reason}\t{halt.since_us}\t{halt.rule!a}\t{halt.by!a}")
    return blake3(_DOMAIN + "\n".join(said).encode()).hexdigest()


def followed(trail: str, *said: object) -> str:
    """The hash over what was said before, and this."""
    return blake3("\0".join((trail, *map(str, said))).encode()).hexdigest(length=8)
