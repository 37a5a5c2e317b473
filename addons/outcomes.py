"""What became of the flows that were let through: bytes counted while they pass, one outcome entry at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from time import monotonic, time

from mitmproxy import http

from addons import cutting, ending_words, websocket_layer
from addons.allowance import Allowance, Drawn
from addons.answer_tap import Tap
from addons.book import Book
from addons.connections import ClientConnection
from addons.in_flight import InFlight
from addons.judged import Judged
from addons.lane import Lane
from addons.metrics import Metrics
from kernel import entry
from kernel.budget import SPENT, Unit
from kernel.llm.usage import Bound
from kernel.measures import Cap, Measures, WebSocketMeasures
from kernel.trial import Mode
from kernel.verdict import Action, Code, Verdict

# A body whose end is known and near is handed over whole, so that mitmweb can show it; all others pass as they come.
_WHOLE_BYTES = 64 * 1024
# What stands for the code of a WebSocket that ended without a close (RFC 6455, 7.1.5).
_NO_CLOSE = 1006
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(slots=True)
class OpenFlow:
    """A flow that may be on its way. `decision` is its entry as LANE/SEQ.

    `streams` says that its body passes while it comes. `passed` is the cap over which its request or its answer has
    gone, `over` says that the hours of what granted it are, or that its agent is halted or may only read: it goes no
    further. `allowance` is what budgets still give it, None where none counts what it uses. `tap` reads what the answer
    of a model says.
    """

    flow: http.HTTPFlow
    judged: Judged
    decision: str
    connection: ClientConnection
    bytes_up: int
    sent: float
    streams: bool
    allowance: Allowance | None = None
    bytes_down: int = 0
    status: int | None = None
    passed: Cap | None = None
    over: Verdict | None = None
    tap: Tap | None = None

    @property
    def agent(self) -> str:
        assert self.judged.agent is not None
        return self.judged.agent.id

    @property
    def measures(self) -> Measures:
        return self.judged.measures

    @property
    def writes_on(self) -> bool:
        """True where more may come from the agent that nobody judges by itself."""
        return self.judged.websocket is not None or (self.streams and self.flow.request.timestamp_end is None)

    def stopped(self, now: float) -> Verdict | None:
        """Why the flow goes no further; None while it may."""
        if self.passed is not None:
            what = "its body" if self.streams and self.passed is self.measures.max_request else "the answer"
            reason = f"{what} is larger than {self.passed.most} bytes"
            return Verdict(Action.DENY, Code.BODY_TOO_LARGE, self.passed.by, reason)
        until = self.judged.until
        if self.over is None and until is not None and now >= until:
            self._ask_again(int(now))
        if self.over is None and self.allowance is not None:
            return self.allowance.lasting(monotonic())
        return self.over

    def _ask_again(self, at: int) -> None:
        later = self.judged.later(at)
        if later is None:
            return
        if later.verdict.lets_through:
            # It is measured on as it was when it began.
            judgement = replace(later, measures=self.measures)
            self.judged = replace(self.judged, judgement=judgement)
        else:
            over = "the trial of the policy is" if self.judged.mode is Mode.OBSERVE else "the hours of its grant are"
            reason = f"{over} over"
            self.over = Verdict(Action.DENY, Code.OUT_OF_HOURS, later.verdict.rule, reason)

    def waits(self, now: float) -> float | None:
        """How long until it must be asked again whether the flow may go on; None where that need not be."""
        if self.over is not None:
            return None
        waits = [] if self.judged.until is None else [self.judged.until - now]
        if self.allowance is not None and self.allowance.until is not None:
            waits.append(self.allowance.until - monotonic())
        # Not longer at once: the clock may be put, or the machine asleep.
        return min(max(min(waits), 0.0), _LONGEST_WAIT_SECONDS) if waits else None

    def upload(self, chunk: bytes) -> bytes | list[bytes]:
        """Meter a piece of a body that passes while it comes; nothing of one that is too large."""
        if self.over is not None or self._passing(chunk) < len(chunk):
            return []
        self.bytes_up += len(chunk)
        if self.bytes_up > self.measures.max_request.most:
            self.passed = self.measures.max_request
            return []
        return chunk or []

    def meter(self, chunk: bytes) -> bytes | list[bytes]:
        """Meter a piece of an answer that has no cap."""
        if self.over is not None:
            return []
        if self.allowance is not None:
            chunk = self._shortened(chunk, self._passing(chunk))
        self.bytes_down += len(chunk)
        # An empty chunk would be written as the end of a chunked body, wherever it stands.
        return chunk or []

    def capped(self, chunk: bytes) -> bytes | list[bytes]:
        """Meter a piece of an answer, as far as its cap goes."""
        cap = self.measures.max_response
        if cap is not None and self.bytes_down + len(chunk) > cap.most:
            self.passed = cap
            chunk = self._shortened(chunk, cap.most - self.bytes_down)
        return self.meter(chunk)

    def _passing(self, chunk: bytes) -> int:
        """How much of a piece budgets let pass."""
        used = self.bytes_up + self.bytes_down
        return len(chunk) if self.allowance is None else self.allowance.passing(used, len(chunk))

    def _shortened(self, chunk: bytes, size: int) -> bytes:
        """The beginning of a piece, as far as it may pass; of events only whole ones."""
        if size >= len(chunk):
            return chunk
        chunk = chunk[:size]
        takes_events = self.flow.response is not None and ending_words.takes_events(self.flow.response)
        return ending_words.whole_events(chunk) if takes_events else chunk


@dataclass(frozen=True, slots=True)
class WebSocketWatch:
    """What a governed WebSocket asks and tells of its flow (`websocket_layer.Watch`)."""

    outcomes: Outcomes
    opened: OpenFlow
    limits: WebSocketMeasures

    def meter(self, bytes_up: int, bytes_down: int) -> None:
        allowance, used = self.opened.allowance, self.opened.bytes_up + self.opened.bytes_down
        self.opened.bytes_up += bytes_up
        self.opened.bytes_down += bytes_down
        if allowance is not None and allowance.passing(used, bytes_up + bytes_down) < bytes_up + bytes_down:
            asyncio.get_running_loop().call_soon(websocket_layer.close, self.opened.flow, Code.BUDGET_EXHAUSTED)
        cap = self.opened.measures.max_response
        if cap is not None and self.opened.bytes_down > cap.most and self.opened.passed is None:
            self.opened.passed = cap
            # Not here: the layer is in the midst of a message.
            asyncio.get_running_loop().call_soon(websocket_layer.close, self.opened.flow, Code.BODY_TOO_LARGE)

    def refused(self, code: Code) -> str:
        self.outcomes.websocket_refused(self.opened.flow, code)
        return f"{code} {self.opened.decision}"


class Outcomes:
    """The open flows of this process."""

    def __init__(self, lane: Lane, book: Book, metrics: Metrics, in_flight: InFlight,
                 clock: Callable[[], float] = time) -> None:
        self._lane, self._book, self._metrics, self._in_flight, self._clock = lane, book, metrics, in_flight, clock
        self._open: dict[str, OpenFlow] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, flow: http.HTTPFlow, judged: Judged, connection: ClientConnection, body_bytes: int, *,
              streams: bool = False) -> OpenFlow:
        """The flow goes on from here; until `end` its decision is open in the log.

        `streams`: its body passes while it comes, and is counted then.
        """
        decision = f"{self._lane.name}/{judged.number}"
        opened = self._open[flow.id] = OpenFlow(
            flow, judged, decision, connection, body_bytes, monotonic(), streams, self._allowance(judged, decision),
            tap=_tap(judged))
        connection.open_flows.add(flow.id)
        opened.over = self._book.halted(opened.agent, None)
        if opened.over is None and opened.writes_on:
            opened.over = self._book.reads_only(opened.agent)
        if judged.websocket is not None and opened.waits(self._clock()) is not None:
            self._watch_hours(opened)
        if connection.gone:
            # Its layer may have crashed meanwhile, and nobody would tell of this flow's end.
            self._end(flow.id, "aborted")
        return opened

    def _allowance(self, judged: Judged, decision: str) -> Allowance | None:
        """What budgets give a flow that uses what they count while it lasts."""
        if not any(draw.unit in (Unit.BYTES, Unit.SECONDS) for draw in judged.draws):
            return None
        agent, parts = judged.agent, count(1)
        assert agent is not None

        def more(unit: Unit, wanted: int, *, at_once: bool) -> Drawn | Verdict:
            return self._book.draw_more(
                decision, agent.id, judged.mode, next(parts), unit, wanted, at_once=at_once)

        return Allowance(judged.draws, monotonic(), more)

    def end_agent(self, agent: str, verdict: Verdict) -> None:
        """End every open flow of an agent, whatever it waits for."""
        self._end_each([each for each in self._open.values() if each.agent == agent], verdict)

    def end_writes(self, agent: str, verdict: Verdict) -> None:
        """End what an agent can still write with: its WebSockets, and its uploads that have not come to their end."""
        self._end_each([each for each in self._open.values() if each.agent == agent and each.writes_on], verdict)

    def end_all(self, verdict: Verdict) -> None:
        """The same of every flow."""
        self._end_each(list(self._open.values()), verdict)

    def _end_each(self, flows: Sequence[OpenFlow], verdict: Verdict) -> None:
        for opened in [each for each in flows if each.over is None]:
            opened.over = verdict
            if opened.judged.websocket is not None and opened.flow.websocket is not None:
                websocket_layer.close(opened.flow, verdict.code)
            else:
                cutting.wake(opened.flow)

    def opened(self, flow: http.HTTPFlow) -> OpenFlow | None:
        """What is known of a flow that was let through and has not ended."""
        return self._open.get(flow.id)

    def waiting(self, connection: ClientConnection) -> list[tuple[http.HTTPFlow, object]]:
        """The flows of this client whose origin is not connected yet, each with what was judged of it."""
        opened = [self._open[flow_id] for flow_id in connection.open_flows]
        return [(each.flow, each.judged.sent) for each in opened if each.flow.server_conn.timestamp_start is None]

    def stopped(self, flow: http.HTTPFlow) -> Verdict | None:
        """Why a flow that was let through goes no further; None while it may."""
        opened = self._open.get(flow.id)
        return None if opened is None else opened.stopped(self._clock())

    def waits(self, flow: http.HTTPFlow) -> float | None:
        """After how many seconds `stopped` must be asked again, though nothing comes of the flow; None: never."""
        opened = self._open.get(flow.id)
        return None if opened is None else opened.waits(self._clock())

    def too_large(self, flow: http.HTTPFlow) -> Cap | None:
        """The cap over which the answer says that it will go."""
        opened, response = self._open.get(flow.id), flow.response
        cap = opened.measures.max_response if opened is not None else None
        if cap is None or response is None or flow.request.method == "HEAD":
            return None
        length = declared_bytes(response)
        return cap if length is not None and length > cap.most else None

    def headers(self, flow: http.HTTPFlow) -> None:
        """The origin's answer begins: meter it, and let it pass while it comes unless it is short."""
        opened, response = self._open.get(flow.id), flow.response
        if opened is None or response is None:
            return
        opened.status = response.status_code
        self._metrics.outcome(monotonic() - opened.sent)
        if opened.tap is not None:
            opened.tap.begin(response)
        if not _short(response):
            meter = opened.meter if opened.measures.max_response is None else opened.capped
            response.stream = meter if opened.tap is None else opened.tap.beside(meter)

    def completed(self, flow: http.HTTPFlow) -> None:
        """The answer has passed to its end."""
        opened = self._close(flow.id)
        if opened is not None:
            if flow.response is not None and flow.response.data.content:
                opened.bytes_down += len(flow.response.data.content)
                if opened.tap is not None:
                    opened.tap.take(flow.response.data.content)
            self._record(flow.id, opened, "completed")

    def watch(self, flow: http.HTTPFlow) -> WebSocketWatch | None:
        """What the flow's WebSocket asks and tells, None where the flow is not on its way to be one."""
        opened = self._open.get(flow.id)
        limits = opened.judged.websocket if opened is not None else None
        if opened is None or limits is None:
            return None
        return WebSocketWatch(self, opened, limits)

    def _watch_hours(self, opened: OpenFlow) -> None:
        """End a WebSocket when the hours are over in which it was granted, whether anything passes in it or not."""
        if opened.flow.id not in self._open:
            return
        stopped = opened.stopped(self._clock())
        if stopped is not None:
            websocket_layer.close(opened.flow, stopped.code)
            return
        seconds = opened.waits(self._clock())
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self._watch_hours, opened)

    def websocket_refused(self, flow: http.HTTPFlow, code: Code) -> None:
        """Governor ends the flow's WebSocket."""
        if code is Code.FAULT:
            self._metrics.fault("WebSocket")
        self.refused(flow, code)

    def websocket_ended(self, flow: http.HTTPFlow) -> None:
        """The flow's WebSocket ended: with a close, or because one end just went."""
        data = flow.websocket
        if data is None or data.close_code != _NO_CLOSE:
            self._end(flow.id, "completed")
        elif data.closed_by_client:
            self._end(flow.id, "aborted")
        else:
            self._end(flow.id, "failed", Code.ORIGIN_FAILED)

    def failed(self, flow: http.HTTPFlow) -> None:
        """The flow ended in an error of the client's or the origin's side."""
        opened = self._close(flow.id)
        if opened is None:
            return
        if not flow.client_conn.connected:
            self._record(flow.id, opened, "aborted")
        elif flow.server_conn.timestamp_tcp_setup is None:
            self._record(flow.id, opened, "not_sent", Code.ORIGIN_FAILED)
        else:
            self._record(flow.id, opened, "failed", Code.ORIGIN_FAILED)

    def not_sent(self, flow: http.HTTPFlow) -> None:
        """The flow was let through and is answered by another addon."""
        self._end(flow.id, "not_sent")

    def refused(self, flow: http.HTTPFlow, code: Code) -> None:
        """The origin's answer is not passed on."""
        self._end(flow.id, "cut", code)

    def client_gone(self, connection: ClientConnection) -> None:
        """Close whatever this client left open, or opens yet by a verdict that is still awaited."""
        connection.gone = True
        for flow_id in tuple(connection.open_flows):
            self._end(flow_id, "aborted")

    def cut_all(self) -> None:
        """The process ends: every open flow ends with it."""
        for flow_id in tuple(self._open):
            self._end(flow_id, "cut")

    def _end(self, flow_id: str, result: str, code: Code | None = None) -> None:
        opened = self._close(flow_id)
        if opened is not None:
            self._record(flow_id, opened, result, code)

    def _close(self, flow_id: str) -> OpenFlow | None:
        opened = self._open.pop(flow_id, None)
        if opened is not None:
            opened.connection.open_flows.discard(flow_id)
            self._in_flight.leave(opened.agent)
        return opened

    def _record(self, flow_id: str, opened: OpenFlow, result: str, code: Code | None = None) -> None:
        said = {} if opened.tap is None else opened.tap.told(opened.status, whole=result == "completed")
        self._book.record("outcome", said | entry.outcome(
            flow_id, opened.decision, result, opened.status, opened.bytes_up, opened.bytes_down, code=code),
            opened.agent, opened.judged.mode)
        if opened.tap is not None and opened.tap.exceeded:
            self._say_over(flow_id)

    def _say_over(self, flow_id: str) -> None:
        """A provider reports more than a call could cost. What was held for it is charged, and somebody is to know."""
        self._metrics.fault("spend")
        self._lane.record("fault", entry.fault("spend", "OverBound", Code.FAULT, flow_id))


def _tap(judged: Judged) -> Tap | None:
    """What reads the answer to a call of a model."""
    if judged.model is None:
        return None
    held = {unit: min((draw.amount for draw in judged.draws if draw.unit == unit), default=None) for unit in SPENT}
    return Tap(judged.model, Bound(held[Unit.TOKENS], held[Unit.USD]))


def _short(response: http.Response) -> bool:
    length = declared_bytes(response)
    return length is not None and length <= _WHOLE_BYTES


def declared_bytes(message: http.Message) -> int | None:
    """The size that a Content-Length tells, None without one that can be read."""
    length = message.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None
