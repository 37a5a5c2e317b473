"""From rules to boxes: the requests for which a rule holds, and for a grant those that it may open.

A grant holds where it does under both readings of a path, a refusal where it does under either. What a range in `to`
judges, and which addresses a range looks through, is in kernel/clause.py.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

from kernel.address import wholly_private
from kernel.analysis.box import ADDRESSES, AGENTS, HOSTS, SCHEMES, SIZE, WHO, Box, Boxes
from kernel.analysis.language import EVERY, Lang, Pattern, Patterns
from kernel.analysis.sizes import EVERY_SIZE, NO_MEASURE, Measure, Sizes
from kernel.analysis.space import ANONYMOUS_AGENT, LITERAL_HOST, NAMED_AGENT, PLAIN_PATH, SPLIT_PATH, Space
from kernel.analysis.space import SCHEMES as SCHEME_NAMES
from kernel.clause import compared
from kernel.comparison import Comparison
from kernel.facts import UPGRADES
from kernel.model_calls import spread
from kernel.one_rule import hosts_of
from kernel.pattern import ANONYMOUS
from kernel.policy import AddressRange, HostPattern, UrlPattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kernel.policy import AgentPattern, Conditions, PathGlob, Policy, Rule

_EVERY_SCHEME = (1 << len(SCHEME_NAMES)) - 1
_BOTH_READINGS = PLAIN_PATH | SPLIT_PATH
_EVERYBODY = NAMED_AGENT | ANONYMOUS_AGENT


class _Target(NamedTuple):
    """Where one item of `to` leads. `globs` are the paths that it says itself."""

    hosts: int
    addresses: int
    schemes: int
    ports: int
    globs: tuple[str, ...] | None = None

    def meets(self, other: _Target) -> bool:
        return all(one & two for one, two in zip(self[:4], other[:4], strict=True))


@dataclass(frozen=True, slots=True)
class _Side:
    """How conditions are read: `wide` ranges look through addresses and fields that cannot be read fit, `literal`
    ranges want a host that is an address."""

    wide: bool
    literal: bool
    everybody: bool


_GRANT = _Side(wide=False, literal=True, everybody=False)
_HOLE_IN_GRANT = _Side(wide=True, literal=False, everybody=True)
_REFUSAL = _Side(wide=True, literal=False, everybody=True)
_HOLE_IN_REFUSAL = _Side(wide=False, literal=False, everybody=True)


class Shapes:
    """The boxes of the rules of some policies; where `measured`, with one measure as the size of a request."""

    def __init__(
        self, policies: Iterable[Policy], names: Iterable[HostPattern] = (), now: int = 0, more: Iterable[Rule] = ()
    ) -> None:
        self._policies, also = tuple(policies), tuple(more)
        self.space, self.patterns = Space(self._policies, names, now, also), Patterns()
        self.boxes = Boxes(self.space.values)
        self.sizes = Sizes(NO_MEASURE, ())
        self._binds = {
            id(rule): policy.tiers[rule.tier].binds for policy in self._policies for rule in policy.items}
        self._binds |= {id(rule): None for rule in also}
        self._made: dict[int, tuple[Box, ...]] = {}

    def measured(self, measure: Measure) -> Shapes:
        """The same with another measure as the size."""
        other = copy(self)
        other.sizes = Sizes(measure, self._policies)
        return other

    def of(self, rule: Rule) -> tuple[Box, ...]:
        """Where a rule of the policies, or one more that was given, holds, whatever the size. The boxes may meet.

        Raises `TooHard`.
        """
        made = self._made.get(id(rule))
        if made is None:
            binds = self._binds[id(rule)]
            found = self._of(rule) if binds is None else self._bound(self._of(rule), binds)
            made = self._made[id(rule)] = tuple(found)
        return made

    def _bound(self, boxes: Iterable[Box], binds: tuple[AgentPattern, ...]) -> Iterator[Box]:
        asked = self.asked(binds)
        return (both for box in boxes for each in asked if (both := self.boxes.meet(box, each)) is not None)

    def asked(self, agents: tuple[AgentPattern, ...]) -> list[Box]:
        """Everything that these agents may ask."""
        said = self._agents(agents, _REFUSAL)
        return [self.everything.narrowed(WHO, who).worded(AGENTS, lang) for who, lang in said]

    @property
    def everything(self) -> Box:
        """Every request."""
        space = self.space
        return Box((
            space.hosts.every, space.addresses.every, space.methods.every, _EVERY_SCHEME, space.ports.every,
            _BOTH_READINGS, _EVERYBODY, EVERY_SIZE, space.moments.every, space.models.texts,
            *(each.every for each in space.values)))

    def _of(self, rule: Rule) -> Iterator[Box]:
        grants = rule.verb.grants
        holes_read = _HOLE_IN_GRANT if grants else _HOLE_IN_REFUSAL
        upgrades = not grants or rule.terms.websocket is not None
        schemes = _EVERY_SCHEME if upgrades else scheme_mask(set(SCHEME_NAMES) - UPGRADES)
        if not _speaks_of_paths(rule):
            holes = [box for hole in rule.holes for box in self._read(hole, holes_read, (False,), _BOTH_READINGS)]
            yield from self._cut(self._read(rule.where, _GRANT if grants else _REFUSAL, (), _BOTH_READINGS), holes,
                                 schemes)
            return
        views: tuple[tuple[tuple[bool, ...], int], ...] = (((False,), PLAIN_PATH), ((False, True), SPLIT_PATH))
        if not grants:
            views = (((False,), _BOTH_READINGS), ((True,), SPLIT_PATH))
        for seconds, readings in views:
            where = self._read(rule.where, _GRANT if grants else _REFUSAL, seconds, readings)
            holes = [box for hole in rule.holes for second in seconds
                     for box in self._read(hole, holes_read, (second,), readings)]
            yield from self._cut(where, holes, schemes)

    def _cut(self, boxes: Iterable[Box], holes: list[Box], schemes: int) -> Iterator[Box]:
        for box in boxes:
            kept = self.boxes.alive(box.narrowed(SCHEMES, box.masks[SCHEMES] & schemes))
            if kept is not None:
                yield from self.boxes.left(kept, holes) if holes else (kept,)

    def _read(self, where: Conditions, side: _Side, seconds: tuple[bool, ...], readings: int) -> Iterator[Box]:
        """The boxes of conditions under each of these readings at once: the first, the second, or both."""
        for each in spread(where, wide=side.wide):
            yield from self._read_one(each, side, seconds, readings)

    def _read_one(self, where: Conditions, side: _Side, seconds: tuple[bool, ...], readings: int) -> Iterator[Box]:
        methods, schemes = self.space.methods.mask(where.methods), scheme_mask(where.schemes)
        ports, addresses = self.space.ports.mask(where.ports), self._addresses(where.address, side)
        moments, values = self.space.moments.mask(where), self._values(where, side)
        models = self._models(where.in_path)
        for who, agents in self._agents(where.agents, side):
            for target, globs in self._targets(where, side, both=len(seconds) > 1):
                masks = (target.hosts, target.addresses & addresses, methods, target.schemes & schemes,
                         target.ports & ports, readings, who, EVERY_SIZE, moments, models, *values)
                pos = {pattern for second, own in zip(seconds, globs, strict=False)
                       for pattern in self._paths((where.paths, where.calls, own), second=second)}
                alive = self.boxes.alive(Box(masks, (agents, Lang(frozenset(pos)) if pos else EVERY)))
                if alive is not None:
                    yield alive

    def _models(self, models: tuple[str, ...] | None) -> int:
        """The models that a path may have in it."""
        known = self.space.models
        return known.texts if models is None else known.mask(Comparison(models), wide=False) & known.texts

    def _values(self, where: Conditions, side: _Side) -> tuple[int, ...]:
        """What each field may be."""
        if not (self.space.values and where.compares_fields):
            return tuple([each.every for each in self.space.values])
        masks = {(each.part, each.name): each.every for each in self.space.values}
        known = {(each.part, each.name): each for each in self.space.values}
        for part, name, comparison in compared(where):
            masks[part, name] &= known[part, name].mask(comparison, wide=side.wide)
        return tuple(masks.values())

    def _paths(
        self, lists: Iterable[tuple[PathGlob, ...] | tuple[str, ...] | None], *, second: bool
    ) -> Iterator[Pattern]:
        for each in lists:
            texts = None if each is None else [item if isinstance(item, str) else item.text for item in each]
            if texts is not None and "/**" not in texts:
                yield self.patterns.paths(texts, second=second)

    def _agents(self, patterns: tuple[AgentPattern, ...] | None, side: _Side) -> Iterator[tuple[int, Lang]]:
        if patterns is None:
            yield _EVERYBODY if side.everybody else NAMED_AGENT, EVERY
            return
        texts = [pattern.text for pattern in patterns]
        named = [text for text in texts if text != ANONYMOUS]
        if "*" in named:
            yield NAMED_AGENT, EVERY
        elif named:
            yield NAMED_AGENT, Lang(frozenset({self.patterns.agents(named)}))
        if ANONYMOUS in texts:
            yield ANONYMOUS_AGENT, EVERY

    def _addresses(self, ranges: tuple[AddressRange, ...] | None, side: _Side) -> int:
        if ranges is None:
            return self.space.addresses.every
        found = 0
        for each in ranges:
            found |= self.space.addresses.mask(each, wide=side.wide)
        return found

    def _targets(
        self, where: Conditions, side: _Side, *, both: bool
    ) -> Iterator[tuple[_Target, tuple[tuple[str, ...] | None, ...]]]:
        """The targets with the globs of each reading. Two readings may be covered by two items of one rule."""
        targets = self._merged(where, side)
        for target in targets:
            yield target, (target.globs, target.globs)
        if both:
            for one, two in permutations([each for each in targets if each.globs is not None], 2):
                if one.meets(two):
                    masks = [first & second for first, second in zip(one[:4], two[:4], strict=True)]
                    yield _Target(masks[0], masks[1], masks[2], masks[3]), (one.globs, two.globs)

    def _merged(self, where: Conditions, side: _Side) -> list[_Target]:
        everywhere = _Target(self.space.hosts.every, self.space.addresses.every, _EVERY_SCHEME, self.space.ports.every)
        if where.to is None:
            return [everywhere]
        names = literals = 0
        urls: dict[_Target, list[str]] = {}
        for item in where.to:
            hosts, addresses = self._host(hosts_of(item), side)
            if isinstance(item, UrlPattern):
                ports = self.space.ports.span(item.port, item.port)
                target = _Target(hosts, addresses, scheme_mask({item.scheme}), ports)
                urls.setdefault(target, []).append(item.path.text)
            elif isinstance(item, HostPattern):
                names |= hosts
            else:
                literals |= addresses
        found = [target._replace(globs=tuple(globs)) for target, globs in urls.items()]
        if names:
            found.append(everywhere._replace(hosts=names))
        if literals:
            hosts = LITERAL_HOST if side.literal else everywhere.hosts
            found.append(everywhere._replace(hosts=hosts, addresses=literals))
        return found

    def _host(self, host: HostPattern | AddressRange, side: _Side) -> tuple[int, int]:
        if isinstance(host, HostPattern):
            return self.space.hosts.mask(host), self.space.addresses.every
        hosts = LITERAL_HOST if side.literal else self.space.hosts.every
        return hosts, self.space.addresses.mask(host, wide=side.wide)

    def sized(self, rule: Rule, boxes: Iterable[Box]) -> list[Box]:
        """The boxes of a grant with the sizes that it lets pass, those of a limit with the sizes that it refuses."""
        mask = self.sizes.passed(rule) if rule.verb.grants else self.sizes.refused(rule)
        if not mask:
            return []
        sized = [box.narrowed(SIZE, mask) for box in boxes]
        if not self.sizes.measure.of_upgrades:
            return sized
        upgrades = scheme_mask(UPGRADES)
        return [box.narrowed(SCHEMES, left) for box in sized if (left := box.masks[SCHEMES] & upgrades)]

    def opened(self, rule: Rule) -> list[Box]:
        """Where the grant holds and its address is global, or one that the grant was written for."""
        return [part for box in self.of(rule) for part in self._opened(rule, box)]

    def _opened(self, rule: Rule, box: Box) -> Iterator[Box]:
        named, literal = self._written(rule)
        anyhow = box.masks[ADDRESSES] & (self.space.addresses.public | named)
        if anyhow:
            yield box.narrowed(ADDRESSES, anyhow)
        more = box.masks[ADDRESSES] & literal & ~anyhow
        if more and box.masks[HOSTS] & LITERAL_HOST:
            yield box.narrowed(ADDRESSES, more).narrowed(HOSTS, LITERAL_HOST)

    def _written(self, rule: Rule) -> tuple[int, int]:
        """The inside addresses that a grant opens for every host, and for literal ones, as `one_rule.opens` has it."""
        mask = self.space.addresses.mask
        named = _joined(mask(each, wide=False) for each in rule.where.address or () if wholly_private(each))
        ranges = [(item, host) for item in rule.where.to or () if isinstance(host := hosts_of(item), AddressRange)]
        plain = _joined(mask(host, wide=False) for item, host in ranges if item is host and wholly_private(host))
        urls = _joined(mask(host, wide=False) for item, host in ranges if item is not host and wholly_private(host))
        mixed = _joined(mask(host, wide=False) for _, host in ranges if not wholly_private(host))
        return named, plain | (urls & ~mixed)

    def vague(self, rule: Rule) -> bool:
        """True when the grant opens addresses of which it cannot be said what they hide."""
        named, literal = self._written(rule)
        return bool((named | literal) & self.space.addresses.vague)


def _joined(masks: Iterable[int]) -> int:
    found = 0
    for mask in masks:
        found |= mask
    return found


def scheme_mask(schemes: Iterable[str] | None) -> int:
    """The schemes as a set of kinds; None is all of them."""
    return _EVERY_SCHEME if schemes is None else sum(1 << SCHEME_NAMES.index(scheme) for scheme in schemes)


def _speaks_of_paths(rule: Rule) -> bool:
    return any(
        each.paths is not None or each.llm is not None or any(isinstance(item, UrlPattern) for item in each.to or ())
        for each in (rule.where, *rule.holes)
    )

