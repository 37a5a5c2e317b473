"""Builders and readers for tests of the log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from addons import codec, keys
from addons.book import Book
from addons.governed import Governed
from addons.home import Home
from addons.lane import Lane
from kernel import entry, trust
from kernel.folding import States
from kernel.report import Report
from kernel.state import State
from kernel.verify import Anchors, verify
from kernel.walk import Source

KERNEL = entry.kernel_identity("0.1.0", "ab" * 32)


def open_lane(home: Home, name: str = "main", **options: Any) -> Lane:
    return Lane.open(home, name, kernel=KERNEL, **options)


def crashed_copy(home: Home, to: Path) -> Home:
    """The home as a crash would leave it at this moment, at another place."""
    # A lane that turns to its next key while its files are copied would leave a home that no crash leaves.
    while True:
        before = _looks(home)
        # Files that are just being replaced have names that begin with a dot, and go while they are copied.
        shutil.copytree(home.paths.folder, to, ignore=shutil.ignore_patterns("vault.db*", ".*"))
        if _looks(home) == before:
            return Home.open(to)
        shutil.rmtree(to)


def _looks(home: Home) -> dict[Path, tuple[int, int]]:
    """The inode and the size of every file, without those that a copy leaves out."""
    paths = (path for path in home.paths.folder.rglob("[!.]*") if not path.name.startswith("vault.db"))
    return {path: (said.st_ino, said.st_size) for path in paths for said in (path.lstat(),)}


def open_book(lane: Lane, governed: Callable[[], Governed] = lambda: None) -> Book:  # type: ignore[assignment,return-value]
    """A book without a past, for a lane on which nobody is halted."""
    return Book(lane, States(State(), State()), governed, lambda agent: ())


def decision(flow: str, verdict: str = "allow", code: str = "ALLOW", stage: str = "request") -> entry.Body:
    facts = entry.request_facts("GET", "https", "api.example.org", 443, None, "192.0.2.1", 0, None)
    return entry.decision(stage, flow, "a", "none", "00" * 32, facts, ["r"], verdict, "r", code, "", "enforce")


def outcome(flow: str, number: int, lane: str = "main") -> entry.Body:
    return entry.outcome(flow, f"{lane}/{number}", "completed", 200)


def segment(home: Home, lane: str = "main") -> Path:
    return home.paths.lane(lane) / "000000.jsonl"


def segments(home: Home, lane: str = "main") -> list[Path]:
    return sorted(home.paths.lane(lane).glob("*.jsonl"))


def entries(home: Home, lane: str = "main") -> list[dict[str, Any]]:
    return [json.loads(line)["e"] for path in segments(home, lane) for line in path.read_bytes().splitlines()]


def kinds(home: Home, lane: str = "main") -> list[str]:
    return [each["type"] for each in entries(home, lane)]


def report(home: Home) -> Report:
    """What the verifier says, every signature checked, with the home's own root as the trusted key."""
    anchors = Anchors(home.root, trust.parse_trust_file(home.paths.trust.read_bytes()), minimum(home))
    return verify([_source(home, lane) for lane in home.lanes()], anchors, keys.verifies, codec.parse,
                  every_signature=True)


def minimum(home: Home) -> trust.Minimum:
    return trust.parse_minimum_file(home.paths.minimum.read_bytes())


def _source(home: Home, lane: str) -> Source:
    def named() -> Iterable[tuple[str, Iterable[bytes]]]:
        return [(path.name, path.read_bytes().splitlines(keepends=True)) for path in segments(home, lane)]

    notes = home.paths.lane(lane) / "checkpoints.note"
    return Source(lane, named, lambda: notes.read_bytes().splitlines(keepends=True) if notes.exists() else [])
