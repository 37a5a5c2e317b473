"""YAML text as the kernel's node tree, and manifests of other programs as values. The one place that imports pyyaml.

The tree is built from parser events: they alone show anchors and tags, and a loop over them has no depth at which it
could fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from kernel.document import Document, Mapping, Node, Scalar, Sequence
from kernel.errors import PolicyError
from kernel.findings import Finding, Severity
from kernel.policy import Position

LARGEST_BYTES = 8 * 1024 * 1024
DEEPEST = 32
DEEPEST_MANIFEST = 100

_PARSER: Callable[[str], Any] = getattr(yaml, "CLoader", yaml.Loader)
_SAFE_LOADER: Callable[[str], Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Line breaks that only YAML 1.1 sees move every line number; bidirectional controls show a reader another policy than
# the one that governs (CVE-2021-42574); the other controls have no business in a policy.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)


def compose(data: bytes, file: str) -> Document:
    """The only document in `data`; `PolicyError` with E100 where it is not of the kind that a policy is written in."""
    text = _text(data, file)
    try:
        return Document(file, _root(_PARSER(text), file))
    except yaml.MarkedYAMLError as refused:
        _explain(refused, text, file)
    except yaml.YAMLError as refused:
        _refuse(file, 1, 1, f"not YAML: {str(refused).splitlines()[0]}")


def _text(data: bytes, file: str) -> str:
    if len(data) > LARGEST_BYTES:
        _refuse(file, 1, 1, f"the file is too large: at most {LARGEST_BYTES} bytes are read")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        _refuse(file, 1, 1, "the file is UTF-16", "save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        _refuse(file, 1, 1, "the file begins with a byte order mark", "save it as UTF-8 without one")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        line, column = _place(data[: fault.start].decode("utf-8"))
        _refuse(file, line, column, f"byte 0x{data[fault.start]:02x} is not UTF-8", "save the file as UTF-8")
    if unseen := _UNSEEN.search(text):
        _refuse(file, *_place(text[: unseen.start()]), f"the invisible character U+{ord(unseen[0]):04X}", "take it out")
    return text


def _place(before: str) -> tuple[int, int]:
    """Line and column of what follows `before`."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _root(parser: Any, file: str) -> Node:
    """The tree of the only document, read in one loop over the parser's events: 150,000 of them for 10,000 rules."""
    scalar, sequence, mapping = yaml.ScalarEvent, yaml.SequenceStartEvent, yaml.MappingStartEvent
    sequence_end, mapping_end, take = yaml.SequenceEndEvent, yaml.MappingEndEvent, parser.get_event
    top: list[Node] = []
    here, above = top, list[list[Node]]()
    while True:
        event = take()
        kind = type(event)
        if kind is sequence_end or kind is mapping_end:
            here = above.pop()
            continue
        if kind is scalar:
            if event.tag is not None or event.anchor is not None:
                _refuse_decoration(event, file)
            here.append(Scalar(event.value, event.start_mark))
        elif kind is mapping or kind is sequence:
            if event.tag is not None or event.anchor is not None:
                _refuse_decoration(event, file)
            if len(above) == DEEPEST:
                _refuse_at(event.start_mark, file, f"more than {DEEPEST} levels of nesting")
            parts: list[Node] = []
            here.append(Mapping(parts, event.start_mark) if kind is mapping else Sequence(parts, event.start_mark))
            above.append(here)
            here = parts
        elif kind is yaml.StreamEndEvent:
            break
        else:
            _check_other(event, file, first=not top)
    if not top:
        _refuse(file, 1, 1, "the file says nothing", "a policy begins with: version: 1")
    return top[0]


def _refuse(file: str, line: int, column: int, problem: str, hint: str = "") -> NoReturn:
    raise PolicyError([Finding("E100", Severity.ERROR, Position(file, line, column), problem, hint)]) from None


def _refuse_at(mark: Any, file: str, problem: str, hint: str = "") -> NoReturn:
    _refuse(file, mark.line + 1, mark.column + 1, problem, hint)


def _refuse_decoration(event: Any, file: str) -> NoReturn:
    if event.anchor is not None:
        _refuse_at(event.start_mark, file, f"anchors are not read (&{event.anchor})", "say it again where it is meant")
    _refuse_at(event.start_mark, file, f"tags are not read ({event.tag})", 'quote text that begins with "!"')


def _check_other(event: Any, file: str, *, first: bool) -> None:
    """Refuse an alias, a directive and a second document; let the other marks of a stream through."""
    mark = event.start_mark
    if isinstance(event, (yaml.StreamStartEvent, yaml.DocumentEndEvent)):
        return
    if isinstance(event, yaml.AliasEvent):
        problem = f"*{event.anchor} is an alias in YAML, and aliases are not read"
        _refuse_at(mark, file, problem, f'quote it: "*{event.anchor}"')
    if event.version is not None or event.tags:
        _refuse_at(mark, file, "directives are not read", "begin with: version: 1")
    if not first:
        _refuse_at(mark, file, "a second document begins here", "one file holds one policy")


def _explain(fault: yaml.MarkedYAMLError, text: str, file: str) -> NoReturn:
    """Refuse what the parser refused, in words that say what to write instead."""
    context, said = str(fault.context or ""), str(fault.problem)
    # What was opened and does not end is shown where it was opened.
    opened = context.endswith(("alias", "scalar", "sequence", "mapping")) and "found a tab" not in said
    mark = (fault.context_mark if opened else None) or fault.problem_mark
    if mark is None:
        _refuse(file, 1, 1, f"not YAML: {said}")
    lines = text.splitlines()
    written = lines[mark.line] if mark.line < len(lines) else ""
    _refuse(file, mark.line + 1, mark.column + 1, *_diagnosis(context, said, written, mark.column))


_MORE = re.compile(r">=? *-?[0-9]+")
_STAR = re.compile(r"""\*[^\s,\]}"']*""")


def _diagnosis(context: str, said: str, written: str, column: int) -> tuple[str, str]:
    """What went wrong in this line at this column, and what to do."""
    here, before = written[column : column + 1], written[:column]
    if context.endswith("alias") and (star := _STAR.match(written, column)):
        return _starred(star[0])
    if more := _MORE.match(written, column):
        return f'{more[0]} begins with ">", which YAML reads as folded text', f'quote it: "{more[0]}"'
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


class NotYaml(Exception):
    """A manifest is not YAML at this line."""

    def __init__(self, line: int, problem: str) -> None:
        self.line, self.problem = line, problem
        super().__init__(f"line {line}: {problem}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One document of a stream, as values, and the line on which it begins."""

    line: int
    value: Any


def manifests(text: str) -> list[Manifest]:
    """Every document of the stream but empty ones; `NotYaml` where one cannot be read."""
    found = []
    try:
        _check_depth(text)
        loader = _SAFE_LOADER(text)
        while loader.check_node():
            node = loader.get_node()
            found.append(Manifest(node.start_mark.line + 1, loader.construct_document(node)))
    except yaml.MarkedYAMLError as refused:
        mark = refused.problem_mark or refused.context_mark
        raise NotYaml(mark.line + 1 if mark else 1, str(refused.problem)) from None
    except (yaml.YAMLError, ValueError) as refused:
        raise NotYaml(1, (str(refused) or type(refused).__name__).splitlines()[0]) from None
    return [manifest for manifest in found if manifest.value is not None]


def _check_depth(text: str) -> None:
    """Before values are made, which recurses in C: there a file that is deep enough ends the process."""
    parser, depth = _PARSER(text), 0
    while not isinstance(event := parser.get_event(), yaml.StreamEndEvent):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST_MANIFEST:
                mark: Any = event.start_mark
                raise NotYaml(mark.line + 1, f"more than {DEEPEST_MANIFEST} levels of nesting")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


# What YAML 1.1 takes for text and 1.2 for a number, or the other way round: 1e3, 0o17, y, 22:30.
_CERTAIN_TEXT = re.compile(r"[A-Za-z/$][A-Za-z0-9/_.$(){}-]+")


class _Writer(yaml.SafeDumper):
    """Writes text so that every YAML parser reads text, and says the same thing twice instead of by an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, text: str) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:str", text, None if _CERTAIN_TEXT.fullmatch(text) else '"')


_Writer.add_representer(str, _Writer.text)


def written(value: object) -> str:
    """The value as one YAML document, keys in their order."""
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, width=120, allow_unicode=True)
