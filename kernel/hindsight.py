"""What another policy would have said of the requests in a log, and what its accounts would have had left for them.

Its accounts begin empty, and what was asked draws on them in the order of the log. What a request used that the log let
pass is known from its outcome; what one would have used that the log refused is not, and counts as used.

A host that was refused before its name was looked up is taken for one on the public internet, as in assertions; a URL
counts without its query. Where the log does not hold what the policy asks for, nothing is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from kernel.decide import address_stage, name_stage
from kernel.entry import draw
from kernel.facts import RequestFacts
from kernel.llm.recorded import spend_of
from kernel.question import STAND_IN
from kernel.recorded import (
    FIELDS_DECIDE,
    NOT_KEPT,
    Entry,
    Judging,
    Values,
    address_of,
    extremes,
    is_given,
    is_own,
)
from kernel.replay import NOT_AN_ENTRY, ODD
from kernel.state import State
from kernel.step import Asked, Decided, asked_method, step
from kernel.transition import change, micros, place_of
from kernel.trial import Mode
from kernel.verdict import Action, Code, Judgement, Verdict

NO_FACTS = "path or host not kept"
URL_LENGTH = "the length of the URL decides"
NO_DESTINATION = "refused for its size before anything else"
_OPERATORS = frozenset({"operator", "clock"})


class Kind(NamedTuple):
    """One way in which verdicts change: `host` as the log shows it, rules and verdicts before and after."""

    host: str
    rule_old: str | None
    rule_new: str | None
    before: str
    after: str


@dataclass(slots=True)
class Changed:
    """How often verdicts change in one way, and the first entry that shows it."""

    count: int
    example: str


@dataclass(slots=True)
class Changes:
    """What would have been different; of how many decisions that cannot be said, and why."""

    decisions: int = 0
    changed: dict[Kind, Changed] = field(default_factory=dict)
    undecided: Counter[str] = field(default_factory=Counter)

    def add(self, other: Changes) -> None:
        """Count what another part of the log, that comes later, was found to be."""
        self.decisions += other.decisions
        self.undecided += other.undecided
        for kind, changed in other.changed.items():
            self.note(kind, changed.example, changed.count)

    def note(self, kind: Kind, entry: str, count: int = 1) -> None:
        known = self.changed.setdefault(kind, Changed(0, entry))
        known.count += count

    def cannot(self, reason: str) -> None:
        self.decisions += 1
        self.undecided[reason] += 1


class Hindsight:
    """One lane under another policy; `wanted` says which decisions are compared."""

    def __init__(self, lane: str, judging: Judging, wanted: Callable[[Entry], bool] = lambda _: True) -> None:
        self._lane, self._judging, self._wanted = lane, judging, wanted
        self._state = State()
        self.found = Changes()

    def take(self, entry: Entry, values: Values = NOT_KEPT) -> None:
        """Go on to the next entry; `values` are what the vault holds for it."""
        try:
            name, now_us = f"{self._lane}/{entry['seq']}", micros(entry["ts"])
            if entry["type"] == "decision":
                if entry["agent"]["id"] is not None and entry["stage"] == "request" and not is_own(entry):
                    self._decision(entry, values, name, now_us)
            elif entry["type"] in _OPERATORS or (entry["type"] == "outcome" and entry["decision"] in self._state.open):
                self._state.take(change(self._state, entry, name, now_us))
        except ODD:
            self.found.cannot(NOT_AN_ENTRY)

    def _decision(self, entry: Entry, values: Values, name: str, now_us: int) -> None:
        wanted = self._wanted(entry)
        judged = self._judged(entry, values, now_us // 1_000_000)
        # Of what is not known the rules are taken to say what the log says, so that what is used up is used up.
        old = Verdict(Action(entry["verdict"]), Code(entry["code"]), entry["rule"])
        ruled, groups = (old, ()) if isinstance(judged, str) else judged
        decided = self._weighed(entry, ruled, groups, now_us)
        verdict = decided.verdict
        new = {**entry, "verdict": verdict.action, "rule": verdict.rule, "code": verdict.code, "mode": Mode.ENFORCE,
               "draws": [draw(each) for each in decided.draws]}
        self._state.take(change(self._state, new, name, now_us))
        if isinstance(judged, str):
            if wanted:
                self.found.cannot(judged)
        elif wanted:
            self.found.decisions += 1
            if (old.action, old.lets_through) != (verdict.action, verdict.lets_through):
                kind = Kind(entry["in"]["host"] or "", old.rule, verdict.rule, old.action, verdict.action)
                self.found.note(kind, name)

    def _weighed(self, entry: Entry, verdict: Verdict, groups: tuple[str, ...], now_us: int) -> Decided:
        judging, seen, agent = self._judging, entry["in"], entry["agent"]["id"]
        bounds = judging.bounds
        return step(self._state, bounds.of(agent), Asked(
            agent, verdict, asked_method(seen["method"], seen["scheme"]),
            None if seen["host"] is None else place_of(seen), seen.get("request"),
            seen["body_bytes"] or 0, bounds.risk(groups), bounds.throttles(groups),
            quiet=verdict.rule in judging.index.quiet, spend=spend_of(entry)), now_us)

    def _judged(self, entry: Entry, values: Values, at: int) -> tuple[Verdict, tuple[str, ...]] | str:
        """What the rules say, and which they are; or why that is not known."""
        code = entry["code"]
        if entry["in"]["scheme"] is None and code == Code.BODY_TOO_LARGE:
            return NO_DESTINATION
        if is_given(entry):
            return Verdict(Action.DENY, Code(code)), ()
        facts = self._judging.facts_of_any_path(entry, values, at)
        if facts is None:
            return NO_FACTS
        ways = [self._answer(each, entry) for each in extremes(self._judging.index, entry, facts)]
        if len({(way.verdict.action, way.verdict.lets_through) for way in ways}) > 1:
            return FIELDS_DECIDE
        if code == Code.URL_TOO_LONG and ways[0].verdict.code == Code.URL_TOO_LONG:
            return URL_LENGTH
        return ways[0].verdict, ways[0].groups

    def _answer(self, facts: RequestFacts, entry: Entry) -> Judgement:
        index = self._judging.index
        found = name_stage(index, facts)
        if found is not None:
            return found
        address = facts.host.address or address_of(entry["in"]["address"]) or STAND_IN
        return address_stage(index, facts, (address,), frozenset())
