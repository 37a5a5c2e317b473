"""The moves of an account: units are lent, and what was lent is settled, stranded or given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.arithmetic import clamped
from kernel.leases import MOST, Held
from kernel.ledger.tables import Account, Count, Lease, Part
from kernel.ledger.windows import begin, forget

if TYPE_CHECKING:
    from kernel.leases import Purse
    from kernel.ledger.tables import Draft


def log_of(holder: str) -> str:
    """The log of LOG/LANE, within which leases are numbered."""
    return holder.rpartition("/")[0]


def elsewhere(draft: Draft, holder: str, purse: Purse) -> int:
    """What others have spent of a purse or hold."""
    account, part = _account(draft, purse), _part(draft, holder, purse)
    return clamped(account.spent + account.held - part.used - part.held, MOST)


def lend(draft: Draft, holder: str, lease: Lease) -> int:
    """Grant a lease under the next number of the holder's log."""
    counted = draft.counters.get((log_of(holder),))
    number = counted.number + 1 if counted else 1
    hold(draft, holder, number, lease)
    return number


def hold(draft: Draft, holder: str, number: int, lease: Lease) -> None:
    """Keep a lease that has its number. Numbers of a log never go back."""
    count(draft, holder, number)
    draft.leases.put((holder, number), lease)
    draft.asks.put((holder, lease.run, lease.ask), Count(number))
    account = _account(draft, lease.purse)
    draft.accounts.put(lease.purse, account._replace(largest=max(account.largest, lease.amount)))
    _move(draft, holder, lease.purse, held=lease.amount)


def count(draft: Draft, holder: str, number: int) -> None:
    """Take it that a number is taken."""
    counted = draft.counters.get((log_of(holder),))
    draft.counters.put((log_of(holder),), Count(max(number, counted.number if counted else 0)))


def settle(draft: Draft, holder: str, number: int, used: int) -> None:
    """End a lease, if there is one of this number: what was not used of it goes back, unless it was lost."""
    lease = draft.leases.get((holder, number))
    if lease is None:
        return
    _end(draft, holder, number, lease)
    if not lease.lost:
        used = lease.amount if lease.item else clamped(used, lease.amount)
        _move(draft, holder, lease.purse, held=-lease.amount, spent=used, used=used)
        forget(draft, lease.purse)


def strand(draft: Draft, holder: str, *, silent: bool) -> None:
    """Count all leases of a holder as spent, as of somebody who fell silent or who left.

    They are told to its next life, and to this one where it asks for them again: each must stand in the holder's log.
    """
    for (_, number), lease in draft.leases.under(holder):
        if not lease.lost:
            amount = lease.amount
            draft.leases.put((holder, number), lease._replace(lost=True))
            _move(draft, holder, lease.purse, held=-amount, spent=amount, used=amount, stranded=amount * silent)
            forget(draft, lease.purse)


def give_up(draft: Draft, holder: str, number: int, lease: Lease) -> None:
    """End a lease of which its holder knows nothing."""
    _end(draft, holder, number, lease)
    _move(draft, holder, lease.purse, held=-lease.amount)


def correct(draft: Draft, holder: str, purse: Purse, used: int) -> None:
    """Count at least so much as used by this holder, as far as there are numbers for it."""
    account = _account(draft, purse)
    more = clamped(used - _part(draft, holder, purse).used, MOST - account.spent - account.held)
    _move(draft, holder, purse, spent=more, used=more)


def held_by(draft: Draft, holder: str) -> list[Held]:
    """The leases of a holder that are not settled."""
    return [held(number, lease) for (_, number), lease in draft.leases.under(holder)]


def held(number: int, lease: Lease) -> Held:
    return Held(number, lease.purse, lease.amount, lease.run, lease.ask)


def opened(draft: Draft, purse: Purse, limit: int) -> Account:
    """The account of a purse, begun where there is none."""
    account = draft.accounts.get(purse)
    if account is None:
        account = Account(limit)
        begin(draft, purse, account)
    return account


def _end(draft: Draft, holder: str, number: int, lease: Lease) -> None:
    draft.leases.drop((holder, number))
    draft.asks.drop((holder, lease.run, lease.ask))


def _move(
    draft: Draft, holder: str, purse: Purse, *, spent: int = 0, held: int = 0, used: int = 0, stranded: int = 0
) -> None:
    account, part = _account(draft, purse), _part(draft, holder, purse)
    draft.accounts.put(purse, account._replace(
        spent=account.spent + spent, held=account.held + held, stranded=account.stranded + stranded))
    draft.parts.put((*purse, holder), Part(part.used + used, part.held + held))


def _account(draft: Draft, purse: Purse) -> Account:
    return draft.accounts.get(purse) or Account()


def _part(draft: Draft, holder: str, purse: Purse) -> Part:
    return draft.parts.get((*purse, holder)) or Part()
