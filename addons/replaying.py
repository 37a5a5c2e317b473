"""Replays of a log as it lies on disk: its lanes read with what the vault and the kept policies hold, on several cores.

Nothing is verified here: what is read is presumed to be as it was written.
"""

from __future__ import annotations

import multiprocessing
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from operator import itemgetter
from pathlib import Path
from typing import Any

from blake3 import blake3

from addons import build_info, codec, policy_files
from addons.audit_log import AuditLog, Progress, lines, open_regular, segment_names
from addons.audit_view import Entry, Filter
from addons.errors import GovernorError
from kernel import chain
from kernel.entry import commitment
from kernel.errors import CanonicalError, ChainError, PolicyError
from kernel.hindsight import Changes, Hindsight
from kernel.recorded import NOT_KEPT, Judging, Values
from kernel.replay import NO_POLICY, NOT_AN_ENTRY, Replay, Replayed

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOLD_EVERY = 2**20

type Sources = Sequence[tuple[str, bytes]]
"""The files of a policy: name and content."""


class ReplayFailed(GovernorError):
    """A part of a log could not be replayed: not for what it holds, but here and now."""


@dataclass(frozen=True, slots=True)
class _Failed:
    why: str


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
    """Every decision of the log made again."""
    return _over_lanes(log, partial(_replay_lane, log, wanted), Replayed(), jobs, progress)


def changes(log: AuditLog, wanted: Filter, sources: Sources, jobs: int,
            progress: Progress = lambda _: None) -> Reading[Changes]:
    """What another policy would have said of the requests in the log."""
    return _over_lanes(log, partial(_judge_lane, log, wanted, sources), Changes(), jobs, progress)


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

    def __init__(self, vault: Path, lane: str) -> None:
        self._rows = self._read(vault, lane) if vault.is_file() else iter(())
        self._next = next(self._rows, None)

    @staticmethod
    def _read(vault: Path, lane: str) -> Iterator[tuple[int, str, bytes, str]]:
        try:
            database = sqlite3.connect(f"{vault.resolve().as_uri()}?mode=ro", uri=True)
            query = 'SELECT seq, name, salt, value FROM "values" WHERE lane = ? ORDER BY seq'
            yield from database.execute(query, (lane,))
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


def _replay_lane(log: AuditLog, wanted: Filter, lane: str, progress: Progress) -> Reading[Replayed]:
    own = str(build_info.kernel_identity()["digest"])
    replay = Replay(lane, Archive(log.policies), own, wanted.wants)
    reading = Reading(replay.found)
    _read_lane(log, lane, replay.take, reading, progress)
    return reading


def _judge_lane(log: AuditLog, wanted: Filter, sources: Sources, lane: str, progress: Progress) -> Reading[Changes]:
    hindsight = Hindsight(lane, Judging(policy_files.read_policy(sources).policy), wanted.wants)
    reading = Reading(hindsight.found)
    _read_lane(log, lane, hindsight.take, reading, progress)
    return reading


def _read_lane[F: (Replayed, Changes)](log: AuditLog, lane: str, take: Callable[[Entry, Values], None],
                                       reading: Reading[F], progress: Progress) -> None:
    kept = _Kept(log.vault, lane)
    for entry in _entries(log.audit / "lanes" / lane, progress):
        if not isinstance(entry, dict):
            reading.found.cannot(NOT_AN_ENTRY)
            reading.entries += 1
            continue
        seq = entry.get("seq")
        if seq != reading.entries and isinstance(seq, int):
            reading.missing.append(f"{lane}/{reading.entries} is not where it belongs; {lane}/{seq} is there")
            reading.entries = seq
        reading.entries += 1
        take(entry, kept.of(entry))


def _entries(folder: Path, progress: Progress) -> Iterator[object]:
    """The entries of a lane, and None for a line that is none. An unfinished last line is not there yet."""
    for name in segment_names(folder):
        with open_regular(folder / name, progress) as file:
            for line in lines(file):
                if not line.endswith(b"\n") and len(line) <= chain.MAX_LINE_BYTES:
                    continue
                try:
                    yield codec.read(chain.split_text(line)[0])
                except (ChainError, CanonicalError):
                    yield None


def _over_lanes[F: (Replayed, Changes)](log: AuditLog, over: Callable[[str, Progress], Reading[F]], found: F, jobs: int,
                                        progress: Progress) -> Reading[F]:
    """All lanes, the largest first, each in one of `jobs` processes; what they found in the order of their names."""
    sizes = {lane: sum(path.stat().st_size for path in (log.audit / "lanes" / lane).glob("*.jsonl"))
             for lane in log.lanes()}
    largest = sorted(sizes.items(), key=itemgetter(1), reverse=True)
    lanes = [lane for lane, _ in largest]
    done = dict(_in_processes(lanes, over, jobs, progress) if min(jobs, len(lanes)) > 1
                else ((lane, over(lane, progress)) for lane in lanes))
    whole = Reading(found)
    for lane in sorted(done):
        whole.found.add(done[lane].found)
        whole.entries += done[lane].entries
        whole.missing += done[lane].missing
    return whole


def _in_processes[R](tasks: Iterable[str], work: Callable[[str, Progress], R], jobs: int,
                     progress: Progress) -> Iterator[tuple[str, R]]:
    """What `work` makes of each task, in up to `jobs` processes at a time."""
    # Forked: a fresh interpreter would run the command line again. Nothing here may have a thread.
    context = multiprocessing.get_context("fork")
    waiting, running = list(tasks), dict[Connection, str]()
    while waiting or running:
        while waiting and len(running) < jobs:
            task = waiting.pop(0)
            ours, theirs = context.Pipe(duplex=False)
            context.Process(target=_run, args=(task, work, theirs), daemon=True).start()
            theirs.close()
            running[ours] = task
        for connection in wait(list(running)):
            assert isinstance(connection, Connection)
            told = _received(connection, running[connection])
            if isinstance(told, int):
                progress(told)
            else:
                yield running.pop(connection), told


def _received(connection: Connection, task: str) -> Any:
    try:
        told = connection.recv()
    except EOFError:
        told = _Failed("its process was ended")
    if isinstance(told, _Failed):
        raise ReplayFailed(f"lane {task}: {told.why}")
    return told


def _run[R](task: str, work: Callable[[str, Progress], R], told: Connection) -> None:
    read = 0

    def progress(count: int) -> None:
        nonlocal read
        read += count
        if read >= _TOLD_EVERY:
            told.send(read)
            read = 0

    try:
        result: R | _Failed = work(task, progress)
    except Exception as fault:  # noqa: BLE001
        result = _Failed(f"{type(fault).__name__}: {fault}")
    told.send(read)
    told.send(result)
