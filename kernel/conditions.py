"""The conditions of a rule, from text to patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from kernel.document import Node, Reader, Scalar, Sequence, did_you_mean, quote
from kernel.field_conditions import read_fields
from kernel.llm_terms import Call, read_llm, refuse_lengths
from kernel.normal import OWN_PORTS
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
from kernel.times import TimeReader
from kernel.vocabulary import (
    EXCEPT,
    FIELDS,
    METHOD_SETS,
    RESERVED_AGENTS,
    WELL_KNOWN_METHODS,
)

_EVERY_PATH = path_glob("/**")
_HTTPS = frozenset({"https"})
_WSS = frozenset({"wss"})
# Which schemes have one port between them.
_OWN_PORT = {
    frozenset(schemes): (PortRange(port, port),)
    for port, schemes in (
        (80, {"http"}), (80, {"ws"}), (80, {"http", "ws"}),
        (443, {"https"}), (443, {"wss"}), (443, {"https", "wss"}),
    )
}  # fmt: skip
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_-]*[A-Za-z_-][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Names:
    """What the words of a policy can stand for. `known` are registered agent ids, `calls` is housekeeping."""

    ranges: Mapping[str, AddressRange]
    known: frozenset[str]
    groups: Mapping[str, tuple[AgentPattern, ...]]
    destinations: Mapping[str, tuple[Destination, ...]]
    anonymous: bool
    calls: tuple[Call, ...] = ()


class ConditionReader:
    """Reads the conditions of rules, of never items and of their exceptions. What was read once is remembered."""

    def __init__(self, reader: Reader, names: Names, times: TimeReader) -> None:
        self._reader, self._names, self._times = reader, names, times
        patterns = {pattern for group in names.groups.values() for pattern in group}
        self._ids = names.known | RESERVED_AGENTS | {p.text for p in patterns if "*" not in p.text}
        self._globs = tuple(pattern for pattern in patterns if "*" in pattern.text)
        self._methods = _Words(reader, "methods", "methods", self._method, frozenset)
        self._keys: dict[str, _Words[Any]] = {
            "from": _Words(reader, "from", "agents", self._agent, tuple),
            "for": _Words(reader, "for", "agents", self._agent, tuple),
            "to": _Words(reader, "to", "to", self._destination, tuple),
            "address": _Words(reader, "address", "address", self._range, tuple),
            "methods": self._methods,
            "schemes": _Words(reader, "schemes", "schemes", self._scheme, frozenset),
            "ports": _Words(reader, "ports", "ports", self._port, tuple),
            "paths": _Words(reader, "paths", "paths", self._path, tuple),
        }

    def conditions(self, found: Mapping[str, Node], grant: Node | None = None) -> Conditions:
        """What the keys of `found` say. An allow, given as `grant`, also gets what it leaves unsaid."""
        said: dict[str, Any] = {}
        for key, node in found.items():
            words = self._keys.get(key)
            if words is not None:
                said[words.field] = words.meant(node)
            elif key in FIELDS:
                said |= read_fields(self._reader, key, node)
            elif key == "llm":
                said["llm"] = read_llm(self._reader, node, self._names.calls)
        if found.keys() & {"when", "expires"}:
            self._read_times(found, said)
        usual = _WSS if "websocket" in found else _HTTPS
        if "to" in said and any(isinstance(target, UrlPattern) for target in said["to"]):
            self._refuse_beside_urls(found)
            if grant is not None:
                said["to"] = tuple(_as_urls(said["to"], usual))
        elif grant is not None:
            self._complete(said, usual, grant)
        return Conditions(**said)

    def _read_times(self, found: Mapping[str, Node], said: dict[str, Any]) -> None:
        window = self._times.when(found["when"]) if "when" in found else None
        said["when"] = window
        if "expires" in found:
            said["expires"] = self._times.expires(found["expires"], window.zone if window is not None else None)

    def _complete(self, said: dict[str, Any], usual: frozenset[str], grant: Node) -> None:
        """Add to an allow what it leaves unsaid: the usual scheme, and the port that belongs to the scheme."""
        schemes = said.setdefault("schemes", usual)
        if "ports" in said:
            return
        if schemes in _OWN_PORT:
            said["ports"] = _OWN_PORT[schemes]
        elif "to" in said:
            # http with 80 and https with 443: as lists they would also pair http with 443.
            said["to"] = tuple(_as_urls(said["to"], schemes))
        else:
            message = 'an allow for every host and schemes with different ports needs "ports:"'
            self._reader.error("E104", grant, message, "write ports: [80, 443]")

    def methods(self, node: Node) -> frozenset[str] | None:
        """The methods that are named; None for `any`."""
        named: frozenset[str] | None = self._methods.meant(node)
        return named

    def agents(self, node: Node) -> tuple[AgentPattern, ...]:
        """The agents that are named."""
        named: tuple[AgentPattern, ...] = self._keys["for"].meant(node)
        return named

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
        return tuple(self._hole(keys) for _, keys in read if keys)

    def _hole(self, found: Mapping[str, Node]) -> Conditions:
        where = self.conditions(found)
        refuse_lengths(self._reader, found, where.llm, "an exception")
        return where

    def _agent(self, word: Scalar) -> tuple[AgentPattern, ...]:
        if word.text in self._names.groups:
            return self._names.groups[word.text]
        pattern = self._reader.parsed("E205", word, agent_pattern)
        if pattern is None:
            return ()
        if word.text == ANONYMOUS and not self._names.anonymous:
            hint = "identity: {anonymous: allow} lets clients without identity in"
            self._reader.warn("W121", word, "nobody is anonymous here", hint)
        elif "*" not in word.text and not self._has_heard_of(word.text):
            message = f"{quote(word.text)} is no group, and no agent that is registered or in a group"
            self._reader.warn("W120", word, message, did_you_mean(word.text, self._names.groups.keys() | self._ids))
        return (pattern,)

    def _has_heard_of(self, agent: str) -> bool:
        return agent in self._ids or any(agent_matches(pattern, agent) for pattern in self._globs)

    def _destination(self, word: Scalar) -> tuple[Destination, ...]:
        text = word.text
        if text in self._names.destinations:
            return self._names.destinations[text]
        if "." not in text and text not in self._names.ranges and _PLAIN_WORD.fullmatch(text) and text != "localhost":
            hint = did_you_mean(text, self._names.destinations.keys() | self._names.ranges.keys())
            if hint:
                self._reader.error("E105", word, f"no destination or named range is called {quote(text)}", hint)
                return ()
            message = f"{quote(text)} is read as a host of one label"
            self._reader.warn("W105", word, message, "no destination has this name")
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
        self._reader.error("E208", word, f"{quote(word.text)} is not a scheme", "http, https, ws or wss")
        return ()

    def _method(self, word: Scalar) -> Iterable[str]:
        text = word.text
        if text in METHOD_SETS:
            return METHOD_SETS[text]
        if text == "any":
            self._reader.error("E207", word, '"any" stands alone', "write methods: any")
        elif text == "CONNECT":
            hint = "a tunnel opens where any request inside it could pass"
            self._reader.error("E207", word, "CONNECT is not a method of a rule", hint)
        elif not _METHOD.fullmatch(text):
            capitals = f"write {text.upper()}" if _METHOD.fullmatch(text.upper()) else ""
            hint = did_you_mean(text, METHOD_SETS) or capitals or "reads, writes, any or a list such as [GET, POST]"
            self._reader.error("E207", word, f"{quote(text)} is not a method", hint)
        elif text not in WELL_KNOWN_METHODS and (hint := did_you_mean(text, WELL_KNOWN_METHODS)):
            self._reader.warn("W207", word, f"{text} is not a well-known method", hint)
        return (text,)

    def _refuse_beside_urls(self, found: Mapping[str, Node]) -> None:
        hint = "give the hosts a rule of their own, or write the path into the URL"
        for key in found.keys() & {"schemes", "ports", "paths"}:
            message = f'"{key}:" stands beside a URL pattern, which says its scheme, port and path itself'
            self._reader.error("E108", found[key], message, hint)


class _Words[T]:
    """One key of a rule and its field in `Conditions`: what its words stand for."""

    def __init__(
        self,
        reader: Reader,
        key: str,
        field: str,
        parse: Callable[[Scalar], Iterable[T]],
        collect: Callable[[Iterable[T]], tuple[T, ...] | frozenset[T]],
    ) -> None:
        self.field = field
        self._reader, self._key, self._parse, self._collect = reader, key, parse, collect
        self._known: dict[str | tuple[str, ...], Any] = {"any": None} if key == "methods" else {}

    def meant(self, node: Node) -> Any:
        """What stands under the key, each thing once."""
        words = self._reader.words(node, self._key)
        texts = words[0].text if len(words) == 1 else tuple([word.text for word in words])
        if texts in self._known:
            return self._known[texts]
        findings = len(self._reader.findings)
        meant = self._collect(dict.fromkeys([thing for word in words for thing in self._parse(word)]))
        if len(self._reader.findings) == findings:  # what has a finding has it at each of its places
            self._known[texts] = meant
        return meant


def one_destination(reader: Reader, word: Scalar, ranges: Mapping[str, AddressRange]) -> tuple[Destination, ...]:
    """The host pattern, range or URL pattern that a word is, whatever destinations are called."""
    code = "E204" if "://" in word.text else "E201"
    return _one(reader.parsed(code, word, partial(destination, named=ranges)))


def _one[T](value: T | None) -> tuple[T, ...]:
    return () if value is None else (value,)


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
