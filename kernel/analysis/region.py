"""A policy as regions: what its grants open, what it refuses, and what passes in the end."""

from __future__ import annotations

from collections import defaultdict
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from kernel.analysis.box import ADDRESSES, HOSTS, METHODS, MODEL, MOMENT, PORTS, SCHEMES, SIZE, Box
from kernel.analysis.language import TooHard
from kernel.analysis.places import Entry, Nearby, merged
from kernel.analysis.shapes import Shapes
from kernel.analysis.sizes import EVERY_SIZE
from kernel.analysis.space import (
    ANONYMOUS_AGENT,
    LITERAL_HOST,
    NAMED_AGENT,
    PLAIN_PATH,
    SPLIT_PATH,
    bits,
)
from kernel.analysis.space import SCHEMES as SCHEME_NAMES
from kernel.findings import Witness
from kernel.model_calls import model_in_path, with_model
from kernel.normal import OWN_PORTS
from kernel.pattern import ANONYMOUS
from kernel.question import STAND_IN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kernel.analysis.space import Space
    from kernel.facts import Address, RequestFacts
    from kernel.policy import Policy, Rule

_MOST_TOGETHER = 20_000
_USUAL_METHODS = ("GET", "POST")
_USUAL_SCHEMES = ("https", "wss", "http", "ws")


class Region:
    """One policy over the shapes of one or more. With a measure, requests have a size in it.

    `joint` is True where at an inside address one grant opens it and another one says how much passes.
    """

    def __init__(self, policy: Policy, shapes: Shapes) -> None:
        self.policy, self.shapes = policy, shapes
        self.boxes = shapes.boxes
        self.vague = [rule for rule in policy.rules if rule.verb.grants and shapes.vague(rule)]
        self._known = shapes.space.addresses.every & ~shapes.space.addresses.vague
        self.joint = False
        granted, refused = list(self._granted()), list(self._refused())
        self.grants, self.refusals = Nearby(shapes.space.hosts, granted), Nearby(shapes.space.hosts, refused)
        self._grants_merged = Nearby(shapes.space.hosts, merged(granted))
        self._refusals_merged = Nearby(shapes.space.hosts, merged(refused))
        self._of: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in (*granted, *refused):
            for rule in entry.rules:
                self._of[rule.name].append(entry)

    def _granted(self) -> Iterator[Entry]:
        """What grants open: where there are tiers, one grant of each that binds the agent and does not pass."""
        if len(self.policy.tiers) == 1:
            yield from self._granted_by(0)
            return
        everything = self.shapes.everything
        found: list[tuple[Box, tuple[Rule, ...]]] = [(everything, ())]
        for number, tier in enumerate(self.policy.tiers):
            if not tier.passes:
                granted = Nearby(self.shapes.space.hosts, self._granted_by(number))
                bound = [everything] if tier.binds is None else self.shapes.asked(tier.binds)
                free = list(self.boxes.left(everything, bound))
                found = [each for box, rules in found for each in self._narrowed(box, rules, free, granted)]
                if len(found) > _MOST_TOGETHER:
                    raise TooHard
        for box, rules in found:
            if rules:
                yield Entry(box, rules[-1], rules[:-1])

    def _narrowed(
        self, box: Box, rules: tuple[Rule, ...], free: Iterable[Box], granted: Nearby
    ) -> Iterator[tuple[Box, tuple[Rule, ...]]]:
        """What of a box one more tier lets pass: what it does not bind, and what it grants."""
        for each in free:
            both = self.boxes.meet(box, each)
            if both is not None:
                yield both, rules
        for entry in granted.near(box):
            both = self.boxes.meet(box, entry.box)
            if both is not None:
                yield both, (*rules, entry.rule)

    def _granted_by(self, tier: int) -> Iterator[Entry]:
        grants = [rule for rule in self.policy.rules if rule.verb.grants and rule.tier == tier]
        opened = [(rule, self._exact(self.shapes.opened(rule))) for rule in grants]
        for rule, found in opened:
            for box in self.shapes.sized(rule, found) if self.shapes.sizes.used else found:
                yield Entry(box, rule)
        if self.shapes.sizes.used:
            yield from self._together(opened)

    def _refused(self) -> Iterator[Entry]:
        for rule in (*self.policy.nevers, *self.policy.rules):
            if rule.verb.refuses and not rule.observed:
                for box in self.shapes.of(rule):
                    yield Entry(box, rule)
        for limit in self.policy.limits if self.shapes.sizes.used else ():
            for box in self.shapes.sized(limit, self.shapes.of(limit)):
                yield Entry(box, limit)

    def _exact(self, boxes: Iterable[Box]) -> list[Box]:
        return [box.narrowed(ADDRESSES, left) for box in boxes if (left := box.masks[ADDRESSES] & self._known)]

    def _together(self, opened: Sequence[tuple[Rule, list[Box]]]) -> Iterator[Entry]:
        """At an inside address one grant may open it, and another one that holds there too say how much passes."""
        public = self.shapes.space.addresses.public
        for rule, found in opened:
            inside = [box.narrowed(ADDRESSES, left) for box in found if (left := box.masks[ADDRESSES] & ~public)]
            for other, _ in opened if inside else ():
                passed = self.shapes.sizes.passed(other)
                if other is rule or not passed & ~self.shapes.sizes.passed(rule):
                    continue
                for one in inside:
                    for two in self.shapes.of(other):
                        both = self.boxes.meet(one, two)
                        if both is not None:
                            self.joint = True
                            yield Entry(both.narrowed(SIZE, passed), rule)

    def boxes_of(self, rule: Rule) -> list[Box]:
        """The boxes of a grant where it opens the address and other tiers grant too, of a refusal where it holds."""
        return [entry.box for entry in self._of.get(rule.name, ())]

    def last_word_of(self, rule: Rule) -> list[Box]:
        """Those boxes of a grant that no grant of a lower tier narrows."""
        return [entry.box for entry in self._of.get(rule.name, ()) if entry.rule is rule]

    def likes(self, rule: Rule) -> Nearby:
        """The boxes of every rule that does the same: grant or refuse."""
        return self.grants if rule.verb.grants else self.refusals

    def refusing(self, box: Box) -> list[Box]:
        """The boxes of refusals that may meet this one."""
        return [entry.box for entry in self._refusals_merged.near(box)]

    def granting(self, box: Box) -> list[Box]:
        """The boxes of grants that may meet this one."""
        return [entry.box for entry in self._grants_merged.near(box)]

    def passing(self, box: Box) -> Iterator[Box]:
        """What of a grant's box no refusal touches, in pieces."""
        return self.boxes.left(box, self.refusing(box))

    def witness(self, box: Box) -> Witness | None:
        """The plainest short request of the box; None where none was found."""
        return shown(self.shapes, box)


def shown(shapes: Shapes, box: Box) -> Witness | None:
    """The plainest short request of a box; None where none was found that has its fields."""
    return _Shown(shapes, box).witness()


class _Shown:
    """One request of a box, chosen to be as plain as the box allows."""

    def __init__(self, shapes: Shapes, box: Box) -> None:
        self._space, self._box, self._boxes = shapes.space, box, shapes.boxes

    def witness(self) -> Witness | None:
        carried = self._boxes.carried(self._box)
        if carried is None:
            return None
        scheme = self._scheme()
        host, address = self._destination()
        port = self._port(OWN_PORTS[scheme])
        place = host if port == OWN_PORTS[scheme] else f"{host}:{port}"
        agent = self._boxes.agent(self._box) or ANONYMOUS
        path = self._path() + (f"?{carried.query}" if carried.query else "")
        return Witness(agent, self._method(), f"{scheme}://{place}{path}", address, carried.headers, carried.body,
                       self._at())

    def _path(self) -> str:
        """A path of the box, with a model in it that the box has, where it is that of a call."""
        path, models, mask = self._boxes.path(self._box), self._space.models, self._box.masks[MODEL]
        own = model_in_path(tuple(path.removeprefix("/").replace("%2F", "/").split("/")))
        if own is not None and models.kind(own) & mask:
            return path
        return with_model(path, models.shown(mask) or "")

    def _at(self) -> int | None:
        """A moment of the box; None where it is of every moment."""
        moments = self._space.moments
        mask = self._box.masks[MOMENT]
        return None if mask == moments.every else moments.shown[next(bits(mask))]

    def _scheme(self) -> str:
        return next(s for s in _USUAL_SCHEMES if self._box.masks[SCHEMES] >> SCHEME_NAMES.index(s) & 1)

    def _method(self) -> str:
        methods = [self._space.methods.all[bit] for bit in bits(self._box.masks[METHODS])]
        return next((method for method in _USUAL_METHODS if method in methods), methods[0])

    def _port(self, usual: int) -> int:
        mask = self._box.masks[PORTS]
        if mask & self._space.ports.span(usual, usual):
            return usual
        return self._space.ports.firsts[next(bits(mask))]

    def _destination(self) -> tuple[str, str | None]:
        mask = self._box.masks[HOSTS]
        address = self._address()
        names = mask & ~LITERAL_HOST
        if names:
            shown = self._space.hosts.shown(next(bits(names & ~2 or names)))
            return shown, None if address == STAND_IN else str(address)
        return f"[{address}]" if isinstance(address, IPv6Address) else str(address), None

    def _address(self) -> Address:
        known = self._space.addresses
        mask = self._box.masks[ADDRESSES] & ~known.vague or self._box.masks[ADDRESSES]
        if mask & known.kind(STAND_IN):
            return STAND_IN
        return known.shown[next(bits(mask & known.public or mask))]


def _model(space: Space, facts: RequestFacts) -> int:
    """The model in the path of a call; of any other request it says nothing, and counts as any."""
    models = [model for each in facts.path.readings if (model := model_in_path(each)) is not None]
    return space.models.kind(models[0]) if models else space.models.texts


def kinds(shapes: Shapes, facts: RequestFacts, address: Address) -> tuple[int, ...]:
    """The kinds of one request at one address, in the order of a box's masks."""
    space = shapes.space
    host = LITERAL_HOST if facts.host.address is not None else space.hosts.kind(facts.host.name)
    return (
        host,
        space.addresses.kind(address),
        space.methods.kind(facts.method),
        1 << SCHEME_NAMES.index(facts.scheme),
        space.ports.span(facts.port, facts.port),
        PLAIN_PATH if facts.path.split is None else SPLIT_PATH,
        ANONYMOUS_AGENT if facts.agent.id == ANONYMOUS else NAMED_AGENT,
        EVERY_SIZE,
        space.moments.kind(facts.at),
        _model(space, facts),
        *(each.kind(facts.fields.value(each.part, each.name)) for each in space.values),
    )
