"""The meaning of a policy told to z3, which then searches all requests at once. Nothing of kernel/analysis is used.

A request is an agent, a host, an address, a method, a scheme, a port and a path. Texts are z3 strings over a few
letters, of which `z` stands for every one that no pattern has, and in a path `%` for `%2F`. Addresses that hide another
one are left out: none of them is global, and no range of `oracle_policies.py` opens one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import z3

from kernel.address import named_ranges
from kernel.policy import AddressRange, HostPattern, HostReach, UrlPattern, Verb
from kernel.question import facts_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.facts import Address, RequestFacts
    from kernel.policy import Conditions, Destination, PathGlob, Policy, Rule

METHODS = ["GET", "POST", "PUT"]
SCHEMES = ["https", "http", "wss", "ws"]
PATIENCE_MILLISECONDS = 1500
PUBLIC = named_ranges(())["public-internet"]
_HIDING = [(0, 2**32), (0xFFFF << 32, 2**32), (0xFFFF0000 << 32, 2**32), (0x64FF9B << 96, 2**32),
           (0x64FF9B0001 << 80, 2**80), (0x2002 << 112, 2**112), (0x20010000 << 96, 2**96)]
_SIX = 2**32  # IPv6 addresses are counted from here, IPv4 ones from 0


def _letters(text: str) -> z3.ReRef:
    return z3.Union(*map(z3.Re, text))


_ID, _ID_INSIDE, _LABEL = _letters("abz1"), _letters("abz1-"), z3.Plus(_letters("xyz"))
_NAME = z3.Concat(_LABEL, z3.Star(z3.Concat(z3.Re("."), _LABEL)))
_SLASH, _SLASHES = z3.Re("/"), z3.Plus(_letters("/%"))
_FIRST, _SECOND = _letters("abz%"), _letters("abz")
_PATH = z3.Concat(z3.Star(z3.Concat(_SLASH, z3.Plus(_FIRST))), z3.Option(_SLASH))


@dataclass
class Found:
    """Whether z3 found a request, and which; `known` is False where it gave up."""

    known: bool
    exists: bool = False
    facts: RequestFacts | None = None
    address: Address | None = None


@dataclass
class Oracle:
    """Questions to z3. `asked` counts them by what they were about, `given_up` those that took too long."""

    asked: Counter[str] = field(default_factory=Counter)
    given_up: int = 0
    agent: z3.SeqRef = field(default_factory=lambda: z3.String("agent"))
    anonymous: z3.BoolRef = field(default_factory=lambda: z3.Bool("anonymous"))
    host: z3.SeqRef = field(default_factory=lambda: z3.String("host"))
    literal: z3.BoolRef = field(default_factory=lambda: z3.Bool("literal"))
    address: z3.ArithRef = field(default_factory=lambda: z3.Int("address"))
    method: z3.ArithRef = field(default_factory=lambda: z3.Int("method"))
    scheme: z3.ArithRef = field(default_factory=lambda: z3.Int("scheme"))
    port: z3.ArithRef = field(default_factory=lambda: z3.Int("port"))
    path: z3.SeqRef = field(default_factory=lambda: z3.String("path"))

    def some(self, about: str, claim: z3.BoolRef) -> Found:
        """A request of which the claim is true."""
        solver = z3.Solver()
        solver.set("timeout", PATIENCE_MILLISECONDS)
        solver.add(*self._request(), claim)
        said = solver.check()
        if said == z3.unknown:
            self.given_up += 1
            return Found(known=False)
        self.asked[about] += 1
        return Found(known=True) if said == z3.unsat else self._told(solver.model())

    def _request(self) -> list[z3.BoolRef]:
        six = [z3.Or(self.address < _SIX + first, self.address >= _SIX + first + size) for first, size in _HIDING]
        return [
            z3.InRe(self.agent, z3.Union(_ID, z3.Concat(_ID, z3.Star(_ID_INSIDE), _ID))), z3.InRe(self.host, _NAME),
            z3.InRe(self.path, _PATH), self.path != "", self.address >= 0, self.address < _SIX + 2**128, *six,
            self.method >= 0, self.method < len(METHODS), self.scheme >= 0, self.scheme < len(SCHEMES),
            self.port >= 1, self.port <= 65535,
        ]  # fmt: skip

    def _told(self, model: z3.ModelRef) -> Found:
        def number(of: z3.ArithRef) -> int:
            return model.eval(of, model_completion=True).as_long()

        def text(of: z3.SeqRef) -> str:
            return model.eval(of, model_completion=True).as_string()

        place = number(self.address)
        address = IPv4Address(place) if place < _SIX else IPv6Address(place - _SIX)
        host = text(self.host)
        if z3.is_true(model.eval(self.literal)):
            host = str(address) if place < _SIX else f"[{address}]"
        agent = "anonymous" if z3.is_true(model.eval(self.anonymous)) else text(self.agent)
        url = f"{SCHEMES[number(self.scheme)]}://{host}:{number(self.port)}{text(self.path).replace('%', '%2F')}"
        return Found(True, True, facts_of(agent, METHODS[number(self.method)], url), address)

    def is_request(self, facts: RequestFacts, address: Address) -> z3.BoolRef:
        """The claim that the request is this one."""
        literal = facts.host.address is not None
        return z3.And(
            self.anonymous == (facts.agent.id == "anonymous"), self.literal == literal,
            self.address == _number(address), self.method == METHODS.index(facts.method),
            self.scheme == SCHEMES.index(facts.scheme), self.port == facts.port,
            self.path == facts.path.text.replace("%2F", "%"),
            *([] if literal else [self.host == facts.host.name]),
            *([] if facts.agent.id == "anonymous" else [self.agent == facts.agent.id]),
        )

    def passes(self, policy: Policy) -> z3.BoolRef:
        """Some grant opens the request, one of each tier that must grant, and nothing refuses it."""
        grants = [rule for rule in policy.rules if rule.verb is Verb.ALLOW]
        opened = [(rule.tier, z3.And(self.bound(policy, rule.tier), self.opens(rule))) for rule in grants]
        asked = [(number, self.bound(policy, number)) for number, tier in enumerate(policy.tiers) if not tier.passes]
        granted = [z3.Implies(bound, z3.Or(*(opens for own, opens in opened if own == number)))
                   for number, bound in asked]
        return z3.And(z3.Or(*(opens for _, opens in opened)), *granted, z3.Not(self.refused(policy)))

    def refused(self, policy: Policy) -> z3.BoolRef:
        refusals = [*(rule for rule in policy.rules if rule.verb is Verb.DENY), *policy.nevers]
        return z3.Or(*(z3.And(self.bound(policy, rule.tier), self.holds(rule)) for rule in refusals))

    def bound(self, policy: Policy, tier: int) -> z3.BoolRef:
        """The tier binds the agent."""
        binds = policy.tiers[tier].binds
        return z3.BoolVal(True) if binds is None else z3.Or(*(self._agent(each.text) for each in binds))

    def opens(self, grant: Rule) -> z3.BoolRef:
        """The grant holds, and the address is global or one for which it was written."""
        hosts = [(item, item.host if isinstance(item, UrlPattern) else item) for item in grant.where.to or ()]
        ranges = [(item is host, host) for item, host in hosts if isinstance(host, AddressRange)]
        named = [self._within(each) for each in grant.where.address or () if _is_inside(each)]
        plain = [self._within(host) for is_plain, host in ranges if is_plain and _is_inside(host)]
        inside = [self._within(host) for _, host in ranges if _is_inside(host)]
        mixed = [self._within(host) for _, host in ranges if not _is_inside(host)]
        by_literal = z3.And(self.literal, z3.Or(*plain, z3.And(z3.Or(*inside), z3.Not(z3.Or(*mixed)))))
        return z3.And(self.holds(grant), z3.Or(self._within(PUBLIC), *named, by_literal))

    def holds(self, rule: Rule) -> z3.BoolRef:
        """A grant holds under both readings of the path, a refusal under either."""
        readings = [self._holds_read(rule, second=second) for second in (False, True)]
        return z3.And(*readings) if rule.verb.grants else z3.Or(*readings)

    def _holds_read(self, rule: Rule, *, second: bool) -> z3.BoolRef:
        grants = rule.verb.grants
        # A grant without `websocket:` covers no upgrade, and one without `from` not the agent without a name.
        known = [self.scheme < SCHEMES.index("wss")] if grants else []
        known += [z3.Not(self.anonymous)] if grants and rule.where.agents is None else []
        where = self._fits(rule.where, literal_only=grants, second=second)
        holes = [z3.Not(self._fits(hole, literal_only=False, second=second)) for hole in rule.holes]
        return z3.And(*known, where, *holes)

    def _fits(self, where: Conditions, *, literal_only: bool, second: bool) -> z3.BoolRef:
        def anyof(items: Iterable[z3.BoolRef] | None) -> z3.BoolRef:
            return z3.BoolVal(True) if items is None else z3.Or(*items)

        return z3.And(
            anyof(where.agents and (self._agent(each.text) for each in where.agents)),
            anyof(where.methods and (self.method == METHODS.index(each) for each in where.methods)),
            anyof(where.schemes and (self.scheme == SCHEMES.index(each) for each in where.schemes)),
            anyof(where.ports and (z3.And(self.port >= each.first, self.port <= each.last) for each in where.ports)),
            anyof(where.paths and (self._glob(each, second=second) for each in where.paths)),
            anyof(where.address and map(self._within, where.address)),
            anyof(where.to and (self._leads(each, literal_only=literal_only, second=second) for each in where.to)),
        )

    def _agent(self, text: str) -> z3.BoolRef:
        return self.anonymous if text == "anonymous" else z3.And(
            z3.Not(self.anonymous), z3.InRe(self.agent, _word(text, _ID_INSIDE)))

    def _glob(self, glob: PathGlob, *, second: bool) -> z3.BoolRef:
        return z3.InRe(self.path, _path(glob.segments, second=second))

    def _leads(self, item: Destination, *, literal_only: bool, second: bool) -> z3.BoolRef:
        if isinstance(item, UrlPattern):
            here = self._leads(item.host, literal_only=literal_only, second=second)
            return z3.And(self.scheme == SCHEMES.index(item.scheme), self.port == item.port, here,
                          self._glob(item.path, second=second))
        if isinstance(item, AddressRange):
            return z3.And(self.literal, self._within(item)) if literal_only else self._within(item)
        return z3.And(z3.Not(self.literal), z3.InRe(self.host, _host(item)))

    def _within(self, spread: AddressRange) -> z3.BoolRef:
        return z3.Or(*(z3.And(self.address >= _number(part.first), self.address <= _number(part.last))
                       for part in spread.networks))


def _number(address: Address) -> int:
    return int(address) + (_SIX if address.version == 6 else 0)


def _is_inside(spread: AddressRange) -> bool:
    return not any(_number(part.first) <= _number(public.last) and _number(public.first) <= _number(part.last)
                   for part in spread.networks for public in PUBLIC.networks)


def _joined(parts: list[z3.ReRef]) -> z3.ReRef:
    return z3.Re("") if not parts else parts[0] if len(parts) == 1 else z3.Concat(*parts)


def _word(text: str, letter: z3.ReRef) -> z3.ReRef:
    return _joined([z3.Star(letter) if character == "*" else z3.Re(character) for character in text])


@cache
def _path(segments: tuple[str, ...], *, second: bool) -> z3.ReRef:
    """The glob as a regular expression: in the second reading every run of slashes and escapes is one slash.

    Only the last segment of a path is ever empty.
    """
    slash, letter = (_SLASHES, _SECOND) if second else (_SLASH, _FIRST)
    if not segments:
        return z3.Re("")
    segment, rest = segments[0], segments[1:]
    may_end = all(each == "**" for each in rest)
    if segment == "**":
        many = z3.Star(z3.Concat(slash, z3.Plus(letter)))
        return z3.Concat(many, z3.Option(slash) if may_end else _path(rest, second=second))
    if second and "%2F" in segment:
        return z3.Empty(z3.ReSort(z3.StringSort()))
    word = z3.Plus(letter) if segment == "*" else _word(segment.replace("%2F", "%"), letter)
    filled = z3.Concat(slash, word, _path(rest, second=second))
    if segment not in ("", "*"):
        return filled
    return (slash if segment == "" else z3.Union(slash, filled)) if may_end else filled


@cache
def _host(pattern: HostPattern) -> z3.ReRef:
    below = z3.Concat(z3.Plus(z3.Concat(_LABEL, z3.Re("."))), z3.Re(pattern.name))
    match pattern.reach:
        case HostReach.EXACT:
            return z3.Re(pattern.name)
        case HostReach.BELOW:
            return below
        case HostReach.SELF_AND_BELOW:
            return z3.Union(z3.Re(pattern.name), below)
