"""Assertions, from text to the one request of which each speaks, or to the requests that its conditions hold for."""

from __future__ import annotations

from collections.abc import Container, Mapping
from ipaddress import ip_address

from kernel.clause import compared
from kernel.conditions import ConditionReader
from kernel.document import Node, Reader, Scalar, quote
from kernel.example import Example, example
from kernel.facts import Address
from kernel.fields import Part
from kernel.pattern import agent_pattern
from kernel.policy import Assertion, Rule, Verb
from kernel.vocabulary import ASSERT, ASSERTED, FIELDS

_OF_ONE_REQUEST = FIELDS | {"from", "to", "method", "address"}


class AssertionReader:
    """Reads the `assert:` section. `groups` are the names of groups, of which none is an agent."""

    def __init__(self, reader: Reader, conditions: ConditionReader, groups: Container[str]) -> None:
        self._reader, self._conditions, self._groups = reader, conditions, groups

    def read(self, node: Node | None) -> tuple[tuple[Assertion, ...], tuple[Rule, ...]]:
        """The assertions about one request, and those about many."""
        items = [] if node is None else self._reader.items(node, "assert")
        read = [self._assertion(item) for item in items]
        return (tuple(each for each in read if isinstance(each, Assertion)),
                tuple(each for each in read if isinstance(each, Rule)))

    def _assertion(self, node: Node) -> Assertion | Rule | None:
        outer = self._reader.mapping(node, ASSERT)
        if not outer:
            return None
        if len(outer) > 1:
            self._reader.error("E110", node, "an assertion says allowed or denied, not both", "make two items")
            return None
        (expected, inner), = outer.items()
        found = self._reader.mapping(inner, ASSERTED)
        if found is None:
            return None
        if not found:
            message = "an assertion without conditions would speak of every request"
            self._reader.error("E104", inner, message, "say to:, methods: or another key")
            return None
        return self._one(node, expected, inner, found) if "method" in found else self._many(node, expected, found)

    def _many(self, node: Node, expected: str, found: Mapping[str, Node]) -> Rule:
        """The requests that the conditions hold for, as they would in an allow or in an item of never."""
        allowed = expected == "allowed"
        where = self._conditions.conditions(found, node if allowed else None)
        at = self._reader.at(node)
        verb = Verb.ALLOW if allowed else Verb.NEVER
        return Rule(0, f"assertion in line {at.line}", verb, where, self._conditions.holes(found), at)

    def _one(self, node: Node, expected: str, inner: Node, found: Mapping[str, Node]) -> Assertion | None:
        many = sorted(found.keys() - _OF_ONE_REQUEST)
        if many:
            message = f'"{many[0]}:" stands beside "method:", which is for one request'
            self._reader.error("E108", found[many[0]], message, "say methods: for many")
        for key in sorted({"from", "to"} - found.keys()):
            self._reader.error("E104", inner, f'an assertion about one request needs "{key}:"', "or methods: for many")
        if many or not found.keys() >= {"from", "to"}:
            return None
        agent = self._one_agent(found["from"])
        url, method = self._reader.text(found["to"], "to"), self._one_method(found["method"])
        address = self._one_address(found["address"]) if "address" in found else None
        said = self._said(inner, found)
        if agent is None or url is None or method is None or said is None:
            return None
        if said.query:
            url += f"{'&' if '?' in url else '?'}{said.query}"
        return Assertion(expected == "allowed", agent, method, url, self._reader.at(node), address, said)

    def _said(self, node: Node, found: Mapping[str, Node]) -> Example | None:
        """The fields that the request of an assertion carries: one value each, or absent."""
        keys = {key: found[key] for key in found.keys() & FIELDS}
        values: dict[tuple[Part, str], str] = {}
        for part, name, wanted in compared(self._conditions.conditions(keys)):
            if wanted.intervals or any("*" in glob for glob in wanted.globs) or len(wanted.globs) + wanted.absent != 1:
                key = f"{part}: {name}" if name else part.value
                self._reader.error("E102", keys[part], f"an assertion speaks of one request, and {key} has many values",
                                  "write one value")
                return None
            if wanted.globs:
                values[part, name] = wanted.globs[0]
        said = example(values)
        if said is None:
            hint = "a body is JSON or a form, not both"
            self._reader.error("P802", node, "no request carries all these fields", hint)
        return said

    def _one_agent(self, node: Node) -> str | None:
        agent = self._reader.text(node, "from")
        if agent is None or not isinstance(node, Scalar) or self._reader.parsed("E205", node, agent_pattern) is None:
            return None
        if agent in self._groups or "*" in agent:
            hint = "an assertion speaks of one: write an id"
            self._reader.error("E102", node, f"{quote(agent)} is more than one agent", hint)
            return None
        return agent

    def _one_method(self, node: Node) -> str | None:
        methods = self._conditions.methods(node)
        if not isinstance(node, Scalar) or methods is None or len(methods) != 1:
            self._reader.error("E102", node, "an assertion speaks of one method", "write one, such as GET")
            return None
        return min(methods)

    def _one_address(self, node: Node) -> Address | None:
        text = self._reader.text(node, "address")
        try:
            return None if text is None else ip_address(text)
        except ValueError:
            self._reader.error("E202", node, f"{quote(text or '')} is not one address", "write one, such as 10.1.2.3")
            return None
