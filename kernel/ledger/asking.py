"""What a process is granted of what it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.arithmetic import clamped, drawn, remaining
from kernel.leases import CLOCKS_APART_US, MOST, PROCESSES_SHARE, Grant, Why
from kernel.ledger.holding import elsewhere, lend, opened
from kernel.ledger.members import admitted, living, sweep
from kernel.ledger.recovery import arrive, recovering
from kernel.ledger.tables import Count, Lease
from kernel.ledger.turns import turns
from kernel.ledger.windows import is_fenced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernel.leases import Ask
    from kernel.ledger.tables import Draft


def acquire(draft: Draft, holder: str, run: str, asks: Sequence[Ask], now_us: int) -> Sequence[Grant]:
    """Answer each ask, in order; `now_us` is the clock of the process."""
    arrive(draft)
    sweep(draft)
    life = admitted(draft, holder, run)
    draft.lives.put((holder,), life._replace(seen_us=draft.now_us, lost=False))
    return [_answer(draft, holder, run, ask, now_us) for ask in asks]


def _answer(draft: Draft, holder: str, run: str, ask: Ask, now_us: int) -> Grant:
    if ask.each_us > 0:
        return turns(draft, holder, ask)
    granted = _granted_before(draft, holder, run, ask)
    if granted is not None:
        return granted
    why = _refused(draft, holder, ask, now_us)
    if why is not None:
        return _nothing(draft, holder, ask, why)
    if ask.item and draft.items.get((*ask.purse, ask.item)):
        return Grant(ask.number, ask.purse, 1, None, elsewhere(draft, holder, ask.purse))
    return _grant(draft, holder, run, ask)


def _granted_before(draft: Draft, holder: str, run: str, ask: Ask) -> Grant | None:
    number = draft.asks.get((holder, run, ask.number))
    lease = draft.leases.get((holder, number.number)) if number else None
    if number is None or lease is None:
        return None
    return Grant(ask.number, lease.purse, lease.amount, number.number, elsewhere(draft, holder, lease.purse))


def _refused(draft: Draft, holder: str, ask: Ask, now_us: int) -> Why | None:
    """Why nothing is granted, however much there is."""
    life = draft.lives.get((holder,))
    if abs(now_us - draft.now_us) > CLOCKS_APART_US:
        return Why.CLOCK
    if life is None or life.owes or recovering(draft):
        return Why.RECOVERING
    if is_fenced(draft, ask.purse):
        return Why.FENCED
    known = ask.item and draft.items.get((*ask.purse, ask.item))
    return Why.STALE if ask.number <= life.asked and not known else None


def _grant(draft: Draft, holder: str, run: str, ask: Ask) -> Grant:
    limit = clamped(ask.limit, MOST)
    account = opened(draft, ask.purse, limit)._replace(limit=limit)
    draft.accounts.put(ask.purse, account)
    least, want = (1, 1) if ask.item else (ask.least, ask.want)
    share = remaining(limit, account.spent, account.held) // (PROCESSES_SHARE * living(draft))
    amount = drawn(limit, account.spent, account.held, least, max(least, min(want, share)))
    if not amount:
        return _nothing(draft, holder, ask, Why.EXHAUSTED)
    number = lend(draft, holder, Lease(*ask.purse, amount, run, ask.number, item=bool(ask.item)))
    if ask.item:
        draft.items.put((*ask.purse, ask.item), Count(number))
    life = admitted(draft, holder, run)
    draft.lives.put((holder,), life._replace(asked=max(life.asked, ask.number)))
    return Grant(ask.number, ask.purse, amount, number, elsewhere(draft, holder, ask.purse))


def _nothing(draft: Draft, holder: str, ask: Ask, why: Why) -> Grant:
    return Grant(ask.number, ask.purse, 0, None, elsewhere(draft, holder, ask.purse), why=why)
