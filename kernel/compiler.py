"""From documents to a policy: every section read, every name looked up, every assertion judged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from ipaddress import ip_address

from kernel.conditions import ConditionReader, Names, one_destination
from kernel.document import Document, Node, Reader, Scalar, did_you_mean, quote
from kernel.errors import PolicyError
from kernel.facts import Address
from kernel.findings import Finding, Severity
from kernel.pattern import agent_pattern
from kernel.policy import (
    AddressRange,
    AgentPattern,
    Assertion,
    Conditions,
    Destination,
    Identity,
    Policy,
    Rule,
    Verb,
)
from kernel.question import judge_assertions
from kernel.vocabulary import (
    ASSERT,
    ASSERTED,
    IDENTITY,
    NEVER,
    POLICY,
    RESERVED_AGENTS,
    RULE,
    VERBS,
)

_VERSION = "1"
_LONGEST_TOLD = 500
_LONGEST_REASON = 4000
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_OWN_NAMES = re.compile(r"(?:never|limits|rates)-[0-9]+")


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
) -> Compiled:
    """The policy that the documents say. `digest` names their bytes. Raises `PolicyError` with every finding."""
    if len(files) != 1:
        raise PolicyError([_several(files)])
    compiler = _Compiler(files[0], named_ranges, known_agents)
    policy = compiler.policy(digest)
    _raise_errors(compiler.reader.findings)
    findings = [*compiler.reader.findings, *judge_assertions(policy)]
    _raise_errors(findings)
    return Compiled(policy, tuple(findings))


def _several(files: Many[Document]) -> Finding:
    where = files[1] if files else Document("(no file)", Scalar("", False, 1, 1))
    message = f"{len(files)} files are given, and this version judges by one"
    return Finding("E111", Severity.ERROR, Reader(where.file).at(where.root), message, "tiers come in a later version: put the rules into one file")


def _raise_errors(findings: Iterable[Finding]) -> None:
    """Raise `PolicyError` where a finding is an error: errors first, each kind in the order of the file."""
    known = sorted(findings, key=lambda f: (f.severity is not Severity.ERROR, f.position.line, f.position.column))
    if known and known[0].severity is Severity.ERROR:
        raise PolicyError(known)


class _Compiler:
    """Compiles one document. Its reader holds the findings."""

    def __init__(self, document: Document, ranges: Mapping[str, AddressRange], known: frozenset[str]) -> None:
        self.reader = Reader(document.file)
        self._document, self._ranges, self._known = document, ranges, known
        self._names: dict[str, Node] = {}

    def policy(self, digest: str) -> Policy:
        found = self.reader.mapping(self._document.root, POLICY) or {}
        self._check_version(found.get("version"))
        identity = self._identity(found.get("identity"))
        groups = self._groups(found.get("agents"))
        names = Names(self._ranges, self._known, groups, self._destinations(found.get("destinations")), identity.anonymous)
        self._conditions = ConditionReader(self.reader, names)
        rules = self._rules(found.get("rules"))
        return Policy(
            digest=digest,
            files=(self._document.file,),
            rules=rules,
            nevers=self._nevers(found.get("never"), len(rules)),
            groups=groups,
            contact=self._line(found, "contact"),
            identity=identity,
            assertions=self._assertions(found.get("assert"), groups),
        )

    def _check_version(self, node: Node | None) -> None:
        if node is None:
            return
        version = self.reader.text(node, "version")
        if version is not None and version != _VERSION:
            self.reader.error("E109", node, f"version {quote(version)} of the language is not known here", f"write version: {_VERSION}")

    def _line(self, found: Mapping[str, Node], key: str) -> str | None:
        return self.reader.line(found[key], key, _LONGEST_TOLD) if key in found else None

    def _name(self, node: Node, what: str, taken: Iterable[str] = ()) -> str | None:
        """A name that the author gives."""
        name = self.reader.text(node, f"the name of {what}")
        if name is None:
            return None
        if not _NAME.fullmatch(name):
            self.reader.error("E106", node, f"{quote(name)} cannot name {what}", "letters, digits, and . _ - inside; at most 100 characters")
            return None
        if name in taken:
            self.reader.error("E106", node, f"{quote(name)} has a meaning of its own and cannot name {what}", "take another name")
            return None
        return name

    def _groups(self, node: Node | None) -> dict[str, tuple[AgentPattern, ...]]:
        groups: dict[str, tuple[AgentPattern, ...]] = {}
        entries = [] if node is None else self.reader.entries(node, "agents") or []
        names = {key.text for key, _ in entries}
        for key, value in entries:
            if self._name(key, "a group", RESERVED_AGENTS) is None:
                continue
            words = self.reader.words(value, f"the group {quote(key.text)}")
            for word in words:
                if word.text in names:
                    self.reader.error("E107", word, f"{quote(word.text)} is a group, and a group holds agent ids", "list the ids again")
            patterns = [self.reader.parsed("E205", word, agent_pattern) for word in words]
            groups[key.text] = tuple(pattern for pattern in patterns if pattern is not None)
        return groups

    def _destinations(self, node: Node | None) -> dict[str, tuple[Destination, ...]]:
        destinations: dict[str, tuple[Destination, ...]] = {}
        entries = [] if node is None else self.reader.entries(node, "destinations") or []
        names = {key.text for key, _ in entries}
        for key, value in entries:
            if self._name(key, "a destination", (*self._ranges, "localhost")) is None:
                continue
            words = self.reader.words(value, f"the destination {quote(key.text)}")
            for word in words:
                if word.text in names:
                    self.reader.error("E107", word, f"{quote(word.text)} is a destination, and a destination holds hosts, ranges and URLs",
                                      "list them again")
            destinations[key.text] = tuple(
                target for word in words for target in one_destination(self.reader, word, self._ranges))
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
        verbs = [key for key in found if key in VERBS]
        if len(verbs) != 1:
            self._refuse_verbs(node, found, verbs, already_said=len(self.reader.findings) > before)
            return None
        verb = Verb(verbs[0])
        name = self._rule_name(found[verb])
        where, holes = self._conditions.conditions(found), self._conditions.holes(found)
        if verb.grants:
            if "methods" not in found:
                self.reader.error("E104", node, 'an allow needs "methods:"', "reads, writes, any or a list such as [GET, POST]")
            self._remark_ranges(found.get("to"), where)
            where = self._conditions.granting(node, where)
        return Rule(number, name or "", verb, where, holes, self.reader.at(node), self._line(found, "tell"), self._why(found))

    def _refuse_verbs(self, node: Node, found: Mapping[str, Node], verbs: list[str], *, already_said: bool) -> None:
        if verbs:
            self.reader.error("E110", found[verbs[1]], f'a rule has one verb, and here are "{verbs[0]}:" and "{verbs[1]}:"', "make two rules")
        elif not already_said:
            self.reader.error("E104", node, "a rule needs its verb and name", "allow: NAME or deny: NAME")

    def _rule_name(self, node: Node) -> str | None:
        name = self._name(node, "a rule")
        if name is None:
            return None
        if _OWN_NAMES.fullmatch(name):
            self.reader.error("E106", node, f"{quote(name)} is how Governor names an item itself", "take another name")
        elif name in self._names:
            self.reader.error("E107", node, f"two rules are called {quote(name)}", f"the first is in line {self._names[name].line}")
        else:
            self._names[name] = node
        return name

    def _remark_ranges(self, node: Node | None, where: Conditions) -> None:
        wide = [t for t in where.to or () if isinstance(t, AddressRange) and any(n.first != n.last for n in t.networks)]
        if node is not None and wide and where.address is None:
            self.reader.inform("I108", node, f"{wide[0].text} covers only requests whose host is an address in it",
                               f"for names that lead there: to: NAME with address: {wide[0].text}")

    def _why(self, found: Mapping[str, Node]) -> str | None:
        why = self.reader.text(found["why"], "why") if "why" in found else None
        if why is not None and len(why) > _LONGEST_REASON:
            self.reader.error("E102", found["why"], f"why has {len(why)} characters; {_LONGEST_REASON} are allowed")
        return why

    def _nevers(self, node: Node | None, first_number: int) -> tuple[Rule, ...]:
        items = [] if node is None else self.reader.items(node, "never")
        nevers = [self._never(first_number + place, f"never-{place + 1}", item) for place, item in enumerate(items)]
        return tuple(never for never in nevers if never is not None)

    def _never(self, number: int, name: str, node: Node) -> Rule | None:
        found = self.reader.mapping(node, NEVER)
        if found is None:
            return None
        if not found.keys() - {"why", "except"}:
            self.reader.error("E104", node, "an item of never without conditions would refuse everything", "say to:, address:, methods: or another key")
        where, holes = self._conditions.conditions(found), self._conditions.holes(found)
        return Rule(number, name, Verb.NEVER, where, holes, self.reader.at(node), why=self._why(found))

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
        if agent is None or url is None or method is None:
            return None
        return Assertion(expected == "allowed", agent, method, url, self.reader.at(node), address)

    def _one_agent(self, node: Node, groups: Mapping[str, tuple[AgentPattern, ...]]) -> str | None:
        agent = self.reader.text(node, "from")
        if agent is None or not isinstance(node, Scalar) or self.reader.parsed("E205", node, agent_pattern) is None:
            return None
        if agent in groups or "*" in agent:
            self.reader.error("E102", node, f"{quote(agent)} is more than one agent", "an assertion speaks of one: write an id")
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
