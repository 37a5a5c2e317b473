"""The hooks of a client's connection, from its first byte to its last, and what is no request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from time import monotonic

from mitmproxy.connection import Client, Connection
from mitmproxy.proxy.mode_specs import Socks5Mode
from mitmproxy.proxy.server import ConnectionHandler

from addons import backpressure, gate, redirected, refusal, socks5
from addons.admission import Admission, Stall
from addons.connections import ClientConnection, Clients
from addons.faults import Faults, verdict_of
from addons.heads import Unreadable
from addons.judge import Judge
from addons.outcomes import Outcomes
from addons.rejections import Rejections
from addons.replies import Replies, close_client
from addons.request_bodies import RequestBodies
from addons.sweeps import LINGER_SECONDS, Overdue, overdue
from kernel.source_networks import source_address
from kernel.verdict import Code

# A head of 20 KiB in packets, all of which come alone. Each costs as much as a small request.
_HEAD_PARTS = 16
_PART_SECONDS = 0.2
_REFUSED = "governor refused this connection"


class ClientHooks:
    """Who comes, who goes, and who has had their time."""

    def __init__(self, clients: Clients, judge: Judge, outcomes: Outcomes, bodies: RequestBodies, admission: Admission,
                 rejections: Rejections, replies: Replies, faults: Faults, sandbox: str | None = None) -> None:
        """`sandbox` is the agent that all clients are, where they come from its sandbox."""
        self._sandbox = sandbox
        self._clients, self._judge, self._outcomes, self._bodies = clients, judge, outcomes, bodies
        self._admission, self._rejections, self._replies, self._faults = admission, rejections, replies, faults

    def client_connected(self, handler: ConnectionHandler, client: Client) -> Awaitable[None] | None:
        peer = str(client.peername[0])
        stall = self._admission.enter(peer)
        if stall is None or stall.admitted:
            speaks_socks = isinstance(client.proxy_mode, Socks5Mode)
            distrusts = self._rejections.distrusts(peer)
            connection = ClientConnection(peer, speaks_socks, redirected.dialled(client),
                                          redirected.arrived(handler.transports[client].writer),
                                          handshake_failed=distrusts, address=source_address(peer),
                                          sandbox=self._sandbox)
            connection.pause = partial(backpressure.pause, handler)
            backpressure.read_little(handler)
            self._clients.add(handler, connection)
        return None if stall is None else self._stall(handler, client, stall)

    def refuse_client(self, handler: ConnectionHandler, client: Client, error: BaseException) -> None:
        client.error = _REFUSED
        self._faults.note(handler, client, error)

    async def _stall(self, handler: ConnectionHandler, client: Client, stall: Stall) -> None:
        """Let a new connection wait, unread, so that who opens one after the other slows down."""
        try:
            with backpressure.held(handler):
                await asyncio.sleep(stall.seconds)
        finally:
            if not stall.admitted:
                client.error = _REFUSED
                self._admission.turned_away()
        connection = self._clients.get(handler)
        if connection is not None:
            connection.since = monotonic()

    def client_disconnected(self, handler: ConnectionHandler, client: Client) -> None:
        connection = self._clients.remove(handler)
        if connection is None:
            return
        self._admission.leave(connection.peer)
        self._outcomes.client_gone(connection)
        self._record(handler, connection)

    def close(self) -> None:
        """The process ends: write down what there is to say of the connections that end with it."""
        for handler, connection in self._clients.items():
            self._record(handler, connection)
            connection.recorded = True

    def _record(self, handler: ConnectionHandler, connection: ClientConnection) -> None:
        for flow in tuple(connection.begun.values()):
            self._judge.record_incomplete(connection, flow)
        refused = socks5.refused(handler.layer)
        if refused is not None:
            connection.end("refused", refused)
        elif connection.requests == 0:
            connection.end("no_request")
        if connection.ending and not connection.recorded:
            self._judge.record_connection(connection, *connection.ending)

    def sweep(self) -> None:
        """End the connections that have had their time."""
        now = monotonic()
        for handler, connection in self._clients.items():
            match overdue(connection, self._bodies, now):
                case Overdue.OVER:
                    close_client(handler)
                case Overdue.TIMED_OUT:
                    if not connection.begun:
                        connection.end("timed_out")
                    gate.end(handler)

    def head_begun(self, client: Client) -> None:
        """A part of a request's head has come, and not its end."""
        connection = self._clients.of(client)
        if connection is None:
            return
        if connection.head_since is None:
            connection.head_since, connection.head_parts = monotonic(), 0
        connection.head_parts += 1
        if connection.head_parts > _HEAD_PARTS:
            connection.pause(_PART_SECONDS)

    def head_abandoned(self, client: Client) -> None:
        """A client has left in the midst of a head."""
        connection = self._clients.of(client)
        if connection is not None:
            connection.end("incomplete_request")

    def protocol_broken(self, client: Client) -> None:
        """An HTTP/2 connection ends by an error of its protocol."""
        connection = self._clients.of(client)
        if connection is not None:
            connection.end("protocol_error", Code.MALFORMED)

    def next_turn(self, client: Client, end: Connection) -> float:
        """Read nothing more from this end of a client's connections before its next turn, in so many seconds."""
        connection, handler = self._clients.of(client), self._clients.handler_of(client)
        seconds = self._admission.turn_seconds("" if connection is None else connection.peer)
        if handler is not None:
            backpressure.pause(handler, seconds, end)
        return seconds

    def hold(self, client: Client, end: Connection) -> None:
        """Read nothing from this end of a client's connections until it is released."""
        handler = self._clients.handler_of(client)
        if handler is not None:
            backpressure.hold(handler, end)

    def release(self, client: Client, end: Connection) -> None:
        """Go on reading from this end, where nobody else holds it."""
        handler = self._clients.handler_of(client)
        if handler is not None:
            backpressure.release(handler, end)

    async def unreadable(self, handler: ConnectionHandler, request: Unreadable) -> None:
        connection, flow = self._clients.known(handler), request.flow
        connection.head_since, connection.close_at = None, monotonic() + LINGER_SECONDS
        with backpressure.held(handler):
            if flow is None:
                request.response = refusal.response(await self._judge.no_request(connection, request.reason))
            else:
                connection.requests += 1
                connection.forget(flow)
                judged = await self._judge.unreadable(connection, flow, request.reason)
                request.response = refusal.response(self._judge.refused(judged, flow), flow.request)
                self._replies.show(flow, judged)
        if flow is not None and flow.request.is_http2 and handler.client.alpn == b"h2":
            connection.close_at = None
        else:
            request.response.headers["connection"] = "close"

    def refuse_unreadable(self, handler: ConnectionHandler, request: Unreadable, error: BaseException) -> None:
        refused = refusal.Refused(verdict_of(error), "", "", None, None, None, None)
        request.response = refusal.response(refused)
        request.response.headers["connection"] = "close"
        self._faults.note(handler, request, error)
