"""The hooks of a connection to an origin: dialled where it was judged, and nowhere else."""

from __future__ import annotations

from ipaddress import ip_address
from time import monotonic

from mitmproxy import tls
from mitmproxy.connection import Server
from mitmproxy.proxy import server_hooks
from mitmproxy.proxy.server import ConnectionHandler

from addons import resolver
from addons.connections import ClientConnection, Clients
from addons.faults import Edited, Faults, Ungoverned
from addons.gate import cut
from addons.judged import fingerprint
from addons.metrics import Metrics, Side
from addons.outcomes import Outcomes

_HTTP_1 = b"http/1.1"
_REFUSED = "governor refused this connection"


class OriginHooks:
    """From the first packet to an origin to the end of its handshake."""

    def __init__(self, clients: Clients, outcomes: Outcomes, metrics: Metrics, faults: Faults) -> None:
        self._clients, self._outcomes, self._metrics, self._faults = clients, outcomes, metrics, faults

    def server_connect(self, handler: ConnectionHandler, data: server_hooks.ServerConnectionHookData) -> None:
        connection, address = self._clients.get(handler), data.server.address
        if connection is None and not handler.client.connected:
            # The client has left between its verdict and this.
            data.server.error = _REFUSED
            return
        if connection is None or address is None or data.server.transport_protocol != "tcp" or data.server.via:
            raise Ungoverned("server_connect")
        addresses = connection.judged(address[0], address[1], monotonic())
        if addresses is None:
            raise Ungoverned("server_connect without a verdict")
        resolver.pin(address[0], addresses)

    def refuse_server(self, handler: ConnectionHandler, data: server_hooks.ServerConnectionHookData,
                       error: BaseException) -> None:
        data.server.error = _REFUSED
        self._faults.note(handler, data, error)

    def server_connected(self, handler: ConnectionHandler, data: server_hooks.ServerConnectionHookData) -> None:
        connection, address, peer = self._clients.get(handler), data.server.address, data.server.peername
        if (connection is None or address is None or not peer
                or not connection.may_end_at(address[0], address[1], ip_address(peer[0].partition("%")[0]))):
            raise Ungoverned("connected to an address that was not judged")
        self._refuse_edited(connection)

    def refuse_connected(self, handler: ConnectionHandler, data: server_hooks.ServerConnectionHookData,
                          error: BaseException) -> None:
        cut(handler, data.server)
        self._faults.note(handler, data, error)

    def tls_start_server(self, handler: ConnectionHandler, start: tls.TlsData) -> None:
        # Speak to the origin what the client speaks to us: a translation loses header case and the reason phrase.
        negotiated = handler.client.alpn
        start.conn.alpn_offers = list(dict.fromkeys((negotiated or _HTTP_1, _HTTP_1)))
        # Not in the client's spelling: the origin is asked for the name that was judged.
        if isinstance(start.conn, Server) and start.conn.address is not None:
            start.conn.sni = start.conn.address[0]

    def tls_established_server(self, handler: ConnectionHandler, established: tls.TlsData) -> None:
        connection = self._clients.get(handler)
        if connection is None:
            raise Ungoverned("tls_established_server")
        self._refuse_edited(connection)

    def refuse_tls(self, handler: ConnectionHandler, established: tls.TlsData, error: BaseException) -> None:
        cut(handler, established.conn)
        self._faults.note(handler, established, error)

    def tls_failed_server(self, handler: ConnectionHandler, failed: tls.TlsData) -> None:
        self._metrics.tls_failure(Side.ORIGIN)

    def _refuse_edited(self, connection: ClientConnection) -> None:
        """Raise when a request that waited for its origin is no longer the one that was judged."""
        if any(fingerprint(flow.request) != judged for flow, judged in self._outcomes.waiting(connection)):
            raise Edited
