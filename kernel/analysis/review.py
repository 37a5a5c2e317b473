"""Everything that is doubtful in the meaning of a policy, each finding with the request that shows it.

What could not be decided within its allowance is listed as undecided, and is never taken for right.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kernel.address import wholly_private
from kernel.analysis.box import ADDRESSES, HOSTS, METHODS, PORTS, SCHEMES, Box
from kernel.analysis.constraints import is_slower
from kernel.analysis.language import TooHard
from kernel.analysis.region import Region, shown
from kernel.analysis.shapes import Shapes, scheme_mask
from kernel.analysis.sizes import MEASURES
from kernel.analysis.space import OTHER_HOST
from kernel.bounds import pace
from kernel.clause import parents
from kernel.conditions import spelled
from kernel.document import joined
from kernel.facts import Host
from kernel.findings import Finding, Severity, Witness
from kernel.one_rule import hosts_of
from kernel.policy import AddressRange, HostPattern, HostReach, UrlPattern, Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kernel.policy import Policy, Rule
    from kernel.suffix import Suffixes

_UPLOADS = frozenset({"POST", "PUT", "PATCH"})
_CLEAR = frozenset({"http", "ws"})
_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Tables:
    """What is known of the world: hosts from which anybody can fetch what was put there, and the public suffixes."""

    exfiltration: tuple[HostPattern, ...] = ()
    suffixes: Suffixes | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """The findings, what could not be decided, and the `never:` items that were proved: nothing in them passes."""

    findings: tuple[Finding, ...]
    undecided: tuple[str, ...]
    proved: tuple[str, ...]


NO_TABLES = Tables()


def review(policy: Policy, tables: Tables = NO_TABLES, now: int = 0) -> Review:
    """All findings about the meaning of a policy that loads, for every request from `now` on."""
    try:
        return _Reviewer(policy, tables, now).review()
    except TooHard:
        return Review((), ("the policy as a whole",), ())


def errors_at_load(policy: Policy, tables: Tables = NO_TABLES) -> list[Finding]:
    """The findings that keep a policy from loading. Only what grants could bring them about is looked at."""
    written = tuple([rule for rule in policy.rules if _written(rule)]) if policy.nevers else ()
    leaving = _may_leave(policy, tables.exfiltration)
    try:
        found = _closed_by_never_alone(replace(policy, rules=written, limits=())) if written else []
        return [*found, *_left_behind(policy, leaving, tables)] if leaving else found
    except TooHard:
        return []


def _closed_by_never_alone(asked: Policy) -> list[Finding]:
    return list(_closed_by_never(asked, Shapes([asked])))


def _may_leave(policy: Policy, hosts: Sequence[HostPattern]) -> list[Rule]:
    """Grants of writing that give no reason and name one of these hosts, what is above it, or what is below it."""
    below = {host.name for host in hosts}
    near = below | {parent for name in below for parent in parents(name)}
    return [rule for rule in policy.rules if rule.verb.grants and rule.why is None and _writes(rule) and any(
        host.name in near or any(parent in below for parent in parents(host.name))
        for item in rule.where.to or () if isinstance(host := hosts_of(item), HostPattern))]


def _writes(rule: Rule) -> bool:
    return rule.where.methods is None or bool(rule.where.methods & _UPLOADS)


def _left_behind(policy: Policy, leaving: Sequence[Rule], tables: Tables) -> list[Finding]:
    """E403 for these grants. With one tier the others do not matter."""
    rules = policy.rules if len(policy.tiers) > 1 else [r for r in policy.rules if r.verb.refuses or r in leaving]
    return _Reviewer(replace(policy, rules=tuple(rules), limits=()), tables, now=0).left_behind(leaving)


def _has_expired(rule: Rule, now: int) -> bool:
    return rule.where.expires is not None and rule.where.expires <= now


def _is_timeless(rule: Rule) -> bool:
    return not any(each.has_time for each in (rule.where, *rule.holes))


def _written(rule: Rule) -> list[AddressRange]:
    """The inside ranges that a grant was written for."""
    if not rule.verb.grants:
        return []
    ranges = list(rule.where.address or ())
    ranges += [host for item in rule.where.to or () if isinstance(host := hosts_of(item), AddressRange)]
    return [each for each in dict.fromkeys(ranges) if wholly_private(each)]


def _closed_by_never(policy: Policy, shapes: Shapes) -> Iterator[Finding]:
    """E402: a grant is written for inside addresses, and `never:` refuses every request that it could let through.

    A never with a time does not count: whether a policy loads never hangs on the time.
    """
    covers = [(never.name, box) for never in filter(_is_timeless, policy.nevers) for box in shapes.of(never)]
    for rule in policy.rules:
        for spread in _written(rule):
            mask = shapes.space.addresses.mask(spread, wide=False) & ~shapes.space.addresses.vague
            inside = [box.narrowed(ADDRESSES, left) for box in shapes.of(rule) if (left := box.masks[ADDRESSES] & mask)]
            if not inside or not all(shapes.boxes.covered(box, [cover for _, cover in covers]) for box in inside):
                continue
            meeting = (name for name, cover in covers if any(shapes.boxes.meet(box, cover) for box in inside))
            names = list(dict.fromkeys(meeting))
            closed = f"{_listed(names)} {_do('refuse', names)} all of it"
            message = f"{rule.name} names {spread.text}, and {closed}: it never takes effect"
            yield Finding("E402", Severity.ERROR, rule.position, message,
                          "take the range out of the rule, or write an except: into the never", (rule.name, *names),
                          shown(shapes, inside[0]))


def _why_empty(rule: Rule, *, bound: bool) -> str:
    globs = [*(rule.where.paths or ()), *(item.path for item in rule.where.to or () if isinstance(item, UrlPattern))]
    if any("%2F" in glob.text for glob in globs):
        return "an allow covers a path with %2F where it also covers the path with / in its place"
    return "its tier is for other agents, or two keys exclude each other" if bound else "two keys exclude each other"


def _do(verb: str, names: Sequence[str]) -> str:
    return f"{verb}s" if len(names) == 1 else verb


def _listed(names: Iterable[str]) -> str:
    return joined(names, "and", _MOST_NAMES)


class _Reviewer:
    """Reviews one policy. `_done` are the rules of which nothing more need be said."""

    def __init__(self, policy: Policy, tables: Tables, now: int) -> None:
        self._policy, self._tables, self._now = policy, tables, now
        self._shapes = Shapes([policy], names=tables.exfiltration, now=now)
        self._region = Region(policy, self._shapes)
        self._boxes = self._shapes.boxes
        self._findings: list[Finding] = []
        self._undecided: list[str] = []
        self._done: set[str] = set()

    def review(self) -> Review:
        for rule in self._region.vague:
            self._undecided.append(f"rule {rule.name}: what hides behind some addresses that it opens")
        # W306 says of a rule that it has expired; what is on trial has no effect yet.
        self._done.update(rule.name for rule in self._policy.items if _has_expired(rule, self._now) or rule.observed)
        for finding in _closed_by_never(self._policy, self._shapes):
            self._findings.append(finding)
            self._done.add(finding.rules[0])
        for rule in self._policy.items:
            if rule.name not in self._done and not self._shapes.of(rule):
                self._matches_nothing(rule)
        # Grants first, wherever they stand: a refusal cuts a part out of none that has no effect.
        for rule in sorted(self._policy.rules, key=lambda rule: rule.verb.refuses):
            if rule.name not in self._done:
                self._effect(rule)
        self._equal()
        self._needless()
        for rule in self._policy.rules:
            if rule.verb.grants and rule.name not in self._done:
                self._width(rule)
        proved = [never.name for never in self._policy.nevers
                  if self._decided(f"never {never.name}", self._holds, never) is True]
        order = sorted(self._findings, key=lambda each: (each.position.file, each.position.line, each.code))
        return Review(tuple(order), tuple(dict.fromkeys(self._undecided)), tuple(proved))

    def left_behind(self, rules: Iterable[Rule]) -> list[Finding]:
        """E403 alone, for these grants."""
        for rule in rules:
            self._decided(f"rule {rule.name}", self._uploads, rule)
        return self._findings

    def _decided[T](self, what: str, question: Callable[[Rule], T], rule: Rule) -> T | None:
        """The answer; None where it takes too much work, which is noted."""
        self._boxes.allowance.renew()
        try:
            return question(rule)
        except TooHard:
            self._undecided.append(what)
            return None

    def _find(
        self, code: str, rule: Rule, message: str, hint: str, names: Iterable[str] = (), *, box: Box | None = None,
        of: Rule | None = None, severity: Severity = Severity.WARNING,
    ) -> None:
        """Note a finding. Its witness lies in `box`, or is any request that the rule `of` speaks of, if one is seen."""
        witness = None if box is None else self._region.witness(box)
        if of is not None:
            witness = self._request_of(of)
        self._findings.append(
            Finding(code, severity, rule.position, message, hint, tuple(dict.fromkeys((rule.name, *names))), witness))

    def _request_of(self, rule: Rule) -> Witness | None:
        """A request that the rule speaks of; None where finding one takes too much work."""
        self._boxes.allowance.renew()
        try:
            return self._region.witness(self._first(rule))
        except TooHard:
            return None

    def _matches_nothing(self, rule: Rule) -> None:
        self._done.add(rule.name)
        bound = rule.where.agents is not None and self._policy.tiers[rule.tier].binds is not None
        hint = "what except: says takes everything back" if rule.holes else _why_empty(rule, bound=bound)
        self._find("W305", rule, f"{rule.name} matches no request", hint)

    def _effect(self, rule: Rule) -> None:
        what = f"rule {rule.name}: whether it has an effect"
        if not rule.verb.grants:
            self._decided(what, self._refusal, rule)
        elif rule not in self._region.vague:
            self._decided(what, self._grant, rule)

    def _grant(self, rule: Rule) -> None:
        """W301: everything that it opens is refused."""
        opened = self._region.boxes_of(rule)
        if rule.risk or not all(self._boxes.covered(box, self._region.refusing(box)) for box in opened):
            return
        self._done.add(rule.name)
        if not opened and self._shapes.opened(rule):
            message = f"{rule.name} has no effect: no rule of {self._silent(rule)} allows any of it"
            self._find("W301", rule, message, "take it out, or allow it there too", box=self._first(rule))
            return
        if not opened:
            message = f"{rule.name} has no effect: its addresses are inside, and it does not open them"
            self._find("W301", rule, message, "name the inside range itself: address: RANGE", box=self._first(rule))
            return
        names = self._meeting(opened)
        refusing = f"{_listed(names)} {_do('refuse', names)} everything that it allows"
        self._find("W301", rule, f"{rule.name} has no effect: {refusing}",
                   "take it out, or write an except: into what refuses", names, box=opened[0])

    def _silent(self, rule: Rule) -> str:
        """The tiers of which each must grant what this rule does."""
        others = [tier for number, tier in enumerate(self._policy.tiers) if number != rule.tier and not tier.passes]
        return joined([f"tier {tier.name} ({tier.file})" for tier in others], "and", _MOST_NAMES)

    def _first(self, rule: Rule) -> Box:
        boxes = self._shapes.of(rule)
        return next((box for box in boxes if box.masks[ADDRESSES] & ~self._shapes.space.addresses.vague), boxes[0])

    def _meeting(self, boxes: Iterable[Box]) -> list[str]:
        """The refusals that meet these boxes."""
        near = ((box, entry) for box in boxes for entry in self._region.refusals.near(box))
        return list(dict.fromkeys(entry.rule.name for box, entry in near if self._boxes.meet(box, entry.box)))

    def _refusal(self, rule: Rule) -> None:
        """I304: it cuts something out of a grant. W303: it speaks of what a grant speaks of, and cuts nothing out."""
        cut = self._cut(rule)
        effective = [name for name in cut if name not in self._done]
        if effective:
            message = f"{rule.name} refuses a part of what {_listed(effective)} {_do('allow', effective)}"
            self._find("I304", rule, message, "", effective, box=cut[effective[0]], severity=Severity.INFO)
        has_effect = cut or rule.why is not None or rule.verb is Verb.HALT or rule.risk
        close = None if has_effect else next(self._close(rule), None)
        if close is not None:
            name, box = close
            message = f"{rule.name} refuses nothing that is allowed; {name} allows other requests there"
            self._find("W303", rule, message, "compare their paths and agents; why: says that it is meant so", [name],
                       box=box)

    def _cut(self, rule: Rule) -> dict[str, Box]:
        """What it refuses of grants, by their names: some of them, where they are many."""
        cut: dict[str, Box] = {}
        for box in self._region.boxes_of(rule):
            meets = any(self._boxes.meet(box, each) for each in self._region.granting(box))
            for entry in self._region.grants.near(box) if meets else ():
                if len(cut) > _MOST_NAMES:
                    return cut
                both = None if entry.rule.name in cut else self._boxes.meet(box, entry.box)
                if both is not None:
                    cut[entry.rule.name] = both
        return cut

    def _close(self, rule: Rule) -> Iterator[tuple[str, Box]]:
        """The grants that name the same hosts."""
        for box in self._region.boxes_of(rule):
            if not box.masks[HOSTS] & OTHER_HOST:
                for entry in self._region.grants.near(Box(box.masks)):
                    if _same_place(box, entry.box):
                        yield entry.rule.name, box

    def _equal(self) -> None:
        """W302 for rules that say the same: all but the first of them."""
        groups: defaultdict[object, list[Rule]] = defaultdict(list)
        for rule in self._policy.rules:
            if rule.name not in self._done:
                bound = rule.tier if rule.verb.grants else self._policy.tiers[rule.tier].binds
                # Points add up: a rule that costs some says nothing twice.
                costs = rule.name if rule.risk else None
                groups[bound, rule.verb, rule.where, rule.holes, rule.terms, rule.rate, costs].append(rule)
        for first, *others in groups.values():
            if others:
                names = [rule.name for rule in others]
                self._done.update(names)
                self._find("W302", others[0], f"{_listed(names)} {_do('repeat', names)} {first.name}",
                           "keep one of them", (*names, first.name), of=first)

    def _needless(self) -> None:
        """W302: no verdict and no measure changes without all the rules that are found here."""
        sized = (self._shapes.measured(measure) for measure in MEASURES)
        regions = [self._region, *(Region(self._policy, each) for each in sized if each.sizes.used)]
        for rule in reversed(self._policy.rules):
            if rule.name in self._done or rule in self._region.vague:
                continue
            what = f"rule {rule.name}: whether it is needed"
            names = self._decided(what, lambda rule: self._covering(rule, regions), rule)
            if names:
                self._done.add(rule.name)
                verb = "allow" if rule.verb.grants else "refuse"
                together = f"{names[0]} {verb}s" if len(names) == 1 else f"{_listed(names)} together {verb}"
                self._find("W302", rule, f"{rule.name} is not needed: {together} all of it",
                           "take it out, or change what makes it needless", names, of=rule)

    def _covering(self, rule: Rule, regions: Sequence[Region]) -> list[str]:
        """The rules that make this one needless, under every measure; none where it is needed."""
        if rule.risk:
            return []
        if rule.verb in (Verb.THROTTLE, Verb.ASK):
            alone = (self._covered_by(rule, regions, other) for other in self._policy.rules if self._slows(other, rule))
            return next(filter(None, alone), [])
        return self._covered_by(rule, regions, None)

    def _slows(self, other: Rule, rule: Rule) -> bool:
        """True when `other` does wherever `rule` holds what it does: ask, or slow down to no more than its rate."""
        if other is rule or other.verb is not rule.verb or other.tier != rule.tier or other.name in self._done:
            return False
        if rule.rate is not None and other.rate is not None and not is_slower(
                pace("", other.rate), pace("", rule.rate)):
            return False
        covers = self._shapes.of(other)
        return all(self._boxes.covered(box, covers) for box in self._shapes.of(rule))

    def _covered_by(self, rule: Rule, regions: Sequence[Region], only: Rule | None) -> list[str]:
        """The rules that together do all that this one does, in no milder way; none where they do not."""
        names: dict[str, None] = {}
        for region in regions if rule.verb.grants else regions[:1]:
            for box in region.boxes_of(rule):
                near = [each for each in region.likes(rule).near(box)
                        if rule not in each.rules and not any(other.name in self._done for other in each.rules)
                        and (only is None or only in each.rules)
                        and (rule.verb is not Verb.HALT or each.rule.verb in (Verb.HALT, Verb.NEVER))]
                covers = [each.box for each in near] + (region.refusing(box) if rule.verb.grants else [])
                if not region.boxes.covered(box, covers):
                    return []
                meeting = (each for each in near if region.boxes.meet(box, each.box))
                names.update((other.name, None) for each in meeting for other in each.rules if other.tier == rule.tier)
        return list(names)

    def _holds(self, never: Rule) -> bool:
        """True when no grant lets a request of the never item pass."""
        if self._region.vague:
            return False
        meeting = (both for box in self._shapes.of(never) for entry in self._region.grants.near(box)
                   if (both := self._boxes.meet(box, entry.box)) is not None)
        return all(self._boxes.covered(both, self._region.refusing(both)) for both in meeting)

    def _width(self, rule: Rule) -> None:
        what = f"rule {rule.name}: how wide it is"
        if rule.why is None and self._region.last_word_of(rule):
            for wide, hint in self._too_wide(rule):
                self._find("W401", rule, f"{rule.name} allows {wide}", f"{hint}, or say why:", of=rule)
        self._decided(what, self._uploads, rule)
        self._decided(what, self._clear, rule)

    def _too_wide(self, rule: Rule) -> Iterator[tuple[str, str]]:
        if rule.where.to is None and rule.where.address is None:
            yield "every host", "name the hosts"
        for item in rule.where.to or ():
            host = hosts_of(item)
            if isinstance(host, HostPattern) and self._is_suffix(host):
                yield f"{spelled(host)}: names that anybody can register", "name the hosts"
            elif host is item and isinstance(host, AddressRange) and host.text == "public-internet":
                yield "every address of the public internet", "name the hosts"

    def _is_suffix(self, host: HostPattern) -> bool:
        suffixes = self._tables.suffixes
        if suffixes is None or host.reach is HostReach.EXACT:
            return False
        below = f"a.{host.name}"
        return suffixes.registrable(Host(below)) == below

    def _uploads(self, rule: Rule) -> None:
        """E403: something can be put where anybody can fetch it. A rule that says why is warned of."""
        hosts = 0
        for pattern in self._tables.exfiltration:
            hosts |= self._shapes.space.hosts.mask(pattern)
        methods = self._shapes.space.methods.mask_of_named(_UPLOADS)
        box = self._passes(rule, {HOSTS: hosts, METHODS: methods}, named=True)
        if box is not None:
            witness = self._region.witness(box)
            host = "a host" if witness is None else witness.url.split("/")[2]
            severity = Severity.ERROR if rule.why is None else Severity.WARNING
            self._find("E403", rule, f"{rule.name} allows writing to {host}, from where anybody can fetch it",
                       "allow reads only, or say why:, which makes this a warning", box=box, severity=severity)

    def _clear(self, rule: Rule) -> None:
        """W404: clear text, or every port, to a host of the public internet."""
        public = {ADDRESSES: self._shapes.space.addresses.public}
        clear = self._passes(rule, {SCHEMES: scheme_mask(_CLEAR), **public})
        if clear is not None:
            self._find("W404", rule, f"{rule.name} allows clear text on the public internet",
                       "write schemes: [https]", box=clear)
        every = self._shapes.space.ports.every
        open_box = next((box for box in self._region.last_word_of(rule) if box.masks[PORTS] == every), None)
        if open_box is not None and (box := self._passes(rule, public)) is not None:
            self._find("W404", rule, f"{rule.name} allows every port of a host of the public internet",
                       "name the ports", box=box)

    def _passes(self, rule: Rule, parts: dict[int, int], *, named: bool = False) -> Box | None:
        """What of the grant passes with these kinds; where `named`, only of boxes that name their hosts."""
        for box in self._region.last_word_of(rule):
            narrowed = box
            for part, mask in parts.items():
                narrowed = narrowed.narrowed(part, narrowed.masks[part] & mask)
            if named and box.masks[HOSTS] & OTHER_HOST:
                continue
            alive = self._boxes.alive(narrowed)
            found = None if alive is None else next(self._region.passing(alive), None)
            if found is not None:
                return found
        return None


def _same_place(refusal: Box, grant: Box) -> bool:
    """True when both name the same hosts, and only agents or paths keep them apart."""
    masks = zip(refusal.masks, grant.masks, strict=True)
    return not grant.masks[HOSTS] & OTHER_HOST and all(one & two for one, two in masks)
