"""What Governor does at each of mitmproxy's hooks. The gate calls these; a fault leads to the hook's `refuse`."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from time import monotonic
from typing import Any
from weakref import WeakSet

from mitmproxy import http, tls
from mitmproxy.connection import Client, Server
from mitmproxy.proxy import commands, events, layer, layers, server_hooks
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.mode_specs import Socks5Mode
from mitmproxy.proxy.server import ConnectionHandler

from addons import (
    backpressure,
    ending_words,
    first_bytes,
    gate,
    origin_failure,
    refusal,
    resolver,
    socks5,
    websocket_handshake,
)
from addons.admission import Admission, Stall
from addons.connections import ClientConnection
from addons.cutting import Ending
from addons.errors import AuditUnavailable
from addons.extract import method_of
from addons.gate import Guard, Refuse, client_left, cut
from addons.heads import Unreadable
from addons.holds import EndedWhileHeld, answerable
from addons.judge import Judge, Judged, fingerprint
from addons.lane import Lane
from addons.metrics import Metrics, Side
from addons.outcomes import OpenFlow, Outcomes, declared_bytes
from addons.rejections import Refuser, Rejections, product
from addons.request_bodies import RequestBodies
from addons.sweeps import LINGER_SECONDS, Overdue, overdue
from kernel import entry
from kernel.verdict import Action, Code, Verdict

type Fields = tuple[tuple[bytes, bytes], ...]

logger = logging.getLogger(__name__)

_OURS = b"x-governor-"
_CREDENTIALS = b"proxy-authorization"
_MARKS = {Action.ALLOW: ":white_check_mark:", Action.DENY: ":red_circle:", Action.THROTTLE: ":hourglass:",
          Action.ASK: ":question:", Action.HALT: ":black_circle:"}
_GOVERNED_LAYERS = (layers.HttpLayer, layers.ClientTLSLayer, layers.ServerTLSLayer, modes.HttpProxy)
_HTTP_1 = b"http/1.1"
# A body of this size is read before it is refused.
_SMALL_BODY_BYTES = 64 * 1024
# How long a client may go on sending a body that was refused, before its connection ends.
_LINGER_SECONDS = 5.0
_BODILESS = (b"GET", b"HEAD")
_REFUSED = "governor refused this connection"


class Hooks:
    """The hooks of one process."""

    def __init__(self, judge: Judge, outcomes: Outcomes, lane: Lane, metrics: Metrics, bodies: RequestBodies,
                 admission: Admission) -> None:
        self._judge, self._outcomes, self._lane, self._metrics = judge, outcomes, lane, metrics
        self._bodies, self._admission, self._rejections = bodies, admission, Rejections()
        # Flows whose refusal does not wait for the end of the request.
        self._early: WeakSet[http.HTTPFlow] = WeakSet()
        self._connections: dict[ConnectionHandler, ClientConnection] = {}
        # The same for mitmproxy's layers, which know their client and no handler.
        self._by_client: dict[str, ClientConnection] = {}
        # Client addresses whose last handshake failed: they cannot be shown a refusal inside a tunnel.
        self._distrusting: dict[str, None] = {}

    def guards(self) -> Mapping[str, Guard]:
        """Every hook by its name. What is not named here cannot let anything out."""
        observed = self._fault
        return {
            **{name: Guard(observed) for name in _HARMLESS},
            "client_connected": Guard(self._refuse_client, after=self._client_connected),
            "client_disconnected": Guard(self._despite(self._client_disconnected), before=_wake_holds,
                                         after=self._client_disconnected),
            "http_connected": Guard(self._refuse_tunnel),
            "socks5_auth": Guard(self._refuse_socks5_auth, before=self._take_socks5_credentials,
                                 after=self._socks5_auth),
            "socks5_connect": Guard(self._refuse_socks5_connect, after=self._socks5_connect),
            "http_connect": Guard(self._refuse_flow, before=self._take_credentials, after=self._http_connect),
            "requestheaders": Guard(self._refuse_early, before=self._take_credentials, after=self._requestheaders),
            "governor_unreadable": Guard(self._refuse_unreadable, after=self._unreadable),
            "governor_body_refused": Guard(self._refuse_early, after=self._body_refused),
            "governor_body_sent": Guard(self._refuse_sending, after=self._body_sent, patient=True),
            "governor_stream_started": Guard(self._refuse_started, after=self._stream_started),
            "request": Guard(self._refuse_flow, after=self._request),
            "responseheaders": Guard(self._refuse_response, after=self._responseheaders),
            "response": Guard(self._refuse_whole, after=self._response),
            "error": Guard(self._despite(self._error), after=self._error),
            "next_layer": Guard(self._refuse_layer, after=self._next_layer),
            "tls_clienthello": Guard(self._refuse_hello, after=self._tls_clienthello),
            "tls_start_client": Guard(self._refuse_tunnel),
            "tls_start_server": Guard(self._refuse_tls, before=self._tls_start_server),
            "tls_established_server": Guard(self._refuse_tls, after=self._tls_established_server),
            "tls_established_client": Guard(self._refuse_tunnel, after=self._tls_established_client),
            "tls_failed_client": Guard(observed, after=self._tls_failed_client),
            "tls_failed_server": Guard(observed, after=self._tls_failed_server),
            "server_connect": Guard(self._refuse_server, after=self._server_connect),
            "server_connected": Guard(self._refuse_connected, after=self._server_connected),
            "dns_request": Guard(self._refuse_dns, before=self._dns_request),
            # What they may carry is the layer's to judge (websocket_layer.py).
            "websocket_start": Guard(self._close),
            "websocket_message": Guard(self._close),
            "websocket_end": Guard(observed, after=self._websocket_end),
            **{name: Guard(self._close, before=self._ungoverned) for name in _UNGOVERNED},
        }

    def _client_connected(self, handler: ConnectionHandler, client: Client) -> Awaitable[None] | None:
        peer = str(client.peername[0])
        stall = self._admission.enter(peer)
        if stall is None or stall.admitted:
            connection = ClientConnection(
                peer, socks=isinstance(client.proxy_mode, Socks5Mode), handshake_failed=peer in self._distrusting)
            self._connections[handler] = self._by_client[client.id] = connection
        return None if stall is None else self._stall(handler, client, stall)

    async def _stall(self, handler: ConnectionHandler, client: Client, stall: Stall) -> None:
        """Let a new connection wait, unread, so that who opens one after the other slows down."""
        try:
            with backpressure.held(handler):
                await asyncio.sleep(stall.seconds)
        finally:
            if not stall.admitted:
                client.error = _REFUSED
                self._admission.turned_away()
        connection = self._connections.get(handler)
        if connection is not None:
            connection.since = monotonic()

    def _client_disconnected(self, handler: ConnectionHandler, client: Client) -> None:
        connection = self._connections.pop(handler, None)
        if connection is None:
            return
        self._by_client.pop(client.id, None)
        self._admission.leave(connection.peer)
        self._outcomes.client_gone(connection)
        for flow in tuple(connection.begun.values()):
            self._incomplete(connection, flow)
        refused = socks5.refused(handler.layer)
        if refused is not None:
            connection.end("refused", refused)
        elif connection.requests == 0:
            connection.end("no_request")
        if connection.ending and not connection.recorded and not self._lane.stopped:
            self._judge.record_connection(connection, *connection.ending)

    def sweep(self) -> None:
        """End the connections that have had their time."""
        now = monotonic()
        for handler, connection in tuple(self._connections.items()):
            match overdue(connection, self._bodies, now):
                case Overdue.OVER:
                    _close_client(handler)
                case Overdue.TIMED_OUT:
                    if not connection.begun:
                        connection.end("timed_out")
                    gate.end(handler)

    def hints(self) -> list[str]:
        """What an operator should know of the clients."""
        return self._rejections.hints()

    def head_begun(self, client: Client) -> None:
        """A part of a request's head has come, and not its end."""
        connection = self._by_client.get(client.id)
        if connection is not None and connection.head_since is None:
            connection.head_since = monotonic()

    def head_abandoned(self, client: Client) -> None:
        """A client has left in the midst of a head."""
        connection = self._by_client.get(client.id)
        if connection is not None:
            connection.end("incomplete_request")

    def protocol_broken(self, client: Client) -> None:
        """An HTTP/2 connection ends by an error of its protocol."""
        connection = self._by_client.get(client.id)
        if connection is not None:
            connection.end("protocol_error", Code.MALFORMED)

    async def _unreadable(self, handler: ConnectionHandler, request: Unreadable) -> None:
        connection, flow = self._connections[handler], request.flow
        connection.head_since, connection.close_at = None, monotonic() + LINGER_SECONDS
        with backpressure.held(handler):
            if flow is None:
                request.response = refusal.response(await self._judge.no_request(connection, request.reason))
            else:
                connection.requests += 1
                _forget_begun(connection, flow)
                judged = await self._judge.unreadable(connection, flow, request.reason)
                request.response = refusal.response(self._judge.refused(judged, flow), flow.request)
                self._show(flow, judged)
        if flow is not None and flow.request.is_http2 and handler.client.alpn == b"h2":
            connection.close_at = None
        else:
            request.response.headers["connection"] = "close"

    def _refuse_unreadable(self, handler: ConnectionHandler, request: Unreadable, error: BaseException) -> None:
        refused = refusal.Refused(self._verdict_of(error), "", "", None, None, None, None)
        request.response = refusal.response(refused)
        request.response.headers["connection"] = "close"
        self._fault(handler, request, error)

    def _incomplete(self, connection: ClientConnection, flow: http.HTTPFlow) -> None:
        """Write down a request that ended before it could be judged."""
        _forget_begun(connection, flow)
        connection.requests += 1
        if not self._lane.stopped:
            self._judge.record_incomplete(connection, flow)

    def _take_credentials(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        # Before any other addon: mitmweb, a save and the origin must never see a token.
        fields = flow.request.data.headers.fields
        taken = [value for name, value in fields if name.lower() == _CREDENTIALS]
        if taken:
            flow.request.data.headers.fields = tuple(pair for pair in fields if pair[0].lower() != _CREDENTIALS)
        connection = self._connections.get(handler)
        if connection is not None and connection.tunnel is None:
            connection.credentials = [value.decode("latin-1") for value in taken]

    def _take_socks5_credentials(self, handler: ConnectionHandler, said: modes.Socks5AuthData) -> None:
        # Without a password nobody has said who it is: some clients always offer the name of the user they run as.
        login = b64encode(f"{said.username}:{said.password}".encode()).decode() if said.password else None
        said.username = said.password = ""
        said.valid = False
        self._connections[handler].credentials = [f"Basic {login}"] if login else []

    async def _socks5_auth(self, handler: ConnectionHandler, said: modes.Socks5AuthData) -> None:
        connection = self._connections[handler]
        judged = await self._judge.credentials(connection, socks5.connect_flow(handler.client))
        said.valid = judged.verdict.lets_through
        if not said.valid:
            connection.requests += 1

    async def _socks5_connect(self, handler: ConnectionHandler, wanted: socks5.Wanted) -> None:
        connection = self._connections[handler]
        connection.requests += 1
        judged = await self._judge.connect(connection, wanted.flow)
        if not judged.verdict.lets_through or judged.host is None or judged.port is None:
            wanted.reply = socks5.Reply.NOT_ALLOWED
            return
        wanted.flow.request.data.host = judged.host.name
        connection.tunnel = (judged.host, judged.port)
        wanted.reply = socks5.Reply.SUCCEEDED

    async def _http_connect(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        connection = self._connections[handler]
        connection.requests += 1
        connection.head_since, connection.since = None, monotonic()
        judged = await self._judge.connect(connection, flow)
        self._show(flow, judged)
        connection.agent = judged.agent.id if judged.agent else None
        connection.client = product(flow.request.headers.get("user-agent", ""))
        connection.since = monotonic()
        if not judged.verdict.lets_through or judged.host is None or judged.port is None:
            flow.response = refusal.response(self._judge.refused(judged, flow), flow.request)
            return
        # mitmproxy makes this the address of everything in the tunnel.
        flow.request.data.host = judged.host.name
        flow.response = None
        connection.tunnel = (judged.host, judged.port)

    def is_early(self, flow: http.HTTPFlow) -> bool:
        """True when the flow's response goes out at once, whatever is still to come of the request."""
        return flow in self._early

    def _requestheaders(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> Awaitable[None] | None:
        # A streamed request leaves before its verdict.
        flow.request.stream = False
        connection = self._connections.get(handler)
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
        _forget_begun(connection, flow)
        connection.requests += 1
        if judged.verdict.lets_through:
            opened = self._outcomes.begin(flow, judged, connection, 0, streams=True)
            flow.request.stream = opened.upload
            # Until its connection stands, what comes of the body would pile up.
            backpressure.hold(handler)
        else:
            self._answer_early(handler, flow, judged)
        self._show(flow, judged)

    def _stream_started(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        backpressure.release(handler)

    async def _body_refused(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        connection, opened = self._connections[handler], self._outcomes.opened(flow)
        if opened is not None and opened.passed is not None:
            # The rest of a body that has begun to pass.
            self._outcomes.refused(flow, Code.BODY_TOO_LARGE)
            refused = self._cut_short(flow, opened, f"its body is larger than {opened.passed.most} bytes")
            self._send_now(handler, flow, refusal.response(refused, flow.request))
            return
        incoming = self._bodies.of(flow)
        assert incoming is not None
        if incoming.fault is not None:
            raise incoming.fault
        _forget_begun(connection, flow)
        connection.requests += 1
        judged = await self._judge.body_refused(connection, flow, incoming)
        self._answer_early(handler, flow, judged)
        self._show(flow, judged)

    async def _body_sent(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        transport = handler.transports.get(flow.server_conn)
        if transport is not None and isinstance(transport.writer, asyncio.StreamWriter):
            await transport.writer.drain()

    def _answer_early(self, handler: ConnectionHandler, flow: http.HTTPFlow, judged: Judged) -> None:
        self._send_now(handler, flow, refusal.response(
            self._judge.refused(judged, flow), flow.request, self._judge.is_llm_host(judged.target)))

    def _send_now(self, handler: ConnectionHandler, flow: http.HTTPFlow, response: http.Response, *,
                  request_is_whole: bool = False) -> None:
        """Have this answer sent at once, whatever is still to come of the request or from the origin."""
        flow.response = response
        self._early.add(flow)
        if not request_is_whole and not flow.request.is_http2:
            response.headers["connection"] = "close"
            # Closed at once, the answer could be lost with what the client is still sending.
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, _close_client, handler)

    async def _request(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        connection, opened = self._connections.get(handler), self._outcomes.opened(flow)
        if opened is not None and opened.streams:
            self._streamed(handler, flow)
            return
        if connection is None:
            judged = await self._judge.replay(flow)
        else:
            _forget_begun(connection, flow)
            connection.requests += 1
            _make_sendable(flow.request, self._bodies.size(flow))
            judged = await self._judge.request(handler, connection, flow)
        if connection is None or not judged.verdict.lets_through:
            flow.response = refusal.response(
                self._judge.refused(judged, flow), flow.request, self._judge.is_llm_host(judged.target))
        else:
            self._outcomes.begin(flow, judged, connection, self._bodies.size(flow))
            flow.response = self._judge.own_answer(judged, flow.request.headers.get("accept", "")) or flow.response
            if flow.response is not None:
                self._outcomes.not_sent(flow)
        self._show(flow, judged)

    def _streamed(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        """The body of a request that was judged by its headers has passed to its end."""
        if flow.request.trailers:
            cut(handler, flow.server_conn)
            flow.request.trailers = None
            self._outcomes.refused(flow, Code.TRAILERS)

    def _show(self, flow: http.HTTPFlow, judged: Judged) -> None:
        """Say the verdict where mitmweb shows it."""
        verdict = judged.verdict
        where = "-" if judged.number is None else f"{self._lane.name}/{judged.number}"
        flow.marked = _MARKS[verdict.action]
        flow.comment = f"{verdict.action} {verdict.rule or '-'} {verdict.code} {where}"
        flow.metadata.update({
            "governor.verdict": str(verdict.action), "governor.rule": verdict.rule, "governor.code": str(verdict.code),
            "governor.entry": where, "governor.agent": judged.agent.id if judged.agent else None})

    def _responseheaders(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
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
        too_large = self._outcomes.too_large(flow)
        if too_large is not None:
            reason = f"the answer is larger than {too_large.most} bytes"
            verdict = Verdict(Action.DENY, Code.BODY_TOO_LARGE, too_large.by, reason)
            self._refuse_answer(handler, flow, opened, verdict)
            return
        flow.response.data.headers.fields = _not_ours(flow.response.data.headers.fields)
        self._outcomes.headers(flow)

    def _becomes_websocket(self, flow: http.HTTPFlow, response: http.Response) -> bool:
        """True when a WebSocket was asked for, granted and opened, and nothing else was."""
        return self._outcomes.watch(flow) is not None and websocket_handshake.accepts(flow.request, response)

    def is_too_large(self, flow: http.HTTPFlow) -> bool:
        """True when a body that passes while it comes has gone over its cap."""
        opened = self._outcomes.opened(flow)
        return opened is not None and opened.streams and opened.passed is not None

    def ending_of(self, flow: http.HTTPFlow) -> Ending | None:
        """How the answer ends that has gone over its cap; None where it goes on."""
        opened = self._outcomes.opened(flow)
        if opened is None or opened.passed is None or flow.response is None:
            return None
        self._outcomes.refused(flow, Code.BODY_TOO_LARGE)
        refused = self._cut_short(flow, opened, f"the answer is larger than {opened.passed.most} bytes")
        if ending_words.takes_events(flow.response):
            return Ending(ending_words.sse(refused, self._judge.is_llm_host(flow.request.host)))
        if refusal.speaks_grpc(flow.request):
            return Ending(trailers=ending_words.grpc_trailers(refused).fields)
        return Ending()

    def _cut_short(self, flow: http.HTTPFlow, opened: OpenFlow, why: str) -> refusal.Refused:
        """What is told of a flow that was let through and went over its cap."""
        cap = opened.passed
        return self._told(flow, opened, Verdict(Action.DENY, Code.BODY_TOO_LARGE, cap.by if cap else None, why))

    def _told(self, flow: http.HTTPFlow, opened: OpenFlow, verdict: Verdict) -> refusal.Refused:
        """What is told of a flow that was let through and does not go on."""
        return refusal.Refused(verdict, method_of(flow.request), flow.request.host, opened.agent, flow.id,
                               opened.decision, self._judge.contact)

    def _refuse_answer(self, handler: ConnectionHandler, flow: http.HTTPFlow, opened: OpenFlow,
                       verdict: Verdict) -> None:
        """Put a refusal in the place of the origin's answer, of which nothing has passed yet."""
        # What the origin has sent of a body would follow this head, and could be an answer of its own making.
        self._send_now(handler, flow, self._taken_back(handler, flow, opened, verdict),
                       request_is_whole=not opened.streams)

    def _taken_back(self, handler: ConnectionHandler, flow: http.HTTPFlow, opened: OpenFlow,
                    verdict: Verdict) -> http.Response:
        """The refusal of a flow that was let through, which ends here."""
        cut(handler, flow.server_conn)
        self._outcomes.refused(flow, verdict.code)
        answerable(flow)
        return refusal.response(
            self._told(flow, opened, verdict), flow.request, self._judge.is_llm_host(flow.request.host))

    def _response(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        trailers = flow.response.trailers if flow.response else None
        if flow.response is not None and trailers is not None:
            trailers.fields = _not_ours(trailers.fields)
            # mitmproxy cannot write them to an HTTP/1 client.
            flow.response.trailers = trailers if handler.client.alpn == b"h2" and trailers.fields else None
        if flow.websocket is None:
            self._outcomes.completed(flow)
        self._rests(handler)

    def _websocket_end(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        self._outcomes.websocket_ended(flow)
        self._rests(handler)

    def _error(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        self._bodies.forget(flow)
        self._outcomes.failed(flow)
        connection = self._connections.get(handler)
        if connection is not None and flow.id in connection.begun:
            self._incomplete(connection, flow)
        self._rests(handler)

    def _rests(self, handler: ConnectionHandler) -> None:
        """Begin to count the time in which nothing goes on."""
        connection = self._connections.get(handler)
        if connection is not None:
            connection.since = monotonic()

    def origin_failed(self, flow: http.HTTPFlow) -> http.Response:
        """The 502 of an allowed request whose origin failed before it answered."""
        why = origin_failure.explain(flow.error.msg if flow.error else "")
        verdict = Verdict(Action.ALLOW, Code.ORIGIN_FAILED, reason=why)
        shown = flow.metadata
        host = flow.request.host
        refused = refusal.Refused(verdict, method_of(flow.request), host, shown.get("governor.agent"), flow.id,
                                  shown.get("governor.entry"), None)
        return refusal.response(refused, flow.request, self._judge.is_llm_host(host))

    def _next_layer(self, handler: ConnectionHandler, chosen: layer.NextLayer) -> None:
        if chosen.layer is not None and not isinstance(chosen.layer, _GOVERNED_LAYERS):
            raise _Ungoverned(type(chosen.layer).__name__)
        connection = self._connections.get(handler)
        if connection is None:
            return
        if connection.socks and connection.tunnel is None:
            raise _Ungoverned("a SOCKS5 tunnel without a verdict")
        self._look(connection, chosen)

    def _look(self, connection: ClientConnection, chosen: layer.NextLayer) -> None:
        """Wait for more where too little has come to tell what it is; refuse what a tunnel is not for."""
        connection.entered = connection.tunnel is not None
        if isinstance(chosen.layer, (layers.ClientTLSLayer, layers.ServerTLSLayer)):
            connection.handshake_since = monotonic()
        if not isinstance(chosen.layer, layers.HttpLayer):
            return
        spoken = first_bytes.spoken(chosen.data_client())
        if spoken is first_bytes.Speaks.UNDECIDED:
            chosen.context.layers.remove(chosen.layer)
            chosen.layer = None
        elif spoken is not first_bytes.Speaks.HTTP and connection.tunnel is not None:
            # On the proxy's own port the client is told what it should speak.
            raise _Ungoverned("a protocol that is neither TLS nor HTTP")

    def _tls_clienthello(self, handler: ConnectionHandler, hello: tls.ClientHelloData) -> None:
        hello.ignore_connection = False

    def _tls_start_server(self, handler: ConnectionHandler, start: tls.TlsData) -> None:
        # Speak to the origin what the client speaks to us: a translation loses header case and the reason phrase.
        negotiated = handler.client.alpn
        start.conn.alpn_offers = list(dict.fromkeys((negotiated or _HTTP_1, _HTTP_1)))
        # Not in the client's spelling: the origin is asked for the name that was judged.
        if isinstance(start.conn, Server) and start.conn.address is not None:
            start.conn.sni = start.conn.address[0]

    def _tls_established_client(self, handler: ConnectionHandler, established: tls.TlsData) -> None:
        connection = self._connections.get(handler)
        if connection is not None:
            connection.handshake_failed, connection.handshake_since = False, None
            connection.since = monotonic()
            self._distrusting.pop(connection.peer, None)
            self._rejections.forget(Refuser(connection.peer, connection.agent, connection.client))

    def _tls_failed_client(self, handler: ConnectionHandler, failed: tls.TlsData) -> None:
        self._metrics.tls_failure(Side.CLIENT)
        connection = self._connections.get(handler)
        if connection is not None:
            connection.handshake_failed, connection.handshake_since = True, None
            connection.end("handshake_failed")
            if any(sign in (failed.conn.error or "") for sign in _REJECTING):
                self._rejections.note(Refuser(connection.peer, connection.agent, connection.client), monotonic())
            if len(self._distrusting) < _REMEMBERED_PEERS:
                self._distrusting[connection.peer] = None

    def _tls_failed_server(self, handler: ConnectionHandler, failed: tls.TlsData) -> None:
        self._metrics.tls_failure(Side.ORIGIN)

    def _server_connect(self, handler: ConnectionHandler, data: server_hooks.ServerConnectionHookData) -> None:
        connection, address = self._connections.get(handler), data.server.address
        if connection is None or address is None or data.server.transport_protocol != "tcp" or data.server.via:
            raise _Ungoverned("server_connect")
        addresses = connection.judged(address[0], address[1], monotonic())
        if addresses is None:
            raise _Ungoverned("server_connect without a verdict")
        resolver.pin(address[0], addresses)

    def _server_connected(self, handler: ConnectionHandler, data: server_hooks.ServerConnectionHookData) -> None:
        connection, address, peer = self._connections.get(handler), data.server.address, data.server.peername
        if (connection is None or address is None or not peer
                or not connection.may_end_at(address[0], address[1], ip_address(peer[0].partition("%")[0]))):
            raise _Ungoverned("connected to an address that was not judged")
        self._refuse_edited(connection)

    def _tls_established_server(self, handler: ConnectionHandler, established: tls.TlsData) -> None:
        connection = self._connections.get(handler)
        if connection is None:
            raise _Ungoverned("tls_established_server")
        self._refuse_edited(connection)

    def _refuse_edited(self, connection: ClientConnection) -> None:
        """Raise when a request that waited for its origin is no longer the one that was judged."""
        if any(fingerprint(flow.request) != judged for flow, judged in self._outcomes.waiting(connection)):
            raise _Edited

    def _dns_request(self, handler: ConnectionHandler, flow: Any) -> None:
        raise _Ungoverned("dns_request")

    def _ungoverned(self, handler: ConnectionHandler, data: Any) -> None:
        raise _Ungoverned("a protocol that is not governed")

    def _refuse_flow(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        """Answer a fault with a refusal: this must not fail."""
        verdict = self._verdict_of(error)
        flow.response = refusal.response(
            refusal.Refused(verdict, method_of(flow.request), "", None, flow.id, None, None), flow.request)
        flow.request.stream = False
        answerable(flow)
        connection = self._connections.get(handler)
        if connection is not None:
            _forget_begun(connection, flow)
        self._fault(handler, flow, error)

    def _refuse_early(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        """Answer a fault before the end of the request: this must not fail either."""
        self._refuse_flow(handler, flow, error)
        assert flow.response is not None
        self._send_now(handler, flow, flow.response)

    def _refuse_started(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        backpressure.release(handler)
        self._refuse_sending(handler, flow, error)

    def _refuse_sending(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        """End a request that has begun to leave."""
        cut(handler, flow.server_conn)
        self._fault(handler, flow, error)

    def _verdict_of(self, error: BaseException) -> Verdict:
        if isinstance(error, AuditUnavailable):
            return Verdict(Action.DENY, Code.AUDIT_UNAVAILABLE, reason="the audit log cannot be written")
        if isinstance(error, TimeoutError):
            return Verdict(Action.DENY, Code.DEADLINE, reason="the verdict took too long")
        if isinstance(error, EndedWhileHeld):
            return Verdict(Action.DENY, Code.EDITED, reason="the request was ended while it was held")
        return Verdict(Action.DENY, Code.FAULT, reason="an internal fault")

    def _refuse_response(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        opened = self._outcomes.opened(flow)
        if opened is not None:
            self._refuse_answer(handler, flow, opened, self._verdict_of(error))
        self._fault(handler, flow, error)

    def _refuse_whole(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        """Take back a complete answer; where it has passed already, all that is left is not to end it well."""
        opened = self._outcomes.opened(flow)
        if opened is not None:
            if flow.response is not None and not flow.response.stream:
                flow.response = self._taken_back(handler, flow, opened, self._verdict_of(error))
            else:
                self._outcomes.refused(flow, self._verdict_of(error).code)
                if flow.killable:
                    flow.kill()
        self._fault(handler, flow, error)

    def _despite(self, act: Callable[[ConnectionHandler, Any], None]) -> Refuse:
        """Where there is nothing to refuse: count the fault, and do what is done without one."""
        def refuse(handler: ConnectionHandler, data: Any, error: BaseException) -> None:
            self._fault(handler, data, error)
            act(handler, data)

        return refuse

    def crashed(self, handler: ConnectionHandler, error: BaseException) -> None:
        """A layer of mitmproxy's has crashed, and its connections are closed."""
        self._fault(handler, handler.layer, error)

    def _refuse_client(self, handler: ConnectionHandler, client: Client, error: BaseException) -> None:
        client.error = _REFUSED
        self._fault(handler, client, error)

    def _refuse_socks5_auth(self, handler: ConnectionHandler, said: modes.Socks5AuthData, error: BaseException) -> None:
        said.valid = False
        said.username = said.password = ""
        self._fault(handler, said, error)

    def _refuse_socks5_connect(self, handler: ConnectionHandler, wanted: socks5.Wanted, error: BaseException) -> None:
        wanted.reply = socks5.Reply.GENERAL_FAILURE
        self._fault(handler, wanted, error)

    def _refuse_layer(self, handler: ConnectionHandler, chosen: layer.NextLayer, error: BaseException) -> None:
        chosen.layer = _Closing(chosen.context)
        connection = self._connections.get(handler)
        if connection is not None and isinstance(error, _Ungoverned):
            connection.end("refused", Code.PROTOCOL_REFUSED)
        else:
            self._fault(handler, chosen, error)

    def _refuse_hello(self, handler: ConnectionHandler, hello: tls.ClientHelloData, error: BaseException) -> None:
        hello.ignore_connection = False
        self._refuse_tunnel(handler, hello, error)

    def _refuse_tunnel(self, handler: ConnectionHandler, data: Any, error: BaseException) -> None:
        """Within a handshake nobody can be answered."""
        cut(handler, handler.client)
        self._fault(handler, data, error)

    def _refuse_server(self, handler: ConnectionHandler, data: server_hooks.ServerConnectionHookData,
                       error: BaseException) -> None:
        data.server.error = _REFUSED
        self._fault(handler, data, error)

    def _refuse_connected(self, handler: ConnectionHandler, data: server_hooks.ServerConnectionHookData,
                          error: BaseException) -> None:
        cut(handler, data.server)
        self._fault(handler, data, error)

    def _refuse_tls(self, handler: ConnectionHandler, established: tls.TlsData, error: BaseException) -> None:
        cut(handler, established.conn)
        self._fault(handler, established, error)

    def _refuse_dns(self, handler: ConnectionHandler, flow: Any, error: BaseException) -> None:
        flow.response = flow.request.fail(5)
        self._fault(handler, flow, error)

    def _close(self, handler: ConnectionHandler, data: Any, error: BaseException) -> None:
        # A message of such a protocol is sent on whatever its hook says, unless there is no connection left.
        for end in tuple(handler.transports):
            cut(handler, end)
        self._fault(handler, data, error)

    def _fault(self, handler: ConnectionHandler, data: Any, error: BaseException) -> None:
        """Count a fault and write it down. The log gets the class only: messages may quote what an agent sent."""
        where = type(data).__name__
        # That an operator ends a flow, or a client leaves, is nobody's fault; the log has no other place for it.
        if not isinstance(error, EndedWhileHeld):
            self._metrics.fault(where)
        if isinstance(error, AuditUnavailable) or self._lane.stopped:
            return
        logger.error("governor: %s in %s: refused", type(error).__name__, where)
        try:
            self._lane.record("fault", entry.fault(where, type(error).__name__, self._verdict_of(error).code,
                                                   data.id if isinstance(data, http.HTTPFlow) else None))
        except AuditUnavailable:
            return


class _Ungoverned(Exception):
    """Something reached a hook that only ungoverned traffic reaches."""


class _Edited(Exception):
    """A request was changed between its verdict and its way out."""


class _Closing(layer.Layer):
    """Takes the place of a layer that would pass bytes without a verdict."""

    def _handle_event(self, event: Any) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)


_REMEMBERED_PEERS = 10_000
# How mitmproxy says that a client has seen our certificate and gone.
_REJECTING = ("unknown ca", "bad certificate", "certificate unknown")
_UNGOVERNED = ("tcp_start", "tcp_message", "udp_start", "udp_message", "quic_start_client", "quic_start_server")


# What these hooks tell of is over, or is asked about again at another one.
_HARMLESS = ("dns_error", "dns_response", "http_connect_error", "http_connect_upstream", "server_connect_error",
             "server_disconnected", "socks5_auth", "tcp_end", "tcp_error", "udp_end", "udp_error")


def _is_worth_judging_early(request: http.Request) -> bool:
    """True when a body may follow that is long, of unknown length, or only sent when it is invited.

    A short one is read first: the form of a refusal can depend on it. What asks for another protocol is judged whole,
    because mitmproxy takes some of these wishes out on the way.
    """
    headers = request.headers
    if "upgrade" in headers:
        return False
    length = headers.get("content-length")
    if length is not None:
        return length != "0" and ("expect" in headers or not length.isdecimal() or int(length) > _SMALL_BODY_BYTES)
    return "transfer-encoding" in headers or (request.is_http2 and request.data.method not in _BODILESS)


def _forget_begun(connection: ClientConnection, flow: http.HTTPFlow) -> None:
    connection.begun.pop(flow.id, None)
    if connection.progress:
        connection.progress.pop(flow.id, None)


def _wake_holds(handler: ConnectionHandler, _: Client) -> None:
    client_left(handler)


def _make_sendable(request: http.Request, body_bytes: int) -> None:
    """Take out what is Governor's own, and frame the body."""
    data = request.data
    data.headers.fields = _not_ours(data.headers.fields)
    # Without a length an HTTP/2 body reaches an HTTP/1 origin unframed, and a second request can hide in it.
    if body_bytes and "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        request.headers["content-length"] = str(body_bytes)


def _close_client(handler: ConnectionHandler) -> None:
    if handler.client in handler.transports:
        handler.close_connection(handler.client)


def _not_ours(fields: Fields) -> Fields:
    """These header fields without those that only Governor may set."""
    if any(name.lower().startswith(_OURS) for name, _ in fields):
        return tuple(pair for pair in fields if not pair[0].lower().startswith(_OURS))
    return fields
