"""How an agent stands, and what is left to it, in the words and numbers that operators and agents are told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from kernel.arithmetic import remaining
from kernel.bounds import COUNTER
from kernel.budget import Every, Unit
from kernel.contagion import Prevention
from kernel.drawing import account_at
from kernel.leases import Purse
from kernel.state import TOGETHER, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kernel import leases
    from kernel.bounds import Bound, Bounded, Bounds
    from kernel.state import Preventive, Standing, State


EVERYBODY = "*"
"""Stands for all agents where names of agents do; none has it."""


class Condition(StrEnum):
    """How an agent stands; of several that hold, the most severe."""

    RUNNING = "running"
    THROTTLED = "throttled"
    QUARANTINED = "quarantined"
    REVOKED = "revoked"
    HALTED = "halted"


class Balance(NamedTuple):
    """One amount of a budget: what is gone of it in its window, for good and until it is settled."""

    budget: str
    unit: str
    limit: int
    spent: int
    held: int
    window: int
    each: bool

    @property
    def remaining(self) -> int:
        return remaining(self.limit, self.spent, self.held)

    def with_other(self, other: Balance) -> Balance:
        """Both processes' draws on one amount. Nothing is drawn any more in an older window."""
        if self.window != other.window:
            return max(self, other, key=lambda each: each.window)
        return self._replace(
            limit=max(self.limit, other.limit), spent=self.spent + other.spent, held=self.held + other.held)


def balance(state: State, bound: Bound, agent: str, now_us: int) -> Balance:
    """What a moment finds of an amount: a window that has begun since it was last drawn on is whole."""
    window, spent, held, *_ = account_at(state, bound, state.agent(agent), agent, now_us)
    return Balance(bound.budget.removesuffix(COUNTER), bound.unit, bound.limit, spent, held, window, bound.each)


def budgets(state: State, bounded: Bounded, agent: str, now_us: int) -> list[Balance]:
    """What is left to an agent of each budget."""
    return [balance(state, bound, agent, now_us) for bound in bounded.bounds if not bound.counter]


def counted(state: State, bounded: Bounded, agent: str, now_us: int) -> list[Balance]:
    """How far each counter of the profile has come."""
    return [balance(state, bound, agent, now_us) for bound in bounded.bounds if bound.counter]


class Own(NamedTuple):
    """What an agent is told of itself. `reason` is why it is halted, `until_us` how long it may only read.

    `slowed_until_us` is how long it is slowed down because another agent was halted, which it is not told more of.
    """

    reason: str | None
    until_us: int | None
    budgets: tuple[Balance, ...]
    slowed_until_us: int | None = None


def own(state: State, bounded: Bounded, agent: str, now_us: int) -> Own:
    """What an agent is told of itself at a moment."""
    standing = state.agent(agent)
    halt = standing.halt or state.switch.halt
    reason = halt.reason if halt is not None else None
    left = tuple(budgets(state, bounded, agent, now_us))
    return Own(reason, reads_until(standing, now_us), left, prevented_until(standing, Prevention.THROTTLE, now_us))


def reads_until(standing: Standing, now_us: int) -> int | None:
    """How long an agent may only read: an operator says so, or the halt of another agent; None where it may more."""
    spread_us = prevented_until(standing, Prevention.QUARANTINE, now_us) or 0
    until_us = max(standing.quarantined_until_us, spread_us)
    return until_us if now_us < until_us else None


def prevented_until(standing: Standing, action: Prevention, now_us: int) -> int | None:
    """How long this holds an agent back because another one was halted; None where it does not."""
    held = standing.preventive
    return held.until_us if held is not None and standing.prevented(action, now_us) else None


def risk(state: State, bounded: Bounded, agent: str, now_us: int) -> int | None:
    """The points of risk of this session; None where no counter counts them."""
    found = (each.spent for each in counted(state, bounded, agent, now_us) if each.unit == Unit.RISK)
    return next(found, None)


class Total(NamedTuple):
    """What is gone of an amount over all agents. Where each draws on its own, `agents` are those that have.

    `most` is what all of them may use together, or each of these.
    """

    budget: str
    unit: str
    most: int
    spent: int
    held: int
    window: int
    agents: frozenset[str] | None = None

    @property
    def limit(self) -> int:
        return self.most if self.agents is None else self.most * len(self.agents)

    def with_other(self, other: Total) -> Total:
        """Both processes' draws on one amount: whoever draws in both has one limit."""
        if self.window != other.window:
            return max(self, other, key=lambda each: each.window)
        agents = None if self.agents is None or other.agents is None else self.agents | other.agents
        return self._replace(most=max(self.most, other.most), spent=self.spent + other.spent,
                             held=self.held + other.held, agents=agents)


def overall(state: State, bounds: Iterable[Bound], now_us: int) -> list[Total]:
    """One total for each budget and unit: of all agents together, or the sum over those that draw on their own.

    Where both are bounded, the account of all together speaks. Another thread may ask while the state goes on.
    """
    shared: dict[tuple[str, str], Total] = {}
    own: dict[tuple[str, str], _Sum] = {}
    for bound in bounds:
        if bound.each:
            own[bound.budget, bound.unit] = _Sum(bound, bound.window(UNKNOWN, now_us))
        else:
            _, _, limit, spent, held, window, _ = balance(state, bound, TOGETHER, now_us)
            shared[bound.budget, bound.unit] = Total(bound.budget, bound.unit, limit, spent, held, window)
    # Some hundred thousand accounts are added up at each scrape, so it is done in place and by hand.
    for (budget, unit, agent), account in state.accounts.copy().items():
        total = own.get((budget, unit))
        if total is not None and agent != TOGETHER:
            bound, window = total.bound, total.window
            if bound.every is Every.SESSION:
                window = bound.window(state.agent(agent), now_us)
            if account.window >= window:
                total.agents.add(agent)
                total.spent += account.spent
                total.held += account.held
    return [*shared.values(), *(each.total() for key, each in own.items() if key not in shared)]


def purses_of_system(bounds: Bounds, now_us: int) -> list[Purse]:
    """The purses of the budgets of all agents together, in the windows of a moment."""
    return [_purse(bound, now_us) for bound in bounds.of_system()]


def of_system(
    state: State, bounds: Bounds, now_us: int, shared: Iterable[leases.Balance] | None = None
) -> list[Balance]:
    """What is left of the budgets of all agents together: here, or of what a ledger has over all processes."""
    if shared is None:
        return [balance(state, bound, TOGETHER, now_us) for bound in bounds.of_system()]
    gone = {each.purse: each for each in shared}
    return [_shared(bound, gone, now_us) for bound in bounds.of_system()]


def _shared(bound: Bound, gone: Mapping[Purse, leases.Balance], now_us: int) -> Balance:
    purse = _purse(bound, now_us)
    known = gone.get(purse)
    spent, held = (0, 0) if known is None else (known.spent, known.held)
    return Balance(bound.budget, bound.unit, bound.limit, spent, held, purse.window, each=False)


def _purse(bound: Bound, now_us: int) -> Purse:
    return Purse(*bound.key(TOGETHER), bound.window(UNKNOWN, now_us))


@dataclass(slots=True)
class _Sum:
    """What the agents that draw on one amount in its window have used of it."""

    bound: Bound
    window: int
    agents: set[str] = field(default_factory=set)
    spent: int = 0
    held: int = 0

    def total(self) -> Total:
        bound = self.bound
        return Total(bound.budget, bound.unit, bound.limit, self.spent, self.held, self.window, frozenset(self.agents))


def condition(state: State, agent: str, now_us: int, *, revoked: bool = False) -> Condition:
    """How an agent stands by itself at a moment; all may be halted beside. `revoked`: its tokens were taken back."""
    standing = state.agent(agent)
    if standing.halt is not None:
        return Condition.HALTED
    if revoked:
        return Condition.REVOKED
    if reads_until(standing, now_us) is not None:
        return Condition.QUARANTINED
    return Condition.THROTTLED if standing.prevented(Prevention.THROTTLE, now_us) else Condition.RUNNING


def held_back(state: State, now_us: int) -> dict[str, Preventive]:
    """The agents that the halts of others hold back now, by name. Another thread may ask while the state goes on."""
    held = ((name, each.preventive) for name, each in sorted(state.agents.copy().items()) if each.halt is None)
    return {name: each for name, each in held if each is not None and each.is_in_force(now_us)
            and each.action is not Prevention.OBSERVE}


def numbers_held_back(state: State, now_us: int) -> dict[str, int]:
    """How many agents others' halts hold back at a moment, by how."""
    return dict(Counter(str(each.action) for each in held_back(state, now_us).values()))


def all_halted(state: State) -> dict[str, str]:
    """As `halted`, with "*" first while all agents are halted together."""
    halt = state.switch.halt
    return ({} if halt is None else {EVERYBODY: halt.reason}) | halted(state)


def halted(state: State) -> dict[str, str]:
    """The agents that are halted, the first first, each with the reason. Another thread may ask while it goes on."""
    halts = [(each.halt, name) for name, each in state.agents.copy().items() if each.halt is not None]
    return {name: halt.reason for halt, name in sorted(halts, key=lambda each: (each[0].since_us, each[1]))}

