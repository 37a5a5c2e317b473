"""The hooks of a request: judged at its headers where that is possible, else whole, and sent as it was judged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from time import monotonic

from mitmproxy import http
from mitmproxy.proxy.server import ConnectionHandler

from addons import backpressure, refusal
from addons.connections import ClientConnection, Clients
from addons.extract import method_of
from addons.faults import Faults, verdict_of
from addons.gate import cut
from addons.header_fields import not_ours
from addons.holds import answerable
from addons.judge import Judge
from addons.judged import Judged, fingerprint
from addons.outcomes import Outcomes, declared_bytes
from addons.replies import Replies
from addons.request_bodies import RequestBodies
from kernel.verdict import Code

# A body of this size is read before it is refused.
_SMALL_BODY_BYTES = 64 * 1024
_BODILESS = (b"GET", b"HEAD")


class RequestHooks:
    """From the headers of a request to its way out."""

    def __init__(self, clients: Clients, judge: Judge, outcomes: Outcomes, bodies: RequestBodies, replies: Replies,
                 faults: Faults) -> None:
        self._clients, self._judge, self._outcomes = clients, judge, outcomes
        self._bodies, self._replies, self._faults = bodies, replies, faults

    def requestheaders(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> Awaitable[None] | None:
        # A streamed request leaves before its verdict.
        flow.request.stream = False
        connection = self._clients.get(handler)
        if connection is None:
            return None
        connection.begun[flow.id] = flow
        connection.head_since, connection.since, connection.entered = None, monotonic(), True
        if flow.error is not None or not _is_worth_judging_early(flow.request):
            return None
        return self._judge_headers(handler, connection, flow)

    async def _judge_headers(self, handler: ConnectionHandler, connection: ClientConnection,
                             flow: http.HTTPFlow) -> None:
        declared = declared_bytes(flow.request)
        _make_sendable(flow.request, 0)
        with backpressure.held(handler):
            judged = await self._judge.headers(handler, connection, flow, declared)
        if judged is None:
            return
        connection.forget(flow)
        connection.requests += 1
        if judged.lets_through:
            opened = self._outcomes.begin(flow, _invited(judged, flow.request), connection, 0, streams=True)
            flow.request.stream = opened.upload
            # Until its connection stands, what comes of the body would pile up.
            backpressure.hold(handler)
        else:
            self._replies.send_now(handler, flow, self._replies.refusal_of(judged, flow))
        self._replies.show(flow, judged)

    async def request(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        connection, opened = self._clients.get(handler), self._outcomes.opened(flow)
        if opened is not None and opened.streams:
            self._streamed(handler, flow)
            return
        if connection is None:
            judged = await self._judge.replay(flow)
        else:
            connection.forget(flow)
            connection.requests += 1
            _make_sendable(flow.request, self._bodies.size(flow))
            judged = await self._judge.request(handler, connection, flow)
        if connection is None or not judged.lets_through:
            flow.response = self._replies.refusal_of(judged, flow)
        else:
            self._outcomes.begin(flow, judged, connection, self._bodies.size(flow))
            flow.response = self._judge.own_answer(judged, flow.request.headers.get("accept", "")) or flow.response
            if flow.response is not None:
                self._outcomes.not_sent(flow)
        self._replies.show(flow, judged)

    def _streamed(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        """The body of a request that was judged by its headers has passed to its end."""
        if flow.request.trailers:
            cut(handler, flow.server_conn)
            flow.request.trailers = None
            self._outcomes.refused(flow, Code.TRAILERS)

    def stream_started(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        backpressure.release(handler)

    async def body_refused(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        connection, opened = self._clients.known(handler), self._outcomes.opened(flow)
        stopped = self._outcomes.stopped(flow)
        if opened is not None and stopped is not None:
            # The rest of a body that has begun to pass.
            self._outcomes.refused(flow, stopped.code)
            refused = self._replies.told(flow, opened, stopped)
            self._replies.send_now(handler, flow, refusal.response(refused, flow.request))
            return
        incoming = self._bodies.of(flow)
        assert incoming is not None
        if incoming.fault is not None:
            raise incoming.fault
        connection.forget(flow)
        connection.requests += 1
        with backpressure.held(handler):
            judged = await self._judge.body_refused(connection, flow, incoming)
        self._replies.send_now(handler, flow, self._replies.refusal_of(judged, flow))
        self._replies.show(flow, judged)

    async def body_sent(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        transport = handler.transports.get(flow.server_conn)
        if transport is not None and isinstance(transport.writer, asyncio.StreamWriter):
            await transport.writer.drain()

    def refuse_flow(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        """Answer a fault with a refusal: this must not fail."""
        verdict = verdict_of(error)
        flow.response = refusal.response(
            refusal.Refused(verdict, method_of(flow.request), "", None, flow.id, None, None), flow.request)
        flow.request.stream = False
        answerable(flow)
        connection = self._clients.get(handler)
        if connection is not None:
            connection.forget(flow)
        self._faults.note(handler, flow, error)

    def refuse_early(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        """Answer a fault before the end of the request: this must not fail either."""
        self.refuse_flow(handler, flow, error)
        assert flow.response is not None
        self._replies.send_now(handler, flow, flow.response)

    def refuse_started(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        backpressure.release(handler)
        self.refuse_sending(handler, flow, error)

    def refuse_sending(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        """End a request that has begun to leave."""
        cut(handler, flow.server_conn)
        self._faults.note(handler, flow, error)


def _is_worth_judging_early(request: http.Request) -> bool:
    """True when a body may follow that is long, of unknown length, or only sent when it is invited.

    A short one is read first: the form of a refusal can depend on it. What asks for another protocol is judged whole,
    because mitmproxy takes some of these wishes out on the way.
    """
    present = {name.lower() for name, _ in request.data.headers.fields}
    if b"upgrade" in present:
        return False
    if b"content-length" in present:
        length = request.headers["content-length"]
        return length != "0" and (b"expect" in present or not length.isdecimal() or int(length) > _SMALL_BODY_BYTES)
    return b"transfer-encoding" in present or (request.is_http2 and request.data.method not in _BODILESS)


def _invited(judged: Judged, request: http.Request) -> Judged:
    """The verdict on a body that mitmproxy invites from here on; it takes that wish out of what it sends."""
    if request.headers.get("expect", "").lower() != "100-continue":
        return judged
    sent = request.copy()
    del sent.headers["expect"]
    return replace(judged, sent=fingerprint(sent))


def _make_sendable(request: http.Request, body_bytes: int) -> None:
    """Take out what is Governor's own, and frame the body."""
    data = request.data
    data.headers.fields = not_ours(data.headers.fields)
    # Without a length an HTTP/2 body reaches an HTTP/1 origin unframed, and a second request can hide in it.
    if body_bytes and "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        request.headers["content-length"] = str(body_bytes)
