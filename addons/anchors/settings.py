"""`anchors.yaml` of a home: which anchors there are, how often they are told, and what happens when they are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from addons.anchors.file import FileAnchor
from addons.anchors.protocol import AnchorError
from addons.errors import GovernorError
from addons.yaml_nodes import LARGEST_BYTES, compose
from kernel.cosignature import WitnessKey, parse_witness_key
from kernel.document import Keys, Node, Reader, Scalar, joined, quote
from kernel.errors import NoteError, PatternError, PolicyError
from kernel.findings import Finding
from kernel.quantity import duration

EVERY_SECONDS = 60
KINDS = ("file", "s3", "witness")
_OWN_KEYS = {"file": (), "s3": ("region", "endpoint", "retain"), "witness": ("key",)}
_FILE = Keys("anchors.yaml", frozenset({"anchors", "every", "require", "otherwise", "segments"}), required=("anchors",))
_ANCHOR = Keys("an anchor", frozenset({*KINDS, *(key for keys in _OWN_KEYS.values() for key in keys)}))
_REQUIRE = re.compile(r"([1-9][0-9]?) of \[([a-z0-9, ]+)\] within ([0-9a-z]+)", re.ASCII)
_REQUIRE_HINT = "write: 1 of [s3, witness] within 10m"
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9!_.*'()/-]+)?", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9.-]+|[0-9a-fA-F:.]+", re.ASCII)


class AnchorSettingsError(GovernorError):
    """anchors.yaml cannot be taken: every problem with its file, line and column."""


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A file of notes elsewhere."""

    path: Path

    @property
    def kind(self) -> str:
        return "file"

    @property
    def target(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class S3Target:
    """A bucket with object lock. `retain_seconds` is how long each head is locked; None for the anchor's own choice."""

    target: str
    region: str | None = None
    endpoint: str | None = None
    retain_seconds: int | None = None

    @property
    def kind(self) -> str:
        return "s3"


@dataclass(frozen=True, slots=True)
class WitnessTarget:
    """A C2SP witness by its submission prefix."""

    target: str
    key: WitnessKey

    @property
    def kind(self) -> str:
        return "witness"


type Target = FileTarget | S3Target | WitnessTarget


@dataclass(frozen=True, slots=True)
class Requirement:
    """How many of the anchors of these kinds must hold what is older than `within_seconds`."""

    count: int
    kinds: tuple[str, ...]
    within_seconds: int

    def __str__(self) -> str:
        return f"{self.count} of [{', '.join(self.kinds)}] within {self.within_seconds} s"


@dataclass(frozen=True, slots=True)
class AnchorSettings:
    """What anchors.yaml says. `stops`: nothing passes while `requirement` is not met. `segments`: for sealed ones."""

    targets: tuple[Target, ...] = ()
    every_seconds: int = EVERY_SECONDS
    requirement: Requirement | None = None
    stops: bool = False
    segments: str | None = None


def read_settings(path: Path, home: Path) -> AnchorSettings:
    """What the file says; no anchors where there is none. `AnchorSettingsError` with everything that is wrong in it."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        return AnchorSettings()
    except OSError as fault:
        raise AnchorSettingsError(f"{path}: {fault.strerror}") from fault
    try:
        document = compose(data, str(path))
    except PolicyError as refused:
        raise AnchorSettingsError("; ".join(_told(found) for found in refused.findings)) from refused
    reading = _Reading(Reader(document.file), home)
    settings = reading.settings(document.root)
    if settings is None or reading.reader.findings:
        raise AnchorSettingsError("; ".join(_told(found) for found in reading.reader.findings))
    return settings


def _told(found: Finding) -> str:
    return f"{found.position}: {found.message}" + (f" ({found.hint})" if found.hint else "")


class _Reading:
    """One reading of the file; what cannot be taken is a finding of `reader`."""

    def __init__(self, reader: Reader, home: Path) -> None:
        self.reader, self._home = reader, home

    def settings(self, root: Node) -> AnchorSettings | None:
        found = self.reader.mapping(root, _FILE)
        if found is None:
            return None
        targets = self._targets(found["anchors"]) if "anchors" in found else ()
        every = self.reader.value(found, "every", "E102", duration)
        requirement = self._requirement(found["require"], targets) if "require" in found else None
        otherwise = self.reader.value(found, "otherwise", "E102", _one_of("alert", "stop"))
        if "otherwise" in found and "require" not in found:
            self.reader.error("E104", found["otherwise"], '"otherwise:" is said of a "require:"', _REQUIRE_HINT)
        segments = self.reader.value(found, "segments", "E102", _bucket)
        return AnchorSettings(targets, every or EVERY_SECONDS, requirement, otherwise == "stop", segments)

    def _targets(self, node: Node) -> tuple[Target, ...]:
        targets: list[Target] = []
        items = self.reader.items(node, "anchors")
        if not items and not self.reader.findings:
            self.reader.error("E104", node, "no anchor is named", "take the file away where none is wanted")
        for item in items:
            target = self._target(item)
            if target is not None and target.target in [other.target for other in targets]:
                self.reader.error("E107", item, f"{quote(target.target)} stands twice among the anchors")
            elif target is not None:
                targets.append(target)
        return tuple(targets)

    def _target(self, node: Node) -> Target | None:
        found = self.reader.mapping(node, _ANCHOR)
        kinds = [kind for kind in KINDS if found and kind in found]
        if found is None or len(kinds) != 1:
            if found is not None:
                kinds_there = joined(KINDS, "or")
                self.reader.error("E104", node, f"an anchor is one of {kinds_there}", "file: /mnt/elsewhere/notes")
            return None
        kind = kinds[0]
        for key in found.keys() - {kind, *_OWN_KEYS[kind]}:
            self.reader.error("E112", found[key], f'"{key}:" means nothing for a {kind} anchor')
        match kind:
            case "file":
                path = self.reader.value(found, "file", "E102", self._path)
                return None if path is None else FileTarget(path)
            case "s3":
                return self._s3(found)
            case _:
                return self._witness(node, found)

    def _path(self, text: str) -> Path:
        try:
            FileAnchor(Path(text), self._home)
        except AnchorError as refused:
            raise PatternError(str(refused)) from refused
        return Path(text)

    def _s3(self, found: dict[str, Node]) -> Target | None:
        url = self.reader.value(found, "s3", "E102", _bucket)
        region = self.reader.value(found, "region", "E102", _word)
        endpoint = self.reader.value(found, "endpoint", "E102", _address)
        retain = self.reader.value(found, "retain", "E102", duration)
        return None if url is None else S3Target(url, region, endpoint, retain)

    def _witness(self, node: Node, found: dict[str, Node]) -> Target | None:
        url = self.reader.value(found, "witness", "E102", _address)
        key = self.reader.value(found, "key", "E102", _witness_key)
        if "key" not in found:
            self.reader.error("E104", node, 'a witness needs "key:"', "its operator names it: NAME+KEYID+BASE64")
        return None if url is None or key is None else WitnessTarget(url, key)

    def _requirement(self, node: Node, targets: tuple[Target, ...]) -> Requirement | None:
        if self.reader.text(node, "require") is None or not isinstance(node, Scalar):
            return None
        requirement = self.reader.parsed("E102", node, _required)
        if requirement is None:
            return None
        there = sum(target.kind in requirement.kinds for target in targets)
        if there < requirement.count:
            asked = f"{requirement.count} of [{', '.join(requirement.kinds)}]"
            self.reader.error("E102", node, f"{asked} are asked for, and there are {there}", "it could never be met")
        return requirement


def _required(text: str) -> Requirement:
    parts = _REQUIRE.fullmatch(text)
    if parts is None:
        raise PatternError(f"{quote(text)} is no requirement", _REQUIRE_HINT)
    kinds = tuple(kind.strip() for kind in parts[2].split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise PatternError(f"{quote(kind)} is no kind of anchor", f"there are {joined(KINDS, 'and')}")
    return Requirement(int(parts[1]), kinds, duration(parts[3]))


def _one_of(*words: str) -> Callable[[str], str]:
    def chosen(text: str) -> str:
        if text not in words:
            raise PatternError(f"{quote(text)} is none of {joined(words, 'and')}")
        return text

    return chosen


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text, re.ASCII):
        raise PatternError(f"{quote(text)} is no name of a region")
    return text


def _bucket(text: str) -> str:
    if not _BUCKET.fullmatch(text):
        raise PatternError(f"{quote(text)} names no bucket", "write s3://bucket/prefix")
    return text


def _address(text: str) -> str:
    """An http or https address without anything secret in it."""
    try:
        parts = urlsplit(text)
        named = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.hostname or "") and parts.port != 0
    except ValueError:
        parts, named = urlsplit(""), None
    if not named or not text.isprintable() or " " in text:
        raise PatternError(f"{quote(text)} is no http or https address", "write https://w.example.org")
    if parts.username is not None or parts.query or parts.fragment:
        raise PatternError("an address here has no user, no ? and no #: it stands in the log and on screens")
    return text


def _witness_key(text: str) -> WitnessKey:
    try:
        return parse_witness_key(text)
    except NoteError as refused:
        raise PatternError(str(refused), "its operator names it: NAME+KEYID+BASE64, type 0x04") from refused
