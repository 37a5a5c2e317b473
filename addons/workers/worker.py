"""A worker: a process that serves beside others, from a home and at ports that its supervisor keeps.

It opens its lane when its turn comes, and its ports when all have opened theirs. Without its supervisor it ends.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitmproxy import ctx

from addons import authority, policy_store
from addons.control import Peer
from addons.draining import drain
from addons.errors import ReloadRefused
from addons.home import Home, home_folder
from addons.own_output import place, say
from addons.pools.setting import pool_for
from addons.workers import ports
from addons.workers.channel import Channel, ChannelError
from addons.workers.siblings import Siblings

if TYPE_CHECKING:
    from addons.control import Handler, Message
    from addons.governed import Governed
    from addons.hosting import Enforcing
    from addons.identity import Registry
    from addons.pools.setting import Pool
    from addons.sandbox.post import Sandbox
    from addons.settings import Settings
    from addons.workers.post import Post

ENDED = 0
_LEFT_TO_THE_SUPERVISOR = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Worker:
    """The host of a worker's enforcer (`hosting.Host`), and its end of the channel."""

    # Another worker's start may be putting the lane in order, or a verb looking at it.
    patience_seconds = 10.0
    sandbox: Sandbox | None = None

    def __init__(self, post: Post) -> None:
        self._post = post
        self.lane, self.processes, self.siblings = post.lane, post.workers, Siblings()
        self.home: Home
        self._channel: Channel
        self._policy: tuple[str, tuple[Path, ...]]
        self._prepared: Governed | None = None

    async def begin(self, options: Any) -> None:
        """Reach the supervisor and wait for the turn to open the lane."""
        loop = asyncio.get_running_loop()
        for each in _LEFT_TO_THE_SUPERVISOR:
            loop.add_signal_handler(each, _ignore)
        self._channel = await Channel.over(self._post.connection())
        self._hearing = loop.create_task(self._hear())
        self.siblings.reach_by(lambda: loop.call_soon_threadsafe(self._channel.tell, "poke"))
        options.update(mode=list(self._post.modes))
        ports.share()
        told = await self._asked("turn")
        self._policy = told["digest"], tuple(Path(file) for file in told["files"])

    async def opened(self) -> None:
        """Say that the lane is open, and wait until the ports may be."""
        await self._asked("opened")

    def host(self, options: Any, asked: Settings) -> Worker:
        """The home, which the supervisor has made and checked; `StartRefused` where it is not whole any more."""
        self.home = Home.open(home_folder(asked.home))
        authority.date_leaves(self.home.paths.ca, datetime.now(UTC))
        return self

    @property
    def authority(self) -> Path:
        return self.home.paths.ca

    def pool(self, asked: Pool | None) -> Pool:
        return pool_for(asked, self.home.paths.folder, self.processes)

    def keep_accounts(self, pool: Pool, lane: str) -> None:
        """The supervisor does, for all its workers."""

    def first_policy(self, asked: Settings, registry: Registry) -> Governed:
        return policy_store.kept(*self._policy, self.home.paths, registry, strict=asked.strict)

    def show_metrics(self, enforcing: Enforcing) -> int:
        async def samples(message: Message) -> Message:
            told: Message = {"counts": enforcing.metrics.counts(), "checks": enforcing.checks()}
            # Budgets of all agents are added up for these, which is too much to do each second.
            return told | {"readings": enforcing.metrics.readings()} if message["readings"] else told

        self._channel.on("samples", samples)
        self._channel.on_fault = lambda fault: _failed(enforcing, fault)
        return self._post.metrics_port

    def hide_metrics(self) -> None:
        """Nothing was opened."""

    async def open(self, enforcing: Enforcing) -> None:
        for verb, handler in enforcing.handlers().items():
            self._channel.on(verb, _answering(handler))
        self._channel.on("here", _here)
        self._channel.on("registered", lambda _: enforcing.operator.registered())
        self._channel.on("prepare", lambda message: self._prepare(enforcing, **message))
        self._channel.on("enforce", lambda message: self._enforce(enforcing, message["digest"]))
        self._channel.on("drain", lambda message: self._drain(enforcing, message["seconds"]))
        self._channel.tell("serving")

    async def _prepare(self, enforcing: Enforcing, digest: str, by: str | None) -> Message:
        """The first of the two steps that all workers take together: have the policy ready."""
        if by is not None:
            await enforcing.in_force.write_reload(by)
        governed = enforcing.in_force.governed
        self._prepared = await asyncio.to_thread(
            policy_store.kept, digest, governed.files, self.home.paths, enforcing.registry, strict=governed.strict)
        return {"digest": self._prepared.policy.digest}

    async def _enforce(self, enforcing: Enforcing, digest: str) -> None:
        """The second one: judge by it."""
        if self._prepared is None or self._prepared.policy.digest != digest:
            raise ReloadRefused("another policy was prepared")
        enforcing.in_force.put(self._prepared)

    def close(self) -> None:
        self._channel.close()

    async def _hear(self) -> None:
        async def poked(_: Message) -> None:
            self.siblings.poked()

        self._channel.on("poke", poked)
        try:
            await self._channel.run()
        finally:
            # Asked to end at once, left alone, or told what cannot be read: nothing goes on unsupervised.
            ctx.master.shutdown()

    async def _asked(self, word: str) -> Message:
        try:
            return await self._channel.ask(word)
        except ChannelError:
            sys.exit(ENDED)

    async def _drain(self, enforcing: Enforcing, seconds: float) -> None:
        enforcing.stopping = True
        await drain(enforcing.hooks, enforcing.outcomes, seconds)
        ctx.master.shutdown()


def _answering(handler: Handler) -> Any:
    async def answer(message: Message) -> Message:
        return await handler(message["message"], Peer(message["uid"]))

    return answer


def _failed(enforcing: Enforcing, fault: Exception) -> None:
    enforcing.metrics.fault("control")
    say(f"an answer to the supervisor failed: {place(fault)}")


async def _here(_: Message) -> None:
    """That the event loop turns is all that was asked."""


def _ignore() -> None:
    """The supervisor has the signal, too, and says what is to be done."""
