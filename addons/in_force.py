"""Which policy is in force in this process: put there and recorded, out of its trial, read again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from addons import build_info, policy_store
from addons.errors import AuditUnavailable, ReloadRefused
from addons.own_output import say
from kernel import entry
from kernel.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from addons.control import Message, Peer
    from addons.governed import Governed
    from addons.home import Paths
    from addons.identity import Registry
    from addons.lane import Lane
    from addons.metrics import Metrics
    from kernel.trial import Mode


class InForce:
    """`governed` is what judges, in `mode`; the log says so from `begin` on."""

    mode: Mode

    def __init__(self, governed: Governed, lane: Lane, paths: Paths, registry: Registry, metrics: Metrics) -> None:
        self.governed = governed
        self._lane, self._paths, self._registry, self._metrics = lane, paths, registry, metrics
        self._recorded = lane.last_policy
        # Of two reloads that overlap, the one that read the files first could end last.
        self._one_at_a_time = asyncio.Lock()

    def begin(self) -> None:
        """Keep and record the policy of the start. Raises `StartRefused` where it cannot be kept."""
        policy_store.keep(self.governed, self._paths)
        self.put(self.governed)

    def put(self, governed: Governed) -> None:
        """Record a policy that was kept, then judge by it."""
        names = [file.name for file in governed.files]
        now = time.time()
        digest, mode = governed.policy.digest, governed.mode(now)
        if self._recorded not in (None, digest):
            self._lane.rotate("policy")
        self._lane.write_now("policy_load", entry.policy_load(digest, names, mode, build_info.kernel_identity()))
        self.governed, self.mode, self._recorded = governed, mode, digest
        self._metrics.policy_loaded(digest, mode, now)

    def end_trial(self) -> None:
        """Say that the policy enforces from here on, once its trial is over."""
        if self.governed.mode(time.time()) is not self.mode:
            with contextlib.suppress(AuditUnavailable):
                self.put(self.governed)
                say(f"the trial of policy {self.governed.policy.digest[:12]} is over: mode {self.mode}")

    def reload_soon(self, by: str) -> None:
        """Begin to read the policy again, from a place that cannot wait for it."""
        self._reloading = asyncio.get_running_loop().create_task(self.reload(by))

    async def answer_reload(self, message: Message, peer: Peer) -> Message:
        """Read the policy again at an operator's word."""
        await self.write_reload(peer.name)
        return await self.reload(peer.name)

    async def write_reload(self, by: str) -> None:
        """Record that an operator asked for the policy to be read again."""
        _, durable = self._lane.commit("operator", entry.operator("reload", None, "", by, "control"))
        await durable

    async def reload(self, by: str) -> Message:
        """Read the policy again; a bad one leaves the old one in force, and says so."""
        try:
            async with self._one_at_a_time:
                governed = await asyncio.to_thread(policy_store.again, self.governed, self._paths, self._registry)
                self.put(governed)
        except PolicyError as problem:
            return self._not_reloaded(by, problem.findings)
        except (ReloadRefused, AuditUnavailable) as problem:
            return self._not_reloaded(by, (problem,))
        except Exception as fault:  # noqa: BLE001
            # Asked for by a signal, nobody else would hear of it.
            self._metrics.fault("reload")
            return self._not_reloaded(by, (f"an internal fault, {type(fault).__name__}; restart Governor to be sure",))
        say(f"policy {governed.policy.digest[:12]} in force ({by})")
        return self._told(governed.findings, ok=True)

    def _not_reloaded(self, by: str, findings: Iterable[object]) -> Message:
        self._metrics.reload_failed()
        told = self._told(findings, ok=False)
        say("\n".join((f"the policy was not reloaded ({by}); the old one stays:", *told["findings"])))
        return told

    def _told(self, findings: Iterable[object], *, ok: bool) -> Message:
        return {"ok": ok, "policy": self.governed.policy.digest, "findings": [str(finding) for finding in findings]}
