"""From documents to a policy: every section read, every name looked up, every assertion judged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from ipaddress import ip_address

from kernel.ahead import Ahead, Clause
from kernel.ahead_accounts import AccountReader
from kernel.ahead_cascade import CascadeReader, dns
from kernel.ahead_clauses import NO_CLAUSE, OWN_METHODS, clause
from kernel.analysis.review import errors_at_load
from kernel.clause import compared
from kernel.conditions import ConditionReader, Names, one_destination
from kernel.document import Document, Node, Reader, Scalar, did_you_mean, quote
from kernel.errors import PolicyError
from kernel.example import Example, example
from kernel.facts import Address
from kernel.fields import Part
from kernel.findings import Finding, Severity
from kernel.hours import ONLY_UTC, Zones
from kernel.measures import NOTHING_SAID
from kernel.outlook import at_most
from kernel.pattern import agent_pattern
from kernel.policy import (
    AddressRange,
    AgentPattern,
    Assertion,
    Conditions,
    Identity,
    Policy,
    Position,
    Rule,
    Tier,
    Verb,
)
from kernel.question import judge_assertions
from kernel.several import Above, Destinations, Groups, Level, joined, levels, unbound, untold
from kernel.terms import check_upgrades, grant_terms, is_yes, limit_terms
from kernel.times import TimeReader
from kernel.vocabulary import (
    ASSERT,
    ASSERTED,
    FIELDS,
    GRANT_TERMS,
    IDENTITY,
    LATER_VERBS,
    LIMIT,
    NEVER,
    POLICY,
    RESERVED_AGENTS,
    RULE,
    TERMS_ELSEWHERE,
    TIERS,
    VERBS,
)

_VERSION = "1"
_LONGEST_TOLD = 500
_LONGEST_REASON = 4000
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_OWN_NAMES = ("never-", "limits-", "rates-")


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
) -> Compiled:
    """The policy that the documents say. `digest` names their bytes. Raises `PolicyError` with every finding.

    `now` only tells what has expired: whether a policy loads never hangs on the time. With `ahead` keys
    without effect yet are read, too: such a policy can be analysed and tried, and never governs.
    """
    if not files:
        raise PolicyError([Finding("E111", Severity.ERROR, Position("(no file)", 1, 1), "no file is given")])
    above, findings = Above(), list(untold(files))
    for level in levels(files):
        compiler = _Compiler(level, above, named_ranges, known_agents, zones, now, ahead=ahead)
        compiler.read(digest)
        findings += compiler.reader.findings
    raise_errors(findings)
    policy = joined(above.parts)
    findings += [*_unbound(policy), *errors_at_load(at_most(policy)), *judge_assertions(at_most(policy))]
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
        now: int, *, ahead: bool,
    ) -> None:
        self.reader = Reader(level.document.file, ahead=ahead)
        self._times = TimeReader(self.reader, zones, now)
        self._level, self._above, self._ranges, self._known = level, above, ranges, known
        self._clauses: dict[str, Clause] = {}

    def read(self, digest: str) -> None:
        """Add the document to what is above those that follow: as a policy of its own, with one tier."""
        document = self._level.document
        found = self.reader.mapping(document.root, POLICY) or {}
        self._check_version(found.get("version"))
        self._refuse_below(found)
        identity = self._identity(found.get("identity"))
        upper = self._above.groups(self._level.number)
        own = self._groups(found.get("agents"), upper)
        groups = upper | own
        named = self._above.destinations(self._level.number)
        destinations = self._destinations(found.get("destinations"), named)
        names = Names(self._ranges, self._known, groups, named | destinations,
                      (self._above.identity or identity).anonymous)
        self._conditions = ConditionReader(self.reader, names, self._times)
        rules = self._rules(found.get("rules"))
        nevers = self._nevers(found.get("never"), len(rules))
        ahead = self._ahead(found, groups) if self.reader.ahead else None
        self._above.add(self._level.number, Policy(
            digest=digest,
            files=(document.file,),
            rules=rules,
            nevers=nevers,
            limits=self._limits(found.get("limits"), len(rules) + len(nevers)),
            groups=own,
            contact=self._line(found, "contact"),
            identity=identity,
            assertions=self._assertions(found.get("assert"), groups),
            tiers=(self._tier(found, rules),),
            ahead=ahead,
        ), destinations)

    def _refuse_below(self, found: Mapping[str, Node]) -> None:
        """What is said for all agents, or before an agent is known, is said by the first file."""
        if self._above.parts:
            for key in found.keys() & {"identity", "contact"}:
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

    def _ahead(self, found: Mapping[str, Node], groups: Mapping[str, tuple[AgentPattern, ...]]) -> Ahead:
        """What has no effect yet. The clauses of the rules were read with them."""
        accounts = AccountReader(self.reader, self._conditions)
        return Ahead(
            clauses=self._clauses,
            budgets=accounts.budgets(found.get("budgets")),
            rates=accounts.rates(found.get("rates")),
            profile=accounts.profile(found),
            counters=accounts.counters(found.get("counters")),
            cascade=CascadeReader(self.reader, groups).cascade(found.get("cascade")),
            dns=dns(self.reader, found.get("dns")),
        )

    def _check_version(self, node: Node | None) -> None:
        version = None if node is None else self.reader.text(node, "version")
        if node is not None and version not in (None, _VERSION):
            message = f"version {quote(version or '')} of the language is not known here"
            self.reader.error("E109", node, message, f"write version: {_VERSION}")

    def _line(self, found: Mapping[str, Node], key: str) -> str | None:
        return self.reader.line(found[key], key, _LONGEST_TOLD) if key in found else None

    def _name(self, node: Node, what: str, taken: Iterable[str] = ()) -> str | None:
        """A name that the author gives."""
        name = self.reader.text(node, f"the name of {what}")
        if name is None:
            return None
        if not _NAME.fullmatch(name):
            hint = "letters, digits, and . _ - inside; at most 100 characters"
            self.reader.error("E106", node, f"{quote(name)} cannot name {what}", hint)
            return None
        if name in taken:
            message = f"{quote(name)} has a meaning of its own and cannot name {what}"
            self.reader.error("E106", node, message, "take another name")
            return None
        return name

    def _named(
        self, node: Node | None, section: str, what: str, taken: Iterable[str], upper: Iterable[str]
    ) -> Iterator[tuple[str, list[Scalar]]]:
        """The names of a section with the words that each stands for. A name never stands for another one."""
        entries = [] if node is None else self.reader.entries(node, section)
        names = {*upper, *(key.text for key, _ in entries)}
        for key, value in entries:
            if self._name(key, f"a {what}", taken) is None:
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

    def _identity(self, node: Node | None) -> Identity:
        found = {} if node is None else self.reader.mapping(node, IDENTITY) or {}
        for key, only in (("proxy-auth", "yes"), ("anonymous", "allow")):
            if key in found and self.reader.text(found[key], key) not in (only, None):
                self.reader.error("E102", found[key], f"{key} is {only}, or is left out")
        return Identity(frozenset(found.keys() & {"proxy-auth"}), "anonymous" in found)

    def _rules(self, node: Node | None) -> tuple[Rule, ...]:
        items = [] if node is None else self.reader.items(node, "rules")
        rules = [self._rule(number, item) for number, item in enumerate(items)]
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, number: int, node: Node) -> Rule | None:
        before = len(self.reader.findings)
        found = self.reader.mapping(node, RULE)
        if found is None:
            return None
        verbs = [key for key in found if key in VERBS or key in LATER_VERBS]
        if len(verbs) != 1:
            self._refuse_verbs(node, found, verbs, already_said=len(self.reader.findings) > before)
            return None
        verb = Verb(verbs[0])
        name = self._rule_name(found[verb])
        where = self._conditions.conditions(found, node if verb is Verb.ALLOW else None)
        holes = self._conditions.holes(found)
        if self.reader.ahead:
            where = self._read_clause(name or "", found, verb, where)
        terms = NOTHING_SAID
        if verb.grants:
            self._check_grant(node, verb, found, where)
            terms = grant_terms(self.reader, found)
        else:
            self._refuse_terms(verb, found)
        tell, why = self._line(found, "tell"), self._why(found)
        quiet = self._quiet(found, verb)
        return Rule(number, name or "", verb, where, holes, self.reader.at(node), tell, why, terms, quiet)

    def _quiet(self, found: Mapping[str, Node], verb: Verb) -> bool:
        if "quiet" not in found:
            return False
        if not verb.refuses:
            message = f'"quiet:" means nothing in an {verb}: it is about what is refused'
            self.reader.error("E112", found["quiet"], message)
        return is_yes(self.reader, found["quiet"], "quiet")

    def _read_clause(self, name: str, found: Mapping[str, Node], verb: Verb, where: Conditions) -> Conditions:
        """Keep what the rule says that has no effect yet; the conditions with the methods that such a key brings."""
        said = clause(self.reader, found, verb)
        if said != NO_CLAUSE:
            self._clauses[name] = said
        brought = OWN_METHODS.keys() & found.keys()
        if "methods" in found or verb is not Verb.ALLOW or not brought:
            return where
        return replace(where, methods=OWN_METHODS[min(brought)])

    def _refuse_terms(self, verb: Verb, found: Mapping[str, Node]) -> None:
        """What a rule that refuses says of sizes would never be asked."""
        for key in found.keys() & GRANT_TERMS:
            message = f'"{key}:" means nothing in a {verb}: it is about what passes'
            self.reader.error("E112", found[key], message, TERMS_ELSEWHERE[key])

    def _check_grant(self, node: Node, verb: Verb, found: Mapping[str, Node], where: Conditions) -> None:
        if verb is Verb.ALLOW and not found.keys() & ({"methods"} | OWN_METHODS.keys()):
            hint = "reads, writes, any or a list such as [GET, POST]"
            self.reader.error("E104", node, 'an allow needs "methods:"', hint)
        check_upgrades(self.reader, found, where)
        if "to" in found and where.address is None:
            self._remark_ranges(found["to"], where)

    def _refuse_verbs(self, node: Node, found: Mapping[str, Node], verbs: list[str], *, already_said: bool) -> None:
        if verbs:
            message = f'a rule has one verb, and here are "{verbs[0]}:" and "{verbs[1]}:"'
            self.reader.error("E110", found[verbs[1]], message, "make two rules")
        elif not already_said:
            self.reader.error("E104", node, "a rule needs its verb and name", "allow: NAME or deny: NAME")

    def _rule_name(self, node: Node) -> str | None:
        name = self._name(node, "a rule")
        if name is None:
            return None
        if name.startswith(_OWN_NAMES) and name.rpartition("-")[2].isdecimal():
            self.reader.error("E106", node, f"{quote(name)} is how Governor names an item itself", "take another name")
        else:
            self._above.take(self.reader, node, "rule", name)
        return name

    def _remark_ranges(self, node: Node, where: Conditions) -> None:
        wide = [t for t in where.to or () if isinstance(t, AddressRange) and any(n.first != n.last for n in t.networks)]
        if wide:
            message = f"{wide[0].text} covers only requests whose host is an address in it"
            hint = f"for names that lead there: to: NAME with address: {wide[0].text}"
            self.reader.inform("I108", node, message, hint)

    def _why(self, found: Mapping[str, Node]) -> str | None:
        why = self.reader.text(found["why"], "why") if "why" in found else None
        if why is not None and len(why) > _LONGEST_REASON:
            self.reader.error("E102", found["why"], f"why has {len(why)} characters; {_LONGEST_REASON} are allowed")
        return why

    def _nevers(self, node: Node | None, first_number: int) -> tuple[Rule, ...]:
        items = [] if node is None else self.reader.items(node, "never")
        before = self._above.nevers + 1
        nevers = [self._never(first_number + n, f"never-{before + n}", item) for n, item in enumerate(items)]
        return tuple(never for never in nevers if never is not None)

    def _never(self, number: int, name: str, node: Node) -> Rule | None:
        found = self.reader.mapping(node, NEVER)
        if found is None:
            return None
        if not found.keys() - {"why", "except", "quiet"}:
            message = "an item of never without conditions would refuse everything"
            self.reader.error("E104", node, message, "say to:, address:, methods: or another key")
        where, holes = self._conditions.conditions(found), self._conditions.holes(found)
        if self.reader.ahead:
            self._read_clause(name, found, Verb.NEVER, where)
        quiet = self._quiet(found, Verb.NEVER)
        return Rule(number, name, Verb.NEVER, where, holes, self.reader.at(node), why=self._why(found), quiet=quiet)

    def _limits(self, node: Node | None, first_number: int) -> tuple[Rule, ...]:
        items = [] if node is None else self.reader.items(node, "limits")
        before = self._above.limits + 1
        limits = [self._limit(first_number + n, f"limits-{before + n}", item) for n, item in enumerate(items)]
        return tuple(limit for limit in limits if limit is not None)

    def _limit(self, number: int, name: str, node: Node) -> Rule | None:
        found = self.reader.mapping(node, LIMIT)
        if found is None:
            return None
        where, holes = self._conditions.conditions(found), self._conditions.holes(found)
        terms = limit_terms(self.reader, node, found)
        return Rule(number, name, Verb.LIMIT, where, holes, self.reader.at(node), terms=terms)

    def _assertions(self, node: Node | None, groups: Mapping[str, tuple[AgentPattern, ...]]) -> tuple[Assertion, ...]:
        items = [] if node is None else self.reader.items(node, "assert")
        read = [self._assertion(item, groups) for item in items]
        return tuple(assertion for assertion in read if assertion is not None)

    def _assertion(self, node: Node, groups: Mapping[str, tuple[AgentPattern, ...]]) -> Assertion | None:
        outer = self.reader.mapping(node, ASSERT)
        if not outer:
            return None
        if len(outer) > 1:
            self.reader.error("E110", node, "an assertion says allowed or denied, not both", "make two items")
            return None
        (expected, inner), = outer.items()
        found = self.reader.mapping(inner, ASSERTED)
        if found is None or not ASSERTED.now & found.keys() >= {"from", "to", "method"}:
            return None
        agent = self._one_agent(found["from"], groups)
        url, method = self.reader.text(found["to"], "to"), self._one_method(found["method"])
        address = self._one_address(found["address"]) if "address" in found else None
        said = self._said(inner, found)
        if agent is None or url is None or method is None or said is None:
            return None
        if said.query:
            url += f"{'&' if '?' in url else '?'}{said.query}"
        return Assertion(expected == "allowed", agent, method, url, self.reader.at(node), address, said)

    def _said(self, node: Node, found: Mapping[str, Node]) -> Example | None:
        """The fields that the request of an assertion carries: one value each, or absent."""
        keys = {key: found[key] for key in found.keys() & FIELDS}
        values: dict[tuple[Part, str], str] = {}
        for part, name, wanted in compared(self._conditions.conditions(keys)):
            if wanted.intervals or any("*" in glob for glob in wanted.globs) or len(wanted.globs) + wanted.absent != 1:
                key = f"{part}: {name}" if name else part.value
                self.reader.error("E102", keys[part], f"an assertion speaks of one request, and {key} has many values",
                                  "write one value")
                return None
            if wanted.globs:
                values[part, name] = wanted.globs[0]
        said = example(values)
        if said is None:
            self.reader.error("P802", node, "no request carries all these fields", "a body is JSON or a form, not both")
        return said

    def _one_agent(self, node: Node, groups: Mapping[str, tuple[AgentPattern, ...]]) -> str | None:
        agent = self.reader.text(node, "from")
        if agent is None or not isinstance(node, Scalar) or self.reader.parsed("E205", node, agent_pattern) is None:
            return None
        if agent in groups or "*" in agent:
            hint = "an assertion speaks of one: write an id"
            self.reader.error("E102", node, f"{quote(agent)} is more than one agent", hint)
            return None
        return agent

    def _one_method(self, node: Node) -> str | None:
        methods = self._conditions.methods(node)
        if not isinstance(node, Scalar) or methods is None or len(methods) != 1:
            self.reader.error("E102", node, "an assertion speaks of one method", "write one, such as GET")
            return None
        return min(methods)

    def _one_address(self, node: Node) -> Address | None:
        text = self.reader.text(node, "address")
        try:
            return None if text is None else ip_address(text)
        except ValueError:
            self.reader.error("E202", node, f"{quote(text or '')} is not one address", "write one, such as 10.1.2.3")
            return None
