"""The Governor of one run: from a home that others may serve from, too, at sockets of its command's network.

It has a lane, a CA and a control socket of its own for as long as the command runs, in a folder `runs/ID` of the home,
and shares the budgets of the home with every other process by its ledger.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mitmproxy import ctx

from addons import authority, durable, policy_store
from addons.control import ControlServer
from addons.counting_lock import counting
from addons.draining import drain
from addons.errors import StartRefused
from addons.home import Home, home_folder
from addons.home_lock import home_lock
from addons.metrics_server import MetricsServer
from addons.own_output import place, say
from addons.pools.joining import bring_over
from addons.pools.setting import pool_for
from addons.sandbox import handed
from addons.sandbox.post import Sandbox
from addons.sandbox.run_folder import living, swept
from addons.workers.channel import Channel
from addons.workers.siblings import Siblings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from addons.control import Message
    from addons.governed import Governed
    from addons.hosting import Enforcing
    from addons.identity import Registry
    from addons.metrics import Metrics
    from addons.pools.setting import Pool
    from addons.sandbox.post import Post
    from addons.settings import Settings

# Once the command has ended nothing of it is open, but for what its processes left behind in flight.
_DRAIN_SECONDS = 2.0


class RunHost:
    """The host of the enforcer (`hosting.Host`), and its end of the channel to whoever encloses the command."""

    processes = 1
    # Another run's start may be putting the lanes in order.
    patience_seconds = 10.0

    def __init__(self, post: Post) -> None:
        self._post = post
        self.lane, self.siblings = post.lane, Siblings()
        self.sandbox: Sandbox | None = Sandbox(post.agent, post.tier, post.token)
        self.home: Home
        self._folder: Path
        self._metrics_address: tuple[str, int]
        self._control: ControlServer | None = None
        self._taken, self._shown = ExitStack(), ExitStack()

    async def begin(self, options: Any) -> None:
        """Reach whoever encloses the command, and serve where its network has sockets for it."""
        handed.serve_at(self._post.listening())
        loop = asyncio.get_running_loop()
        self._channel = await Channel.over(self._post.connection())
        self._channel.on("end", self._end)
        self._hearing = loop.create_task(self._hear())

    async def opened(self) -> None:
        """Nobody else is waited for."""

    def host(self, options: Any, asked: Settings) -> RunHost:
        """The home and a folder in it for this run; `StartRefused` where they cannot be had."""
        self.home = Home.open(home_folder(asked.home))
        # A start that is refused from here on ends without `close`.
        atexit.register(self._taken.close)
        runs = self.home.paths.runs
        durable.make_folder(runs)
        self._folder = runs / self._post.run
        with swept(runs):
            durable.make_folder(self._folder)
            self._taken.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._taken.enter_context(living(self._folder))
        durable.make_folder(self.authority)
        authority.for_run(self.authority, self._post.run, datetime.now(UTC))
        self._metrics_address = (asked.metrics_host, asked.metrics_port)
        return self

    @property
    def authority(self) -> Path:
        return self._folder / "ca"

    def pool(self, asked: Pool | None) -> Pool:
        # There may be other runs, now or later, and budgets are for all of them.
        return pool_for(asked, self.home.paths.folder, 2)

    def keep_accounts(self, pool: Pool, lane: str) -> None:
        self._taken.enter_context(counting(self.home.paths, pool))
        # Where somebody serves from the home, he has brought over what was there.
        with suppress(StartRefused), home_lock(self.home.paths):
            bring_over(pool, self.home, {lane}, say)

    def first_policy(self, asked: Settings, registry: Registry) -> Governed:
        text = self._post.policy_text()
        if text is None:
            return policy_store.first(asked.policies, self.home.paths, registry, strict=asked.strict)
        written = self._folder / "policy.yaml"
        written.write_bytes(text)
        return policy_store.first((written,), self.home.paths, registry, strict=asked.strict)

    def show_metrics(self, enforcing: Enforcing) -> int:
        server = MetricsServer(self._metrics_address, enforcing.metrics, enforcing.turns, enforcing.checks)
        server.start()
        self._shown.callback(server.stop)
        self._metrics_address = server.address
        self._hear_of_packets(enforcing.metrics)
        return server.address[1]

    def hide_metrics(self) -> None:
        self._shown.close()

    async def open(self, enforcing: Enforcing) -> None:
        self._enforcing = enforcing
        in_force = enforcing.in_force

        def failed(where: str, error: Exception) -> None:
            enforcing.metrics.fault(where)
            say(f"an answer on the control socket failed: {place(error)}")

        handlers = {"reload": in_force.answer_reload, **enforcing.handlers()}
        self._control = ControlServer(self._folder / "control.sock", handlers, failed)
        await self._control.start()
        certificate = (self.authority / authority.CERTIFICATE_FILE).read_text()
        self._channel.tell("serving", certificate=certificate, policy=in_force.governed.policy.digest,
                           proxies=[[*each] for each in enforcing.proxies()],
                           metrics=[*self._metrics_address], observed_until=in_force.governed.observed_until)

    def _hear_of_packets(self, metrics: Metrics) -> None:
        async def refused(message: Message) -> None:
            metrics.refused_packets(message["counts"])

        self._channel.on("refused_packets", refused)

    def close(self) -> None:
        self._channel.close()
        self.hide_metrics()
        self._taken.close()

    async def _hear(self) -> None:
        try:
            await self._channel.run()
        finally:
            # Whoever encloses the command is gone, and the command with him.
            ctx.master.shutdown()

    async def _end(self, _: Mapping[str, Any]) -> None:
        """The command has ended."""
        self._enforcing.stopping = True
        await drain(self._enforcing.hooks, self._enforcing.outcomes, _DRAIN_SECONDS)
        ctx.master.shutdown()
