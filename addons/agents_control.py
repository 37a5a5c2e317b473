"""The verbs `agents` and `clock` of the control socket: what an operator sees and does inside the running Governor."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from addons import takeover
from addons.agent_rows import Rows, system_told
from addons.agents_file import Act, Agents, AgentsError, changed
from addons.operator_acts import MOST_QUARANTINE_SECONDS, Deed, Order, check_words, has_effect, said_by
from kernel.entry import timestamp
from kernel.identity import may_come
from kernel.transition import written

if TYPE_CHECKING:
    from collections.abc import Callable

    from addons.control import Handler, Message, Peer
    from addons.fleet import Fleet
    from addons.home import Home
    from addons.identity import Registry
    from kernel.bounds import Bounds
    from kernel.policy import Identity
    from kernel.state import State

ENTRY_SECONDS = 10.0
WAY = "control"
_USAGE = (
    "act is list, show, add, rotate, remove, halt, halt all, release, release all, quarantine or takeover; agent is a"
    " name, and no agent is named with all; sha256 is that of"
    " the new token; reason says why; seconds is how long a quarantine holds"
)


class Acts(Protocol):
    """What is done to agents in the running Governor, and how they stand."""

    @property
    def state(self) -> State: ...

    @property
    def bounds(self) -> Bounds: ...

    @property
    def identity(self) -> Identity: ...

    async def act(self, act: str, agent: str | None, reason: str, operator: str, by: str, **more: object) -> str:
        """Write the operator's entry and do what it says; its name, once it is durable."""
        ...


class AgentsControl:
    """The handlers for `ControlServer`. `clock` gives seconds since 1970."""

    def __init__(self, registry: Registry, book: Acts, home: Home, fleet: Fleet,
                 clock: Callable[[], float] = time.time) -> None:
        self._registry, self._book, self._home, self._fleet, self._clock = registry, book, home, fleet, clock
        # A thread of its own: the loop's common ones may all wait for names that an agent made up.
        self._thread = ThreadPoolExecutor(1, "agents")
        self._taking_over = asyncio.Lock()

    def handlers(self) -> dict[str, Handler]:
        return {"agents": self.agents, "clock": self.clock}

    async def agents(self, message: Message, peer: Peer) -> Message:
        match message.get("act"):
            case "list":
                rows = await self._rows()
                return {"agents": await self._away(rows.all), "system": rows.system()}
            case "show":
                return {"agent": await self._shown(self._name(message))}
            case Act.ADD | Act.ROTATE | Act.REMOVE as act:
                return await self._register(Act(act), message, peer)
            case "halt" | "release" | "quarantine" as act:
                return await self._do(self._order(Deed(f"agents {act}"), self._name(message), message, peer))
            case "halt all" | "release all" as act:
                return await self._do_to_all(self._order(Deed(f"agents {act}"), None, message, peer))
            case "takeover":
                return {"entries": await self._take_over()}
        raise AgentsError(_USAGE)

    async def clock(self, message: Message, peer: Peer) -> Message:
        if message.get("act") != "accept":
            raise AgentsError("act is accept; reason says why")
        return await self._do(self._order(Deed.CLOCK, None, message, peer))

    async def halt(self, agent: str, reason: str, user: str, way: str) -> Message:
        """Halt an agent at a word that did not come over the control socket."""
        check_words(reason, user)
        return await self._do(Order(Deed.HALT, agent, reason, user, way))

    async def halt_all(self, reason: str, user: str, way: str) -> Message:
        """The same for all agents."""
        check_words(reason, user)
        return await self._do_to_all(Order(Deed.HALT_ALL, None, reason, user, way))

    async def _do_to_all(self, order: Order) -> Message:
        """Do it, and wait until all processes that share a ledger have it in force, as long as that may take."""
        told = await self._do(order)
        in_force = await self._fleet.in_force()
        return told | in_force._asdict() | {"system": system_told(self._book.state)}

    async def _do(self, order: Order) -> Message:
        known = {*(await self._away(self._registry.registered)).agents, *self._registry.last_seen()}
        if order.agent is not None and may_come(self._book.identity, order.agent):
            known.add(order.agent)
        effect = has_effect(order.deed, order.agent, self._book.state, known, self._now_us())
        entry = None
        if effect:
            entry = await self._book.act(
                order.deed, order.agent, order.reason, order.operator, order.by, **order.more())
        told: Message = {"changed": effect, "entry": entry, "in_force": True}
        return told | {"agent": await self._shown(order.agent)} if order.agent is not None else told

    def _order(self, deed: Deed, agent: str | None, message: Message, peer: Peer) -> Order:
        reason, claimed, seconds = message.get("reason"), message.get("operator"), message.get("seconds")
        if not isinstance(reason, str) or not isinstance(claimed, str | None):
            raise AgentsError(_USAGE)
        check_words(reason, claimed)
        operator, by = said_by(peer.name, claimed, WAY)
        if deed is Deed.QUARANTINE:
            if type(seconds) is not int or not 0 < seconds <= MOST_QUARANTINE_SECONDS:
                raise AgentsError(_USAGE)
            return Order(deed, agent, reason, operator, by, until=written(self._now_us() + seconds * 1_000_000))
        return Order(deed, agent, reason, operator, by)

    async def _register(self, act: Act, message: Message, peer: Peer) -> Message:
        name, sha256 = self._name(message), message.get("sha256")
        if not isinstance(sha256, str | None):
            raise AgentsError(_USAGE)
        loop = asyncio.get_running_loop()
        now = timestamp(datetime.now(UTC))
        known = self._registry.tokens.known

        def record() -> None:
            done = self._book.act(f"agents {act}", name, "", peer.name, WAY)
            asyncio.run_coroutine_threadsafe(done, loop).result(ENTRY_SECONDS)

        def update(agents: Agents) -> Agents:
            return changed(agents, act, name, sha256, peer.name, now)

        await self._away(self._registry.change, update, record)
        return {"first": self._registry.tokens.known and not known, "agent": await self._shown(name)}

    async def registered(self) -> None:
        """Another process has changed a registration: it is in force here, too, when this returns."""
        await self._away(self._registry.refresh)

    async def _take_over(self) -> list[str]:
        """Do what verbs did that found nobody running, while this Governor was about to start."""
        # One at a time: of two the second must find what the first took.
        async with self._taking_over:
            bodies = await self._away(takeover.acts, self._home, self._book.state.taken_over)
            done = []
            for body in bodies:
                said = {name: value for name, value in body.items() if name != "type"}
                done.append(await self._book.act(**said))
            return done

    async def _shown(self, name: str) -> Message:
        rows = await self._rows()
        return await self._away(rows.shown, name)

    async def _rows(self) -> Rows:
        agents = await self._away(self._registry.registered)
        seen = await self._fleet.last_seen()
        for name, when in self._registry.last_seen().items():
            seen[name] = max(when, seen.get(name, when))
        # Copied: they are told of in a thread, and judged here meanwhile.
        return Rows(agents, seen, self._book.state.copy(), self._book.bounds, self._now_us())

    async def _away[**P, T](self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do what waits for the disk, or takes long, in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*arguments, **named))

    def _now_us(self) -> int:
        return int(self._clock() * 1_000_000)

    @staticmethod
    def _name(message: Message) -> str:
        name = message.get("agent")
        if not isinstance(name, str):
            raise AgentsError(_USAGE)
        return name

