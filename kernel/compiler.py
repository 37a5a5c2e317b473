"""From documents to a policy: every section read, every name looked up, every assertion judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace

from kernel.accounts import AccountReader
from kernel.ahead.outlook import at_most
from kernel.ahead.said import Ahead
from kernel.analysis.claims import refuted
from kernel.analysis.review import NO_TABLES, Tables, errors_at_load
from kernel.assertions import AssertionReader
from kernel.cascade_section import CascadeReader
from kernel.conditions import ConditionReader, Names, one_destination
from kernel.dns_section import dns
from kernel.document import Document, Node, Reader, Scalar, did_you_mean, quote
from kernel.errors import PolicyError
from kernel.findings import Finding, Severity
from kernel.hours import ONLY_UTC, Zones, told
from kernel.identity_section import read_identity
from kernel.llm_terms import Call
from kernel.pattern import agent_pattern
from kernel.policy import (
    AddressRange,
    Policy,
    Position,
    Rule,
    Tier,
)
from kernel.price_lists import read_prices
from kernel.prices import NO_PRICES, Prices
from kernel.question import judge_assertions
from kernel.rules import RuleReader
from kernel.several import Above, Destinations, Groups, Level, joined, levels, unbound, untold
from kernel.times import TimeReader
from kernel.trial import Mode
from kernel.vocabulary import (
    POLICY,
    RESERVED_AGENTS,
    TIERS,
)

_VERSION = "1"
_LONGEST_CONTACT = 500
# What is said for all agents, or before an agent is known.
_OF_THE_FIRST = frozenset({
    "identity", "contact", "mode", "until", "profile", "counters", "cascade", "prices",
})


@dataclass(frozen=True, slots=True)
class Compiled:
    """A policy that loads, and the warnings and remarks that came up on the way."""

    policy: Policy
    findings: tuple[Finding, ...] = ()


def compile_policy(
    files: Many[Document],
    named_ranges: Mapping[str, AddressRange],
    digest: str,
    known_agents: frozenset[str] = frozenset(),
    zones: Zones = ONLY_UTC,
    now: int = 0,
    *,
    ahead: bool = False,
    tables: Tables = NO_TABLES,
    calls: tuple[Call, ...] = (),
    prices: Prices = NO_PRICES,
) -> Compiled:
    """The policy that the documents say. `digest` names their bytes. Raises `PolicyError` with every finding.

    `tables` is what is known of names, `calls` what `also: housekeeping` means, `prices` what models cost of which the
    policy says nothing. `now` only tells what has expired: whether a policy loads never hangs on the
    time. With `ahead` keys without effect yet are read, too: such a policy can be analysed, and never governs.
    """
    if not files:
        raise PolicyError([Finding("E111", Severity.ERROR, Position("(no file)", 1, 1), "no file is given")])
    above, findings = Above(), list(untold(files))
    for level in levels(files):
        compiler = _Compiler(level, above, named_ranges, known_agents, zones, now, calls, ahead=ahead)
        compiler.read(digest)
        findings += compiler.reader.findings
    raise_errors(findings)
    policy = joined(above.parts)
    policy = replace(policy, prices=replace(policy.prices, table=prices.table))
    findings += [*_unbound(policy), *errors_at_load(at_most(policy), tables), *judge_assertions(at_most(policy)),
                 *refuted(at_most(policy))]
    raise_errors(findings)
    return Compiled(policy, tuple(findings))


def _unbound(policy: Policy) -> Iterator[Finding]:
    for rule, agent in unbound(policy):
        message = f"{rule.name} names {quote(agent)}, and this file binds other agents: for them it says nothing"
        hint = 'add the agent to "for:", or take it out'
        yield Finding("W122", Severity.WARNING, rule.position, message, hint, (rule.name,))


def raise_errors(findings: Iterable[Finding]) -> None:
    """Raise `PolicyError` where a finding is an error: errors first, each kind in the order of its file."""
    known = sorted(findings, key=lambda f: (
        f.severity is not Severity.ERROR, f.position.file, f.position.line, f.position.column))
    if known and known[0].severity is Severity.ERROR:
        raise PolicyError(known)


class _Compiler:
    """Compiles one document, below others. Its reader holds the findings."""

    def __init__(
        self, level: Level, above: Above, ranges: Mapping[str, AddressRange], known: frozenset[str], zones: Zones,
        now: int, calls: tuple[Call, ...], *, ahead: bool,
    ) -> None:
        self.reader = Reader(level.document.file, ahead=ahead)
        self._times = TimeReader(self.reader, zones, now)
        self._level, self._above, self._ranges, self._known, self._calls = level, above, ranges, known, calls

    def read(self, digest: str) -> None:
        """Add the document to what is above those that follow: as a policy of its own, with one tier."""
        document = self._level.document
        found = self.reader.mapping(document.root, POLICY) or {}
        self._check_version(found.get("version"))
        self._refuse_below(found)
        upper = self._above.groups(self._level.number)
        own = self._groups(found.get("agents"), upper)
        groups = upper | own
        identity = read_identity(self.reader, found.get("identity"), groups)
        of_all = self._above.identity or identity
        named = self._above.destinations(self._level.number)
        destinations = self._destinations(found.get("destinations"), named)
        names = Names(self._ranges, self._known | of_all.agents, groups, named | destinations, of_all.anonymous,
                      self._calls)
        self._conditions = ConditionReader(self.reader, names, self._times)
        reading = RuleReader(self.reader, self._conditions, self._above)
        rules = reading.rules(found.get("rules"))
        nevers = reading.nevers(found.get("never"), len(rules))
        ahead = Ahead(clauses=reading.clauses) if self.reader.ahead else None
        tier = self._tier(found, rules)
        accounts = AccountReader(self.reader, self._conditions, self._times, self._above, tier.binds)
        assertions, claims = AssertionReader(self.reader, self._conditions, groups).read(found.get("assert"))
        self._above.add(self._level.number, Policy(
            digest=digest,
            files=(document.file,),
            rules=rules,
            nevers=nevers,
            limits=reading.limits(found.get("limits"), len(rules) + len(nevers)),
            groups=own,
            contact=self.reader.line(found["contact"], "contact", _LONGEST_CONTACT) if "contact" in found else None,
            identity=identity,
            observed_until=self._observed_until(found),
            assertions=assertions,
            claims=claims,
            tiers=(tier,),
            budgets=accounts.budgets(found.get("budgets")),
            rates=accounts.rates(found.get("rates")),
            profile=accounts.profile(found),
            counters=accounts.counters(found.get("counters")),
            prices=read_prices(self.reader, found.get("prices")),
            cascade=CascadeReader(self.reader, groups, tier.binds).cascade(found.get("cascade")),
            dns=(dns(self.reader, found.get("dns")),),
            ahead=ahead,
        ), destinations)

    def _refuse_below(self, found: Mapping[str, Node]) -> None:
        """What is said for all is said by the first file."""
        if self._above.parts:
            for key in found.keys() & _OF_THE_FIRST:
                first = self._above.parts[0].files[0]
                message = f'"{key}:" stands only in the first tier'
                self.reader.error("E112", found[key], message, f"write it into {first}")

    def _tier(self, found: Mapping[str, Node], rules: Iterable[Rule]) -> Tier:
        tier = self.reader.text(found["tier"], "tier") if "tier" in found else None
        if tier is not None and tier not in TIERS:
            hint = did_you_mean(tier, TIERS) or f"{', '.join(TIERS[:-1])} or {TIERS[-1]}"
            self.reader.error("E102", found["tier"], f"{quote(tier)} is not a tier", hint)
        binds = self._conditions.agents(found["for"]) if "for" in found else None
        return Tier(self._level.name, self._level.document.file, binds, self._passes(found, rules))

    def _passes(self, found: Mapping[str, Node], rules: Iterable[Rule]) -> bool:
        if "unmatched" not in found:
            return False
        if self.reader.text(found["unmatched"], "unmatched") not in ("pass", None):
            self.reader.error("E102", found["unmatched"], "unmatched is pass, or is left out")
        grant = next((rule for rule in rules if rule.verb.grants), None)
        if grant is not None:
            message = f'"unmatched: pass" is for a file that only refuses, and {grant.name} allows something'
            hint = "take it out: what this file does not allow is refused"
            self.reader.error("E112", found["unmatched"], message, hint)
        return True

    def _check_version(self, node: Node | None) -> None:
        version = None if node is None else self.reader.text(node, "version")
        if node is not None and version not in (None, _VERSION):
            message = f"version {quote(version or '')} of the language is not known here"
            self.reader.error("E109", node, message, f"write version: {_VERSION}")

    def _named(
        self, node: Node | None, section: str, what: str, taken: Iterable[str], upper: Iterable[str]
    ) -> Iterator[tuple[str, list[Scalar]]]:
        """The names of a section with the words that each stands for. A name never stands for another one."""
        entries = [] if node is None else self.reader.entries(node, section)
        names = {*upper, *(key.text for key, _ in entries)}
        for key, value in entries:
            if self.reader.name(key, f"a {what}", taken) is None:
                continue
            self._above.take(self.reader, key, what, key.text)
            words = self.reader.words(value, f"a {what} {quote(key.text)}")
            for word in words:
                if word.text in names:
                    message = f"{quote(word.text)} is itself a name in {section}, and names are not looked up here"
                    self.reader.error("E107", word, message, "list what it stands for")
            yield key.text, words

    def _groups(self, node: Node | None, upper: Groups) -> Groups:
        groups: Groups = {}
        for name, words in self._named(node, "agents", "group", RESERVED_AGENTS, upper):
            patterns = [self.reader.parsed("E205", word, agent_pattern) for word in words]
            groups[name] = tuple(pattern for pattern in patterns if pattern is not None)
        return groups

    def _destinations(self, node: Node | None, upper: Destinations) -> Destinations:
        destinations: Destinations = {}
        for name, words in self._named(node, "destinations", "destination", {*self._ranges, "localhost"}, upper):
            targets = [target for word in words for target in one_destination(self.reader, word, self._ranges)]
            destinations[name] = tuple(dict.fromkeys(targets))
        return destinations

    def _observed_until(self, found: Mapping[str, Node]) -> int | None:
        """The end of `mode: observe`; None where the policy enforces."""
        mode = self.reader.text(found["mode"], "mode") if "mode" in found else None
        if mode not in (None, Mode.ENFORCE, Mode.OBSERVE):
            self.reader.error("E102", found["mode"], f"{quote(mode)} is not a mode", "write observe, or enforce")
        if mode != Mode.OBSERVE:
            if "until" in found:
                self.reader.error("E112", found["until"], '"until:" means nothing without mode: observe')
            return None
        if "until" not in found:
            self.reader.error("E104", found["mode"], '"mode: observe" needs "until:"', "until: 2026-12-31")
            return None
        until = self._times.until(found["until"])
        if until is not None and until > self._times.now:
            message = f"what the rules refuse passes until {told(until)}; never: and inside addresses are refused"
            self.reader.warn("W307", found["mode"], message, "governor policy explain says what would be refused")
        return until
