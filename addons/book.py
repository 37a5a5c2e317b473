"""The kernel's state in this process. Each request is weighed here, and every entry that changes it goes through.

What is decided is what the log says: a change is made from the entry itself, as at the next start and in a replay.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from addons.errors import ContractBroken
from addons.pools.protocol import LedgerError
from kernel import entry
from kernel.bounds import Bounded, Bounds
from kernel.cascade import cause_of, entries_after, roll_at
from kernel.contagion import Prevention
from kernel.contracts import broken, inconsistent
from kernel.leases import Kind
from kernel.state import NO_CHANGE, Change, State
from kernel.state_digest import Reads
from kernel.step import ALL_HALTED, READS_ONLY, Asked, Decided, halt_of, more, step, wanted_more
from kernel.transition import KERNEL, change, micros, named, written
from kernel.trial import OBSERVED, Mode
from kernel.verdict import Action, Code, Verdict

if TYPE_CHECKING:
    from asyncio import Future

    from addons.allowance import Drawn
    from addons.governed import Governed
    from addons.journal import Moment, Secrets
    from addons.lane import Lane
    from kernel.budget import Unit
    from kernel.contagion import Cascade
    from kernel.folding import States
    from kernel.policy import Identity
    from kernel.state import Draw, Halt
    from kernel.step import Want

JUMP_US = 60_000_000
"""How far the clock of the machine may be from where it was when this process began."""
CLOCK_ACCEPT = "clock accept"
# How often what was leased may be drawn by others first.
_TRIES = 100
_NOBODY = Bounded()
_ANY = Verdict(Action.ALLOW, Code.ALLOW)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A request before its entry: what was asked at which moment, and what the kernel decided."""

    asked: Asked
    decided: Decided
    bounded: Bounded
    at: Moment
    mode: Mode
    cascade: Cascade | None = None
    on_trial: bool = False
    """What follows for others where it halts its agent, and whether that is only written down."""


class Pool(Protocol):
    """Where several processes draw on the same budgets (addons/pools/member.py)."""

    async def obtain(self, wants: Sequence[Want]) -> int | None: ...

    def obtain_now(self, wants: Sequence[Want]) -> None: ...

    def drawn(self, draws: Iterable[Draw]) -> None: ...

    def tell_halt(self, agent: str) -> None: ...

    def tell(self, kind: Kind, agent: str, fields: Mapping[str, Any], name: str) -> None: ...


class Book:
    """One process' state. `on_halt(agent, verdict)` hears of every halt, once it is in force; `on_halt_all(verdict)` of
    that of all agents, and `on_reads_only(agent, verdict)` of whoever may only read from now on.

    `on_new_halt(reason)` hears once of each, `on_preventive(fields)` of every entry of that kind that is written here
    because of a halt of this process.
    """

    def __init__(self, lane: Lane, states: States, governed: Callable[[], Governed],
                 sources: Callable[[str], tuple[str, ...]]) -> None:
        """`sources` are the client addresses from which an agent comes."""
        self._lane, self._states, self._governed, self._sources = lane, states, governed, sources
        self._thorough = os.environ.get("GOVERNANCE_CONTRACTS_ENABLED") == "1"
        # What an operator has accepted that the machine's clock is apart from this process'.
        self._accepted_us = 0
        self.on_halt: Callable[[str, Verdict], object] = lambda agent, verdict: None
        self.on_halt_all: Callable[[Verdict], object] = lambda verdict: None
        self.on_reads_only: Callable[[str, Verdict], object] = lambda agent, verdict: None
        self.on_new_halt: Callable[[str], object] = lambda reason: None
        self.pool: Pool | None = None
        """Where what is drawn must be leased first; None where this process alone counts."""
        self.on_preventive: Callable[[Mapping[str, Any]], object] = lambda fields: None

    @property
    def state(self) -> State:
        """What is enforced."""
        return self._states.real

    @property
    def states(self) -> States:
        return self._states

    @property
    def durable(self) -> int:
        """How many entries are on disk: all with a lower number."""
        return self._lane.durable

    @property
    def bounds(self) -> Bounds:
        """What the policy in force allows everybody."""
        return self._governed().bounds

    @property
    def identity(self) -> Identity:
        """By what the policy in force knows clients."""
        return self._governed().policy.identity

    def bounded(self, agent: str) -> Bounded:
        """What bounds an agent under the policy in force."""
        return self.bounds.of(agent)

    def sources(self, agent: str) -> tuple[str, ...]:
        """The client addresses from which an agent comes."""
        return self._sources(agent)

    def halted(self, agent: str, source: str | None) -> Verdict | None:
        """The refusal of an agent that is halted, or of somebody without an identity from where one came."""
        asked = Asked(agent, _ANY, source=source)
        return halt_of(self.state, self.state.agent(agent), asked)

    def reads_only(self, agent: str) -> Verdict | None:
        """The refusal of what an agent writes that may only read."""
        return READS_ONLY if self.state.agent(agent).reads_only(self._lane.now().micros) else None

    async def weigh(self, governed: Governed, asked: Asked, mode: Mode) -> Weighed:
        """What the kernel decides on a request, once what it wants was asked for. Nothing else changes yet.

        Nothing may be waited for between this and `commit`.
        """
        if self.pool is None:
            return self._weighed(governed, asked, mode)
        wait_us, tries = None, 0
        while wait_us is None and tries < _TRIES:
            weighed = self._weighed(governed, asked._replace(final=False), mode)
            if not weighed.decided.wants:
                return weighed
            tries += 1
            try:
                wait_us = await self.pool.obtain(weighed.decided.wants)
            except LedgerError as problem:
                verdict = Verdict(Action.DENY, Code.POOL_UNREACHABLE, None, str(problem))
                return self._weighed(governed, asked._replace(verdict=verdict, risk=0), mode)
        weighed = self._weighed(governed, asked, mode)
        return replace(weighed, decided=weighed.decided._replace(wait_us=wait_us or 0))

    def _weighed(self, governed: Governed, asked: Asked, mode: Mode) -> Weighed:
        bounded, at = governed.bounds.of(asked.agent), self._lane.now()
        cascade, on_trial = governed.policy.cascade, mode is Mode.OBSERVE
        if mode is Mode.OBSERVE:
            if not (asked.verdict.lets_through or asked.verdict.code in OBSERVED):
                # What is refused in spite of the trial.
                mode = Mode.ENFORCE
            elif (held := self._held(asked, at)) is not None:
                return Weighed(asked, Decided(held), bounded, at, Mode.ENFORCE, cascade, on_trial)
        decided = step(self._states.of(mode), bounded, asked, at.micros)
        return Weighed(asked, decided, bounded, at, mode, cascade, on_trial)

    def _held(self, asked: Asked, at: Moment) -> Verdict | None:
        """What is enforced of an agent whatever its policy's trial says."""
        verdict = step(self.state, _NOBODY, asked, at.micros).verdict
        return None if verdict is asked.verdict else verdict

    def note(self, fields: entry.Body, secrets: Secrets | None, agent: str) -> tuple[int, Future[None]]:
        """Write a decision that nobody weighed: it draws on nothing."""
        at = self._lane.now()
        self._tell_cause(fields, agent, at)
        number, durable = self._lane.commit("decision", fields, secrets, at)
        self._apply(self._states.of(fields["mode"]), "decision", fields, agent, number, at)
        return number, durable

    def note_unheard(self, fields: entry.Body, agent: str) -> None:
        """The same for a decision that nobody waits for."""
        self._tell_cause(fields, agent, self._lane.now())
        self.record("decision", fields, agent)

    def commit(self, weighed: Weighed, fields: entry.Body, secrets: Secrets | None) -> tuple[int, Future[None]]:
        """Write the decision and be bound by it."""
        agent, state = weighed.asked.agent, self._states.of(fields["mode"])
        bounds = weighed.bounded.bounds
        reads = Reads(agent, bounds, (*weighed.bounded.paces, *weighed.asked.throttles))
        self._tell_cause(fields, agent, weighed.at)
        fields["draws"] = [entry.draw(each) for each in weighed.decided.draws]
        fields["pre"] = reads.digest(state, NO_CHANGE, agent)
        made = change(state, {"type": "decision", **fields}, "", weighed.at.micros)
        passes = bool(made.opened)
        problem = broken(state, made, agent, bounds, passes=passes)
        if problem is None and self._thorough and not state.broken:
            problem = inconsistent(state)
        if problem is not None:
            self._break(state)
            raise ContractBroken(problem)
        fields["post"] = reads.digest(state, made, agent)
        number, durable = self._lane.commit("decision", fields, secrets, weighed.at)
        name = f"{self._lane.name}/{number}"
        self._take(state, named(made, name), agent, name, weighed)
        if self.pool is not None:
            self.pool.drawn(weighed.decided.draws)
        return number, durable

    def _tell_cause(self, fields: entry.Body, agent: str, at: Moment) -> None:
        """Say in a decision why its agent is held back, where another's halt does that."""
        cause = cause_of(self.state.agent(agent), at.micros)
        if cause is not None:
            fields["cause"] = cause

    def _take(self, state: State, made: Change, agent: str, decision: str | None,
              weighed: Weighed | None = None, *, ours: bool = True) -> None:
        before, all_before = state.agent(agent).halt, state.switch.halt
        state.take(made)
        all_after = state.switch.halt
        if all_after is not None and all_before is None and state is self.state:
            if ours:
                self.on_new_halt(all_after.reason)
            self.on_halt_all(ALL_HALTED)
        halt = state.agent(agent).halt
        if halt is None or halt is before or state is not self.state:
            return
        if before is None:
            if ours:
                self.on_new_halt(halt.reason)
            if decision is not None:
                self._say_halted(agent, halt, decision)
            try:
                self.on_halt(agent, Verdict(Action.HALT, Code.AGENT_HALTED, halt.rule, f"halted: {halt.reason}"))
            finally:
                if weighed is not None:
                    self._spread(agent, halt, weighed.cascade, weighed.at, on_trial=weighed.on_trial)

    def _say_halted(self, agent: str, halt: Halt, decision: str | None) -> None:
        """An entry of its own for a halt that a decision or another's halt brought about: whom it shuts out, too."""
        fields = entry.halt(agent, halt.reason, halt.rule, decision, self._sources(agent))
        self._tell_cause(fields, agent, self._lane.now())
        self.record("halt", fields, agent)
        if self.pool is not None:
            self.pool.tell_halt(agent)

    def spread_heard(self, origin: str, decision: str) -> None:
        """Do to the agents that are active here what follows from a halt that `decision` of another process earned."""
        halt, at, governed = self.state.agent(origin).halt, self._lane.now(), self._governed()
        if halt is not None:
            on_trial = governed.mode(at.micros // 1_000_000) is Mode.OBSERVE
            self._spread(origin, halt._replace(entry=decision), governed.policy.cascade, at, on_trial=on_trial)

    def _spread(self, origin: str, halt: Halt, cascade: Cascade | None, at: Moment, *, on_trial: bool) -> None:
        """Do to others what follows from a halt that an agent earned: written down, and in force at once."""
        if cascade is None:
            return
        roll = roll_at(self._states, at.micros)
        for fields in entries_after(cascade, roll, origin, halt, on_trial=on_trial):
            agent = str(fields["agent"])
            number = self.record("preventive", fields, agent, lasts_us=cascade.seconds * 1_000_000)
            if self.pool is not None:
                self.pool.tell(Kind.PREVENTIVE, agent, fields, f"{self._lane.name}/{number}")
            self.on_preventive(fields)
            spread = self.state.agent(agent).halt
            if fields["do"] == Prevention.HALT and spread is not None:
                self._say_halted(agent, spread, None)

    def record(self, kind: str, fields: Mapping[str, Any], agent: str, mode: Mode = Mode.ENFORCE,
               lasts_us: int | None = None) -> int:
        """Write an entry that changes the state of an agent, and change it. `lasts_us` is as for `broken`."""
        at, state = self._lane.now(), self._states.of(mode)
        number = self._lane.record(kind, fields, at)
        self._apply(state, kind, fields, agent, number, at, lasts_us)
        return number

    def record_now(self, kind: str, fields: Mapping[str, Any], agent: str) -> int:
        """The same, durable on return, with all before it. Blocks."""
        at = self._lane.now()
        number = self._lane.write_now(kind, fields, at)
        self._apply(self.state, kind, fields, agent, number, at)
        return number

    def take_news(self, kind: str, fields: Mapping[str, Any], agent: str, *,
                  ours: bool) -> tuple[int, Future[None]]:
        """Write what a process did, and be bound by it; what resolves once that is durable. `ours`: by this process."""
        at = self._lane.now()
        number, durable = self._lane.commit(kind, fields, None, at)
        self._apply(self.state, kind, fields, agent, number, at, ours=ours)
        return number, durable

    def _apply(self, state: State, kind: str, fields: Mapping[str, Any], agent: str, number: int, at: Moment,
               lasts_us: int | None = None, *, ours: bool = True) -> None:
        name = f"{self._lane.name}/{number}"
        made = change(state, {"type": kind, **fields}, name, at.micros)
        if broken(state, made, agent, lasts_us=lasts_us):
            self._break(state)
            return
        wrote = not state.agent(agent).reads_only(at.micros)
        self._take(state, made, agent, None, ours=ours)
        if wrote and state is self.state and state.agent(agent).reads_only(at.micros):
            self.on_reads_only(agent, READS_ONLY)

    def _break(self, state: State) -> None:
        """A contract does not hold: nothing passes any more, at the next start neither."""
        state.take(Change(broken=True))
        self._lane.record("fault", entry.fault(KERNEL, ContractBroken.__name__, Code.CONTRACT_VIOLATION, None))

    async def act(self, act: str, agent: str | None, reason: str, operator: str, by: str, **more: Any) -> str:
        """What an operator does: written, in force at once, and durable when this returns. The entry's name."""
        fields = entry.operator(act, agent, reason, operator, by) | more
        if act == "agents halt" and agent is not None:
            fields["sources"] = list(self._sources(agent))
        at = self._lane.now()
        number, durable = self._lane.commit("operator", fields, None, at)
        self._apply(self.state, "operator", fields, agent or "", number, at)
        if act == CLOCK_ACCEPT:
            self._accepted_us = time.time_ns() // 1000 - at.micros
        await durable
        return f"{self._lane.name}/{number}"

    def look_at_clock(self, wall_us: int) -> None:
        """Say so where the clock of the machine has jumped, and let no budget be drawn on until that is accepted."""
        apart = wall_us - self._lane.now().micros
        if self.state.clock_ok and abs(apart - self._accepted_us) > JUMP_US:
            self._say_jumped(wall_us, self._lane.now().micros)

    def begin(self, config: entry.Body) -> None:
        """Write the settings of this start: with a ledger among them, what is drawn must be leased. Blocks."""
        at = self._lane.now()
        number = self._lane.write_now("config", config, at)
        self._apply(self.state, "config", config, "", number, at)

    def begin_clock(self) -> None:
        """The same at a start, which is not to be before the newest entry of the log."""
        began, last = self._lane.now().micros, self._lane.last_ts
        if last and began < micros(last):
            self._say_jumped(began, micros(last))

    def _say_jumped(self, wall_us: int, expected_us: int) -> None:
        fields = entry.clock(written(wall_us), written(expected_us))
        at = self._lane.now()
        number = self._lane.write_now("clock", fields, at)
        self._apply(self.state, "clock", fields, "", number, at)

    def take_over(self, acts: Iterable[Mapping[str, Any]]) -> None:
        """Do what verbs did while nothing ran, as `addons.takeover` has it: durable and in force on return. Blocks."""
        for fields in acts:
            at = self._lane.now()
            number = self._lane.write_now("operator", fields, at)
            self._apply(self.state, "operator", fields, fields["agent"] or "", number, at)

    def draw_more(self, decision: str, agent: str, mode: Mode, part: int, unit: Unit, wanted: int, *,
                  at_once: bool) -> Drawn | Verdict:
        """Draw for a flow that goes on. `part` counts its entries; with `at_once` they are durable on return."""
        state, at = self._states.of(mode), self._lane.now()
        draws = more(state, self.bounded(agent), agent, unit, wanted, at.micros)
        if self.pool is not None and isinstance(draws, Verdict) and state.pooled:
            draws = self._more_leased(self.pool, state, agent, unit, wanted, at, draws)
        flow = state.open.get(decision)
        if isinstance(draws, Verdict) or flow is None or not draws:
            return draws if isinstance(draws, Verdict) else (wanted, None)
        fields = entry.outcome(flow.flow, decision, "unknown", part=part) | {"draws": [entry.draw(d) for d in draws]}
        durable: Future[None] | None = None
        if at_once:
            number = self._lane.write_now("outcome", fields, at)
        else:
            number, durable = self._lane.commit("outcome", fields, None, at)
        self._apply(state, "outcome", fields, agent, number, at)
        return draws[0].amount, durable

    def _more_leased(self, pool: Pool, state: State, agent: str, unit: Unit, wanted: int, at: Moment,
                     refused: Verdict) -> tuple[Draw, ...] | Verdict:
        """The same once more was leased, as far as there is more."""
        bounded = self.bounded(agent)
        try:
            pool.obtain_now(wanted_more(state, bounded, agent, unit, wanted, at.micros))
        except LedgerError:
            return refused
        return more(state, bounded, agent, unit, wanted, at.micros)
