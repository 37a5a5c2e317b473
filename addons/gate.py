"""The gate: Governor's last word on every mitmproxy hook, after all addons and after every hold.

mitmproxy forwards a flow whose hook raised, was skipped by another addon's `AddonHalt`, or was edited afterwards. So
the verdict is not given by a hook of an addon but around `handle_hook` of both connection handlers, for live flows and
for replays; whatever fails in there, or takes too long, refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.flow import Flow
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook, HttpResponseHook
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.proxy.server import ConnectionHandler

from addons import holds
from addons.deadlines import Deadlines

type Prepare = Callable[[ConnectionHandler, Any], None]
type Act = Callable[[ConnectionHandler, Any], Awaitable[None] | None]
type Refuse = Callable[[ConnectionHandler, Any, BaseException], None]
type HandleHook = Callable[[ConnectionHandler, commands.StartHook], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Guard:
    """What Governor does at one hook: before the addons, after them, and when either fails.

    `patient`: it waits for a peer, who has all the time of its connection.
    """

    refuse: Refuse
    before: Prepare | None = None
    after: Act | None = None
    patient: bool = False


class Unguarded(Exception):
    """A hook that nobody has thought of: what it would let out is not known, so nothing goes on."""


def _refuse_unguarded(handler: ConnectionHandler, *_: object) -> None:
    end(handler)


def _raise_unguarded(*_: object) -> None:
    raise Unguarded


_UNGUARDED = Guard(_refuse_unguarded, before=_raise_unguarded)
_guards: Mapping[str, Guard] = {}


def install(guards: Mapping[str, Guard], deadlines: Deadlines) -> None:
    """Put these guards around every hook of this process. Installing again replaces them."""
    global _guards, _deadlines
    _guards, _deadlines = guards, deadlines
    for handler, chain in ((ProxyConnectionHandler, _live_chain), (ReplayHandler, _replay_chain)):
        if not hasattr(handler.handle_hook, "ungoverned"):
            handler.handle_hook = _around(handler.handle_hook, chain)  # type: ignore[method-assign,assignment,arg-type]
    holds.install()


def installation() -> tuple[Mapping[str, Guard], Deadlines]:
    """What is installed, to be installed again."""
    return _guards, _deadlines


def installed() -> bool:
    """True when the running mitmproxy calls its hooks through this gate."""
    return all(hasattr(handler.handle_hook, "ungoverned") for handler in (ProxyConnectionHandler, ReplayHandler))


def is_busy(handler: ConnectionHandler) -> bool:
    """True while a hook of this client's is running: a verdict is on its way, or its entry."""
    return _deadlines.runs(handler)


def client_left(handler: ConnectionHandler) -> None:
    """End the holds of a client that is gone: nobody would ever resume them."""
    for running in _deadlines.held():
        if running.handler is handler:
            holds.end(running.data)


def close() -> None:
    """The process ends: close the connections of whoever waits for a held flow, and sweep no more."""
    for running in _deadlines.held():
        end(running.handler)
    _deadlines.stop()


async def _live_chain(handler: Any, hook: commands.StartHook) -> None:
    """mitmproxy's own `handle_hook` of live connections, without looking for the hook's argument a second time."""
    with handler.timeout_watchdog.disarm():
        await handler.master.addons.handle_lifecycle(hook)
        data = getattr(hook, _only_field(type(hook)))  # type: ignore[arg-type]
        if isinstance(data, Flow) and data.intercepted:
            await holds.wait(data)


async def _replay_chain(handler: Any, hook: commands.StartHook) -> None:
    """mitmproxy's own `handle_hook` of replays, which come to their end even when these hooks fail."""
    try:
        await ReplayHandler.handle_hook.ungoverned(handler, hook)  # type: ignore[attr-defined]
    except BaseException:
        if isinstance(hook, (HttpResponseHook, HttpErrorHook)):
            handler.done.set()
        raise


def _around(original: HandleHook, chain: HandleHook) -> HandleHook:
    async def handle_hook(handler: ConnectionHandler, hook: commands.StartHook) -> None:
        guard = _guards.get(hook.name, _UNGUARDED)
        data = getattr(hook, _only_field(type(hook)))  # type: ignore[arg-type]
        deadlines = _deadlines
        running = deadlines.begin(handler, data, patient=guard.patient)
        try:
            if guard.before is not None:
                guard.before(handler, data)
            await chain(handler, hook)
            running.check()
            if guard.after is not None:
                acting = guard.after(handler, data)
                if acting is not None:
                    await acting
        except BaseException as fault:
            reason = TimeoutError() if running.settle() else fault
            must_go_on = _must_go_on(fault)
            _refuse(guard, handler, data, reason)
            if must_go_on:
                raise
        finally:
            deadlines.end(running)

    handle_hook.ungoverned = original  # type: ignore[attr-defined]
    return handle_hook


def _refuse(guard: Guard, handler: ConnectionHandler, data: Any, reason: BaseException) -> None:
    try:
        guard.refuse(handler, data, reason)
    except BaseException:
        # What could not be refused must not go on as if it were allowed, and nobody may wait for an answer.
        cut(handler, handler.client)
        raise


@cache
def _only_field(kind: type) -> str:
    """The name of a hook's one argument: mitmproxy itself supports no hooks with more on connections."""
    (field,) = fields(kind)
    return field.name


def cut(handler: ConnectionHandler, end: Connection) -> None:
    """End this connection at once. Nothing leaves on it from here on, whatever is still written to it.

    Closing it the usual way cancels its task, which goes on until it waits for something: a request would be out.
    """
    transport = handler.transports.get(end)
    writer = transport.writer if transport is not None else None
    if isinstance(writer, asyncio.StreamWriter):
        writer.transport.abort()
    elif writer is not None:
        writer.close()  # type: ignore[no-untyped-call]


def end(handler: ConnectionHandler) -> None:
    """End all connections of this client at once, and everything that still waits on one of them."""
    for connection, transport in tuple(handler.transports.items()):
        cut(handler, connection)
        # Else the half that is not closed is kept for what the other end may still want.
        connection.state = ConnectionState.CLOSED
        if transport.handler is not None:
            transport.handler.cancel("ended by Governor")


_deadlines = Deadlines(end)


def _must_go_on(fault: BaseException) -> bool:
    """True for what must not be swallowed: the end of the process, and a cancellation that was asked of this task.

    A `CancelledError` that an addon merely raised would leave the client hanging if it were passed on.
    """
    if isinstance(fault, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return not isinstance(fault, Exception)
