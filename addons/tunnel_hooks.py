"""The hooks of a client's way in: who it says it is, where its tunnel leads, and what it speaks there."""

from __future__ import annotations

from base64 import b64encode
from time import monotonic
from typing import Any

from mitmproxy import http, tls
from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.server import ConnectionHandler

from addons import backpressure, client_certificates, first_bytes, refusal, socks5
from addons.connections import ClientConnection, Clients
from addons.faults import Faults, Ungoverned
from addons.judge import Judge
from addons.metrics import Metrics, Side
from addons.rejections import Refuser, Rejections, product
from addons.replies import Replies
from kernel.verdict import Code

_CREDENTIALS = b"proxy-authorization"
_GOVERNED_LAYERS = (layers.HttpLayer, layers.ClientTLSLayer, layers.ServerTLSLayer, modes.HttpProxy)
# How mitmproxy says that a client has seen our certificate and gone.
_REJECTING = ("unknown ca", "bad certificate", "certificate unknown")


class TunnelHooks:
    """Credentials, CONNECT and SOCKS5, first bytes and handshakes."""

    def __init__(self, clients: Clients, judge: Judge, metrics: Metrics, rejections: Rejections, replies: Replies,
                 faults: Faults) -> None:
        self._clients, self._judge, self._metrics = clients, judge, metrics
        self._rejections, self._replies, self._faults = rejections, replies, faults

    def take_credentials(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        # Before any other addon: mitmweb, a save and the origin must never see a token.
        fields = flow.request.data.headers.fields
        taken = [value for name, value in fields if name.lower() == _CREDENTIALS]
        if taken:
            flow.request.data.headers.fields = tuple(pair for pair in fields if pair[0].lower() != _CREDENTIALS)
        connection = self._clients.get(handler)
        # What comes through a tunnel or was redirected is meant for an origin: it says nothing to a proxy.
        if connection is not None and not connection.for_origins:
            connection.credentials = [value.decode("latin-1") for value in taken]

    async def http_connect(self, handler: ConnectionHandler, flow: http.HTTPFlow) -> None:
        connection = self._clients.known(handler)
        connection.requests += 1
        connection.head_since, connection.since = None, monotonic()
        judged = await self._judge.connect(connection, flow)
        self._replies.show(flow, judged)
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

    def take_socks5_credentials(self, handler: ConnectionHandler, said: modes.Socks5AuthData) -> None:
        # Without a password nobody has said who it is: some clients always offer the name of the user they run as.
        login = b64encode(f"{said.username}:{said.password}".encode()).decode() if said.password else None
        said.username = said.password = ""
        said.valid = False
        self._clients.known(handler).credentials = [f"Basic {login}"] if login else []

    async def socks5_auth(self, handler: ConnectionHandler, said: modes.Socks5AuthData) -> None:
        connection = self._clients.known(handler)
        with backpressure.held(handler):
            judged = await self._judge.credentials(connection, socks5.connect_flow(handler.client))
        said.valid = judged.verdict.lets_through
        if not said.valid:
            connection.requests += 1

    def refuse_socks5_auth(self, handler: ConnectionHandler, said: modes.Socks5AuthData, error: BaseException) -> None:
        said.valid = False
        said.username = said.password = ""
        self._faults.note(handler, said, error)

    async def socks5_connect(self, handler: ConnectionHandler, wanted: socks5.Wanted) -> None:
        connection = self._clients.known(handler)
        connection.requests += 1
        with backpressure.held(handler):
            judged = await self._judge.connect(connection, wanted.flow)
        if not judged.verdict.lets_through or judged.host is None or judged.port is None:
            wanted.reply = socks5.Reply.NOT_ALLOWED
            return
        wanted.flow.request.data.host = judged.host.name
        connection.tunnel = (judged.host, judged.port)
        wanted.reply = socks5.Reply.SUCCEEDED

    def refuse_socks5_connect(self, handler: ConnectionHandler, wanted: socks5.Wanted, error: BaseException) -> None:
        wanted.reply = socks5.Reply.GENERAL_FAILURE
        self._faults.note(handler, wanted, error)

    def next_layer(self, handler: ConnectionHandler, chosen: layer.NextLayer) -> None:
        if chosen.layer is not None and not isinstance(chosen.layer, _GOVERNED_LAYERS):
            raise Ungoverned(type(chosen.layer).__name__)
        connection = self._clients.get(handler)
        if connection is None:
            return
        if connection.socks and connection.tunnel is None:
            raise Ungoverned("a SOCKS5 tunnel without a verdict")
        self._look(connection, chosen)

    def refuse_layer(self, handler: ConnectionHandler, chosen: layer.NextLayer, error: BaseException) -> None:
        chosen.layer = _Closing(chosen.context)
        connection = self._clients.get(handler)
        if connection is not None and isinstance(error, Ungoverned):
            connection.end("refused", Code.PROTOCOL_REFUSED)
        else:
            self._faults.note(handler, chosen, error)

    def _look(self, connection: ClientConnection, chosen: layer.NextLayer) -> None:
        """Wait for more where too little has come to tell what it is; refuse what no origin may be sent."""
        connection.entered = connection.for_origins
        if isinstance(chosen.layer, (layers.ClientTLSLayer, layers.ServerTLSLayer)):
            connection.handshake_since = monotonic()
        if not isinstance(chosen.layer, layers.HttpLayer):
            return
        spoken = first_bytes.spoken(chosen.data_client())
        if spoken is first_bytes.Speaks.UNDECIDED:
            chosen.context.layers.remove(chosen.layer)
            chosen.layer = None
        elif spoken is not first_bytes.Speaks.HTTP and connection.for_origins:
            # On the proxy's own port the client is told what it should speak.
            raise Ungoverned("a protocol that is neither TLS nor HTTP")

    def tls_clienthello(self, handler: ConnectionHandler, hello: tls.ClientHelloData) -> None:
        hello.ignore_connection = False

    def refuse_hello(self, handler: ConnectionHandler, hello: tls.ClientHelloData, error: BaseException) -> None:
        hello.ignore_connection = False
        self._faults.end_tunnel(handler, hello, error)

    def tls_start_client(self, handler: ConnectionHandler, start: tls.TlsData) -> None:
        authority = self._judge.client_authority
        if authority is not None and client_certificates.is_outermost(start.context):
            client_certificates.ask(start, authority)

    def tls_established_client(self, handler: ConnectionHandler, established: tls.TlsData) -> None:
        connection = self._clients.get(handler)
        if connection is not None:
            connection.handshake_failed, connection.handshake_since = False, None
            connection.since = monotonic()
            if client_certificates.is_outermost(established.context):
                connection.certificate = client_certificates.proved(established)
            self._rejections.forget(Refuser(connection.peer, connection.agent, connection.client))

    def tls_failed_client(self, handler: ConnectionHandler, failed: tls.TlsData) -> None:
        self._metrics.tls_failure(Side.CLIENT)
        connection = self._clients.get(handler)
        if connection is not None:
            connection.handshake_since = None
            result, code = client_certificates.failure(failed.conn.error or "")
            connection.end(result, code)
            if code is not None:
                # That it has no certificate says nothing of whether it takes ours; it is told what it lacks.
                writer = handler.transports[handler.client].writer
                if writer is not None:
                    writer.write(client_certificates.alert(failed))
                return
            connection.handshake_failed = True
            if any(sign in (failed.conn.error or "") for sign in _REJECTING):
                self._rejections.note(Refuser(connection.peer, connection.agent, connection.client), monotonic())
            self._rejections.failed(connection.peer)


class _Closing(layer.Layer):
    """Takes the place of a layer that would pass bytes without a verdict."""

    def _handle_event(self, event: Any) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)
