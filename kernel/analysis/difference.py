"""What changes from one policy to another: what passes only now, what passes no more, and what is judged otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

from kernel.analysis.box import ADDRESSES, HOSTS, SIZE, Box
from kernel.analysis.language import TooHard
from kernel.analysis.phrase import how, place, to, who
from kernel.analysis.region import Region
from kernel.analysis.shapes import Shapes
from kernel.analysis.shifts import Shift, shifts
from kernel.analysis.sizes import MEASURES, NO_MEASURE
from kernel.analysis.space import LITERAL_HOST
from kernel.findings import Witness
from kernel.one_rule import hangs_on_addresses
from kernel.policy import Verb
from kernel.trial import Mode, mode_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kernel.analysis.places import Entry
    from kernel.analysis.sizes import Measure
    from kernel.policy import Policy, Rule

MOST_CHANGES = 5
_MOST_TRIED = 20


class Relation(StrEnum):
    """How a new policy stands to an old one: STRICTER where less passes and nothing more, LOOSER the other way."""

    STRICTER = "stricter"
    LOOSER = "looser"
    EQUAL = "equal"
    INCOMPARABLE = "incomparable"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Change:
    """One change, by the rules and budgets that make it, with a request that shows it where one does."""

    rules: tuple[str, ...]
    message: str
    witness: Witness | None


@dataclass(frozen=True, slots=True)
class Difference:
    """The changes, at most five of a kind. They are told as if both policies enforced.

    `trials` are the ends of `mode: observe` in the old and in the new policy, in seconds since 1970, None where it
    enforces: a trial more, or a longer one, is looser.
    `changed` is what passes both times within other measures, what agents may use up otherwise, how they are slowed
    down, halted or charged with points otherwise, and what is refused both times for another reason.
    """

    relation: Relation
    newly_allowed: tuple[Change, ...]
    newly_denied: tuple[Change, ...]
    changed: tuple[Change, ...]
    undecided: tuple[str, ...]
    trials: tuple[int | None, int | None] = (None, None)


def difference(old: Policy, new: Policy, now: int = 0) -> Difference:
    """The difference that the new policy makes, for every request from `now` on."""
    was, becomes = (end if mode_at(end, now) is Mode.OBSERVE else None
                    for end in (old.observed_until, new.observed_until))
    try:
        return _Comparison(old, new, now, (was, becomes)).difference()
    except TooHard:
        return Difference(Relation.UNDECIDED, (), (), (), ("the policies as a whole",), (was, becomes))


class _Comparison:
    def __init__(self, old: Policy, new: Policy, now: int, trials: tuple[int | None, int | None]) -> None:
        self._old, self._new, self._trials = old, new, trials
        self._undecided: list[str] = []
        self._shapes = Shapes([old, new], now=now)
        self._made: dict[Measure, tuple[Region, Region]] = {}

    def difference(self) -> Difference:
        if self._old.identity != self._new.identity:
            # Requests are compared by the agent whose they are, and whose they are may be another one now.
            self._undecided.append("which agent a client is: identity has changed")
        gained, lost = self._both(NO_MEASURE)
        allowed = [_allowed(self._new, *gain) for gain in gained]
        denied = [_denied(self._old, *gain) for gain in lost]
        changed: list[Change] = []
        before, after = (end or 0 for end in self._trials)
        looser, stricter = bool(allowed) or after > before, bool(denied) or after < before
        for measure in MEASURES:
            if self._shapes.measured(measure).sizes.used:
                wider, narrower = self._both(measure)
                looser, stricter = looser or bool(wider), stricter or bool(narrower)
                changed += [_measured(measure, rule, "more", witness) for rule, _, witness in wider]
                changed += [_measured(measure, rule, "less", witness) for rule, _, witness in narrower]
        for shift in self._shifts():
            looser, stricter = looser or shift.looser is True, stricter or shift.looser is False
            changed.append(Change(shift.rules, shift.message, shift.witness))
        changed += self._reasons()
        relation = self._relation(looser=looser, stricter=stricter)
        return Difference(relation, tuple(allowed), tuple(denied), tuple(changed[:MOST_CHANGES]),
                          tuple(dict.fromkeys(self._undecided)), self._trials)

    def _relation(self, *, looser: bool, stricter: bool) -> Relation:
        if looser and stricter:
            return Relation.INCOMPARABLE
        if self._undecided:
            return Relation.UNDECIDED
        if looser:
            return Relation.LOOSER
        return Relation.STRICTER if stricter else Relation.EQUAL

    def _both(self, measure: Measure) -> tuple[list[_Gain], list[_Gain]]:
        """What the new policy lets pass in addition, and what it does not any more."""
        what = measure.name or "what passes"
        try:
            old, new = self._regions(measure)
            if old.vague or new.vague:
                self._undecided.append("what hides behind some addresses that a rule opens")
            return self._shown(new, old), self._shown(old, new)
        except TooHard:
            self._undecided.append(what)
            return [], []

    def _regions(self, measure: Measure) -> tuple[Region, Region]:
        """Both policies with this measure as the size of requests; without one they are looked at twice."""
        made = self._made.get(measure)
        if made is None:
            shapes = self._shapes.measured(measure)
            made = self._made[measure] = Region(self._old, shapes), Region(self._new, shapes)
        return made

    def _shifts(self) -> list[Shift]:
        self._shapes.boxes.allowance.renew()
        try:
            return list(shifts(*self._regions(NO_MEASURE)))
        except TooHard:
            self._undecided.append("what follows from requests: budgets, throttles, halts, points of risk")
            return []

    def _reasons(self) -> list[Change]:
        try:
            old, new = self._regions(NO_MEASURE)
            found = [*self._judged_otherwise(old, new, "no longer"), *self._judged_otherwise(new, old, "now")]
        except TooHard:
            self._undecided.append("why requests are refused")
            return []
        return found

    def _shown(self, new: Region, old: Region) -> list[_Gain]:
        """The first gain of each rule, with a request."""
        return self._first(_gains(new, old), new)

    def _first(self, asked: Iterable[tuple[Rule, Iterator[_Lifted]]], region: Region) -> list[_Gain]:
        """The first box of each rule with a request that shows it; a rule of which none was found is undecided."""
        found: dict[str, _Gain] = {}
        doubts: dict[str, str] = {}
        for rule, boxes in asked:
            if rule.name in found:
                continue
            self._shapes.boxes.allowance.renew()
            try:
                for refusal, box in islice(boxes, _MOST_TRIED):
                    witness = region.witness(box)
                    if witness is not None:
                        found[rule.name] = rule, refusal, witness
                        break
                    doubts[rule.name] = "no request was found that shows what it changes"
            except TooHard:
                doubts[rule.name] = "what it changes"
            if len(found) == MOST_CHANGES:
                break
        self._undecided += [f"rule {name}: {doubt}" for name, doubt in doubts.items() if name not in found]
        return list(found.values())

    def _judged_otherwise(self, old: Region, new: Region, when: str) -> Iterator[Change]:
        for rule, _, witness in self._first(_reasons(old, new), old):
            message = f"{rule.name} is {when} the reason why a request is refused ({place(rule)})"
            yield Change((rule.name,), message, witness)


type _Lifted = tuple[Rule | None, Box]
type _Gain = tuple[Rule, Rule | None, Witness]


def _names(rule: Rule, refusal: Rule | None) -> tuple[str, ...]:
    return (rule.name,) if refusal is None else (rule.name, refusal.name)


def _allowed(policy: Policy, rule: Rule, refusal: Rule | None, witness: Witness) -> Change:
    because = "" if refusal is None else f"; {refusal.name} no longer refuses it"
    message = f"{who(policy, rule)} may now {how(rule)} {to(rule)} ({place(rule)}){because}"
    return Change(_names(rule, refusal), message, witness)


def _denied(policy: Policy, rule: Rule, refusal: Rule | None, witness: Witness) -> Change:
    because = "" if refusal is None else f"; {refusal.name} refuses it"
    message = f"{who(policy, rule)} may no longer {how(rule)} {to(rule, "all of ")} ({place(rule)}){because}"
    return Change(_names(rule, refusal), message, witness)


def _measured(measure: Measure, rule: Rule, direction: str, witness: Witness) -> Change:
    return Change((rule.name,), f"{measure.name} lets {direction} pass ({place(rule)})", witness)


def _said(region: Region, entry: Entry) -> object:
    """What makes the rules of two entries say the same, wherever they stand and whatever they are called."""
    tiers = region.policy.tiers
    return frozenset((rule.verb, rule.where, rule.holes, rule.terms, tiers[rule.tier].binds) for rule in entry.rules)


def _gains(new: Region, old: Region) -> Iterator[tuple[Rule, Iterator[_Lifted]]]:
    """What of each grant passes in `new` and does not in `old`, in boxes, each with the refusal that is gone."""
    kept = {_said(new, entry) for entry in new.refusals.entries}
    gone = [entry for entry in old.refusals.entries if _said(old, entry) not in kept]
    alone = not old.joint and not new.joint and old.policy.tiers == new.policy.tiers
    granted = {_said(old, entry) for entry in old.grants.entries} if alone else set()
    for entry in new.grants.entries:
        yield entry.rule, _gained(entry, new, old, gone, same=_said(new, entry) in granted)


def _gained(
    entry: Entry, new: Region, old: Region, gone: Sequence[Entry], *, same: bool
) -> Iterator[_Lifted]:
    lifted = [each for each in gone if new.boxes.meet(entry.box, each.box) is not None]
    if same and not lifted:
        return
    for piece in new.passing(entry.box):
        for refusal, box in _differing(piece, old, lifted, same=same):
            shown = _otherwise_passing(box, old) if new.shapes.sizes.used else box
            if shown is not None:
                yield refusal, shown


def _differing(
    piece: Box, old: Region, lifted: Sequence[Entry], *, same: bool
) -> Iterator[_Lifted]:
    """What of a passing piece does not pass in `old`: what no grant opens there, what a refusal refuses there."""
    if not same:
        for gap in old.boxes.left(piece, old.granting(piece)):
            yield None, gap
    for each in lifted:
        both = old.boxes.meet(piece, each.box)
        if both is not None:
            yield each.rule, both


def _otherwise_passing(box: Box, old: Region) -> Box | None:
    """What of the box passes in `old` when it is small: there it is the measure that makes the difference."""
    small = box.narrowed(SIZE, 1)
    for cover in old.granting(small):
        both = old.boxes.meet(small, cover)
        found = None if both is None else next(old.passing(both), None)
        if found is not None:
            return found
    return None


def _reasons(old: Region, new: Region) -> Iterator[tuple[Rule, Iterator[_Lifted]]]:
    """What both refuse, and only `old` by a never, or only `old` by a deny and neither by what is above it. Halts are
    among the shifts."""
    kept = {_said(new, entry) for entry in new.refusals.entries}
    known = old.shapes.space.addresses.every & ~old.shapes.space.addresses.vague
    for entry in old.refusals.entries:
        box = entry.box.narrowed(ADDRESSES, entry.box.masks[ADDRESSES] & known)
        if entry.rule.verb is Verb.HALT:
            # Of a name, a halt that speaks of addresses is a deny.
            hosts = ~LITERAL_HOST if hangs_on_addresses(entry.rule) else 0
            box = box.narrowed(HOSTS, box.masks[HOSTS] & hosts)
        if all(box.masks[:SIZE]) and _said(old, entry) not in kept:
            yield entry.rule, _refused_otherwise(entry.rule, box, old, new)


def _is_above_a_deny(rule: Rule) -> bool:
    return rule.verb is Verb.NEVER or (rule.verb is Verb.HALT and not hangs_on_addresses(rule))


def _refused_otherwise(rule: Rule, box: Box, old: Region, new: Region) -> Iterator[_Lifted]:
    lower = rule.verb is not Verb.NEVER
    covers = [each.box for each in new.refusals.near(box) if lower or each.rule.verb is Verb.NEVER]
    covers += [each.box for each in old.refusals.near(box) if lower and _is_above_a_deny(each.rule)]
    for piece in old.boxes.left(box, covers):
        for unopened in new.boxes.left(piece, new.granting(piece)):
            yield None, unopened
        for each in new.refusals.near(piece):
            both = new.boxes.meet(piece, each.box)
            if both is not None:
                yield None, both
