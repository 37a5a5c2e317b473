"""A policy as it was written: a tree of text with places, and the strict reading of it.

Nothing is guessed from a scalar: `NO`, `22:30` and `0443` are text until a key says what it wants to be. A reading
never stops at the first problem; what could not be read is a finding and comes back as None.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Map
from dataclasses import dataclass, field
from typing import Protocol

from kernel.errors import PatternError
from kernel.findings import Finding, Severity
from kernel.policy import Position


class Mark(Protocol):
    """Where a node begins, as parsers say it: line and column from 0."""

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int: ...


# Plain slots, because a policy of 10,000 rules has 110,000 nodes and a frozen one takes five times as long to make.
@dataclass(slots=True)
class Scalar:
    """One piece of text."""

    text: str
    mark: Mark


@dataclass(slots=True)
class Sequence:
    items: list[Node]
    mark: Mark


@dataclass(slots=True)
class Mapping:
    """`parts` are keys and values in turn, in the order of the file; a key that stands twice is here twice."""

    parts: list[Node]
    mark: Mark


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Document:
    """One file: its name as findings show it, and its only node."""

    file: str
    root: Node


@dataclass(frozen=True, slots=True)
class Keys:
    """What a mapping may hold.

    `later` are keys of the language that this version cannot enforce, `ahead` those of them that a reader which looks
    ahead reads all the same; `waits` says of some of them what is missing. `elsewhere` are keys that mean nothing here,
    each with where it belongs.
    """

    what: str
    now: frozenset[str]
    later: frozenset[str] = frozenset()
    ahead: frozenset[str] = frozenset()
    required: tuple[str, ...] = ()
    elsewhere: Map[str, str] = field(default_factory=dict)
    waits: Map[str, str] = field(default_factory=dict)


_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_SHOWN_CHARACTERS = 60
_COMPARED_CHARACTERS = 64
_COMPARED_WORDS = 1000  # a comparison costs microseconds, and a policy may have as many slips as names


def quote(text: str) -> str:
    """`text` in double quotes, shortened where it is long."""
    return f'"{printable(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")}"'


def printable(text: str) -> str:
    """`text` with everything that a terminal would act on written as an escape."""
    return text if text.isprintable() else "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def joined(items: Iterable[str], word: str, most: int | None = None) -> str:
    """`a`, `a or b`, `a, b or c`; where there are more than `most`, the first of them and how many are left."""
    told = list(items)
    if most is not None and len(told) > most:
        told[most:] = [f"{len(told) - most} more"]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} {word} {told[-1]}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest of `known`, or nothing where none is close."""
    words = sorted(known)
    if len(word) > _COMPARED_CHARACTERS or len(words) > _COMPARED_WORDS:
        return ""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.7)
    return f"did you mean {quote(close[0])}?" if close else ""


@dataclass(slots=True)
class Reader:
    """Reads one document and collects every finding. One that looks ahead also takes keys without effect yet."""

    file: str
    findings: list[Finding] = field(default_factory=list)
    ahead: bool = False

    def at(self, node: Node) -> Position:
        return Position(self.file, node.mark.line + 1, node.mark.column + 1)

    def error(self, code: str, node: Node, message: str, hint: str = "") -> None:
        self._find(code, Severity.ERROR, node, message, hint)

    def warn(self, code: str, node: Node, message: str, hint: str = "") -> None:
        self._find(code, Severity.WARNING, node, message, hint)

    def inform(self, code: str, node: Node, message: str, hint: str = "") -> None:
        self._find(code, Severity.INFO, node, message, hint)

    def _find(self, code: str, severity: Severity, node: Node, message: str, hint: str) -> None:
        self.findings.append(Finding(code, severity, self.at(node), printable(message), printable(hint)))

    def mapping(self, node: Node, keys: Keys) -> dict[str, Node] | None:
        """The values by key, without keys that were refused; None where `node` is no mapping."""
        if not isinstance(node, Mapping):
            self.error("E102", node, f"{keys.what} is written as keys and values, not as {kind_of(node)}")
            return None
        found: dict[str, Node] = {}
        readable = self._readable(keys)
        places = iter(node.parts)
        for key, value in zip(places, places, strict=True):
            if isinstance(key, Scalar) and key.text in readable and key.text not in found:
                found[key.text] = value
            else:
                self._refuse_key(node, key, keys)
        for name in keys.required:
            if name not in found:
                self.error("E104", node, f'{keys.what} needs "{name}:"')
        return found

    def _readable(self, keys: Keys) -> frozenset[str]:
        return keys.now | keys.ahead if self.ahead else keys.now

    def entries(self, node: Node, what: str) -> list[tuple[Scalar, Node]]:
        """The entries of a mapping whose keys are the author's own names, each key once."""
        if not isinstance(node, Mapping):
            self.error("E102", node, f"{what} is written as names and values, not as {kind_of(node)}")
            return []
        kept: dict[str, tuple[Scalar, Node]] = {}
        for key, value in zip(node.parts[::2], node.parts[1::2], strict=True):
            if isinstance(key, Scalar) and key.text not in kept:
                kept[key.text] = (key, value)
            else:
                self._refuse_twice(node, key, what)
        return list(kept.values())

    def _refuse_key(self, node: Mapping, key: Node, keys: Keys) -> None:
        if not isinstance(key, Scalar) or key.text in self._readable(keys):
            self._refuse_twice(node, key, keys.what)
        elif key.text in keys.later or key.text in keys.ahead:
            message = f'"{key.text}:" belongs to the language, but this version cannot enforce it in {keys.what}'
            hint = keys.waits.get(key.text, "take it out: a key that is not enforced promises what nothing keeps")
            self.error("E180", key, message, f"{hint}; --ahead reads it" if key.text in keys.ahead else hint)
        elif key.text in keys.elsewhere:
            self.error("E112", key, f'"{key.text}:" means nothing in {keys.what}', keys.elsewhere[key.text])
        elif key.text == "<<":
            self.error("E103", key, "merge keys are not read", "write the keys out: a rule says in place what it does")
        else:
            known = keys.now | keys.later | keys.ahead | keys.elsewhere.keys()
            hint = did_you_mean(key.text, known) or f"known here: {', '.join(sorted(keys.now))}"
            self.error("E103", key, f"unknown key {quote(key.text)} in {keys.what}", hint)

    def _refuse_twice(self, node: Mapping, key: Node, what: str) -> None:
        """Refuse a key that is not one word, or that stood in this mapping before."""
        if not isinstance(key, Scalar):
            self.error("E102", key, f"a key of {what} is {kind_of(key)}; a key is one word")
            return
        first = next(other for other in node.parts[::2] if isinstance(other, Scalar) and other.text == key.text)
        self.error("E101", key, f"{quote(key.text)} stands twice in {what}", f"first in line {first.mark.line + 1}")

    def items(self, node: Node, what: str) -> list[Node]:
        """The items of a list; nothing where `node` is no list."""
        if isinstance(node, Sequence):
            return node.items
        self.error("E102", node, f"{what} is a list, not {kind_of(node)}", 'each item begins with "- "')
        return []

    def text(self, node: Node, what: str) -> str | None:
        """The text of a scalar that says something."""
        if not isinstance(node, Scalar):
            self.error("E102", node, f"{what} is one piece of text, not {kind_of(node)}")
            return None
        if not node.text:
            self.error("E102", node, f"{what} is empty", 'text that begins with "#" is a comment, unless quoted')
            return None
        return node.text

    def line(self, node: Node, what: str, longest: int) -> str | None:
        """One printable line, as it may be shown to an agent or in a terminal."""
        text = self.text(node, what)
        if text is None:
            return None
        text = text.strip()
        if not text or not text.isprintable():
            self.error("E102", node, f"{what} must be one line of printable text")
            return None
        if len(text) > longest:
            self.error("E102", node, f"{what} has {len(text)} characters; {longest} are allowed")
            return None
        return text

    def name(self, node: Node, what: str, taken: Iterable[str] = ()) -> str | None:
        """A name that the author gives; none of `taken`."""
        name = self.text(node, f"the name of {what}")
        if name is None:
            return None
        if not _NAME.fullmatch(name):
            hint = "letters, digits, and . _ - inside; at most 100 characters"
            self.error("E106", node, f"{quote(name)} cannot name {what}", hint)
            return None
        if name in taken:
            message = f"{quote(name)} has a meaning of its own and cannot name {what}"
            self.error("E106", node, message, "take another name")
            return None
        return name

    def words(self, node: Node, what: str) -> list[Scalar]:
        """One or more words: a list of them, or a single one where the list is left out."""
        if isinstance(node, Mapping):
            self.error("E102", node, f"{what} is a word or a list of words, not {kind_of(node)}")
            return []
        items = node.items if isinstance(node, Sequence) else [node]
        if not items:
            hint = "leave the key out, or name something"
            self.error("E102", node, f"{what} is an empty list, which matches nothing", hint)
        words = [item for item in items if isinstance(item, Scalar) and item.text]
        if len(words) < len(items):
            for item in items:
                self.text(item, what)
        return words

    def parsed[T](self, code: str, word: Scalar, parse: Callable[[str], T]) -> T | None:
        """What `parse` makes of a word; its refusal is a finding with `code`."""
        try:
            return parse(word.text)
        except PatternError as refused:
            self.error(code, word, refused.problem, refused.hint)
            return None


    def value[T](self, found: Map[str, Node], key: str, code: str, parse: Callable[[str], T]) -> T | None:
        """What `parse` makes of the text under a key; None where there is none, or none that it can read."""
        node = found.get(key)
        if node is None or self.text(node, key) is None or not isinstance(node, Scalar):
            return None
        return self.parsed(code, node, parse)


def kind_of(node: Node) -> str:
    """What a node is, in the words of someone who never saw YAML's own."""
    if isinstance(node, Scalar):
        return f"the text {quote(node.text)}" if node.text else "nothing"
    return "a list" if isinstance(node, Sequence) else "keys and values"
