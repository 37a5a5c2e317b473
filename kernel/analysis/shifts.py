"""How the consequences of requests shift from one policy to another: what is used up, slowed down, halted, charged.

What passes at all is in kernel/analysis/difference.py; here is what becomes of those who ask.
"""

from __future__ import annotations

from collections import Counter as Multiset
from typing import TYPE_CHECKING, NamedTuple

from kernel.analysis.box import ADDRESSES, HOSTS
from kernel.analysis.constraints import bounds_of, is_slower, tells
from kernel.analysis.language import TooHard
from kernel.analysis.phrase import place
from kernel.analysis.space import LITERAL_HOST
from kernel.bounds import pace
from kernel.budget import Unit
from kernel.cascade_prose import consequences
from kernel.dns import narrowed
from kernel.one_rule import hangs_on_addresses
from kernel.policy import Verb
from kernel.words import amount_in_words, rate_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kernel.analysis.box import Box
    from kernel.analysis.constraints import Agents
    from kernel.analysis.region import Region
    from kernel.findings import Witness
    from kernel.policy import Policy, Rule

_MOST_PIECES = 2_000


class Shift(NamedTuple):
    """One consequence that is another in the new policy. `looser` is None where it bounds nobody either way."""

    looser: bool | None
    rules: tuple[str, ...]
    message: str
    witness: Witness | None = None


def shifts(old: Region, new: Region) -> Iterator[Shift]:
    """Every shift: what is looser, then what is stricter, then what bounds nobody. Raises `TooHard`."""
    points = list(_points(old, new))
    for looser, held, other in ((True, old, new), (False, new, old)):
        yield from _bounds(held, other, looser=looser)
        yield from _throttles(held, other, looser=looser)
        yield from _halts(held, other, looser=looser)
        yield from (shift for shift in points if shift.looser is looser)
        yield from _cascades(held.policy, other.policy, looser=looser)
        yield from _names(held.policy, other.policy, looser=looser)
    yield from _told(old.policy, new.policy)


def _bounds(held: Region, other: Region, *, looser: bool) -> Iterator[Shift]:
    """What holds agents in one policy, and nothing in the other holds them to as much."""
    bounds = list(bounds_of(other.policy))

    def is_within(some: Agents, all_: Agents) -> bool:
        if all_ is None or some == all_:
            return True
        boxes = held.shapes.boxes
        covers = held.shapes.asked(all_)
        return all(boxes.covered(box, covers) for box in (
            [held.shapes.everything] if some is None else held.shapes.asked(some)))

    for bound in bounds_of(held.policy):
        if not any(bound.implied_by(each, is_within) for each in bounds):
            when = "no longer" if looser else "now"
            yield Shift(looser, (bound.name,), f"{bound.name} {when} {bound.in_words(held.policy)}")


def _told(old: Policy, new: Policy) -> Iterator[Shift]:
    before, after = tells(old), tells(new)
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            shares = " and ".join(f"{percent} %" for percent in after[name]) or "no share"
            yield Shift(None, (name,), f"{name} now tells what is left at {shares}")


def _cascades(held: Policy, other: Policy, *, looser: bool) -> Iterator[Shift]:
    """What a halt means for others in one policy, and not, or not for all of the same agents, in the other."""
    kept = list(consequences(other.cascade))
    for consequence in consequences(held.cascade):
        if consequence not in kept:
            when = "no longer" if looser else "now"
            yield Shift(looser, (), f"{when} for others when an agent is halted: {consequence[0].rstrip('.')}")


def _names(held: Policy, other: Policy, *, looser: bool) -> Iterator[Shift]:
    """What of a look-up one policy refuses, and the other answers."""
    said, beside = (narrowed([each for each in policy.dns if each is not None]) for policy in (held, other))
    when = "now" if looser else "no longer"
    if beside.answers and not said.answers:
        yield Shift(looser, (), f"names are {when} looked up")
    for kind in sorted(beside.types - said.types):
        yield Shift(looser, (), f"questions for records of the type {kind} are {when} answered")
    for what, most, other_most in (("labels", said.most_labels, beside.most_labels),
                                   ("characters", said.most_characters, beside.most_characters)):
        if other_most > most:
            yield Shift(looser, (), f"names of {most + 1:,} to {other_most:,} {what} are {when} answered")


def _throttles(held: Region, other: Region, *, looser: bool) -> Iterator[Shift]:
    """A throttle that slows down what passes in both, and no single one of the other policy slows down all of that."""
    boxes, shapes = held.boxes, held.shapes
    rivals = [rule for rule in other.policy.rules if rule.rate is not None]
    for rule in held.policy.rules:
        if rule.rate is None:
            continue
        own = pace("", rule.rate)
        slower = [each for each in rivals if each.rate is not None and is_slower(pace("", each.rate), own)]
        own_pieces = (piece for box in shapes.of(rule) for piece in _passing(held, box))
        passing = [piece for box in own_pieces for piece in _passing(other, box)]
        if not passing or any(all(boxes.covered(piece, shapes.of(each)) for piece in passing) for each in slower):
            continue
        covers = [box for each in slower for box in shapes.of(each)]
        left = next((gap for piece in passing for gap in boxes.left(piece, covers)), passing[0])
        when = "no longer" if looser else "now"
        message = f"{rule.name} {when} slows down to {rate_in_words(rule.rate)} what passes ({place(rule)})"
        yield Shift(looser, (rule.name,), message, held.witness(left))


def _passing(region: Region, box: Box) -> Iterator[Box]:
    """What of a box the policy lets pass."""
    for grant in region.granting(box):
        both = region.boxes.meet(box, grant)
        if both is not None:
            yield from region.passing(both)


def _halts(held: Region, other: Region, *, looser: bool) -> Iterator[Shift]:
    """What one policy halts an agent for, and the other one does not."""
    for rule in held.policy.rules:
        if rule.verb is not Verb.HALT:
            continue
        halting = _halting(held, held.shapes.of(rule), rule)
        gap = next((gap for box in halting for gap in _alone(box, held, other)), None)
        if gap is not None:
            when = "no longer" if looser else "now"
            yield Shift(looser, (rule.name,), f"{rule.name} {when} ends an agent ({place(rule)})", held.witness(gap))


def _halting(region: Region, boxes: Iterable[Box], rule: Rule) -> Iterator[Box]:
    """Where a halt ends an agent: one that speaks of addresses only where the host is an address."""
    addresses = region.shapes.space.addresses
    hosts = LITERAL_HOST if hangs_on_addresses(rule) else region.shapes.space.hosts.every
    for box in boxes:
        masks = box.masks[ADDRESSES] & addresses.every & ~addresses.vague, box.masks[HOSTS] & hosts
        if all(masks):
            yield box.narrowed(ADDRESSES, masks[0]).narrowed(HOSTS, masks[1])


def _alone(box: Box, held: Region, other: Region) -> Iterator[Box]:
    """What of a halt no never hides, and the other policy does not halt for."""
    boxes = held.boxes
    for piece in boxes.left(box, _nevers(held, box)):
        halts = [entry for entry in other.refusals.near(piece) if entry.rule.verb is Verb.HALT]
        yield from boxes.left(piece, [each for entry in halts for each in _halting(other, [entry.box], entry.rule)])
        meeting = (boxes.meet(piece, never) for never in _nevers(other, piece))
        yield from (both for both in meeting if both is not None)


def _nevers(region: Region, box: Box) -> list[Box]:
    return [entry.box for entry in region.refusals.near(box) if entry.rule.verb is Verb.NEVER]


def _points(old: Region, new: Region) -> Iterator[Shift]:
    """Whether some request costs fewer points in the new policy, and whether one costs more."""
    gone, come = _beyond(old.policy, new.policy), _beyond(new.policy, old.policy)
    pieces: list[tuple[Box, int, tuple[str, ...]]] = []
    for rule, points in (*((rule, -rule.risk) for rule in gone), *((rule, rule.risk) for rule in come)):
        pieces = _added(pieces, rule, points, old)
    for looser in (True, False):
        found = next(((box, points, names) for box, points, names in pieces
                      if points and (points < 0) is looser), None)
        if found is not None:
            box, points, names = found
            message = f"a request costs {amount_in_words(Unit.RISK, abs(points))} {'less' if looser else 'more'}"
            yield Shift(looser, names, message, old.witness(box))


def _beyond(policy: Policy, other: Policy) -> list[Rule]:
    """The rules that cost points and have no like in the other policy."""
    left = Multiset(_cost(other, rule) for rule in other.rules if rule.risk)
    found = []
    for rule in policy.rules:
        cost = _cost(policy, rule)
        if rule.risk and left[cost] > 0:
            left[cost] -= 1
        elif rule.risk:
            found.append(rule)
    return found


def _cost(policy: Policy, rule: Rule) -> object:
    """What makes two rules cost the same for the same requests."""
    bound = policy.tiers[rule.tier].binds
    return rule.verb.grants, rule.terms.websocket is None, rule.where, rule.holes, bound, rule.risk


def _added(
    pieces: list[tuple[Box, int, tuple[str, ...]]], rule: Rule, points: int, region: Region
) -> list[tuple[Box, int, tuple[str, ...]]]:
    """Pieces that do not meet, with what each costs, once this rule costs something, too."""
    boxes = region.boxes
    own: list[Box] = []
    for box in region.shapes.of(rule):
        own += list(boxes.left(box, own))
    found = []
    for piece, cost, names in pieces:
        found += [(both, cost + points, (*names, rule.name)) for box in own
                  if (both := boxes.meet(piece, box)) is not None]
        found += [(rest, cost, names) for rest in boxes.left(piece, own)]
    known = [piece for piece, _, _ in pieces]
    found += [(rest, points, (rule.name,)) for box in own for rest in boxes.left(box, known)]
    if len(found) > _MOST_PIECES:
        raise TooHard
    return found
