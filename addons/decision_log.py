"""What becomes of a verdict in the log: an entry before it takes effect, or a count where there are too many."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from time import perf_counter

from mitmproxy import http

from addons.book import Book, Weighed
from addons.connections import ClientConnection
from addons.errors import AuditUnavailable
from addons.governed import Governed
from addons.judged import Judged, decision_fields, fingerprint, secrets
from addons.lane import Lane
from addons.metrics import Metrics
from addons.mirror import ITSELF
from addons.model_calls import change, sized
from addons.refusal_rate import MOST_PAUSE_SECONDS, MOST_WAIT_SECONDS, RefusalRate
from kernel import entry
from kernel.budget import SPENT
from kernel.step import Asked, asked_method
from kernel.trial import Mode
from kernel.verdict import Action, Code, Verdict

TOO_MANY = Verdict(Action.THROTTLE, Code.REFUSAL_RATE, reason="too many refusals within a second")


class DecisionLog:
    """The decisions of one lane, each source within its rate of refusals."""

    def __init__(self, lane: Lane, book: Book, metrics: Metrics, rate: RefusalRate) -> None:
        self._lane, self._book, self._metrics, self._rate = lane, book, metrics, rate

    async def written(self, stage: str, governed: Governed, connection: ClientConnection, flow: http.HTTPFlow,
                       judged: Judged, started: float) -> Judged:
        """The verdict, once its entry is on disk. A refusal over the agent's rate is counted instead."""
        self._metrics.step()
        weighed = await self._weigh(stage, governed, connection, judged)
        if weighed is not None:
            decided = weighed.decided
            judged = replace(judged, verdict=decided.verdict, mode=weighed.mode, draws=decided.draws,
                             left=decided.left, wait_us=decided.wait_us)
            judged = _sized(flow.request, judged, weighed)
        verdict, agent = judged.verdict, judged.agent
        source = agent.id if agent else connection.peer
        quiet = verdict.rule is not None and not judged.lets_through and verdict.rule in governed.index.quiet
        if quiet:
            # What is expected does not use up the turns of what is not.
            source = f"{source} quiet"
        if not judged.lets_through and self._rate.exceeded(source, verdict.code):
            self._metrics.rate_limited()
            await self.wait(connection, source)
            return replace(judged, verdict=TOO_MANY)
        if quiet and self._rate.is_repeated(source, str(verdict.rule)):
            self._rate.count(source, verdict.code)
            self._count(stage, judged, started)
            return judged
        fields = decision_fields(stage, flow.id, governed, judged)
        hidden = secrets(fields, governed, judged)
        number, durable = (self._book.note(fields, hidden, agent.id if agent else "") if weighed is None
                           else self._book.commit(weighed, fields, hidden))
        try:
            self._count(stage, judged, started)
            await durable
        except BaseException as fault:
            if stage == "request" and judged.lets_through and agent is not None:
                self._take_back(flow, number, fault, agent.id, judged.mode)
            raise
        return replace(judged, number=number)

    async def _weigh(self, stage: str, governed: Governed, connection: ClientConnection,
                     judged: Judged) -> Weighed | None:
        """What the kernel decides on a request of a known agent to somewhere else than Governor itself."""
        agent, verdict = judged.agent, judged.verdict
        if stage != "request" or agent is None or verdict is ITSELF:
            return None
        groups = judged.judgement.groups if judged.judgement else ()
        scheme = judged.facts.scheme if judged.facts else None
        place = f"{governed.disclosure.shown(judged.host)}:{judged.port}" if judged.host else None
        return await self._book.weigh(governed, Asked(
            agent.id, verdict, asked_method(judged.method, scheme), place, judged.request,
            0 if judged.facts is None or judged.open_ended else judged.facts.body_bytes,
            governed.bounds.risk(groups), governed.bounds.throttles(groups),
            connection.peer if agent.by == "none" else None,
            verdict.rule is not None and verdict.rule in governed.index.quiet,
            spend=None if judged.model is None else judged.model.spend), judged.mode)

    def _count(self, stage: str, judged: Judged, started: float) -> None:
        verdict, agent = judged.verdict, judged.agent
        if stage == "request":
            self._metrics.decision(verdict.action, verdict.code, agent.id if agent else "", verdict.rule,
                                   perf_counter() - started)

    def _take_back(self, flow: http.HTTPFlow, number: int, fault: BaseException, agent: str, mode: Mode) -> None:
        """The entry may yet be written: then what it allows must not stand open, for it is refused."""
        code = Code.DEADLINE if isinstance(fault, asyncio.CancelledError) else Code.FAULT
        with suppress(AuditUnavailable):
            outcome = entry.outcome(flow.id, f"{self._lane.name}/{number}", "not_sent", code=code)
            self._book.record("outcome", outcome, agent, mode)

    async def wait(self, connection: ClientConnection, source: str) -> None:
        """Let a source over its rate wait for its turn, and where that is far off, with its next request, too."""
        seconds = self._rate.wait_seconds(source, MOST_WAIT_SECONDS + MOST_PAUSE_SECONDS)
        if seconds > MOST_WAIT_SECONDS:
            connection.pause(seconds)
        await asyncio.sleep(min(seconds, MOST_WAIT_SECONDS))


def _sized(request: http.Request, judged: Judged, weighed: Weighed) -> Judged:
    """The verdict on a call of a model with the size that its answer may have. The request is changed to that.

    Nothing is changed on trial, nor in a request that is not the one that was judged: that one does not leave.
    """
    if judged.model is None:
        return judged
    model = sized(judged.model, weighed.decided.output)
    if not judged.lets_through or judged.mode is Mode.OBSERVE or fingerprint(request) != judged.sent:
        return replace(judged, model=model)
    model = change(request, model, counts=not weighed.bounded.units.isdisjoint(SPENT))
    return replace(judged, model=model, sent=fingerprint(request))
