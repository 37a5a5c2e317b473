"""An orderly end: nobody new comes in, what is under way may finish, and what does not is cut in words."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.proxy.server import ConnectionHandler

from addons import gate
from addons.replies import close_client
from kernel.verdict import Action, Code, Verdict

if TYPE_CHECKING:
    from addons.connections import ClientConnection
    from addons.hooks import Hooks
    from addons.outcomes import Outcomes

DRAIN_SECONDS = 10.0
# For the last words of what is cut to reach its client.
_WORDS_SECONDS = 1.0
# A client that has just connected, or had its answer, may have sent a request that is not here yet; and between the
# steps of one that is, nothing may seem to be under way for a moment.
_SETTLED_SECONDS = 0.5
_PAUSE_SECONDS = 0.05
_ENDED = Verdict(Action.DENY, Code.BUSY, reason="Governor is being stopped")


async def drain(hooks: Hooks, outcomes: Outcomes, seconds: float) -> None:
    """Take nobody in any more and wait for what is open, so many seconds at most."""
    await ctx.master.addons.get("proxyserver").servers.update([])
    if not await _emptied(hooks, seconds):
        outcomes.end_all(_ENDED)
        await _emptied(hooks, _WORDS_SECONDS)


async def _emptied(hooks: Hooks, seconds: float) -> bool:
    """Whether all clients had gone in time; each is closed once nothing of it has been under way for a while."""
    until, busy = monotonic() + seconds, dict[ConnectionHandler, float]()
    while len(hooks.clients) and (now := monotonic()) < until:
        for handler, connection in hooks.clients.items():
            if _is_under_way(handler, connection):
                busy[handler] = now
            elif now - max(connection.since, busy.get(handler, 0.0)) > _SETTLED_SECONDS:
                close_client(handler)
        await asyncio.sleep(_PAUSE_SECONDS)
    return not len(hooks.clients)


def _is_under_way(handler: ConnectionHandler, connection: ClientConnection) -> bool:
    return bool(connection.begun or connection.open_flows or connection.head_since is not None
                or connection.handshake_since is not None or gate.is_busy(handler) or _is_writing(handler))


def _is_writing(handler: ConnectionHandler) -> bool:
    """Whether something waits here for the client to read on."""
    transport = handler.transports.get(handler.client)
    writer = transport.writer if transport is not None else None
    return isinstance(writer, asyncio.StreamWriter) and writer.transport.get_write_buffer_size() > 0
