"""Which windows are over: a new one closes all older ones of its kind, and so does time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.arithmetic import KINDS
from kernel.leases import Purse
from kernel.ledger.tables import HEAD, Count

if TYPE_CHECKING:
    from kernel.ledger.tables import Account, Draft, Head

_US = 1_000_000
_HOUR, _DAY = 3600 * _US, 86400 * _US
_LENGTHS = (0, _HOUR, _DAY, 7 * _DAY)
_FIRST_MONDAY = 4 * _DAY
_LATE = 2 * _DAY
"""Zones are at most 14 hours from UTC; and the clock of a ledger is set right now and then."""


def fence(purse: Purse) -> tuple[str, str, str, int]:
    """The key of the newest window of a purse' kind."""
    return purse.budget, purse.unit, purse.agent, purse.window % KINDS


def forgotten_at_us(purse: Purse) -> int | None:
    """From when on nobody need know of a purse, as its window ended long before; None for a session's."""
    number, kind = divmod(purse.window, KINDS)
    if kind == 0:
        return None
    begin = _FIRST_MONDAY if _LENGTHS[kind] == 7 * _DAY else 0
    return begin + (number + 1) * _LENGTHS[kind] + _LATE


def is_fenced(draft: Draft, purse: Purse) -> bool:
    """True where a later window has begun, a later session of its agent, or its end is long past."""
    newest = draft.fences.get(fence(purse))
    if newest is not None and purse.window < newest.number:
        return True
    end = forgotten_at_us(purse)
    if end is not None:
        head = draft.head.get(HEAD)
        return end <= max(draft.now_us, head.tidied_us if head else 0)
    standing = draft.standings.get((purse.agent,)) if purse.agent else None
    return standing is not None and purse.window // KINDS < standing.epoch + standing.session


def begin(draft: Draft, purse: Purse, account: Account) -> None:
    """Keep a new account; the window before it is forgotten if nothing of it is held."""
    draft.accounts.put(purse, account)
    newest = draft.fences.get(fence(purse))
    if newest is not None and purse.window < newest.number:
        return
    draft.fences.put(fence(purse), Count(purse.window))
    if newest is not None:
        forget(draft, purse._replace(window=newest.number))


def forget(draft: Draft, purse: Purse) -> None:
    """Forget a purse of which nothing is held, if a later window has begun."""
    account, newest = draft.accounts.get(purse), draft.fences.get(fence(purse))
    if account is not None and not account.held and newest is not None and purse.window < newest.number:
        _erase(draft, purse)


def tidy(draft: Draft, head: Head) -> None:
    """Forget what ended long ago: such a window is fenced by its number alone. And rates of which all is there."""
    for key, account in draft.accounts.under():
        purse = Purse(*key)
        end = forgotten_at_us(purse)
        if end is not None and end <= draft.now_us and not account.held:
            _erase(draft, purse)
            newest = draft.fences.get(fence(purse))
            if newest is not None and newest.number == purse.window:
                draft.fences.drop(fence(purse))
    for key, rate in draft.rates.under():
        if rate.number <= draft.now_us and not draft.hands.under(*key):
            draft.rates.drop(key)
    draft.head.put(HEAD, head._replace(tidied_us=max(head.tidied_us, draft.now_us)))


def _erase(draft: Draft, purse: Purse) -> None:
    draft.accounts.drop(purse)
    for table in (draft.parts, draft.items):
        for key, _ in table.under(*purse):
            table.drop(key)
