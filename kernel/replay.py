"""A replay: every decision of a lane made again, and compared with what the log says of it.

One lane, its entries in their order. A decision is made again by what the log itself holds: the rules that held, the
accounts as the entries before have left them, the moment that it has. Then the entry of the log is what the state goes
on from, so that one decision that differs does not make all later ones differ.

A log is presumed to be verified; whatever else it holds is told as a difference, and never raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from kernel.bounds import Bounded
from kernel.cascade import cause_of, entries_after, roll_at
from kernel.entry import EMPTY_SET, draw
from kernel.errors import KernelError
from kernel.folding import States
from kernel.llm.recorded import spend_of
from kernel.recorded import (
    FIELDS_DECIDE,
    NOT_KEPT,
    SLACK_SECONDS,
    Entry,
    Judging,
    Values,
    has_groups,
    is_own,
    matched,
    moments,
)
from kernel.recorded_names import looked_up_again
from kernel.snapshot import Snapshot, encode
from kernel.spreading import Found, Spreading
from kernel.state import NO_CHANGE, Change, Halt, State
from kernel.state_digest import Reads
from kernel.step import Asked, Decided, asked_method, halt_of, step
from kernel.transition import change, micros, passes, place_of
from kernel.trial import OBSERVED, Mode
from kernel.verdict import Action, Code, Verdict

if TYPE_CHECKING:
    from kernel.bounds import Pace
    from kernel.recorded import Matched

OTHER_KERNEL = "other kernel"
NO_POLICY = "policy not kept"
NOT_AN_ENTRY = "not an entry"
LOADS = frozenset({"lane_open", "policy_load"})
"""The types of entries that say which kernel decides."""

# What an entry can bring about that is not of the form that the log has.
ODD = (ArithmeticError, AttributeError, KernelError, LookupError, TypeError, ValueError)

_ANY = Verdict(Action.ALLOW, Code.ALLOW)
_NOBODY = Bounded()

type Policies = Callable[[str], Judging | str]
"""The policy of a digest, or why there is none."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """A field of an entry (LANE/SEQ) that is not what it is computed to be."""

    entry: str
    field: str
    recorded: Any
    computed: Any


@dataclass(slots=True)
class Replayed:
    """What a replay found. `matched` counts the decisions whose rules were found again from the request itself."""

    decisions: int = 0
    equal: int = 0
    divergent: int = 0
    matched: int = 0
    not_replayable: Counter[str] = field(default_factory=Counter)
    first_divergence: Divergence | None = None

    def add(self, other: Replayed) -> None:
        """Count what another part of the log, that comes later, was found to be."""
        self.decisions += other.decisions
        self.equal += other.equal
        self.divergent += other.divergent
        self.matched += other.matched
        self.not_replayable += other.not_replayable
        self.first_divergence = self.first_divergence or other.first_divergence

    def differs(self, found: Divergence) -> None:
        self.decisions += 1
        self.divergent += 1
        self.first_divergence = self.first_divergence or found

    def cannot(self, reason: str) -> None:
        self.decisions += 1
        self.not_replayable[reason] += 1


class Replay:
    """One lane. `kernel` is the digest of this kernel; `wanted` says which decisions are compared."""

    def __init__(self, lane: str, policies: Policies, kernel: str, wanted: Callable[[Entry], bool] = lambda _: True,
                 states: States | None = None) -> None:
        """`states` are those that the entries before have made, where it does not begin with the lane."""
        self._lane, self._policies, self._own, self._wanted = lane, policies, kernel, wanted
        self._kernel: object = None
        self._modes: dict[str, object] = {}
        self._reads: dict[tuple[str, str], Reads] = {}
        self._spreading = Spreading(lane)
        self.states = states or States()
        self.found = Replayed()

    def begin_after(self, loads: Iterable[Entry]) -> None:
        """Take note of what decided before this part: its entries that say so, in order."""
        for entry in loads:
            # Where one is odd, the part that it stands in tells it.
            with suppress(*ODD):
                self._load(entry)

    def _load(self, entry: Entry) -> None:
        if entry["type"] in LOADS:
            self._kernel = entry["kernel"]["digest"]
        if entry["type"] == "policy_load":
            self._modes[entry["policy"]] = entry["mode"]

    def compare_state(self, name: str, at: int, recorded: object) -> None:
        """Compare the digest of the state that the entries below `at` make with the one that an entry tells of it.

        Another kernel keeps another state.
        """
        if self._kernel != self._own:
            return
        computed = blake3(encode(Snapshot(self._lane, at, self.states))).hexdigest()
        if computed != recorded:
            self.found.differs(Divergence(name, "digest", recorded, computed))

    def take(self, entry: Entry, values: Values = NOT_KEPT) -> None:
        """Go on to the next entry; `values` are what the vault holds for it."""
        try:
            self._take(entry, values)
        except ODD as error:
            said = f"{type(error).__name__}: {error}"
            self.found.differs(Divergence(self._name(entry), "form", said, "an entry of this log"))

    def _name(self, entry: Entry) -> str:
        return f"{self._lane}/{entry.get('seq')}"

    def _take(self, entry: Entry, values: Values) -> None:
        self._load(entry)
        name, now_us = self._name(entry), micros(entry["ts"])
        state = self.states.changed_by(entry)
        self._compare_spreading(entry, name)
        if entry["type"] == "decision" and self._wanted(entry):
            made = self._decision(entry, values, state, name, now_us)
        else:
            made = change(state, entry, name, now_us)
        if entry["type"] == "decision" and state is self.states.real:
            self._take_decision(entry, made, now_us)
        else:
            state.take(made)

    def _take_decision(self, entry: Entry, made: Change, now_us: int) -> None:
        """Go on from a decision that is enforced; where it halts its agent, note what has to follow."""
        agent, real = entry["agent"]["id"] or "", self.states.real
        before = real.agent(agent).halt
        real.take(made)
        halt = real.agent(agent).halt
        if before is None and halt is not None:
            self._spread(entry, agent, halt, now_us)

    def _compare_spreading(self, entry: Entry, name: str) -> None:
        """Compare what followed from the halt before."""
        found = None
        self._spreading.begin_with(entry["seq"])
        match entry["type"]:
            case "preventive":
                found = self._spreading.acted(entry)
            case "decision" | "close":
                found = self._spreading.missing()
            case "config":
                self._spreading.started()
        if found is not None:
            self.found.differs(Divergence(name, *found))

    def _spread(self, entry: Entry, agent: str, halt: Halt, now_us: int) -> None:
        """Note what has to follow from a halt, where its policy was kept and this kernel decided."""
        judging = OTHER_KERNEL if self._kernel != self._own else self._policies(entry["policy"])
        if isinstance(judging, str):
            self._spreading.untold(halt.entry)
            return
        cascade = judging.policy.cascade
        if cascade is None:
            self._spreading.halted([])
            return
        roll = roll_at(self.states, now_us)
        self._spreading.halted([entries_after(cascade, roll, agent, halt, on_trial=on_trial)
                                for on_trial in self._trials(judging, now_us // 1_000_000)])

    def _decision(self, entry: Entry, values: Values, state: State, name: str, now_us: int) -> Change:
        """Compare a decision; what its entry changes."""
        made = change(state, entry, name, now_us)
        judging = OTHER_KERNEL if self._kernel != self._own else self._policies(entry["policy"])
        if isinstance(judging, str):
            self.found.cannot(judging)
            return made
        try:
            found = self._compared(judging, entry, values, state, made, now_us)
        except ODD as error:
            found = "form", f"{type(error).__name__}: {error}", "a decision of this policy"
        if isinstance(found, tuple):
            self.found.differs(Divergence(name, *found))
        elif found is not None:
            self.found.cannot(found)
        else:
            self.found.decisions += 1
            self.found.equal += 1
        return made

    def _compared(self, judging: Judging, entry: Entry, values: Values, state: State, made: Change,
                  now_us: int) -> Found | str | None:
        found: Found | str | None = None
        for on_trial in self._trials(judging, now_us // 1_000_000):
            comparison = _Comparison(self, judging, entry, values, state, made, now_us, on_trial=on_trial)
            found = comparison.run()
            if not isinstance(found, tuple):
                self.found.matched += comparison.matched
                break
        return found

    def reads(self, judging: Judging, agent: str, bounded: Bounded, throttles: tuple[Pace, ...]) -> Reads:
        """What a step for an agent may read under a policy."""
        if throttles:
            return Reads(agent, bounded.bounds, (*bounded.paces, *throttles))
        key = judging.policy.digest, agent
        found = self._reads.get(key)
        if found is None:
            found = self._reads[key] = Reads(agent, bounded.bounds, bounded.paces)
        return found

    def _trials(self, judging: Judging, at: int) -> tuple[bool, ...]:
        """Whether a policy was on trial, by what the log and the policy say; either where it ends at that time."""
        until = judging.policy.observed_until
        if until is None or self._modes.get(judging.policy.digest) != Mode.OBSERVE:
            return (False,)
        before, after = (moment < until for moment in (at - SLACK_SECONDS, at + SLACK_SECONDS))
        return (before,) if before is after else (before, after)


class _Comparison:
    """One decision of the log beside the same one made again."""

    def __init__(self, replay: Replay, judging: Judging, entry: Entry, values: Values, state: State, made: Change,
                 now_us: int, *, on_trial: bool) -> None:
        self._replay, self._judging, self._entry, self._values = replay, judging, entry, values
        self._state, self._made, self._now_us = state, made, now_us
        self._at = now_us // 1_000_000
        self._on_trial = on_trial
        self._groups = tuple(entry["groups"])
        self._url_bytes = 0
        self._reason: str | None = None
        self.matched = False

    def run(self) -> Found | str | None:
        """The first field that differs, why something cannot be said, or None where all is equal."""
        entry = self._entry
        found = self._caused()
        if found is not None:
            return found
        if _is_unweighed(entry):
            return self._without_accounts()
        unknown = [name for name in self._groups if name not in self._judging.rules]
        if unknown:
            return "groups", list(self._groups), f"the policy has no {unknown[0]}"
        ordered = sorted({*self._groups}, key=self._judging.number)
        if ordered != entry["groups"]:
            return "groups", list(self._groups), ordered
        return self._matching() or self._stepping() or self._reason

    def _caused(self) -> Found | None:
        """Compare the chain of causes of whoever another's halt holds back."""
        agent = self._entry["agent"]["id"]
        cause = None if agent is None else cause_of(self._replay.states.real.agent(agent), self._now_us)
        return None if self._entry.get("cause") == cause else ("cause", self._entry.get("cause"), cause)

    def _without_accounts(self) -> Found | str | None:
        """A decision that reads no account: of a tunnel, a name, or nobody."""
        entry = self._entry
        if entry["agent"]["id"] is None and entry["stage"] == "request" and passes(entry):
            return "agent", None, "who is let through has an identity"
        if entry["stage"] == "request" and not is_own(entry) and entry["verdict"] != Action.DENY:
            return "verdict", entry["verdict"], Action.DENY
        if entry["code"] == Code.AGENT_HALTED and self._halted(entry["agent"]["id"]) is None:
            return "code", entry["code"], "the agent is not halted"
        found = None
        if entry["stage"] == "dns":
            found = looked_up_again(self._judging, entry, self._values, self._at, on_trial=self._on_trial)
        return found or _different(entry, {"draws": [], "pre": EMPTY_SET, "post": EMPTY_SET})

    def _halted(self, agent: str | None) -> Verdict | None:
        real = self._replay.states.real
        return halt_of(real, real.agent(agent or ""), Asked(agent or "", _ANY, source=self._source()))

    def _source(self) -> str | None:
        """The client's address is in no log: where the entry says that a halted agent came from it, it did."""
        entry = self._entry
        if entry["code"] != Code.AGENT_HALTED or entry["rule"] is not None:
            return None
        return next(iter(self._replay.states.real.closed_sources()), None)

    def _matching(self) -> Found | None:
        """Compare the rules that hold with those of the entry, where the request is kept."""
        judging, entry = self._judging, self._entry
        if not has_groups(entry):
            return None
        may: frozenset[str] = frozenset()
        for at in moments(judging.index, self._at):
            facts = judging.facts(entry, self._values, at)
            if facts is None:
                return None
            found = matched(judging, entry, facts)
            may = found.may
            if found.fits(self._groups) and self._waits_alike(found):
                self._url_bytes = facts.url_bytes
                self.matched = found.certain
                self._reason = None if found.certain else FIELDS_DECIDE
                return None
        return "groups", list(self._groups), sorted(may, key=judging.number)

    def _waits_alike(self, found: Matched) -> bool:
        """False where hours decide on one side alone, or those of another rule."""
        entry = self._entry
        if self._on_trial or found.best is None or not found.certain or entry["code"] not in _OF_RULES:
            return True
        verdict = found.best.verdict
        return Code.OUT_OF_HOURS not in (verdict.code, entry["code"]) or (
            (verdict.code, verdict.rule) == (entry["code"], entry["rule"]))

    def _stepping(self) -> Found | None:
        """Compare what the kernel decides, and what that does."""
        entry, judging, state = self._entry, self._judging, self._state
        agent = entry["agent"]["id"]
        bounded = judging.bounds.of(agent)
        ruled = judging.ruled(entry, self._groups, self._at, self._url_bytes, on_trial=self._on_trial)
        asked = self._asked(agent, ruled)
        found = self._deciding(bounded, asked)
        if found is not None and ruled.lets_through and entry["code"] in _OF_REFUSALS:
            # What was refused from outside counts as a refusal; its code gave way to that of whoever counts.
            outside = asked._replace(verdict=Verdict(Action.DENY, Code.METHOD_OVERRIDE))
            found = self._deciding(bounded, outside)
        if found is not None:
            return found
        reads = self._replay.reads(judging, agent, bounded, asked.throttles)
        pre = reads.digest(state, NO_CHANGE, agent)
        if pre != entry["pre"]:
            return "pre", entry["pre"], pre
        post = reads.digest(state, self._made, agent)
        return None if post == entry["post"] else ("post", entry["post"], post)

    def _asked(self, agent: str, ruled: Verdict) -> Asked:
        seen, bounds, groups = self._entry["in"], self._judging.bounds, self._groups
        return Asked(
            agent, ruled, asked_method(seen["method"], seen["scheme"]),
            None if seen["host"] is None else place_of(seen), seen.get("request"),
            seen["body_bytes"] or 0, bounds.risk(groups), bounds.throttles(groups),
            self._source(), ruled.rule in self._judging.index.quiet, spend=spend_of(self._entry))

    def _deciding(self, bounded: Bounded, asked: Asked) -> Found | None:
        """The first field of what the kernel decides that is not as recorded, or the mode."""
        decided = self._decided(bounded, asked)
        return _unlike(self._entry, decided) or self._mode(decided.verdict)

    def _decided(self, bounded: Bounded, asked: Asked) -> Decided:
        """What the kernel decides. Who would pass because of a trial is held to what holds in spite of it."""
        states, now_us, verdict = self._replay.states, self._now_us, asked.verdict
        if not (self._on_trial and (verdict.lets_through or verdict.code in OBSERVED)):
            return step(states.real, bounded, asked, now_us)
        held = step(states.real, _NOBODY, asked, now_us).verdict
        return step(states.shadow, bounded, asked, now_us) if held is verdict else Decided(held)

    def _mode(self, verdict: Verdict) -> Found | None:
        """Compare whether the request passed because its policy was on trial."""
        passes = self._on_trial and (verdict.lets_through or verdict.code in OBSERVED)
        mode = Mode.OBSERVE if passes else Mode.ENFORCE
        return None if self._entry["mode"] == mode else ("mode", self._entry["mode"], mode)


def _is_unweighed(entry: Entry) -> bool:
    """True for a decision that asks no account: of a tunnel, of nobody, of what Governor answers itself."""
    if entry["agent"]["id"] is None or entry["stage"] != "request" or is_own(entry):
        return True
    # A request that never became one: nobody waited for its verdict.
    return bool(entry["code"] == Code.MALFORMED and entry["pre"] == EMPTY_SET)


def _unlike(entry: Entry, decided: Decided) -> Found | None:
    verdict = decided.verdict
    draws = [draw(each) for each in decided.draws] if decided.draws else []
    if (entry["verdict"] == verdict.action and entry["rule"] == verdict.rule and entry["code"] == verdict.code
            and entry["draws"] == draws):
        return _unlike_in_size(entry, decided)
    return _different(
        entry, {"verdict": verdict.action, "rule": verdict.rule, "code": verdict.code, "draws": draws})


def _unlike_in_size(entry: Entry, decided: Decided) -> Found | None:
    """Compare how large the answer of a model may be, where a bound of it stands in the entry."""
    if decided.output is None:
        return None
    recorded = entry["llm"]["max_output"]
    return None if recorded == decided.output else ("max_output", recorded, decided.output)


_OF_RULES = frozenset({
    Code.ALLOW, Code.DEFAULT_DENY, Code.UPGRADE_REFUSED, Code.PRIVATE_ADDRESS, Code.OUT_OF_HOURS})
# What counts refusals of any kind, also those whose reason is in no log.
_OF_REFUSALS = frozenset({Code.PERSISTENCE_LIMIT, Code.OVERRISK})


def _different(entry: Entry, computed: Mapping[str, Any]) -> Found | None:
    """The first field of the entry that is not what was computed."""
    return next(((name, entry[name], value) for name, value in computed.items() if entry[name] != value), None)
