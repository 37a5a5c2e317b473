"""What processes tell one another through the ledger, as entries of this lane: only then does it count here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel import entry
from kernel.leases import Kind, News

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Iterator
    from typing import Any

    from addons.pools.leasing import Writes
    from kernel.state import Halt, State

type Fields = dict[str, Any]
type Written = tuple[int, Future[None]]
"""The number of an entry, and what resolves once it is durable."""

COUNTED = frozenset({Kind.RELEASE, Kind.SESSION})
"""What begins an epoch or a session: the ledger counts them, and nothing is done before it has."""
_DONE_FIRST = frozenset({Kind.HALT, Kind.QUARANTINE, Kind.PREVENTIVE})


def taken(book: Writes, news: News, holder: str) -> Written | None:
    """Write what is new of the news. What this lane has told itself is in force here already."""
    state = book.state
    if news.number <= state.heard or (news.kind in _DONE_FIRST and news.origin.startswith(f"{holder}/")):
        return None
    if news.kind in _DONE_FIRST and news.epoch < state.agent(news.agent).epoch:
        return None
    fields: Fields = dict(news.said) | {"heard": news.number}
    if news.kind in COUNTED:
        fields |= {"epoch": news.epoch, "session": news.session}
    return book.take_news(fields.pop("type"), fields, news.agent)


def halts_of(state: State, log_id: str, lane: str) -> Iterator[News]:
    """The halts that entries of this lane have brought about, as news."""
    for agent, standing in sorted(state.agents.items()):
        if standing.halt is not None and standing.halt.entry.startswith(f"{lane}/"):
            yield halted(state, log_id, agent, standing.halt)


def halted(state: State, log_id: str, agent: str, halt: Halt) -> News:
    """That an agent was halted, as others write it."""
    said = entry.halt(agent, halt.reason, halt.rule, halt.entry, halt.sources)
    return News(Kind.HALT, agent, f"{log_id}/{halt.entry}", said, epoch=state.agent(agent).epoch)
