"""The system as one process sees it: the processes that share budgets, where agents were last seen, the switch of all.

Pure, total and in integers. What a process hears of the others goes in, one event after the other, and what people are
to know comes out. It lets no request pass and refuses none: each process does that from its own entries
(kernel/state.py), so what one says of itself here can mislead people and nobody else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from kernel.arithmetic import clamped
from kernel.leases import CUT_OFF_SECONDS, MOST
from kernel.state import GOING, Halt, Switch

SILENT_US = CUT_OFF_SECONDS * 1_000_000
"""A process that was not heard of for longer than this refuses everything itself, or is gone."""
MOST_SEEN = 100
"""Of how many agents a process tells when it saw them: of those that it saw last."""
_MOST_TEXT = 200


class Said(NamedTuple):
    """What a process tells of itself. `policy` is the digest of the one in force, `open` how many flows are.

    `ports` are those at which it listens for agents. `halted` and `epoch` are its switch of all agents. `seen` is when
    it last saw agents, in microseconds since 1970.
    """

    lane: str = ""
    policy: str = ""
    version: str = ""
    ready: bool = False
    open: int = 0
    ports: tuple[int, ...] = ()
    halted: bool = False
    epoch: int = 0
    seen: Mapping[str, int] = {}

    def fields(self) -> dict[str, Any]:
        """As a ledger keeps it."""
        return self._asdict()


def said(fields: Mapping[str, object]) -> Said:
    """What a process of whatever version tells: what is missing or of another type is as if it were not said."""
    ports, seen = fields.get("ports"), fields.get("seen")
    listed = ports if isinstance(ports, list | tuple) else ()
    known = seen.items() if isinstance(seen, Mapping) else ()
    return Said(
        _text(fields.get("lane")), _text(fields.get("policy")), _text(fields.get("version")),
        fields.get("ready") is True, _number(fields.get("open")),
        tuple(port for port in map(_number, listed) if 0 < port < 2**16), fields.get("halted") is True,
        _number(fields.get("epoch")),
        {_text(name): _number(at) for name, at in list(known)[:MOST_SEEN]})


def _text(value: object) -> str:
    return value[:_MOST_TEXT] if isinstance(value, str) else ""


def _number(value: object) -> int:
    return clamped(value, MOST) if type(value) is int else 0


class Process(NamedTuple):
    """One process: `run` is its present life, since `joined_us`; it was last heard of at `seen_us`."""

    run: str
    joined_us: int
    seen_us: int
    said: Said
    silent: bool = False

    @property
    def ready(self) -> bool:
        """Whether it serves, as far as that is known."""
        return self.said.ready and not self.silent


class Seen(NamedTuple):
    """Where an agent was last seen, by which process, and when."""

    at_us: int
    holder: str


@dataclass(frozen=True, slots=True)
class System:
    """All processes by their holders, all agents that any of them has seen, and whether all agents are halted."""

    processes: Mapping[str, Process] = field(default_factory=dict)
    agents: Mapping[str, Seen] = field(default_factory=dict)
    switch: Switch = GOING

    def policies(self) -> dict[str, tuple[str, ...]]:
        """The policies in force where somebody is heard of, each with the processes that have it."""
        found: dict[str, list[str]] = defaultdict(list)
        for holder, process in sorted(self.processes.items()):
            if process.said.policy and not process.silent:
                found[process.said.policy].append(holder)
        return {policy: tuple(holders) for policy, holders in sorted(found.items())}

    def silent(self) -> dict[str, int]:
        """The processes that are not heard of, and when each was for the last time."""
        return {holder: each.seen_us for holder, each in sorted(self.processes.items()) if each.silent}


class Beat(NamedTuple):
    """A process was heard of; it joins where this life of it is new. The moment is when it spoke."""

    holder: str
    run: str
    said: Said


class Left(NamedTuple):
    """A process ended in order."""

    holder: str


class Tick(NamedTuple):
    """Time goes on. Who has not been heard of for too long is silent."""


class HaltAll(NamedTuple):
    """All agents are halted."""

    halt: Halt


class ReleaseAll(NamedTuple):
    """All agents are released, into this epoch."""

    epoch: int


type Event = Beat | Left | Tick | HaltAll | ReleaseAll


class Joined(NamedTuple):
    """A life of a process began."""

    holder: str


class FellSilent(NamedTuple):
    """A process is not heard of any more, and counts as not ready."""

    holder: str
    seen_us: int


class CameBack(NamedTuple):
    """A process that was silent is heard of again."""

    holder: str


class PoliciesDiffer(NamedTuple):
    """Not all processes judge by one policy: each by its digest, with those that have it."""

    policies: tuple[tuple[str, tuple[str, ...]], ...]


class PoliciesAgree(NamedTuple):
    """All processes judge by one policy again."""

    policy: str


class AllHalted(NamedTuple):
    """Everybody is refused from here on."""

    halt: Halt


class AllReleased(NamedTuple):
    """Agents that are not halted themselves go on."""

    epoch: int


type Act = Joined | FellSilent | CameBack | PoliciesDiffer | PoliciesAgree | AllHalted | AllReleased


def step(system: System, event: Event, now_us: int) -> tuple[System, tuple[Act, ...]]:
    """The system after an event at a moment (microseconds since 1970), and what people are to know of it."""
    after, acts = _stepped(system, event, now_us)
    return after, (*acts, *_compared(system, after))


def fold(system: System, events: Iterable[tuple[Event, int]]) -> tuple[System, tuple[Act, ...]]:
    """The system after several events, each with its moment, and all that people are to know of them."""
    told: list[Act] = []
    for event, now_us in events:
        system, acts = step(system, event, now_us)
        told += acts
    return system, tuple(told)


def _stepped(system: System, event: Event, now_us: int) -> tuple[System, tuple[Act, ...]]:
    match event:
        case Beat():
            return _heard(system, event, now_us)
        case Left():
            left = {holder: each for holder, each in system.processes.items() if holder != event.holder}
            return replace(system, processes=left), ()
        case Tick():
            return _passed(system, now_us)
        case HaltAll():
            acts = (AllHalted(event.halt),) if system.switch.halt is None else ()
            return replace(system, switch=system.switch.halted(event.halt)), acts
        case ReleaseAll():
            return _released(system, event)


def _heard(system: System, beat: Beat, now_us: int) -> tuple[System, tuple[Act, ...]]:
    known = system.processes.get(beat.holder)
    if known is not None and known.seen_us > now_us:
        # It came late, and is not the newest that is known.
        return system, ()
    began = known is None or known.run != beat.run
    joined_us = now_us if known is None or began else known.joined_us
    process = Process(beat.run, joined_us, now_us, beat.said)
    after = replace(system, processes={**system.processes, beat.holder: process})
    after = _seen(after, beat.said.seen, beat.holder)
    if began:
        return after, (Joined(beat.holder),)
    return after, (CameBack(beat.holder),) if known is not None and known.silent else ()


def _seen(system: System, when: Mapping[str, int], holder: str) -> System:
    newer = {agent: Seen(at_us, holder) for agent, at_us in when.items()
             if agent not in system.agents or at_us > system.agents[agent].at_us}
    return replace(system, agents={**system.agents, **newer}) if newer else system


def _passed(system: System, now_us: int) -> tuple[System, tuple[Act, ...]]:
    fell = {holder: each for holder, each in sorted(system.processes.items())
            if not each.silent and now_us - each.seen_us > SILENT_US}
    silent = {holder: each._replace(silent=True) for holder, each in fell.items()}
    acts = tuple(FellSilent(holder, each.seen_us) for holder, each in fell.items())
    return replace(system, processes={**system.processes, **silent}), acts


def _released(system: System, event: ReleaseAll) -> tuple[System, tuple[Act, ...]]:
    if event.epoch <= system.switch.epoch:
        # Told again.
        return system, ()
    return replace(system, switch=system.switch.released(event.epoch)), (AllReleased(event.epoch),)


def _compared(before: System, after: System) -> tuple[Act, ...]:
    """What is new of the policies in force."""
    old, new = before.policies(), after.policies()
    if old == new:
        return ()
    if len(new) > 1:
        return (PoliciesDiffer(tuple(new.items())),)
    return (PoliciesAgree(next(iter(new))),) if len(old) > 1 and new else ()
