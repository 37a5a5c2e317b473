"""Replays of a log as it lies on disk: its lanes read with what the vault and the kept policies hold, on several cores.

Nothing is verified here: what is read is presumed to be as it was written.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from addons import build_info, codec, forked, policy_files
from addons.audit_log import AuditLog, lines, open_regular
from addons.audit_view import Entry, Filter
from addons.forked import Progress
from addons.replay_parts import Part, Told, parts_of, whole
from addons.segment import segment_names
from kernel import chain
from kernel.entry import commitment
from kernel.errors import CanonicalError, PolicyError
from kernel.hindsight import Changes, Hindsight
from kernel.recorded import NOT_KEPT, Judging, Values
from kernel.replay import NO_POLICY, NOT_AN_ENTRY, ODD, Replay, Replayed

_DIGEST = re.compile(r"[0-9a-f]{64}")
NO_STATE = "the state before it is not in this bundle"

type Sources = Sequence[tuple[str, bytes]]
"""The files of a policy: name and content."""


@dataclass(slots=True)
class Reading[F: (Replayed, Changes)]:
    """What was found in some lanes, of how many entries, and what of them is not there."""

    found: F
    entries: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def incomplete(self) -> str | None:
        """Why the answer is about a part only; None where it is not."""
        return next(iter(self.missing), None if self.entries else "there are no entries")


def replayed(log: AuditLog, wanted: Filter, jobs: int, progress: Progress = lambda _: None) -> Reading[Replayed]:
    """Every decision of the log made again, and every state that it tells of."""
    parts = [part for lane in log.lanes() for part in parts_of(log, lane)]
    return _over(parts, partial(_replay, log, wanted), Replayed(), jobs, progress)


def changes(log: AuditLog, wanted: Filter, sources: Sources, jobs: int,
            progress: Progress = lambda _: None) -> Reading[Changes]:
    """What another policy would have said of the requests in the log."""
    parts = [whole(log, lane) for lane in log.lanes()]
    return _over(parts, partial(_judge, log, wanted, sources), Changes(), jobs, progress)


class Archive:
    """The policies that were kept beside a log, by their digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Judging | str] = {}

    def __call__(self, digest: str) -> Judging | str:
        """The policy, or why there is none."""
        if digest not in self._known:
            self._known[digest] = self._read(digest)
        return self._known[digest]

    def _read(self, digest: str) -> Judging | str:
        if not _DIGEST.fullmatch(digest):
            return NO_POLICY
        path = self._folder / f"{digest}.yaml"
        try:
            content = policy_files.read_file(path)
            if blake3(content).hexdigest() != digest:
                return "the policy that was kept was changed"
            return Judging(policy_files.read_policy([(str(path), content)]).policy)
        except policy_files.PolicyMissing:
            return NO_POLICY
        except PolicyError:
            return "the policy does not load in this version"


class _Kept:
    """What a vault holds for a lane, asked entry by entry, in their order."""

    def __init__(self, vault: Path, lane: str, begin: int) -> None:
        self._rows = self._read(vault, lane, begin) if vault.is_file() else iter(())
        self._next = next(self._rows, None)

    @staticmethod
    def _read(vault: Path, lane: str, begin: int) -> Iterator[tuple[int, str, bytes, str]]:
        try:
            database = sqlite3.connect(f"{vault.resolve().as_uri()}?mode=ro", uri=True)
            query = 'SELECT seq, name, salt, value FROM "values" WHERE lane = ? AND seq >= ? ORDER BY seq'
            yield from database.execute(query, (lane, begin))
            database.close()
        except sqlite3.Error:
            # What cannot be read is not there: the log is replayed without it.
            return

    def of(self, entry: Entry) -> Values:
        """The values to which the entry commits, by name."""
        seq, facts = entry.get("seq"), entry.get("in")
        if not isinstance(seq, int) or not isinstance(facts, dict):
            return NOT_KEPT
        found: dict[str, object] = {}
        while self._next is not None and self._next[0] <= seq:
            number, name, salt, value = self._next
            if number == seq and _is_committed(facts.get(f"{name}$c"), name, salt, value):
                found[name] = codec.read(value.encode())
            self._next = next(self._rows, None)
        return found


def _is_committed(expected: object, name: str, salt: bytes, value: str) -> bool:
    return len(salt) == 32 and commitment(salt, name, value.encode()) == expected


def _replay(log: AuditLog, wanted: Filter, part: Part, progress: Progress) -> Reading[Replayed]:
    own = str(build_info.kernel_identity()["digest"])
    replay = Replay(part.lane, Archive(log.policies), own, wanted.wants, part.states)
    replay.begin_after(part.loads)
    told = part.told

    def take(entry: Entry, values: Values) -> None:
        _compare(replay, told, entry.get("seq"))
        replay.take(entry, values)

    reading = Reading(replay.found)
    if not part.known:
        _read(log, part, partial(_leave, replay.found, wanted), reading, progress)
        return reading
    end = _read(log, part, take, reading, progress)
    _compare(replay, told, end)
    return reading


def _leave(found: Replayed, wanted: Filter, entry: Entry, _: Values) -> None:
    """Count a decision that cannot be made again, as what the entries before have made is not known."""
    with suppress(*ODD):
        if entry["type"] == "decision" and wanted.wants(entry):
            found.cannot(NO_STATE)


def _compare(replay: Replay, told: Mapping[int, Sequence[Told]], at: object) -> None:
    """Compare the state before an entry with what the log tells of it, where it does."""
    for each in told.get(at, ()) if isinstance(at, int) else ():
        replay.compare_state(each.entry, each.at, each.digest)


def _judge(log: AuditLog, wanted: Filter, sources: Sources, part: Part, progress: Progress) -> Reading[Changes]:
    hindsight = Hindsight(part.lane, Judging(policy_files.read_policy(sources).policy), wanted.wants)
    reading = Reading(hindsight.found)
    _read(log, part, hindsight.take, reading, progress)
    return reading


def _read[F: (Replayed, Changes)](log: AuditLog, part: Part, take: Callable[[Entry, Values], None],
                                  reading: Reading[F], progress: Progress) -> int:
    """Take the entries of a part; the number of the one after them."""
    lane, kept, due = part.lane, _Kept(log.vault, part.lane, part.begin), part.begin
    for entry in _entries(log.audit / "lanes" / lane, part.segment, progress):
        seq = entry.get("seq") if isinstance(entry, dict) else due
        if isinstance(seq, int) and seq < part.begin:
            continue
        if due == part.end:
            break
        reading.entries += 1
        if not isinstance(entry, dict):
            reading.found.cannot(NOT_AN_ENTRY)
        else:
            if seq != due:
                reading.missing.append(f"{lane}/{due} is not where it belongs, but {lane}/{seq}")
            take(entry, kept.of(entry))
        due = seq + 1 if isinstance(seq, int) else due + 1
    return due


def _entries(folder: Path, first: str, progress: Progress) -> Iterator[object]:
    """The entries from a segment on, None for a line that is none. An unfinished last line is not there yet."""
    for name in segment_names(folder):
        if name < first:
            continue
        with open_regular(folder / name, progress) as file:
            for line in lines(file):
                if not line.endswith(b"\n") and len(line) <= chain.MAX_LINE_BYTES:
                    continue
                try:
                    read: Any = codec.read(line)
                    yield read["e"]
                except (CanonicalError, LookupError, TypeError):
                    yield None


def _over[F: (Replayed, Changes)](parts: Sequence[Part], over: Callable[[Part, Progress], Reading[F]], found: F,
                                  jobs: int, progress: Progress) -> Reading[F]:
    """All parts, each in one of `jobs` processes; what they found in their order."""
    everything = Reading(found)
    for each in forked.each(parts, over, jobs, progress):
        everything.found.add(each.found)
        everything.entries += each.entries
        everything.missing += each.missing
    return everything
