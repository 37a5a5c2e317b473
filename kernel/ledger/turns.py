"""Rates over processes: a generic cell rate algorithm (GCRA) that knows what turns are in whose hands.

Of what is granted, `least` is drawn at once. The rest is in the process' hand: drawn at any time, until the process
asks this rate again. So in every interval no more is drawn than the burst and what the rate gives in it:

- `due` counts what is drawn, a hand as late as it may have been: when its process asks again, or is lost.
- A turn is granted only where all of them could be drawn now, with all that is in hands, and still be in time.
- All hands together have less than half a burst, so that a hand that is counted late never costs the rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.arithmetic import plausible
from kernel.leases import Grant, Why
from kernel.ledger.recovery import alive
from kernel.ledger.tables import HEAD, Count

if TYPE_CHECKING:
    from kernel.leases import Ask
    from kernel.ledger.tables import Draft

LONGEST_US = 2**52
"""The longest that a burst may take to come again: with the time since 1970 still an exact number everywhere."""


def paced(ask: Ask) -> tuple[int, int, int]:
    """The microseconds between turns, the turns at once and the least that is asked for; every ledger counts so far."""
    each = min(ask.each_us, LONGEST_US)
    burst = min(max(ask.limit, 1), LONGEST_US // each)
    return each, burst, min(max(ask.least, 1), burst + 1)


def turns(draft: Draft, holder: str, ask: Ask) -> Grant:
    """As many turns as there are, or when there will be `least`."""
    (each, burst, least), now = paced(ask), draft.now_us
    drawn, others = _hands(draft, holder, ask)
    start = max(plausible(_due(draft, ask, each, burst), now, each, burst), now) + drawn * each
    room = (now + burst * each - start) // each - others
    if room < least:
        draft.rates.put(ask.purse, Count(start))
        wait = start + (least + others - burst) * each - now
        return Grant(ask.number, ask.purse, 0, None, 0, wait, Why.EXHAUSTED)
    amount = max(least, min(ask.want, room, least + max(0, (burst - 1) // 2 - others)))
    draft.rates.put(ask.purse, Count(start + least * each))
    if amount > least:
        draft.hands.put((*ask.purse, holder), Count(amount - least))
    return Grant(ask.number, ask.purse, amount, None, 0)


def _due(draft: Draft, ask: Ask, each: int, burst: int) -> int:
    """When the next turn is due. What an older state does not know may have been a whole burst."""
    kept, head = draft.rates.get(ask.purse), draft.head.get(HEAD)
    due = kept.number if kept else 0
    return max(due, head.changed_us + burst * each) if head and head.changed_us else due


def _hands(draft: Draft, holder: str, ask: Ask) -> tuple[int, int]:
    """How many turns must be counted as drawn by now, and how many others have in hand."""
    drawn = others = 0
    for key, hand in draft.hands.under(*ask.purse):
        if key[-1] == holder or not alive(draft, draft.lives.get((key[-1],))):
            drawn += hand.number
            draft.hands.drop(key)
        else:
            others += hand.number
    return drawn, others
