"""What Governor does at each of mitmproxy's hooks. The gate calls these; a fault leads to the hook's `refuse`."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Mapping
from ipaddress import ip_address
from time import monotonic
from typing import Any

from mitmproxy import http, tls
from mitmproxy.connection import Client, Server
from mitmproxy.proxy import commands, events, layer, layers, server_hooks
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.mode_specs import Socks5Mode
from mitmproxy.proxy.server import ConnectionHandler

from addons import origin_failure, refusal, resolver, socks5
from addons.connections import ClientConnection
from addons.errors import AuditUnavailable
from addons.extract import method_of
from addons.gate import Guard, cut
from addons.judge import Judge, Judged, fingerprint
from addons.lane import Lane
from addons.metrics import Metrics, Side
from addons.outcomes import Outcomes
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
_DEADLINE_SECONDS = 5.0
_REFUSED = "governor refused this connection"


class Hooks:
    """The hooks of one process."""

    def __init__(self, judge: Judge, outcomes: Outcomes, lane: Lane, metrics: Metrics) -> None:
        self._judge, self._outcomes, self._lane, self._metrics = judge, outcomes, lane, metrics
        self._connections: dict[ConnectionHandler, ClientConnection] = {}
        # Client addresses whose last handshake failed: they cannot be shown a refusal inside a tunnel.
        self._distrusting: dict[str, None] = {}

    def guards(self) -> Mapping[str, Guard]:
        """Every hook by its name. What is not named here cannot let anything out."""
        observed = self._fault
        return {
            "client_connected": Guard(self._refuse_client, after=self._client_connected),
            "client_disconnected": Guard(observed, after=self._client_disconnected),
            "socks5_auth": Guard(self._refuse_socks5_auth, before=self._take_socks5_credentials,
                                 after=self._socks5_auth),
            "socks5_connect": Guard(self._refuse_socks5_connect, after=self._socks5_connect),
            "http_connect": Guard(self._refuse_flow, before=self._take_credentials, after=self._http_connect),
            "requestheaders": Guard(self._refuse_flow, before=self._take_credentials, after=self._requestheaders),
            "request": Guard(self._refuse_flow, after=self._request),
            "responseheaders": Guard(self._refuse_response, after=self._responseheaders),
            "response": Guard(observed, after=self._response),
            "error": Guard(observed, after=self._error),
            "next_layer": Guard(self._refuse_layer, after=self._next_layer),
            "tls_clienthello": Guard(self._refuse_hello, after=self._tls_clienthello),
            "tls_start_server": Guard(observed, before=self._tls_start_server),
            "tls_established_server": Guard(self._refuse_tls, after=self._tls_established_server),
            "tls_established_client": Guard(observed, after=self._tls_established_client),
            "tls_failed_client": Guard(observed, after=self._tls_failed_client),
            "tls_failed_server": Guard(observed, after=self._tls_failed_server),
            "server_connect": Guard(self._refuse_server, after=self._server_connect),
            "server_connected": Guard(self._refuse_connected, after=self._server_connected),
            "dns_request": Guard(self._refuse_dns, before=self._dns_request),
            **{name: Guard(self._close, before=self._ungoverned) for name in _UNGOVERNED},
        }

    def _client_connected(self, handler: ConnectionHandler, client: Client) -> None:
        peer = str(client.peername[0])
        self._connections[handler] = ClientConnection(
            peer, socks=isinstance(client.proxy_mode, Socks5Mode), handshake_failed=peer in self._distrusting)

    def _client_disconnected(self, handler: ConnectionHandler, client: Client) -> None:
        connection = self._connections.pop(handler, None)
        if connection is None:
            return
        self._outcomes.client_gone(connection)
        refused = socks5.refused(handler.layer)
        if refused is not None:
            connection.ending = ("refused", refused)
        ending = connection.ending or (("no_request", None) if connection.requests == 0 else None)
        if ending and not self._lane.stopped and not self._judge.too_many_connections(connection.peer):
            self._lane.record("connection", entry.connection(connection.peer, *ending))

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
        async with asyncio.timeout(_DEADLINE_SECONDS):
            judged = await self._judge.credentials(connection, socks5.connect_flow(handler.client))
        said.valid = judged.verdict.lets_through
        if not said.valid:
            connection.requests += 1

    async def _socks5_connect(self, handler: ConnectionHandler, wanted: socks5.Wanted) -> None:
        connection = self._connections[handler]
        connection.requests += 1
        async with asyncio.timeout(_DEADLINE_SECONDS):
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
        async with asyncio.timeout(_DEADLINE_SECONDS):
            judged = await self._judge.connect(connection, flow)
        self._show(flow, judged)
        if not judged.verdict.lets_through or judged.host is None or judged.port is None:
            flow.response = refusal.response(self._judge.refused(judged, flow), flow.request)
            return
        # mitmproxy makes this the address of everything in the tunnel.
        flow.request.data.host = judged.host.name
        flow.response = None
        connection.tunnel = (judged.host, judged.port)

    def _requestheaders(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        # A streamed request leaves before its verdict.
        flow.request.stream = False

    async def _request(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        connection = self._connections.get(handler)
        async with asyncio.timeout(_DEADLINE_SECONDS):
            if connection is None:
                judged = await self._judge.replay(flow)
            else:
                connection.requests += 1
                _make_sendable(flow.request)
                judged = await self._judge.request(handler, connection, flow)
        self._show(flow, judged)
        if connection is None or not judged.verdict.lets_through:
            flow.response = refusal.response(
                self._judge.refused(judged, flow), flow.request, self._judge.is_llm_host(judged.host))
            return
        self._outcomes.begin(flow, judged.sent, connection, f"{self._lane.name}/{judged.number}")
        if flow.response is not None:
            self._outcomes.not_sent(flow)

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
        if flow.response is None or not self._outcomes.awaits(flow):
            return
        if flow.response.status_code == 101:
            # No client asked for it here. What follows has no layer, so there is no answer but the end.
            cut(handler, flow.server_conn)
            self._outcomes.refused(flow, Code.UPGRADE_REFUSED)
            flow.kill()
            return
        flow.response.data.headers.fields = _not_ours(flow.response.data.headers.fields)
        self._outcomes.headers(flow)

    def _refuse_answer(self, handler: ConnectionHandler, flow: http.HTTPFlow, verdict: Verdict) -> None:
        """Put a refusal in the place of the origin's answer, of which nothing has passed yet."""
        cut(handler, flow.server_conn)
        refused = refusal.Refused(verdict, method_of(flow.request), flow.request.host, None, flow.id, None, None)
        response = flow.response = refusal.response(refused, flow.request)
        # What the origin has sent of a body would follow this head, and could be an answer of its own making.
        response.content = b""
        response.stream = _drop
        self._outcomes.refused(flow, verdict.code)

    def _response(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        trailers = flow.response.trailers if flow.response else None
        if flow.response is not None and trailers is not None:
            trailers.fields = _not_ours(trailers.fields)
            # mitmproxy cannot write them to an HTTP/1 client.
            flow.response.trailers = trailers if handler.client.alpn == b"h2" and trailers.fields else None
        self._outcomes.completed(flow)

    def _error(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        self._outcomes.failed(flow)

    def origin_failed(self, flow: http.HTTPFlow) -> http.Response:
        """The 502 of an allowed request whose origin failed before it answered."""
        why = origin_failure.explain(flow.error.msg if flow.error else "")
        verdict = Verdict(Action.ALLOW, Code.ORIGIN_FAILED, reason=why)
        shown = flow.metadata
        refused = refusal.Refused(verdict, method_of(flow.request), flow.request.host, shown.get("governor.agent"),
                                  flow.id, shown.get("governor.entry"), None)
        return refusal.response(refused, flow.request)

    def _next_layer(self, handler: ConnectionHandler, chosen: layer.NextLayer) -> None:
        if chosen.layer is not None and not isinstance(chosen.layer, _GOVERNED_LAYERS):
            raise _Ungoverned(type(chosen.layer).__name__)
        connection = self._connections.get(handler)
        if connection is not None and connection.socks and connection.tunnel is None:
            raise _Ungoverned("a SOCKS5 tunnel without a verdict")

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
            connection.handshake_failed = False
            self._distrusting.pop(connection.peer, None)

    def _tls_failed_client(self, handler: ConnectionHandler, failed: tls.TlsData) -> None:
        self._metrics.tls_failure(Side.CLIENT)
        connection = self._connections.get(handler)
        if connection is not None:
            connection.handshake_failed = True
            connection.ending = ("handshake_failed", None)
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
        self._fault(handler, flow, error)

    def _verdict_of(self, error: BaseException) -> Verdict:
        if isinstance(error, AuditUnavailable):
            return Verdict(Action.DENY, Code.AUDIT_UNAVAILABLE, reason="the audit log cannot be written")
        if isinstance(error, TimeoutError):
            return Verdict(Action.DENY, Code.DEADLINE, reason="the verdict took too long")
        return Verdict(Action.DENY, Code.FAULT, reason="an internal fault")

    def _refuse_response(self, handler: ConnectionHandler, flow: http.HTTPFlow, error: BaseException) -> None:
        if self._outcomes.awaits(flow):
            self._refuse_answer(handler, flow, self._verdict_of(error))
        self._fault(handler, flow, error)

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
            connection.ending = ("refused", Code.PROTOCOL_REFUSED)
        else:
            self._fault(handler, chosen, error)

    def _refuse_hello(self, handler: ConnectionHandler, hello: tls.ClientHelloData, error: BaseException) -> None:
        hello.ignore_connection = False
        self._fault(handler, hello, error)

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
        self._metrics.fault(where)
        if isinstance(error, AuditUnavailable) or self._lane.stopped:
            return
        logger.error("governor: %s in %s: refused", type(error).__name__, where)
        try:
            self._lane.record("fault", entry.fault(where, type(error).__name__, Code.FAULT,
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
_UNGOVERNED = ("tcp_start", "tcp_message", "udp_start", "udp_message", "websocket_start", "websocket_message",
               "quic_start_client", "quic_start_server")


def _make_sendable(request: http.Request) -> None:
    """Take out what is Governor's own, and frame the body."""
    data = request.data
    data.headers.fields = _not_ours(data.headers.fields)
    # Without a length an HTTP/2 body reaches an HTTP/1 origin unframed, and a second request can hide in it.
    if data.content and "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        request.headers["content-length"] = str(len(data.content))


def _not_ours(fields: Fields) -> Fields:
    """These header fields without those that only Governor may set."""
    if any(name.lower().startswith(_OURS) for name, _ in fields):
        return tuple(pair for pair in fields if not pair[0].lower().startswith(_OURS))
    return fields


def _drop(_: bytes) -> list[bytes]:
    return []
