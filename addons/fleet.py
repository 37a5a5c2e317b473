"""All processes that share budgets, as this one sees them: what it tells of itself, and what it hears when asked."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from addons.agent_rows import system_told
from addons.pools.protocol import LedgerError
from kernel.leases import Member, Roster
from kernel.standings import of_system, purses_of_system
from kernel.system import Beat, HaltAll, Left, ReleaseAll, System, Tick, fold, said
from kernel.transition import written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kernel.bounds import Bounds
    from kernel.leases import Purse
    from kernel.state import State
    from kernel.system import Act, Event, Said

CONFIRM_SECONDS = 5.0
_PAUSE_SECONDS = 0.05
_DIGITS = 12

type Fields = dict[str, Any]


class Lookup(Protocol):
    """Where all processes are known."""

    async def look(self, purses: Sequence[Purse]) -> Roster: ...


class Here(Protocol):
    """The kernel's state in this process, and what the policy in force allows everybody."""

    @property
    def state(self) -> State: ...

    @property
    def bounds(self) -> Bounds: ...


class InForce(NamedTuple):
    """In how many of the processes that live the switch of all agents is as it is here. None: that cannot be said."""

    confirmed: int
    processes: int | None


class Fleet:
    """The processes of a ledger, or this one alone. `holder` is LOG/LANE, `tells` what this process says of itself.

    `say` hears what people are to know, when somebody asks.
    """

    def __init__(self, holder: str, here: Here, tells: Callable[[], Said], ledger: Lookup | None = None,
                 say: Callable[[Act], object] = lambda act: None) -> None:
        self._holder, self._here, self._tells, self._ledger, self._say = holder, here, tells, ledger, say
        self._system = System()
        self._roster = self._alone(_now_us())
        self._looked_us = self._roster.now_us
        """By the clock of this process: the windows of the budgets that the ledger was asked for."""

    def _alone(self, now_us: int) -> Roster:
        return Roster("", now_us, (), (Member(self._holder, "", now_us, alive=True, said={}),), 0)

    async def look(self) -> System:
        """The system as it is now; as it was known last where the ledger does not answer."""
        try:
            await self._look()
        except LedgerError:
            self._hear(self._roster)
        return self._system

    async def _look(self) -> None:
        now_us = _now_us()
        self._hear(self._alone(now_us) if self._ledger is None else
                   await self._ledger.look(purses_of_system(self._here.bounds, now_us)))
        self._looked_us = now_us

    def _hear(self, roster: Roster) -> None:
        self._roster = roster
        self._system, acts = fold(self._system, self._events(roster))
        for act in acts:
            self._say(act)

    def _events(self, roster: Roster) -> Iterator[tuple[Event, int]]:
        """What a roster tells, as events. Of this process nobody knows more than it does itself."""
        now_us, switch = roster.now_us, self._here.state.switch
        present = {each.holder for each in roster.members}
        yield from ((Left(holder), now_us) for holder in self._system.processes if holder not in present)
        for each in roster.members:
            own = each.holder == self._holder
            yield Beat(each.holder, each.run, self._tells() if own else said(each.said)), each.seen_us
        yield Tick(), now_us
        if switch.epoch > self._system.switch.epoch:
            yield ReleaseAll(switch.epoch), now_us
        if switch.halt is not None:
            yield HaltAll(switch.halt), now_us

    async def in_force(self) -> InForce:
        """Wait until all processes that live have the switch of all agents as it is here; 5 s at most."""
        deadline = time.monotonic() + CONFIRM_SECONDS
        while True:
            found = await self._confirmed()
            if found.confirmed == found.processes or time.monotonic() >= deadline:
                return found
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _confirmed(self) -> InForce:
        try:
            await self._look()
        except LedgerError:
            return InForce(1, None)
        halted = self._here.state.switch.halt is not None
        alive = [self._system.processes[each.holder] for each in self._roster.members if each.alive]
        return InForce(sum(each.said.halted == halted for each in alive), len(alive))

    async def last_seen(self) -> dict[str, str]:
        """When any process has seen each agent last, as the log writes times."""
        system = await self.look()
        return {agent: written(seen.at_us) for agent, seen in system.agents.items()}

    def fields(self) -> Fields:
        """What `governor status` tells of all processes, and of all agents together, as known when looked at last."""
        state = self._here.state
        shared = None if self._ledger is None else self._roster.balances
        budgets = of_system(state, self._here.bounds, self._looked_us, shared)
        return {
            "system": system_told(state) | {
                "budgets": [each._asdict() | {"remaining": each.remaining} for each in budgets]},
            "fleet": [{
                "holder": holder, "lane": each.said.lane, "alive": not each.silent, "ready": each.ready,
                "policy": each.said.policy, "seen": written(each.seen_us), "version": each.said.version,
                "open": each.said.open, "ports": list(each.said.ports),
            } for holder, each in sorted(self._system.processes.items())],
        }

    def hints(self) -> list[str]:
        """What is wrong with the fleet, in words."""
        processes, now_us = self._system.processes, self._roster.now_us
        told = [f"{_name(holder)} has not been heard of for {(now_us - seen_us) // 1_000_000} s"
                for holder, seen_us in self._system.silent().items()]
        policies = self._system.policies()
        if len(policies) > 1:
            each = "; ".join(f"{policy[:_DIGITS]} in {', '.join(map(_name, holders))}"
                             for policy, holders in policies.items())
            told.append(f"{len(policies)} policies are in force: {each} (governor reload on each host)")
        halted = self._here.state.switch.halt is not None
        unlike = [_name(holder) for holder, each in sorted(processes.items())
                  if not each.silent and each.said.halted != halted]
        if unlike:
            told.append(f"{'not halted' if halted else 'still halted'}, unlike the rest: {', '.join(unlike)}")
        return told


def _name(holder: str) -> str:
    """The lane of a holder; its log tells apart lanes of one name on several hosts, by its first digits."""
    log, _, lane = holder.rpartition("/")
    return f"{lane} ({log[:_DIGITS]})" if log else lane


def _now_us() -> int:
    return time.time_ns() // 1000
