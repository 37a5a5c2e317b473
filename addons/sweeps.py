"""Connections on which nothing goes on: which of them have had their time.

mitmproxy's own time-out begins again with every byte, so that a client that sends one now and then stays for ever.
Flows that were let through, streams and WebSockets among them, have all the time they want.
"""

from __future__ import annotations

from enum import Enum

from mitmproxy import http

from addons.connections import ClientConnection
from addons.request_bodies import RequestBodies

# A head or a handshake is a few packets: half a minute is what the slowest line needs, ten times over.
HEAD_SECONDS = 30.0
HANDSHAKE_SECONDS = 30.0
# Browsers and pools open tunnels ahead of what they need. A protocol in which the server speaks first ends here, too.
TUNNEL_SECONDS = 60.0
# Pools of clients keep connections for a minute or two; nobody loses more than a new one.
IDLE_SECONDS = 300.0
# A client that computes what it uploads may pause; one that has left without a word never comes back.
BODY_SECONDS = 60.0
# Time for a client to read a refusal before it has sent all of what was refused.
LINGER_SECONDS = 5.0


class Overdue(Enum):
    """Why a connection ends: the client took too long for something, or there is nothing left to wait for."""

    TIMED_OUT = "timed_out"
    OVER = "over"


def overdue(connection: ClientConnection, bodies: RequestBodies, now: float) -> Overdue | None:
    """Whether this connection has had its time."""
    if connection.close_at is not None and now >= connection.close_at:
        return Overdue.OVER
    if connection.begun:
        stalled = [_stalls(connection, flow, bodies, now) for flow in connection.begun.values()]
        return Overdue.TIMED_OUT if all(stalled) and not connection.open_flows else None
    if connection.open_flows:
        return None
    if _longer(now, connection.head_since, HEAD_SECONDS) or _longer(now, connection.handshake_since, HANDSHAKE_SECONDS):
        return Overdue.TIMED_OUT
    if connection.requests == 0:
        seconds = HEAD_SECONDS if connection.redirected_to is None else TUNNEL_SECONDS
        return Overdue.TIMED_OUT if _longer(now, connection.since, seconds) else None
    if connection.tunnel is not None and not connection.entered:
        return Overdue.TIMED_OUT if _longer(now, connection.since, TUNNEL_SECONDS) else None
    return Overdue.OVER if _longer(now, connection.since, IDLE_SECONDS) else None


def _longer(now: float, since: float | None, seconds: float) -> bool:
    return since is not None and now - since > seconds


def _stalls(connection: ClientConnection, flow: http.HTTPFlow, bodies: RequestBodies, now: float) -> bool:
    """True when nothing has come of this request's body for too long."""
    if flow.request.timestamp_end is not None or flow.intercepted:
        return False
    incoming = bodies.of(flow)
    size = incoming.body.size if incoming is not None else 0
    before, since = connection.progress.get(flow.id, (-1, now))
    if size != before:
        connection.progress[flow.id] = (size, now)
        return False
    return now - since > BODY_SECONDS
