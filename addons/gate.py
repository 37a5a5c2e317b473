"""The gate: Governor's last word on every mitmproxy hook, after all addons and after every hold.

mitmproxy forwards a flow whose hook raised, was skipped by another addon's `AddonHalt`, or was edited afterwards. So
the verdict is not given by a hook of an addon but around `handle_hook` of both connection handlers, for live flows and
for replays; whatever fails in there refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.connection import Connection
from mitmproxy.flow import Flow
from mitmproxy.proxy import commands
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.proxy.server import ConnectionHandler

type Prepare = Callable[[ConnectionHandler, Any], None]
type Act = Callable[[ConnectionHandler, Any], Awaitable[None] | None]
type Refuse = Callable[[ConnectionHandler, Any, BaseException], None]
type HandleHook = Callable[[ConnectionHandler, commands.StartHook], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Guard:
    """What Governor does at one hook: before the addons, after them, and when either fails."""

    refuse: Refuse
    before: Prepare | None = None
    after: Act | None = None


_guards: Mapping[str, Guard] = {}


def install(guards: Mapping[str, Guard]) -> None:
    """Put these guards around every hook of this process. Installing again replaces them."""
    global _guards
    _guards = guards
    for handler, chain in ((ProxyConnectionHandler, _live_chain), (ReplayHandler, None)):
        if not hasattr(handler.handle_hook, "ungoverned"):
            handler.handle_hook = _around(handler.handle_hook, chain)  # type: ignore[method-assign,assignment,arg-type]


def installed() -> bool:
    """True when the running mitmproxy calls its hooks through this gate."""
    return all(hasattr(handler.handle_hook, "ungoverned") for handler in (ProxyConnectionHandler, ReplayHandler))


async def _live_chain(handler: Any, hook: commands.StartHook) -> None:
    """mitmproxy's own `handle_hook` of live connections, without looking for the hook's argument a second time."""
    with handler.timeout_watchdog.disarm():
        await handler.master.addons.handle_lifecycle(hook)
        data = getattr(hook, _only_field(type(hook)))  # type: ignore[arg-type]
        if isinstance(data, Flow):
            await data.wait_for_resume()


def _around(original: HandleHook, chain: HandleHook | None) -> HandleHook:
    chain = chain or original

    async def handle_hook(handler: ConnectionHandler, hook: commands.StartHook) -> None:
        guard = _guards.get(hook.name)
        if guard is None:
            await original(handler, hook)
            return
        data = getattr(hook, _only_field(type(hook)))  # type: ignore[arg-type]
        try:
            if guard.before is not None:
                guard.before(handler, data)
            await chain(handler, hook)
            if guard.after is not None:
                acting = guard.after(handler, data)
                if acting is not None:
                    await acting
        except BaseException as fault:
            must_go_on = _must_go_on(fault)
            try:
                guard.refuse(handler, data, fault)
            except BaseException:
                # What could not be refused must not go on as if it were allowed, and nobody may wait for an answer.
                cut(handler, handler.client)
                raise
            if must_go_on:
                raise

    handle_hook.ungoverned = original  # type: ignore[attr-defined]
    return handle_hook


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


def _must_go_on(fault: BaseException) -> bool:
    """True for what must not be swallowed: the end of the process, and a cancellation that was asked of this task.

    A `CancelledError` that an addon merely raised would leave the client hanging if it were passed on.
    """
    if isinstance(fault, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return not isinstance(fault, Exception)
