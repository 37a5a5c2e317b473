"""The verification of a log as it lies on disk: its lanes in parts, on several cores, with what is known elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from addons import codec, forked
from addons.anchors import kept_heads
from addons.anchors.kept_heads import Keeper, Kept
from addons.audit_log import AuditLog, AuditLogError, open_regular, opened_segments, verify_signature
from addons.bundle_check import bundle_damage, root_of
from addons.forked import Progress
from addons.key_lines import key_lines
from addons.receipts_check import verify_receipts
from addons.segment import segment_name, segment_names
from kernel import chain, verify
from kernel.errors import KernelError
from kernel.key_chain import certified
from kernel.manifest import Period
from kernel.note import VerifierKey
from kernel.report import Report
from kernel.walk import Found, Source, Walk
from kernel.witnessed import Witnessed

# Parts of about equal length for each core, so that none waits long for the last.
_PARTS_A_CORE = 4
# A process more is not worth it for less.
_BYTES_A_JOB = 2**23


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What is known of a log beside its files: who keeps heads of it, and what a copy holds of each lane.

    Where the log was fetched, `alarms` are what somebody did to it there, and `unsealed` is, of lanes that are anchored
    further than they were sent, how many entries were there and are anchored: a head beyond them is told and no fault.
    """

    keepers: Sequence[Keeper] = ()
    alarms: tuple[str, ...] = ()
    unsealed: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    witnessed: Mapping[str, Witnessed] = field(default_factory=dict)


NOTHING_ELSEWHERE, ALWAYS = Elsewhere(), Period()


def verify_log(
    log: AuditLog,
    trusted: VerifierKey | None,
    *,
    every_signature: bool = False,
    elsewhere: Elsewhere = NOTHING_ELSEWHERE,
    period: Period = ALWAYS,
    jobs: int = 1,
    progress: Progress = lambda _: None,
) -> Report:
    """Verify `log`, against this user's pin where no key is given; `AuditLogError` where a file cannot be read.

    Of a `period`, from the one moment on and before the other, the segments are verified that hold entries of it. What
    is known elsewhere is older than the call, so that what a writer adds meanwhile is no contradiction.
    """
    manifest = log.bundle.manifest if log.bundle else None
    if manifest is not None and manifest.agent is not None:
        return verify_receipts(log, manifest.log_id, trusted)
    try:
        stated, minimum, damage = log.known()
        jobs = min(jobs, log.size_bytes() // _BYTES_A_JOB + 1)
        meter = _Meter(progress)
        root, pinned = root_of(log, trusted)
        sources = [_source(log, lane, root, period, jobs, meter) for lane in log.lanes()]
        damage += bundle_damage(log, root)
        sent = {lane: here for lane, (here, _) in elsewhere.unsealed.items()}
        kept = kept_heads.kept(elsewhere.keepers, root.name, sent) if root else Kept()
        damage += (*elsewhere.alarms, *kept.alarms)
        anchors = verify.Anchors(root if pinned else None, stated, minimum, damage, kept.held,
                                 tuple(kept.silent), elsewhere.witnessed,
                                 part=log.bundle is not None and log.bundle.of_a_part)
        return verify.verify(sources, anchors, verify_signature, codec.parse, every_signature=every_signature,
                             run=partial(_run, jobs, meter))
    except OSError as error:
        raise AuditLogError(f"{error.filename or log.audit}: {error.strerror or error}") from error


class _Meter:
    """Passes on what was read: to the caller, or in another process to whoever waits for it."""

    def __init__(self, to: Progress) -> None:
        self.to = to

    def __call__(self, count: int) -> None:
        self.to(count)


def _run(jobs: int, meter: _Meter, walks: Sequence[Walk]) -> list[Found]:
    def work(walk: Walk, told: Progress) -> Found:
        meter.to = told
        return walk.run()

    return forked.each(walks, work, jobs, meter.to)


class _Begin(NamedTuple):
    """How a segment begins: its first line, how many entries come before it, and the time of its own first one."""

    name: str
    size_bytes: int
    line: bytes
    entries: int
    ts: str

    def signed(self, lane: str, key_lines: Sequence[bytes], root: VerifierKey | None) -> bool:
        """Whether the key in force here signed the line, and with it the time."""
        try:
            keys = certified(key_lines, lane, root, verify_signature, codec.parse, before=self.entries)
            raw, kid, signature = chain.split(self.line)
        except KernelError:
            return False
        key, message = keys.current, chain.signed_bytes(chain.entry_hash(raw))
        return key is not None and kid == key.kid and verify_signature(key.public, signature, message)


def _source(log: AuditLog, lane: str, root: VerifierKey | None, period: Period, jobs: int, meter: Progress) -> Source:
    """The lane as it is to be verified: of its segments those of the period, in parts where there are several.

    What of it a bundle has is verified in one piece.
    """
    folder, whole = log.lane(lane), log.source(lane, meter)
    if whole.first or whole.end is not None:
        return whole
    begins = _begins(folder)
    if len(begins) < 2:
        return whole
    lines = tuple(key_lines([folder / begin.name for begin in begins]))
    first, end = _within(begins, period)
    if end is not None and not begins[end].signed(lane, lines, root):
        # Nobody is to take the end of a period away by what the segment behind it says.
        end = None

    def piece(first: int, end: int | None) -> Source:
        wanted = partial(_between, begins[first].name, None if end is None else begins[end].name)
        segments = partial(opened_segments, folder, wanted, meter)
        return replace(whole, segments=segments, first=first, key_lines=lambda: lines,
                       end=None if end is None else begins[end].entries)

    asked = piece(first, end)
    if jobs == 1:
        return asked
    cuts = [*_cuts(begins[first:end], jobs * _PARTS_A_CORE, first), end]
    return replace(asked, parts=tuple(piece(one, other) for one, other in pairwise(cuts) if one is not None))


def _within(begins: Sequence[_Begin], period: Period) -> tuple[int, int | None]:
    """The first segment with entries of the period, and the first one behind it."""
    first = max((at for at, begin in enumerate(begins) if period.start and begin.ts <= period.start), default=0)
    behind = (at for at, begin in enumerate(begins) if period.end and begin.ts >= period.end and at > first)
    return first, next(behind, None)


def _cuts(begins: Sequence[_Begin], most: int, first: int) -> list[int]:
    """Where parts of about equal length begin."""
    share = sum(begin.size_bytes for begin in begins) // most + 1
    cuts, length = [first], 0
    for at, begin in enumerate(begins[:-1], first + 1):
        length += begin.size_bytes
        if length >= share:
            cuts.append(at)
            length = 0
    return cuts


def _between(first: str, end: str | None, folder: Path) -> list[str]:
    return [name for name in segment_names(folder) if name >= first and (end is None or name < end)]


def _begins(folder: Path) -> list[_Begin]:
    """How each segment of a lane begins; nothing where that cannot be read, for a walk over all of it tells why."""
    begins: list[_Begin] = []
    for number, name in enumerate(segment_names(folder)):
        with open_regular(folder / name) as file:
            line = file.readline(chain.MAX_LINE_BYTES)
            size = file.seek(0, os.SEEK_END)
        if not line and begins:
            # A segment that was only just made.
            break
        try:
            entry = codec.parse(chain.split(line)[0])
        except KernelError:
            return []
        match entry:
            case {"seq": int(seq), "ts": str(ts)} if name == segment_name(number):
                begins.append(_Begin(name, size, line, seq, ts))
            case _:
                return []
    return begins
