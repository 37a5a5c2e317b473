"""What processes tell one another through the ledger, as entries of this lane: only then does it count here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from addons.pools.protocol import NewsUnreadable
from kernel import entry
from kernel.contagion import Prevention
from kernel.leases import Kind, News
from kernel.transition import KERNEL, change, micros, written

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Iterator, Sequence
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
_TYPES = frozenset({"operator", "halt", "preventive"})
_ACTS = frozenset({*KINDS, "agents standing"})
COUNTED = frozenset({Kind.RELEASE, Kind.RELEASE_ALL, Kind.SESSION})
"""What begins an epoch or a session: the ledger counts them, and nothing is done before it has."""
_WITH_COUNTS = COUNTED | {Kind.STANDING}
_OF_ALL = frozenset({Kind.HALT_ALL, Kind.RELEASE_ALL})
_RELEASES = frozenset({Kind.RELEASE, Kind.RELEASE_ALL})
_TIMED = frozenset({Kind.QUARANTINE, Kind.PREVENTIVE})
_HOLDING = frozenset({Kind.HALT, Kind.HALT_ALL, Kind.QUARANTINE, Kind.PREVENTIVE})


def taken(book: Writes, news: News, holder: str) -> Written | None:
    """Write what is new of the news. What this lane has told itself is in force here already, where nothing told before
    it has put an end to it: the ledger has the order.
    """
    if news.number <= book.state.heard or (news.origin.startswith(f"{holder}/") and _is_in_force(book.state, news)):
        return None
    return write(book, news, holder)


def write(book: Writes, news: News, holder: str) -> Written:
    """Write the news into the lane, and be bound by them. `NewsUnreadable` where they cannot be: then nothing is."""
    fields = _fields(news, holder)
    try:
        # An entry that no state follows from would break the lane.
        change(book.state, fields, f"pool/{news.number}", news.at_us)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise _unreadable(news, f"{type(problem).__name__}: {problem}") from problem
    kind = fields.pop("type")
    return book.take_news(kind, fields, news.agent, ours=news.origin.startswith(f"{holder}/"))


def _fields(news: News, holder: str) -> Fields:
    """The entry that a lane writes of the news."""
    fields: Fields = dict(news.said) | {"heard": news.number}
    if fields.get("type") not in _TYPES:
        raise _unreadable(news, f"an entry of type {fields.get('type')!r} is not known as news")
    if fields["type"] == "operator" and fields.get("act") not in _ACTS:
        raise _unreadable(news, f"the act {fields.get('act')!r} is not known as news")
    log_id = holder.partition("/")[0]
    if not news.origin.startswith(f"{log_id}/"):
        # Lanes and their entries have their names within a log.
        named = ("by",) if fields["type"] == "operator" else ("decision", "cause")
        fields |= {name: f"{news.origin.partition('/')[0]}/{fields[name]}" for name in named if fields.get(name)}
    if news.kind in _WITH_COUNTS:
        fields |= {"epoch": news.epoch, "session": news.session}
    return fields


def _unreadable(news: News, problem: str) -> NewsUnreadable:
    newer = "a newer version of Governor told it: start this one in that version; or the ledger is damaged"
    return NewsUnreadable(f"news {news.number} of the ledger ({news.kind}): {problem} ({newer})")


def _is_in_force(state: State, news: News) -> bool:
    match news.kind:
        case Kind.HALT:
            return state.agent(news.agent).halt is not None
        case Kind.HALT_ALL:
            return state.switch.halt is not None
        case Kind.QUARANTINE:
            quarantine = state.agent(news.agent).quarantine
            return quarantine is not None and not quarantine.heard
    return news.kind not in COUNTED


def still_holding(past: Sequence[News], state: State, lane: str, now_us: int) -> Iterator[News]:
    """What of all news binds a lane that has heard none of them: what was released since does not, nor what is over,
    and nothing lets go what holds somebody back in this lane.

    The newest is there in any case: its number says in the lane how far all was heard.
    """
    released, read_only, kept = set[str](), set[str](), list[News]()
    for news in reversed(past):
        if news.kind is Kind.QUARANTINE:
            # An operator says anew how long; who said so before has no say any more.
            said_since = news.agent in read_only
            read_only.add(news.agent)
            if said_since:
                continue
        if _is_over(news, now_us) and news is not past[-1]:
            continue
        if news.kind in _RELEASES:
            if news.agent not in released:
                kept.append(_counted_only(news, lane))
            released.add(news.agent)
        elif news.kind not in _HOLDING or news.agent not in released:
            kept.append(news)
    for news in reversed(kept):
        if news.kind is not Kind.RELEASE_ALL or (state.switch.halt is None and news.epoch > state.switch.epoch):
            yield news


def _is_over(news: News, now_us: int) -> bool:
    """Whether it held an agent back until a time that is past. A halt is not over by itself."""
    until = news.said.get("until")
    if news.kind not in _TIMED or not isinstance(until, str) or news.said.get("do") == Prevention.HALT:
        return False
    try:
        return micros(until) <= now_us
    except (TypeError, ValueError):
        # It is looked at again where it is written.
        return False


def _counted_only(release: News, lane: str) -> News:
    """A release of an agent as what it says of its epochs."""
    if release.kind is Kind.RELEASE_ALL:
        return release
    said = entry.operator("agents standing", release.agent, "carried over", lane, lane)
    return replace(release, kind=Kind.STANDING, said=said)


def decision_of(news: News, log_id: str) -> str | None:
    """The decision that halted an agent, as this log names it; None where none did."""
    decision = news.said.get("decision")
    if not isinstance(decision, str):
        return None
    return decision if news.origin.startswith(f"{log_id}/") else f"{news.origin.partition('/')[0]}/{decision}"


def epoch_of(state: State, kind: Kind, agent: str) -> int:
    """The epoch that such news are about: the agent's, or that of all."""
    return state.switch.epoch if kind in _OF_ALL else state.agent(agent).epoch


def standings_of(state: State, log_id: str, lane: str) -> Iterator[News]:
    """How far the epochs and sessions of agents are that no ledger has counted, as news."""
    for agent, standing in sorted(state.agents.items()):
        if standing.epoch or standing.session:
            said = entry.operator("agents standing", agent, "carried over", lane, lane)
            # Each is told once: another one later, when more was counted without the ledger.
            origin = f"{log_id}/{lane}/{standing.epoch}.{standing.session}"
            yield News(Kind.STANDING, agent, origin, said, epoch=standing.epoch, session=standing.session)


def held_back(state: State, log_id: str, lane: str, now_us: int, *, heard: bool) -> Iterator[News]:
    """Who is halted or quarantined by what this lane did, as news; with `heard` by what others told it, too."""
    for agent, standing in sorted(state.agents.items()):
        if standing.halt is not None and (heard or not standing.halt.heard):
            yield halted(state, log_id, agent, standing.halt)
        quarantine = standing.quarantine
        if quarantine is not None and now_us < standing.quarantined_until_us and (heard or not quarantine.heard):
            until = written(standing.quarantined_until_us)
            said = entry.operator("agents quarantine", agent, quarantine.why, quarantine.by, lane) | {"until": until}
            yield News(Kind.QUARANTINE, agent, f"{log_id}/{quarantine.entry}", said, epoch=standing.epoch)
    everybody = state.switch.halt
    if everybody is not None and (heard or not everybody.heard):
        said = entry.operator("agents halt all", None, everybody.why, everybody.by, f"{log_id}/{everybody.entry}")
        yield News(Kind.HALT_ALL, "", f"{log_id}/{everybody.entry}", said, epoch=state.switch.epoch)


def halted(state: State, log_id: str, agent: str, halt: Halt) -> News:
    """That an agent was halted, as others write it: what an operator did stays an operator's, and spreads to nobody."""
    said = entry.halt(agent, halt.reason, halt.rule, halt.entry, halt.sources)
    if halt.by != KERNEL:
        said = entry.operator("agents halt", agent, halt.why, halt.by, halt.entry) | {"sources": list(halt.sources)}
    return News(Kind.HALT, agent, f"{log_id}/{halt.entry}", said, epoch=state.agent(agent).epoch)
