"""What must hold of every change of the state, checked each time. Where one does not hold, nothing passes any more.

These are checks and not assertions: an optimised interpreter keeps them, and no setting turns them off.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kernel.arithmetic import renewed
from kernel.contagion import Prevention
from kernel.state import TOGETHER, UNTOUCHED, AccountKey, Standing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.bounds import Bound
    from kernel.state import Account, Change, State, Switch


def broken(
    state: State, change: Change, agent: str, bounds: Iterable[Bound] = (), *, passes: bool = False,
    lasts_us: int | None = None,
) -> str | None:
    """The first contract that a change breaks, in words; None where all hold.

    `agent` is whose step it is, `bounds` are what its policy allows it, `passes` says that it lets something through.
    `lasts_us` is for how long the policy holds back whom another's halt concerns.
    """
    if passes and state.agent(agent).halt is not None:
        return "an agent that is halted is refused"
    if passes and state.switch.halt is not None:
        return "while all are halted everybody is refused"
    if change.switch is not None and (agent or not _follows(state.switch, change.switch)):
        return "only an operator halts all and releases all, and the halt stays within its epoch"
    touched = _of_others(state, change, agent)
    if touched is not None:
        return f"a step leaves {touched} of other agents as they are"
    limits = {bound.key(agent): bound.limit for bound in bounds} if change.accounts else {}
    for key, new in change.accounts.items():
        old = state.accounts.get(key, UNTOUCHED)
        found = _account(old, new, key, agent, limits.get(key)) or _unleased(state, key, old, new)
        if found is None and new.held < old.held:
            found = _freed(state, change, key, old, new)
        if found is not None:
            return found
    for key, leased in change.leased.items():
        account = state.account(key)
        if account.window == leased.window and leased.amount < account.spent + account.held:
            return "what is drawn of a lease does not go back"
    standings = (_standing(state.agent(name), new, name, agent, lasts_us) for name, new in change.agents.items())
    return next((found for found in standings if found is not None), None)


def _of_others(state: State, change: Change, agent: str) -> str | None:
    """What of other agents a change touches, beside their accounts and standings; None where it is nothing."""
    ended = (state.open[decision] for decision in change.closed)
    if any(flow.agent != agent for flow in (*change.opened.values(), *ended)):
        return "the flows"
    if any(of not in (agent, TOGETHER) for _, of in change.paces):
        return "the rates"
    if change.seen is not None and change.seen[0] != agent:
        return "the presence"
    return None


def _account(old: Account, new: Account, key: AccountKey, agent: str, limit: int | None) -> str | None:
    if key[2] not in (agent, TOGETHER):
        return "a step leaves the accounts of other agents as they are"
    if new.spent < 0 or new.held < 0:
        return "nothing is spent or held below zero"
    same = bool(renewed(old.window, 1, new.window))
    if same and new.spent < old.spent:
        return "what is spent stays spent until a later window"
    gone = old.spent + old.held if same else 0
    if limit is not None and new.spent + new.held > max(limit, gone):
        return "no more is spent and held than there is"
    return None


def _unleased(state: State, key: AccountKey, old: Account, new: Account) -> str | None:
    """Where a ledger is asked, what is drawn was leased before."""
    gone = old.spent + old.held if renewed(old.window, 1, new.window) else 0
    if not state.pooled or new.spent + new.held <= gone:
        return None
    leased = state.lease(key, new.window).amount
    return None if new.spent + new.held <= leased else "no more is drawn than was leased"


def _freed(state: State, change: Change, key: AccountKey, old: Account, new: Account) -> str | None:
    if not renewed(old.window, 1, new.window):
        return None
    ended = (state.open[decision].draws for decision in change.closed)
    drawn = sum(draw.amount for draws in ended for draw in draws if (draw.key, draw.window) == (key, new.window))
    return None if old.held - new.held <= drawn else "a settlement frees no more than its flow has drawn"


def _standing(old: Standing, new: Standing, name: str, agent: str, lasts_us: int | None) -> str | None:
    if name != agent:
        return "a step leaves other agents as they are"
    if new.epoch < old.epoch or new.session < old.session:
        return "epochs and sessions follow one another"
    if not _stays(old, new):
        return "a halt stays within its epoch"
    return None if new.preventive is old.preventive else _preventive(old, new, lasts_us)


def _stays(old: Standing | Switch, new: Standing | Switch) -> bool:
    if old.halt is None or new.epoch != old.epoch:
        return True
    return new.halt is not None and new.halt[:4] == old.halt[:4]


def _follows(old: Switch, new: Switch) -> bool:
    return new.epoch >= old.epoch and _stays(old, new)


def _preventive(old: Standing, new: Standing, lasts_us: int | None) -> str | None:
    came = new.preventive
    if came is None:
        return "what another's halt does to an agent ends by time or by a release" if new.epoch == old.epoch else None
    if came.action is Prevention.HALT:
        return None if new.halt is not None else "who is halted for another's halt is halted"
    if not came.is_in_force(came.since_us):
        return "what another's halt does to an agent has an end to come"
    if lasts_us is not None and came.until_us - came.since_us > lasts_us:
        return "what another's halt does to an agent lasts no longer than the policy says"
    return "what holds an agent back is not weakened before it ends" if came.is_weaker(old.preventive) else None


def inconsistent(state: State) -> str | None:
    """What of the whole state contradicts itself, in words: more is held of an account than open flows have drawn.

    As much work as there are open flows: for those who ask for it, and for tests.
    """
    drawn: Counter[tuple[AccountKey, int]] = Counter()
    for flow in state.open.values():
        for draw in flow.draws:
            drawn[draw.key, draw.window] += draw.amount
    for key, account in state.accounts.items():
        if account.held > drawn[key, account.window]:
            return f"{account.held} of {key[0]} are held, and open flows have drawn {drawn[key, account.window]}"
    return None
