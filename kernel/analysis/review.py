"""Everything that is doubtful in a policy that loads, each finding with the request that shows it.

What could not be decided within its allowance is listed as undecided, and is never taken for right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kernel.address import wholly_private
from kernel.analysis.box import ADDRESSES, HOSTS, METHODS, PORTS, SCHEMES, WHO, Box
from kernel.analysis.language import TooHard
from kernel.analysis.places import Entry
from kernel.analysis.region import Region, regions
from kernel.analysis.shapes import Shapes
from kernel.analysis.sizes import MEASURES, Sizes
from kernel.analysis.space import SCHEMES as SCHEME_NAMES
from kernel.analysis.space import bits
from kernel.conditions import spelled
from kernel.errors import NonCanonical
from kernel.facts import Host
from kernel.findings import Finding, Severity, Witness
from kernel.match import hosts_of
from kernel.pattern import host_matches
from kernel.policy import AddressRange, HostPattern, HostReach, Verb

if TYPE_CHECKING:
    from kernel.policy import Policy, Rule
    from kernel.suffix import Suffixes

_UPLOADS = frozenset({"POST", "PUT", "PATCH"})
_CLEAR = frozenset({"http", "ws"})
_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Tables:
    """What is known of the world: hosts from which anyone can fetch what was uploaded, and the public suffixes."""

    exfiltration: tuple[HostPattern, ...] = ()
    suffixes: Suffixes | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """The findings, what could not be decided, and how many `never:` items were proved: nothing in them passes."""

    findings: tuple[Finding, ...]
    undecided: tuple[str, ...]
    proved: int


@dataclass(slots=True)
class _Notes:
    """What a review has found so far."""

    findings: list[Finding] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)

    def decided[T](self, what: str, question: Callable[[], T]) -> T | None:
        """The answer; None where it takes too much work, which is noted."""
        try:
            return question()
        except TooHard:
            self.undecided.append(what)
            return None


def review(policy: Policy, tables: Tables | None = None) -> Review:
    """All findings about the meaning of a policy."""
    notes = _Notes()
    made = notes.decided("the policy as a whole", lambda: regions([policy])[0])
    if made is None:
        return Review((), tuple(notes.undecided), 0)
    known = tables or Tables()
    for rule in made.vague:
        notes.undecided.append(f"rule {rule.name}: it opens addresses in which others may be hidden")
    notes.findings += closed_by_never(policy, made)
    notes.dead.update(name for finding in notes.findings for name in finding.rules[:1])
    _empty(policy, made, notes)
    _grants(policy, made, notes)
    _redundant(policy, made, notes)
    _refusals(policy, made, notes)
    _wide(policy, made, known, notes)
    order = sorted(notes.findings, key=lambda each: (each.position.file, each.position.line, each.code))
    return Review(tuple(order), tuple(dict.fromkeys(notes.undecided)), _proved(policy, made, notes))


def errors_at_load(policy: Policy) -> list[Finding]:
    """The findings that keep a policy from loading. Only grants that name inside addresses are looked at."""
    if not policy.nevers or not any(_written(rule) for rule in policy.rules if rule.verb.grants):
        return []
    try:
        return list(closed_by_never(policy, None))
    except TooHard:
        return []


def _written(rule: Rule) -> list[AddressRange]:
    """The ranges of a grant that are inside: it was written to open them."""
    ranges = [*(rule.where.address or ())]
    ranges += [host for item in rule.where.to or () if isinstance(host := hosts_of(item), AddressRange)]
    return [each for each in dict.fromkeys(ranges) if wholly_private(each)]


def closed_by_never(policy: Policy, region: Region | None) -> Iterator[Finding]:
    """E402: a grant is written for inside addresses, and `never:` refuses each request that it could let through."""
    shapes = region.shapes if region else Shapes([policy])
    nevers = [(never, shapes.of(never)) for never in policy.nevers]
    for rule in policy.rules:
        for spread in _written(rule) if rule.verb.grants else ():
            mask = shapes.space.addresses.mask(spread, wide=False)
            inside = [box.narrowed(ADDRESSES, left) for box in shapes.of(rule)
                      if (left := box.masks[ADDRESSES] & mask & ~shapes.space.addresses.vague)]
            covers = [box for _, found in nevers for box in found]
            if inside and all(shapes.boxes.covered(box, covers) for box in inside):
                names = [never.name for never, found in nevers
                         if any(shapes.boxes.meet(box, one) for box in inside for one in found)]
                message = f"{rule.name} opens {spread.text}, and {_listed(names)} refuses all of it: it never takes effect"
                yield Finding("E402", Severity.ERROR, rule.position, message,
                              "take the range out of the rule, or write an except: into the never", (rule.name, *names),
                              Shown_(shapes, inside[0]))


def Shown_(shapes: Shapes, box: Box) -> Witness:
    from kernel.analysis.region import Shown

    return Shown(shapes, box).witness()


def _empty(policy: Policy, region: Region, notes: _Notes) -> None:
    """W305: no request is in it."""
    for rule in policy.items:
        if not region.shapes.of(rule):
            notes.dead.add(rule.name)
            hint = "its except: takes everything back" if rule.holes else "two of its keys exclude each other"
            notes.findings.append(
                Finding("W305", Severity.WARNING, rule.position, f"{rule.name} matches no request", hint, (rule.name,)))


def _grants(policy: Policy, region: Region, notes: _Notes) -> None:
    """W301: everything that it opens is refused."""
    opened: defaultdict[str, list[Box]] = defaultdict(list)
    for entry in region.grants.entries:
        opened[entry.rule.name].append(entry.box)
    for rule in policy.rules:
        if not rule.verb.grants or rule.name in notes.dead or rule in region.vague:
            continue
        found = opened[rule.name]
        passes = notes.decided(f"whether {rule.name} has any effect", lambda found=found: _first(region, found))
        if passes is not None or any(what.endswith(f"whether {rule.name} has any effect") for what in notes.undecided):
            continue
        notes.dead.add(rule.name)
        notes.findings.append(_never_effective(rule, found, region))


def _first(region: Region, found: Iterable[Box]) -> Box | None:
    return next((piece for box in found for piece in region.passing(box)), None)


def _never_effective(rule: Rule, found: Sequence[Box], region: Region) -> Finding:
    if not found:
        message = f"{rule.name} has no effect: its addresses are inside, and it does not open them"
        box = region.shapes.of(rule)[0]
        return Finding("W301", Severity.WARNING, rule.position, message, "name the inside range itself: address: RANGE",
                       (rule.name,), region.witness(box))
    names = _meeting(region, found)
    message = f"{rule.name} has no effect: {_listed(names)} refuses everything that it allows"
    hint = "take it out, or write an except: into what refuses"
    return Finding("W301", Severity.WARNING, rule.position, message, hint, (rule.name, *names),
                   region.witness(found[0]))


def _meeting(region: Region, found: Iterable[Box]) -> list[str]:
    """The refusals that meet these boxes."""
    near = [(box, entry) for box in found for entry in region.refusals.near(box)]
    return list(dict.fromkeys(entry.rule.name for box, entry in near if region.boxes.meet(box, entry.box)))


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        shown.append(f"{len(names) - _MOST_NAMES} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _said(rule: Rule) -> object:
    where = (rule.where, *rule.holes)
    return rule.verb, tuple(tuple(getattr(each, name) for name in each.__slots__) for each in where), rule.terms


def _redundant(policy: Policy, region: Region, notes: _Notes) -> None:
    """W302: no verdict changes without the rules that are named here, not even without all of them at once."""
    groups: defaultdict[object, list[Rule]] = defaultdict(list)
    for rule in policy.rules:
        if rule.name not in notes.dead:
            groups[_said(rule)].append(rule)
    gone: set[str] = set()
    for first, *others in groups.values():
        if others:
            gone.update(rule.name for rule in others)
            names = [rule.name for rule in others]
            message = f"{_listed(names)} says the same as {first.name}"
            notes.findings.append(Finding("W302", Severity.WARNING, others[0].position, message, "keep one of them",
                                          (*names, first.name), _any(region, first)))
    measured = _measured(policy, region, notes)
    for first, *_ in reversed(groups.values()):
        what = f"whether {first.name} is needed"
        covering = notes.decided(what, lambda first=first: _covering(first, measured, gone | notes.dead))
        if covering:
            gone.add(first.name)
            verb = "allow" if first.verb.grants else "refuse"
            message = f"{first.name} is not needed: {_listed(covering)} {verb}s all of it" if len(covering) == 1 else (
                f"{first.name} is not needed: {_listed(covering)} together {verb} all of it")
            notes.findings.append(Finding("W302", Severity.WARNING, first.position, message,
                                          "take it out, or change what makes it needless", (first.name, *covering),
                                          _any(region, first)))


def _any(region: Region, rule: Rule) -> Witness:
    return region.witness(region.shapes.of(rule)[0])


def _measured(policy: Policy, region: Region, notes: _Notes) -> list[Region]:
    """The policy's region without a size, and once for each measure that it speaks of."""
    found = [region]
    for measure in MEASURES:
        if Sizes(measure, [policy]).used:
            made = notes.decided(f"what {measure.name} changes", lambda measure=measure: regions([policy], measure)[0])
            found += [] if made is None else [made]
    return found


def _covering(rule: Rule, measured: Sequence[Region], without: set[str]) -> list[str]:
    """The rules that make this one needless under every measure; none where it is needed."""
    names: dict[str, None] = {}
    for region in measured:
        mine = [e.box for e in _own(rule, region)]
        for box in mine:
            near = [e for e in _likes(rule, region).near(box) if e.rule.name != rule.name and e.rule.name not in without]
            refusing = region.refusing(box) if rule.verb.grants else []
            if not region.boxes.covered(box, [*(e.box for e in near), *refusing]):
                return []
            names.update((e.rule.name, None) for e in near if region.boxes.meet(box, e.box))
    return list(names)


def _likes(rule: Rule, region: Region) -> Nearby:
    return region.grants if rule.verb.grants else region.refusals


def _own(rule: Rule, region: Region) -> list[Entry]:
    return region.of_rule(rule)
