"""What became of the flows that were let through: bytes counted while they pass, one outcome entry at the end."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from mitmproxy import http

from addons.connections import ClientConnection
from addons.lane import Lane
from addons.metrics import Metrics
from addons.websocket_limits import WebSocketMeasures
from kernel import entry
from kernel.verdict import Code

# A body whose end is known and near is handed over whole, so that mitmweb can show it; all others pass as they come.
_WHOLE_BYTES = 64 * 1024
# What stands for the code of a WebSocket that ended without a close (RFC 6455, 7.1.5).
_NO_CLOSE = 1006


@dataclass(slots=True)
class OpenFlow:
    """A flow that may be on its way. `decision` is its entry as LANE/SEQ, `judged` what may be sent.

    `websocket` is what it may carry once it is a WebSocket; None where its verdict lets it become none.
    """

    flow: http.HTTPFlow
    judged: object
    decision: str
    connection: ClientConnection
    bytes_up: int
    sent: float
    websocket: WebSocketMeasures | None = None
    bytes_down: int = 0
    status: int | None = None

    def meter(self, chunk: bytes) -> bytes | list[bytes]:
        self.bytes_down += len(chunk)
        # An empty chunk would be written as the end of a chunked body, wherever it stands.
        return chunk or []


@dataclass(frozen=True, slots=True)
class WebSocketWatch:
    """What a governed WebSocket asks and tells of its flow (`websocket_layer.Watch`)."""

    outcomes: Outcomes
    opened: OpenFlow
    limits: WebSocketMeasures

    def meter(self, bytes_up: int, bytes_down: int) -> None:
        self.opened.bytes_up += bytes_up
        self.opened.bytes_down += bytes_down

    def refused(self, code: Code) -> str:
        self.outcomes.websocket_refused(self.opened.flow, code)
        return f"{code} {self.opened.decision}"


class Outcomes:
    """The open flows of this process."""

    def __init__(self, lane: Lane, metrics: Metrics) -> None:
        self._lane, self._metrics = lane, metrics
        self._open: dict[str, OpenFlow] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, flow: http.HTTPFlow, judged: object, connection: ClientConnection, decision: str,
              websocket: WebSocketMeasures | None = None) -> None:
        """The flow goes on from here; until `end` its decision is open in the log."""
        bytes_up = len(flow.request.data.content or b"")
        self._open[flow.id] = OpenFlow(flow, judged, decision, connection, bytes_up, monotonic(), websocket)
        connection.open_flows.add(flow.id)

    def waiting(self, connection: ClientConnection) -> list[tuple[http.HTTPFlow, object]]:
        """The flows of this client whose origin is not connected yet, each with what was judged of it."""
        opened = [self._open[flow_id] for flow_id in connection.open_flows]
        return [(each.flow, each.judged) for each in opened if each.flow.server_conn.timestamp_start is None]

    def awaits(self, flow: http.HTTPFlow) -> bool:
        """True while this flow may be answered by its origin."""
        return flow.id in self._open

    def headers(self, flow: http.HTTPFlow) -> None:
        """The origin's answer begins: meter it, and let it pass while it comes unless it is short."""
        opened, response = self._open.get(flow.id), flow.response
        if opened is None or response is None:
            return
        opened.status = response.status_code
        self._metrics.outcome(monotonic() - opened.sent)
        if not _short(response):
            response.stream = opened.meter

    def completed(self, flow: http.HTTPFlow) -> None:
        """The answer has passed to its end."""
        opened = self._close(flow.id)
        if opened is not None:
            if flow.response is not None and flow.response.data.content:
                opened.bytes_down += len(flow.response.data.content)
            self._record(flow.id, opened, "completed")

    def watch(self, flow: http.HTTPFlow) -> WebSocketWatch | None:
        """What the flow's WebSocket asks and tells; None where its verdict lets it become none."""
        opened = self._open.get(flow.id)
        limits = opened.websocket if opened else None
        return WebSocketWatch(self, opened, limits) if opened and limits else None

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
        """Close whatever this client left open."""
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
        return opened

    def _record(self, flow_id: str, opened: OpenFlow, result: str, code: Code | None = None) -> None:
        self._lane.record("outcome", entry.outcome(
            flow_id, opened.decision, result, opened.status, opened.bytes_up, opened.bytes_down, code=code))


def _short(response: http.Response) -> bool:
    length = response.headers.get("content-length", "")
    return length.isascii() and length.isdigit() and len(length) < 8 and int(length) <= _WHOLE_BYTES


