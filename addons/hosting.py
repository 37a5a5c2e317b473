"""What surrounds the enforcer of a process: it serves alone, or beside others (`workers/worker.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from addons import policy_store
from addons.home import MAIN, Home
from addons.own_output import say
from addons.pools.joining import bring_over
from addons.pools.setting import pool_for
from addons.premises import Premises
from addons.workers.siblings import Siblings
from kernel.trial import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from addons.agents_control import AgentsControl
    from addons.control import Handler
    from addons.governed import Governed
    from addons.hooks import Hooks
    from addons.identity import Registry
    from addons.in_force import InForce
    from addons.metrics import Metrics
    from addons.outcomes import Outcomes
    from addons.pools.setting import Pool
    from addons.sandbox.post import Sandbox
    from addons.settings import Settings

class Enforcing(Protocol):
    """What a host needs of the enforcer that runs."""

    metrics: Metrics
    hooks: Hooks
    outcomes: Outcomes
    registry: Registry
    operator: AgentsControl
    in_force: InForce
    stopping: bool
    """Whether it is asked to stop. From then on it is not ready."""

    def handlers(self) -> Mapping[str, Handler]:
        """The verbs that every process answers for itself."""

    def checks(self) -> dict[str, bool]:
        """The conditions of readiness by name."""

    def turns(self) -> bool:
        """Whether the event loop turns."""

    def proxies(self) -> Sequence[tuple[str, str, int]]:
        """Scheme, host and port of each proxy."""


class Host(Protocol):
    """`lane` is the one that the process writes, `processes` how many serve from the home together.

    `patience_seconds`: how long to wait for somebody who looks at the lane, or puts it in order. `sandbox` is the
    command that alone is served, where that is so.
    """

    home: Home
    lane: str
    processes: int
    patience_seconds: float
    siblings: Siblings
    sandbox: Sandbox | None

    @property
    def authority(self) -> Path:
        """The folder of the CA whose leaves clients are shown."""

    def pool(self, asked: Pool | None) -> Pool:
        """The ledger that is meant; `StartRefused` where it cannot be."""

    def keep_accounts(self, pool: Pool, lane: str) -> None:
        """Have the accounts of the home kept there, in this process as `lane`. `StartRefused` while others do not."""

    def first_policy(self, asked: Settings, registry: Registry) -> Governed:
        """The policy with which the process starts; `StartRefused` without one."""

    def show_metrics(self, enforcing: Enforcing) -> int:
        """Have the metrics told; the number of the port at which they are."""

    def hide_metrics(self) -> None:
        """The start was refused after all."""

    async def open(self, enforcing: Enforcing) -> None:
        """The ports are open: have operators answered."""

    def close(self) -> None:
        """The log is closed."""


class Alone:
    """The host of the one process that serves from its home."""

    lane = MAIN
    processes = 1
    patience_seconds = 0.0
    sandbox: Sandbox | None = None

    def __init__(self, options: Any, asked: Settings) -> None:
        """Takes the premises; `StartRefused` where they cannot be had."""
        self._premises = Premises(options, asked)
        self.home, self.siblings = self._premises.home, Siblings()

    @property
    def authority(self) -> Path:
        return self.home.paths.ca

    def pool(self, asked: Pool | None) -> Pool:
        return pool_for(asked, self.home.paths.folder, self.processes)

    def keep_accounts(self, pool: Pool, lane: str) -> None:
        self._premises.keep_accounts(pool)
        bring_over(pool, self.home, {lane}, say)

    def first_policy(self, asked: Settings, registry: Registry) -> Governed:
        return policy_store.first(asked.policies, self.home.paths, registry, strict=asked.strict)

    def show_metrics(self, enforcing: Enforcing) -> int:
        self._premises.read_gauges(enforcing.metrics)
        return self._premises.show_metrics(enforcing.metrics, enforcing.turns, enforcing.checks)

    def hide_metrics(self) -> None:
        self._premises.hide_metrics()

    async def open(self, enforcing: Enforcing) -> None:
        in_force = enforcing.in_force
        handlers = {"reload": in_force.answer_reload, **enforcing.handlers()}
        await self._premises.open(handlers, enforcing.metrics.fault, in_force.reload_soon)
        observed_until = in_force.governed.observed_until if in_force.mode is Mode.OBSERVE else None
        self._premises.show_banner(enforcing.proxies(), observed_until)

    def close(self) -> None:
        self._premises.close()
