"""The policy of all workers: the same in each of them, changed in all of them or in none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from addons import policy_store
from addons.errors import GovernorError, ReloadRefused
from addons.own_output import place, say
from addons.workers.roll_call import RollCall, silent
from addons.workers.slot import Slot, Stage
from kernel.errors import PolicyError

if TYPE_CHECKING:
    from addons.control import Message
    from addons.home import Paths
    from addons.identity import Registry
    from addons.settings import Settings
    from kernel.trial import Mode

# A policy of 10,000 rules takes a second, and several workers share the cores.
_PREPARE_SECONDS = 60.0
_ENFORCE_SECONDS = 10.0
# How long an operator waits for a worker that is being started, which takes some seconds.
TURN_SECONDS = 10.0


class CommonPolicy:
    """Read and kept here; workers take it from where it is kept, by its digest. `StartRefused` without one.

    A worker that starts comes up under the policy in force, whatever its file says by now.
    """

    def __init__(self, asked: Settings, paths: Paths, registry: Registry, slots: Sequence[Slot],
                 turns: asyncio.Lock) -> None:
        self._paths, self._registry, self._slots, self._turns = paths, registry, slots, turns
        self.on_refused: Callable[[], object] = lambda: None
        self.on_fault: Callable[[str], object] = lambda where: None
        self.governed = policy_store.first(asked.policies, paths, registry, strict=asked.strict)
        policy_store.keep(self.governed, paths)

    @property
    def mode(self) -> Mode:
        return self.governed.mode(time.time())

    def told(self) -> Message:
        """What a worker is told that starts."""
        return {"digest": self.governed.policy.digest, "files": [str(file) for file in self.governed.files]}

    def reload_soon(self, by: str) -> None:
        """Begin to read the policy again, from a place that cannot wait for it."""
        self._reloading = asyncio.get_running_loop().create_task(self.reload(by))

    async def reload(self, by: str, operator: str | None = None) -> Message:
        """Read the policy again; unless it is good, and ready in every worker, the old one stays in all of them.

        `operator` asked for it, if it was one.
        """
        try:
            await self._take_turn(None if operator is None else TURN_SECONDS)
            try:
                return await self._changed(by, operator)
            finally:
                self._turns.release()
        except PolicyError as problem:
            return self._not_reloaded(by, problem.findings)
        except GovernorError as problem:
            return self._not_reloaded(by, (problem,))
        except Exception as fault:  # noqa: BLE001
            # Asked for by a signal, nobody else would hear of it.
            self.on_fault("reload")
            return self._not_reloaded(by, (f"an internal fault, {place(fault)}; restart Governor to be sure",))

    async def _take_turn(self, seconds: float | None) -> None:
        """Have no lane opened and no policy changed meanwhile; `ReloadRefused` where that takes too long."""
        try:
            async with asyncio.timeout(seconds):
                await self._turns.acquire()
        except TimeoutError:
            starting = next((f"worker {slot.name} is being started" for slot in self._slots if slot.has_turn), None)
            raise ReloadRefused(f"{starting or 'another reload is under way'}; ask again") from None

    async def _changed(self, by: str, operator: str | None) -> Message:
        changed = await asyncio.to_thread(policy_store.again, self.governed, self._paths, self._registry)
        digest = changed.policy.digest
        serving = [slot for slot in self._slots if slot.stage is Stage.SERVING]
        _, missing = await RollCall(serving).called()
        if missing:
            raise ReloadRefused(f"{silent(missing)}; ask again")
        await asyncio.gather(*(_prepare(slot, digest, operator) for slot in serving))
        self.governed = changed
        await asyncio.gather(*(_enforce(slot, digest) for slot in serving))
        say(f"policy {digest[:12]} in force ({by})")
        return self._told(changed.findings, ok=True)

    def _not_reloaded(self, by: str, findings: Iterable[object]) -> Message:
        self.on_refused()
        told = self._told(findings, ok=False)
        say("\n".join((f"the policy was not reloaded ({by}); the old one stays:", *told["findings"])))
        return told

    def _told(self, findings: Iterable[object], *, ok: bool) -> Message:
        return {"ok": ok, "policy": self.governed.policy.digest, "findings": [str(finding) for finding in findings]}


async def _prepare(slot: Slot, digest: str, operator: str | None) -> None:
    """Have a worker read the policy and keep it ready. Raises `ReloadRefused`."""
    try:
        told = await slot.ask("prepare", _PREPARE_SECONDS, digest=digest, by=operator)
    except GovernorError as problem:
        raise ReloadRefused(f"worker {slot.name}: {problem}; ask again") from problem
    if told["digest"] != digest:
        raise ReloadRefused(f"worker {slot.name} has read another policy, {told['digest']}; restart Governor")


async def _enforce(slot: Slot, digest: str) -> None:
    """Have a worker judge by what it has ready; one that does not is killed, and starts under the new policy."""
    try:
        await slot.ask("enforce", _ENFORCE_SECONDS, digest=digest)
    except GovernorError as problem:
        say(f"worker {slot.name} did not take the policy: {problem}")
        slot.kill()
