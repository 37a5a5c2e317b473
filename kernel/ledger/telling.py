"""What concerns all processes, in one order, and how often each agent was released or given a new token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kernel.arithmetic import clamped
from kernel.leases import MOST, Kind
from kernel.ledger.members import as_news, text_of
from kernel.ledger.recovery import arrive
from kernel.ledger.tables import HEAD, Count, Standing, Told

if TYPE_CHECKING:
    from kernel.leases import News
    from kernel.ledger.tables import Draft


_HALTS = frozenset({Kind.HALT, Kind.HALT_ALL})
_RELEASES = frozenset({Kind.RELEASE, Kind.RELEASE_ALL})


def tell(draft: Draft, news: News) -> News:
    """Publish news once. A halt of an epoch that is over is not: it comes back with number 0.

    What concerns all agents has the agent "", and epochs of its own. One who tells of a later epoch or session has
    counted what this ledger does not know.
    """
    head = arrive(draft)
    key = (news.kind, news.agent, news.origin)
    known = draft.told.get(key)
    row = draft.news.get((known.number,)) if known else None
    if known is not None and row is not None:
        return as_news(known.number, row)
    before = draft.standings.get((news.agent,)) or Standing()
    if news.kind in _HALTS and news.epoch < before.epoch:
        return replace(news, number=0, epoch=before.epoch, session=before.session, at_us=draft.now_us)
    epoch = max(before.epoch, clamped(news.epoch, MOST)) + (news.kind in _RELEASES)
    after = Standing(epoch, max(before.session, clamped(news.session, MOST)) + (news.kind is Kind.SESSION))
    if after != before:
        draft.standings.put((news.agent,), after)
    number, told = head.news + 1, Told(*key, text_of(news.said), *after, draft.now_us)
    draft.head.put(HEAD, head._replace(news=number))
    draft.told.put(key, Count(number))
    draft.news.put((number,), told)
    return as_news(number, told)
