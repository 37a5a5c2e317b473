"""What processes tell one another through the ledger, as entries of this lane: only then does it count here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel import entry
from kernel.leases import Kind, News
from kernel.transition import written

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Iterator
    from typing import Any

    from addons.pools.leasing import Writes
    from kernel.state import Halt, State

type Fields = dict[str, Any]
type Written = tuple[int, Future[None]]
"""The number of an entry, and what resolves once it is durable."""

KINDS = {
    "agents halt": Kind.HALT, "agents quarantine": Kind.QUARANTINE, "agents release": Kind.RELEASE,
    "agents add": Kind.SESSION, "agents rotate": Kind.SESSION, "agents halt all": Kind.HALT_ALL,
    "agents release all": Kind.RELEASE_ALL,
}
"""The acts of an operator that concern all processes."""
COUNTED = frozenset({Kind.RELEASE, Kind.RELEASE_ALL, Kind.SESSION})
"""What begins an epoch or a session: the ledger counts them, and nothing is done before it has."""
_WITH_COUNTS = COUNTED | {Kind.STANDING}
_DONE_FIRST = frozenset({Kind.HALT, Kind.HALT_ALL, Kind.QUARANTINE, Kind.PREVENTIVE, Kind.STANDING})
_OF_ALL = frozenset({Kind.HALT_ALL, Kind.RELEASE_ALL})


def taken(book: Writes, news: News, holder: str) -> Written | None:
    """Write what is new of the news. What this lane has told itself is in force here already."""
    state = book.state
    if news.number <= state.heard or (news.kind in _DONE_FIRST and news.origin.startswith(f"{holder}/")):
        return None
    # A halt of all holds whatever epochs say: the ledger has put it behind every release that came before.
    if news.kind in _DONE_FIRST - {Kind.HALT_ALL} and news.epoch < state.agent(news.agent).epoch:
        return None
    # An old one of a ledger to which this lane comes with epochs of its own lifts no halt that came after those.
    if news.kind is Kind.RELEASE and news.epoch <= state.agent(news.agent).epoch:
        return None
    fields: Fields = dict(news.said) | {"heard": news.number}
    log_id = holder.partition("/")[0]
    if not news.origin.startswith(f"{log_id}/"):
        # Lanes and their entries have their names within a log.
        named = ("by",) if fields["type"] == "operator" else ("decision", "cause")
        fields |= {name: f"{news.origin.partition('/')[0]}/{fields[name]}" for name in named if fields.get(name)}
    if news.kind in _WITH_COUNTS:
        fields |= {"epoch": news.epoch, "session": news.session}
    return book.take_news(fields.pop("type"), fields, news.agent, ours=news.origin.startswith(f"{holder}/"))


def decision_of(news: News, log_id: str) -> str | None:
    """The decision that halted an agent, as this log names it; None where none did."""
    decision = news.said.get("decision")
    if not isinstance(decision, str):
        return None
    return decision if news.origin.startswith(f"{log_id}/") else f"{news.origin.partition('/')[0]}/{decision}"


def epoch_of(state: State, kind: Kind, agent: str) -> int:
    """The epoch that such news are about: the agent's, or that of all."""
    return state.switch.epoch if kind in _OF_ALL else state.agent(agent).epoch


def standings_of(state: State, log_id: str, lane: str, now_us: int) -> Iterator[News]:
    """How the agents of a lane stand that no ledger has known: their epochs, sessions and quarantines, as news."""
    for agent, standing in sorted(state.agents.items()):
        if standing.epoch or standing.session:
            said = entry.operator("agents standing", agent, "carried over", lane, lane)
            yield News(Kind.STANDING, agent, f"{log_id}/{lane}", said, epoch=standing.epoch, session=standing.session)
        if standing.quarantine is not None and now_us < standing.quarantined_until_us:
            quarantine, until = standing.quarantine, written(standing.quarantined_until_us)
            said = entry.operator("agents quarantine", agent, quarantine.why, quarantine.by, lane) | {"until": until}
            yield News(Kind.QUARANTINE, agent, f"{log_id}/{quarantine.entry}", said, epoch=standing.epoch)


def halts_of(state: State, log_id: str, lane: str) -> Iterator[News]:
    """The halts that entries of this lane have brought about, as news."""
    for agent, standing in sorted(state.agents.items()):
        if standing.halt is not None and standing.halt.entry.startswith(f"{lane}/"):
            yield halted(state, log_id, agent, standing.halt)
    everybody = state.switch.halt
    if everybody is not None and everybody.entry.startswith(f"{lane}/"):
        said = entry.operator("agents halt all", None, everybody.why, everybody.by, f"{log_id}/{everybody.entry}")
        yield News(Kind.HALT_ALL, "", f"{log_id}/{everybody.entry}", said, epoch=state.switch.epoch)


def halted(state: State, log_id: str, agent: str, halt: Halt) -> News:
    """That an agent was halted, as others write it."""
    said = entry.halt(agent, halt.reason, halt.rule, halt.entry, halt.sources)
    return News(Kind.HALT, agent, f"{log_id}/{halt.entry}", said, epoch=state.agent(agent).epoch)
