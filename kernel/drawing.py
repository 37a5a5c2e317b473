"""One account at a moment: how it stands, how much of it may be drawn, and what follows where that is too little."""

from __future__ import annotations

from kernel.arithmetic import KINDS, larger, renewed, smaller
from kernel.bounds import Bound
from kernel.budget import SPENT, Effect, Every
from kernel.state import LOST, UNTOUCHED, Account, Draw, Leased, Standing, State
from kernel.verdict import Action, Code, Verdict
from kernel.words import amount_in_words


def account_at(state: State, bound: Bound, standing: Standing, agent: str, now_us: int) -> Account:
    """The account as it stands in the window that a moment lies in, and never in an earlier one than before.

    While the clock is wrong no window begins. Those that a wrong clock has begun are left again once an operator
    accepts the right one; what is spent stays spent. What was open when a part of the log was lost counts as used up.
    """
    account = _in_window(state, bound, standing, agent, now_us)
    if state.lost_us is not None and _may_be_spent(state, bound, standing, agent, account.window):
        return account._replace(spent=larger(account.spent, bound.limit))
    return account


def _in_window(state: State, bound: Bound, standing: Standing, agent: str, now_us: int) -> Account:
    account = state.account(bound.key(agent))
    if not state.clock_ok and bound.every.renews and account is not UNTOUCHED:
        return account
    window = bound.window(standing, now_us)
    if account.window == window:
        return account
    left = state.clock_accepted and account.window > window + KINDS
    if account.window > window and not left and renewed(account.window, 1, window):
        return account
    return account.in_window(window)


def _may_be_spent(state: State, bound: Bound, standing: Standing, agent: str, window: int) -> bool:
    """Whether the lost part of the log may have drawn on this window of a budget: it had begun by then."""
    lost_us = state.lost_us
    if lost_us is None or bound.counter:
        return False
    if bound.every is Every.SESSION:
        # One of all agents together has no other window: there the account itself is used up (kernel/carrying.py).
        return bound.each and window // KINDS <= state.account((*LOST, agent)).window
    return window <= bound.window(standing, lost_us)


def leased_at(state: State, bound: Bound, agent: str, window: int) -> Leased | None:
    """What is leased of an account; None where no ledger is asked."""
    return state.lease(bound.key(agent), window) if state.pooled else None


def most_of(bound: Bound, leased: Leased | None) -> int:
    """How much of an account may be spent and held by this process."""
    most, _ = bound.most()
    return most if leased is None else smaller(most, leased.amount)


def draw_of(bound: Bound, agent: str, window: int, amount: int, leased: Leased | None) -> Draw:
    """What a request takes of an account."""
    return Draw(bound.budget, agent if bound.each else None, bound.unit, window, amount, leased and leased.lease)


def earned(
    state: State, bound: Bound, standing: Standing, agent: str, window: int, leased: Leased | None, least: int
) -> Effect:
    """What follows when an account has less than `least` left. Nobody is halted for what a lost log leaves unknown, nor
    for what the ledger may still have.
    """
    most, effect = bound.most()
    if leased is not None and leased.elsewhere + leased.amount + least <= most:
        return Effect.DENY
    return Effect.DENY if _may_be_spent(state, bound, standing, agent, window) else effect


def used_up(bound: Bound, effect: Effect) -> Verdict:
    """What follows when an account has nothing left."""
    rule = None if bound.counter else bound.budget
    what = f"{amount_in_words(bound.unit, bound.limit)} in a {bound.every} are used up"
    if bound.unit in SPENT:
        what = f"what is left of {amount_in_words(bound.unit, bound.limit)} in a {bound.every} does not pay for this"
    if effect is Effect.HALT:
        return Verdict(Action.HALT, bound.reason, rule, what)
    return Verdict(Action.DENY, bound.reason if bound.counter else Code.BUDGET_EXHAUSTED, rule, what)
