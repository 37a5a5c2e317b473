"""Several files as one policy: which stands above which, what the lower see of the upper, and how they are joined.

Each file is a tier. Names are given once in all files; groups and destinations of an upper level can be used below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import batched

from kernel.ahead.said import Ahead
from kernel.document import Document, Node, Reader, Scalar, quote
from kernel.document import Mapping as MappingNode
from kernel.findings import Finding, Severity
from kernel.pattern import agent_matches
from kernel.policy import AgentPattern, Destination, Identity, Policy, Position, Rule
from kernel.vocabulary import TIERS

Groups = dict[str, tuple[AgentPattern, ...]]
Destinations = dict[str, tuple[Destination, ...]]


@dataclass(frozen=True, slots=True)
class Level:
    """A file and its level: 0 is the uppermost."""

    document: Document
    number: int

    @property
    def name(self) -> str:
        return TIERS[self.number]


def levels(files: Sequence[Document]) -> list[Level]:
    """The files from the uppermost to the lowest. Where none says its tier, they narrow in the order given."""
    unsaid = not any(map(_said, files))
    found = [
        Level(file, min(place, len(TIERS) - 1) if unsaid else _number(_said(file))) for place, file in enumerate(files)
    ]
    return sorted(found, key=lambda level: level.number)


def _number(tier: str | None) -> int:
    return TIERS.index(tier) if tier in TIERS else 0


def untold(files: Sequence[Document]) -> Iterator[Finding]:
    """A finding for each file that does not say its tier where another one does."""
    if any(map(_said, files)):
        for file in files:
            if _said(file) is None:
                message = "this file does not say its tier, and another one does"
                hint = f"write tier: {TIERS[0]}, or what else it is"
                yield Finding("E104", Severity.ERROR, Reader(file.file).at(file.root), message, hint)


def _said(file: Document) -> str | None:
    """What a file says of its tier, right or wrong."""
    parts = file.root.parts if isinstance(file.root, MappingNode) else []
    said = (value for key, value in batched(parts, 2) if isinstance(key, Scalar) and key.text == "tier")
    value = next(said, None)
    return None if value is None else value.text if isinstance(value, Scalar) else ""


@dataclass(slots=True)
class Above:
    """The files that were read already, each as a policy of its own, and every name that they give."""

    parts: list[Policy] = field(default_factory=list)
    _named: list[tuple[int, Groups, Destinations]] = field(default_factory=list)
    _taken: dict[tuple[str, str], Position] = field(default_factory=dict)

    def add(self, level: int, part: Policy, destinations: Destinations) -> None:
        self.parts.append(part)
        self._named.append((level, part.groups, destinations))

    def take(self, reader: Reader, node: Node, what: str, name: str) -> None:
        """Note a name, or refuse it where it was given before."""
        position = reader.at(node)
        first = self._taken.setdefault((what, name), position)
        if first is not position:
            place = f"in line {first.line}" if first.file == position.file else f"at {first}"
            reader.error("E107", node, f"two {what}s are called {quote(name)}", f"the first is {place}")

    def groups(self, level: int) -> Groups:
        """The groups that a file of this level sees beside its own."""
        return _all(groups for own, groups, _ in self._named if own < level)

    def destinations(self, level: int) -> Destinations:
        """The same for destinations."""
        return _all(destinations for own, _, destinations in self._named if own < level)

    @property
    def identity(self) -> Identity | None:
        """What the first file says of identity; None where there is none above."""
        return self.parts[0].identity if self.parts else None

    @property
    def nevers(self) -> int:
        return sum(len(part.nevers) for part in self.parts)

    @property
    def limits(self) -> int:
        return sum(len(part.limits) for part in self.parts)

    @property
    def rates(self) -> int:
        return sum(len(part.rates) for part in self.parts)


def _all[T](each: Iterator[Mapping[str, T]]) -> dict[str, T]:
    return {name: meant for names in each for name, meant in names.items()}


def joined(parts: Sequence[Policy]) -> Policy:
    """The policy of these tiers: the rules and nevers of each in turn, then the limits of each."""
    if len(parts) == 1:
        return parts[0]
    rules: list[Rule] = []
    nevers: list[Rule] = []
    limits: list[Rule] = []
    for tier, part in enumerate(parts):
        first = len(rules) + len(nevers)
        rules += [replace(rule, number=first + rule.number, tier=tier) for rule in part.rules]
        nevers += [replace(never, number=first + never.number, tier=tier) for never in part.nevers]
    for tier, part in enumerate(parts):
        first = len(rules) + len(nevers) + len(limits)
        limits += [replace(limit, number=first + place, tier=tier) for place, limit in enumerate(part.limits)]
    return replace(
        parts[0],
        files=tuple(file for part in parts for file in part.files),
        tiers=tuple(tier for part in parts for tier in part.tiers),
        rules=tuple(rules),
        nevers=tuple(nevers),
        limits=tuple(limits),
        groups=_all(part.groups for part in parts),
        assertions=tuple(assertion for part in parts for assertion in part.assertions),
        claims=tuple(claim for part in parts for claim in part.claims),
        budgets=tuple(budget for part in parts for budget in part.budgets),
        rates=tuple(rate for part in parts for rate in part.rates),
        dns=tuple(said for part in parts for said in part.dns),
        ahead=_ahead([part.ahead for part in parts if part.ahead is not None]),
    )


def _ahead(parts: Sequence[Ahead]) -> Ahead | None:
    """What the tiers say together of what has no effect yet."""
    if not parts:
        return None
    return Ahead(clauses=_all(part.clauses for part in parts))


def unbound(policy: Policy) -> Iterator[tuple[Rule, str]]:
    """The rules that name an agent which their tier does not bind, with its id."""
    for rule in policy.items:
        binds = policy.tiers[rule.tier].binds
        for pattern in rule.where.agents or () if binds is not None else ():
            if "*" not in pattern.text and not any(agent_matches(each, pattern.text) for each in binds or ()):
                yield rule, pattern.text
