"""The conditions of a rule, from text to patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from kernel.document import Node, Reader, Scalar, Sequence, did_you_mean, quote
from kernel.pattern import (
    ANONYMOUS,
    address_range,
    agent_matches,
    agent_pattern,
    destination,
    path_glob,
    port_range,
)
from kernel.policy import (
    AddressRange,
    AgentPattern,
    Conditions,
    Destination,
    HostPattern,
    HostReach,
    PathGlob,
    PortRange,
    UrlPattern,
)
from kernel.vocabulary import (
    EXCEPT,
    LATER_SCHEMES,
    METHOD_SETS,
    OWN_PORTS,
    RESERVED_AGENTS,
    WELL_KNOWN_METHODS,
)

_EVERY_PATH = path_glob("/**")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_-]*[A-Za-z_-][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Names:
    """What the words of a policy can stand for. `known` are registered agent ids."""

    ranges: Mapping[str, AddressRange]
    known: frozenset[str]
    groups: Mapping[str, tuple[AgentPattern, ...]]
    destinations: Mapping[str, tuple[Destination, ...]]
    anonymous: bool


class ConditionReader:
    """Reads the conditions of rules, of never items and of their exceptions. A word that was read once is remembered."""

    def __init__(self, reader: Reader, names: Names) -> None:
        self._reader, self._names = reader, names
        patterns = {pattern for group in names.groups.values() for pattern in group}
        self._ids = names.known | RESERVED_AGENTS | {p.text for p in patterns if "*" not in p.text}
        self._globs = tuple(pattern for pattern in patterns if "*" in pattern.text)
        self._read: dict[tuple[str, str], tuple[object, ...]] = {}

    def conditions(self, found: Mapping[str, Node]) -> Conditions:
        """What the keys of `found` say. A key that says nothing readable is a finding, and None here."""
        where = Conditions(
            agents=self._each(found, "from", self._agent),
            to=self._each(found, "to", self._destination),
            address=self._each(found, "address", self._range),
            methods=self.methods(found["methods"]) if "methods" in found else None,
            schemes=_set(self._each(found, "schemes", self._scheme)),
            ports=self._each(found, "ports", self._port),
            paths=self._each(found, "paths", self._path),
        )
        if any(isinstance(target, UrlPattern) for target in where.to or ()):
            self._refuse_beside_urls(found)
        return where

    def holes(self, found: Mapping[str, Node]) -> tuple[Conditions, ...]:
        """The exceptions: one, or a list of them, each with at least one condition."""
        node = found.get("except")
        if node is None:
            return ()
        items = node.items if isinstance(node, Sequence) else [node]
        read = [(item, self._reader.mapping(item, EXCEPT)) for item in items]
        for item, keys in read:
            if keys is not None and not keys:
                self._reader.error("E104", item, "an exception without conditions would except everything")
        return tuple(self.conditions(keys) for _, keys in read if keys)

    def granting(self, node: Node, where: Conditions) -> Conditions:
        """The conditions of an allow, with what it leaves unsaid: https, and the port that belongs to the scheme."""
        if any(isinstance(target, UrlPattern) for target in where.to or ()):
            return replace(where, to=tuple(_as_urls(where.to or (), frozenset({"https"}))))
        schemes = where.schemes or frozenset({"https"})
        if where.ports is not None:
            return replace(where, schemes=schemes)
        if len(schemes) == 1:
            own = OWN_PORTS[min(schemes)]
            return replace(where, schemes=schemes, ports=(PortRange(own, own),))
        if where.to is None:
            self._reader.error("E104", node, 'an allow for every host and two schemes needs "ports:"', "write ports: [80, 443]")
            return where
        # http with 80 and https with 443: as lists they would also pair http with 443.
        return replace(where, to=tuple(_as_urls(where.to, schemes)))

    def methods(self, node: Node) -> frozenset[str] | None:
        """The methods that a list names; None for `any`."""
        words = self._reader.words(node, "methods")
        if [word.text for word in words] == ["any"]:
            return None
        sets = [self._method(word) for word in words]
        return frozenset().union(*sets)

    def _each[T](self, found: Mapping[str, Node], key: str, parse: Callable[[Scalar], Iterable[T] | None]) -> tuple[T, ...] | None:
        """What the words under `key` stand for, each once; None where the key is missing."""
        if key not in found:
            return None
        meant: dict[T, None] = {}
        for word in self._reader.words(found[key], key):
            meant.update(dict.fromkeys(self._remembered(key, word, parse)))
        return tuple(meant)

    def _remembered[T](self, key: str, word: Scalar, parse: Callable[[Scalar], Iterable[T] | None]) -> tuple[T, ...]:
        known = self._read.get((key, word.text))
        if known is not None:
            return cast("tuple[T, ...]", known)
        findings = len(self._reader.findings)
        meant = tuple(parse(word) or ())
        if len(self._reader.findings) == findings:  # each place that has a finding is named
            self._read[key, word.text] = meant
        return meant

    def _agent(self, word: Scalar) -> tuple[AgentPattern, ...]:
        if word.text in self._names.groups:
            return self._names.groups[word.text]
        pattern = self._reader.parsed("E205", word, agent_pattern)
        if pattern is None:
            return ()
        if word.text == ANONYMOUS and not self._names.anonymous:
            self._reader.warn("W121", word, "nobody is anonymous here", "identity: {anonymous: allow} lets clients without identity in")
        elif "*" not in word.text and not self._has_heard_of(word.text):
            named = self._names.groups.keys() | self._ids
            self._reader.warn("W120", word, f"{quote(word.text)} is no group, and no agent that is registered or in a group",
                              did_you_mean(word.text, named))
        return (pattern,)

    def _has_heard_of(self, agent: str) -> bool:
        return agent in self._ids or any(agent_matches(pattern, agent) for pattern in self._globs)

    def _destination(self, word: Scalar) -> tuple[Destination, ...]:
        text = word.text
        if text in self._names.destinations:
            return self._names.destinations[text]
        if text not in self._names.ranges and _PLAIN_WORD.fullmatch(text) and text != "localhost":
            hint = did_you_mean(text, self._names.destinations.keys() | self._names.ranges.keys())
            if hint:
                self._reader.error("E105", word, f"no destination or named range is called {quote(text)}", hint)
                return ()
            self._reader.warn("W105", word, f"{quote(text)} is read as a host of one label", "no destination has this name")
        return one_destination(self._reader, word, self._names.ranges)

    def _range(self, word: Scalar) -> tuple[AddressRange, ...]:
        return _one(self._reader.parsed("E202", word, partial(address_range, named=self._names.ranges)))

    def _path(self, word: Scalar) -> tuple[PathGlob, ...]:
        return _one(self._reader.parsed("E203", word, path_glob))

    def _port(self, word: Scalar) -> tuple[PortRange, ...]:
        return _one(self._reader.parsed("E206", word, port_range))

    def _scheme(self, word: Scalar) -> tuple[str, ...]:
        if word.text in OWN_PORTS:
            return (word.text,)
        if word.text in LATER_SCHEMES:
            self._reader.error("E180", word, f"this version cannot enforce the scheme {word.text}", "WebSockets come in a later version")
        else:
            self._reader.error("E208", word, f"{quote(word.text)} is not a scheme", "http or https")
        return ()

    def _method(self, word: Scalar) -> frozenset[str]:
        text = word.text
        if text in METHOD_SETS:
            return METHOD_SETS[text]
        if text == "any":
            self._reader.error("E207", word, '"any" stands alone', "write methods: any")
        elif text == "CONNECT":
            self._reader.error("E207", word, "CONNECT is not a method of a rule", "a tunnel opens where any request inside it could pass")
        elif not _METHOD.fullmatch(text):
            hint = f"write {text.upper()}" if _METHOD.fullmatch(text.upper()) else "reads, writes, any or a list such as [GET, POST]"
            self._reader.error("E207", word, f"{quote(text)} is not a method", did_you_mean(text, METHOD_SETS) or hint)
        elif text not in WELL_KNOWN_METHODS and (hint := did_you_mean(text, WELL_KNOWN_METHODS)):
            self._reader.warn("W207", word, f"{text} is not a well-known method", hint)
        return frozenset({text})

    def _refuse_beside_urls(self, found: Mapping[str, Node]) -> None:
        for key in ("schemes", "ports", "paths"):
            if key in found:
                self._reader.error("E108", found[key], f'"{key}:" stands beside a URL pattern, which says its scheme, port and path itself',
                                   "give the hosts a rule of their own, or write the path into the URL")


def one_destination(reader: Reader, word: Scalar, ranges: Mapping[str, AddressRange]) -> tuple[Destination, ...]:
    """The host pattern, range or URL pattern that a word is, whatever destinations are called."""
    code = "E204" if "://" in word.text else "E201"
    return _one(reader.parsed(code, word, partial(destination, named=ranges)))


def _one[T](value: T | None) -> tuple[T, ...]:
    return () if value is None else (value,)


def _set(words: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if words is None else frozenset(words)


def _as_urls(targets: Iterable[Destination], schemes: frozenset[str]) -> Iterator[Destination]:
    """The same targets as URL patterns: every path under each scheme, at the scheme's own port."""
    for target in targets:
        if isinstance(target, UrlPattern):
            yield target
            continue
        name = target.text if isinstance(target, AddressRange) else spelled(target)
        for scheme in sorted(schemes):
            yield UrlPattern(f"{scheme}://{name}/**", scheme, target, OWN_PORTS[scheme], _EVERY_PATH)


def spelled(pattern: HostPattern) -> str:
    """A host pattern as a policy writes it."""
    return {HostReach.EXACT: "", HostReach.BELOW: "*.", HostReach.SELF_AND_BELOW: "."}[pattern.reach] + pattern.name
