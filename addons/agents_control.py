"""The verb `agents` of the control socket: the registrations are listed and changed inside the running Governor."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from addons.agents_file import Act, Agents, AgentsError, changed
from kernel.entry import Body, operator, timestamp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from addons.control import Message, Peer
    from addons.identity import Registry

ENTRY_SECONDS = 10.0


def agents_handler(
    registry: Registry, write: Callable[[Body], Awaitable[object]]
) -> Callable[[Message, Peer], Awaitable[Message]]:
    """A handler for `ControlServer`. `write` returns when the operator entry it is given is durable."""
    # A thread of its own: the loop's common ones may all wait for names that an agent made up.
    thread = ThreadPoolExecutor(1, "agents")

    async def handle(message: Message, peer: Peer) -> Message:
        loop = asyncio.get_running_loop()
        if message.get("act") == "list":
            return {"agents": await loop.run_in_executor(thread, registry.listing)}
        act, name, digest = _read(message)
        entry = operator_entry(act, name, peer.name, "control")
        now = timestamp(datetime.now(UTC))
        known = registry.tokens.known

        def record() -> None:
            asyncio.run_coroutine_threadsafe(_written(write, entry), loop).result(ENTRY_SECONDS)

        def update(agents: Agents) -> Agents:
            return changed(agents, act, name, digest, peer.name, now)

        await loop.run_in_executor(thread, registry.change, update, record)
        return {"first": registry.tokens.known and not known}

    return handle


def operator_entry(act: Act, name: str, operator_name: str, by: str) -> Body:
    """The log's entry of one change."""
    return operator(f"agents {act}", name, "", operator_name, by)


async def _written(write: Callable[[Body], Awaitable[object]], entry: Body) -> None:
    await write(entry)


def _read(message: Message) -> tuple[Act, str, str | None]:
    act, name, digest = message.get("act"), message.get("agent"), message.get("sha256")
    if act not in list(Act) or not isinstance(name, str) or not isinstance(digest, str | None):
        raise AgentsError("act is list, add, rotate or remove; agent is a name; sha256 is that of the new token")
    return Act(act), name, digest
