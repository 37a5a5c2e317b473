"""The hooks of an origin's answer: metered while it passes, cut where it must not go on, written down at its end."""

from __future__ import annotations

from time import monotonic

from mitmproxy import http
from mitmproxy.proxy.server import ConnectionHandler

from addons import ending_words, origin_failure, refusal, websocket_handshake
from addons.connections import Clients
from addons.cutting import Ending
from addons.extract import method_of
from addons.faults import Faults, verdict_of
from addons.gate import cut
from addons.header_fields import not_ours
from addons.judge import Judge
from addons.outcomes import OpenFlow, Outcomes
from addons.replies import Replies
from addons.request_bodies import RequestBodies
from kernel.verdict import Action, Code, Verdict


class AnswerHooks:
    """From the head of an answer to the end of its flow."""

    def __init__(self, clients: Clients, judge: Judge, outcomes: Outcomes, bodies: RequestBodies, replies: Replies,
                 faults: Faults) -> None:
        self._clients, self._judge, self._outcomes = clients, judge, outcomes
        self._bodies, self._replies, self._faults = bodies, replies, faults

    def responseheaders(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        # What Governor itself or another addon answers does not come from an origin.
        opened = self._outcomes.opened(flow)
        if flow.response is None or opened is None:
            return
        if flow.response.status_code == 101 and not self._becomes_websocket(flow, flow.response):
            # What follows has no layer, so there is no answer but the end.
            cut(handler, flow.server_conn)
            self._outcomes.refused(flow, Code.UPGRADE_REFUSED)
            flow.kill()
            return
        stopped = self._outcomes.stopped(flow)
        if stopped is not None:
            self._refuse_answer(handler, flow, opened, stopped)
            return
        too_large = self._outcomes.too_large(flow)
        if too_large is not None:
            reason = f"the answer is larger than {too_large.most} bytes"
            verdict = Verdict(Action.DENY, Code.BODY_TOO_LARGE, too_large.by, reason)
            self._refuse_answer(handler, flow, opened, verdict)
            return
        left = tuple((f"x-governor-remaining-{unit}".encode(), str(rest).encode())
                     for unit, rest in opened.judged.left.items())
        flow.response.data.headers.fields = not_ours(flow.response.data.headers.fields) + left
        self._outcomes.headers(flow)

    def refuse_response(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        opened = self._outcomes.opened(flow)
        if opened is not None:
            self._refuse_answer(handler, flow, opened, verdict_of(error))
        self._faults.note(handler, flow, error)

    def _refuse_answer(self, handler: ConnectionHandler, flow: http.HTTPFlow, opened: OpenFlow,
                       verdict: Verdict) -> None:
        """Put a refusal in the place of the origin's answer, of which nothing has passed yet."""
        # What the origin has sent of a body would follow this head, and could be an answer of its own making.
        self._replies.send_now(handler, flow, self._replies.taken_back(handler, flow, opened, verdict),
                       request_is_whole=not opened.streams)

    def _becomes_websocket(self, flow: http.HTTPFlow, response: http.Response) -> bool:
        """True when a WebSocket was asked for, granted and opened, and nothing else was."""
        return self._outcomes.watch(flow) is not None and websocket_handshake.accepts(flow.request, response)

    def response(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        opened, stopped = self._outcomes.opened(flow), self._outcomes.stopped(flow)
        if opened is not None and stopped is not None and flow.response is not None and not flow.response.stream:
            flow.response = self._replies.taken_back(handler, flow, opened, stopped)
        trailers = flow.response.trailers if flow.response else None
        if flow.response is not None and trailers is not None:
            trailers.fields = not_ours(trailers.fields)
            # mitmproxy cannot write them to an HTTP/1 client.
            flow.response.trailers = trailers if handler.client.alpn == b"h2" and trailers.fields else None
        if flow.websocket is None:
            self._outcomes.completed(flow)
        self._rests(handler)

    def refuse_whole(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        """Take back a complete answer; where it has passed already, all that is left is not to end it well."""
        opened = self._outcomes.opened(flow)
        if opened is not None:
            if flow.response is not None and not flow.response.stream:
                flow.response = self._replies.taken_back(handler, flow, opened, verdict_of(error))
            else:
                self._outcomes.refused(flow, verdict_of(error).code)
                if flow.killable:
                    flow.kill()
        self._faults.note(handler, flow, error)

    def websocket_end(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        self._outcomes.websocket_ended(flow)
        self._rests(handler)

    def error(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        self._bodies.forget(flow)
        self._outcomes.failed(flow)
        connection = self._clients.get(handler)
        if connection is not None and flow.id in connection.begun:
            self._judge.record_incomplete(connection, flow)
        self._rests(handler)

    def _rests(self, handler: ConnectionHandler) -> None:
        """Begin to count the time in which nothing goes on."""
        connection = self._clients.get(handler)
        if connection is not None:
            connection.since = monotonic()

    def is_stopped(self, flow: http.HTTPFlow) -> bool:
        """True when a body that passes while it comes must not go on: it is too large, or its hours are over."""
        opened = self._outcomes.opened(flow)
        return opened is not None and opened.streams and self._outcomes.stopped(flow) is not None

    def ending_of(self, flow: http.HTTPFlow) -> Ending | None:
        """How an answer ends that has begun, once something of the flow must not go on; None: it does."""
        opened, verdict = self._outcomes.opened(flow), self._outcomes.stopped(flow)
        if opened is None or verdict is None or flow.response is None:
            return None
        self._outcomes.refused(flow, verdict.code)
        refused = self._replies.told(flow, opened, verdict)
        if ending_words.takes_events(flow.response):
            return Ending(ending_words.sse(refused, self._judge.is_llm_host(flow.request.host)))
        if refusal.speaks_grpc(flow.request):
            return Ending(trailers=ending_words.grpc_trailers(refused).fields)
        return Ending()

    def origin_failed(self, flow: http.HTTPFlow) -> http.Response:
        """The 502 of an allowed request whose origin failed before it answered."""
        why = origin_failure.explain(flow.error.msg if flow.error else "")
        verdict = Verdict(Action.ALLOW, Code.ORIGIN_FAILED, reason=why)
        shown = flow.metadata
        host = flow.request.host
        refused = refusal.Refused(verdict, method_of(flow.request), host, shown.get("governor.agent"), flow.id,
                                  shown.get("governor.entry"), None)
        return refusal.response(refused, flow.request, self._judge.is_llm_host(host))
