"""YAML text as the kernel's node tree. The one place that imports pyyaml.

Built from parser events: they alone show anchors and tags, and a loop over them has no depth at which Python or C could fail.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import yaml

from kernel.document import Document, Mapping, Node, Scalar, Sequence
from kernel.errors import PolicyError
from kernel.findings import Finding, Severity
from kernel.policy import Position

LARGEST_BYTES = 8 * 1024 * 1024
DEEPEST = 32

_PARSER = getattr(yaml, "CLoader", yaml.Loader)
# Line breaks that only YAML 1.1 sees move every line number; bidirectional controls show a reader another policy than the
# one that governs (CVE-2021-42574); the other controls have no business in a policy.
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def compose(data: bytes, file: str) -> Document:
    """The only document in `data`; `PolicyError` with E100 where it is not of the kind that a policy is written in."""
    text = _text(data, file)
    try:
        with _without_collection():
            return Document(file, _root(_PARSER(text), file))
    except yaml.MarkedYAMLError as refused:
        _explain(refused, text, file)
    except yaml.YAMLError as refused:
        _refuse(file, 1, 1, f"not YAML: {str(refused).splitlines()[0]}")


def _text(data: bytes, file: str) -> str:
    if len(data) > LARGEST_BYTES:
        _refuse(file, 1, 1, f"the file has {len(data)} bytes; at most {LARGEST_BYTES} are read")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        _refuse(file, 1, 1, "the file is UTF-16", "save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        _refuse(file, 1, 1, "the file begins with a byte order mark", "save it as UTF-8 without one")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        _refuse(file, *_place(data[: fault.start].decode("utf-8")), f"byte 0x{data[fault.start]:02x} is not UTF-8", "save the file as UTF-8")
    if unseen := _UNSEEN.search(text):
        _refuse(file, *_place(text[: unseen.start()]), f"the invisible character U+{ord(unseen[0]):04X}", "take it out")
    return text


def _place(before: str) -> tuple[int, int]:
    """Line and column of what follows `before`."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


@contextmanager
def _without_collection() -> Iterator[None]:
    # A policy of 10,000 rules is 150,000 objects that all stay: collecting while they are made costs a third of the time.
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _root(parser: yaml.Loader, file: str) -> Node:
    """The tree of the only document, read in one loop over the parser's events."""
    top: list[Node] = []
    here, above = top, []
    node: Node
    while not isinstance(event := parser.get_event(), yaml.StreamEndEvent):
        kind = type(event)
        if kind is yaml.ScalarEvent or kind is yaml.SequenceStartEvent or kind is yaml.MappingStartEvent:
            mark = event.start_mark
            if event.tag is not None or event.anchor is not None:
                _refuse_mark(event, file)
            if kind is yaml.ScalarEvent:
                here.append(Scalar(event.value, bool(event.style), mark.line + 1, mark.column + 1))
                continue
            if len(above) == DEEPEST:
                _refuse(file, mark.line + 1, mark.column + 1, f"more than {DEEPEST} levels of nesting")
            node = Sequence(mark.line + 1, mark.column + 1) if kind is yaml.SequenceStartEvent else Mapping(mark.line + 1, mark.column + 1)
            here.append(node)
            above.append(here)
            here = node.items if isinstance(node, Sequence) else node.parts
        elif kind is yaml.SequenceEndEvent or kind is yaml.MappingEndEvent:
            here = above.pop()
        elif kind is not yaml.DocumentEndEvent and kind is not yaml.StreamStartEvent:
            _refuse_other(event, file, first=not top)
    if not top:
        _refuse(file, 1, 1, "the file says nothing", "a policy begins with: version: 1")
    return top[0]


def _refuse(file: str, line: int, column: int, problem: str, hint: str = "") -> NoReturn:
    raise PolicyError([Finding("E100", Severity.ERROR, Position(file, line, column), problem, hint)])


def _refuse_mark(event: yaml.Event, file: str) -> NoReturn:
    mark = event.start_mark
    if event.anchor is not None:
        _refuse(file, mark.line + 1, mark.column + 1, f"anchors are not read (&{event.anchor})", "say it again where it is meant")
    _refuse(file, mark.line + 1, mark.column + 1, f"tags are not read ({event.tag})", 'quote text that begins with "!"')


def _refuse_other(event: yaml.Event, file: str, first: bool) -> None:
    """Refuse an alias, a directive and a second document; a first document that begins plainly is let through."""
    line, column = event.start_mark.line + 1, event.start_mark.column + 1
    if isinstance(event, yaml.AliasEvent):
        _refuse(file, line, column, f"*{event.anchor} is an alias in YAML, and aliases are not read", f'quote it: "*{event.anchor}"')
    if event.version is not None or event.tags:
        _refuse(file, line, column, "directives are not read", "begin with: version: 1")
    if not first:
        _refuse(file, line, column, "a second document begins here", "one file holds one policy")


def _explain(fault: yaml.MarkedYAMLError, text: str, file: str) -> NoReturn:
    """Refuse what the parser refused, in words that say what to write instead."""
    context, said = str(fault.context or ""), str(fault.problem)
    opened = fault.context_mark if fault.context_mark and context.endswith(("alias", "scalar", "sequence", "mapping")) else None
    mark = (opened if "found a tab" not in said else None) or fault.problem_mark
    if mark is None:
        _refuse(file, 1, 1, f"not YAML: {said}")
    lines = text.splitlines()
    written = lines[mark.line] if mark.line < len(lines) else ""
    _refuse(file, mark.line + 1, mark.column + 1, *_diagnosis(context, said, written, mark.column))


_STAR = re.compile(r"""\*[^\s,\]}"']*""")


def _diagnosis(context: str, said: str, written: str, column: int) -> tuple[str, str]:
    """What went wrong in this line at this column, and what to do."""
    here, before = written[column : column + 1], written[:column]
    if context.endswith("alias") and (star := _STAR.match(written, column)):
        return _starred(star[0])
    if here == "\t" or ("\t" in before and not before.strip()):
        return "a tab stands where YAML wants spaces", "indent with spaces"
    if here and here in "@`%":
        return f"nothing can begin with {here}", "quote the text"
    if "mapping values" in said:
        if ": " in before:
            return 'a second ": " in one line', 'quote the text that holds it'
        return "this key is indented in a way that fits nothing above it", "check the line before, too"
    if context.endswith("quoted scalar") and "end of stream" in said:
        return "this quote is never closed", ""
    if context.endswith(("flow sequence", "flow mapping")):
        return f"this {here} is never closed, or a comma is missing after it", ""
    return f"not YAML: {said}", "check the indentation and the quotes of this line and the one before"


def _starred(word: str) -> tuple[str, str]:
    problem, hint = f"{word} begins with a star, which YAML reads as an alias", f'quote it: "{word}"'
    if word.startswith("*.") and len(word) > 2:
        hint += f", or write {word[1:]} for {word[2:]} and everything below it"
    return problem, hint
