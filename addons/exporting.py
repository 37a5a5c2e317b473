"""The log for a SIEM: every entry at least once, in the order of its lane, with the hash that makes the copy a witness.

It reads the files that the log is, beside a writer, and shares nothing with one: who reads slowly delays only itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from addons import fast_codec
from addons.audit_log import AuditLog
from addons.audit_view import Filter
from addons.chained_lines import ChainedLines, LaneBroken, Place, Record
from addons.export_cursor import Cursor
from addons.export_output import Output
from addons.forked import Progress
from kernel import ocsf
from kernel.report import Result
from kernel.trust import is_lane

# What a crash repeats at most, and what is held in memory.
_BATCH_BYTES = 2**20
_BATCH_ENTRIES = 5000


def as_jsonl(record: Record) -> bytes:
    """The entry as it stands in the log, in canonical JSON, with lane, number and hash beside it."""
    place = record.place
    name = b'","lane":"%b","seq":%d}\n' % (record.lane.encode(), place.seq)
    return b"".join((b'{"entry":', record.raw, b',"hash":"', place.hash.encode(), name))


def as_ocsf(record: Record) -> bytes:
    """The entry as an event of the Open Cybersecurity Schema Framework."""
    return fast_codec.dump(ocsf.event(record.entry, record.place.hash)) + b"\n"


FORMATS: dict[str, Callable[[Record], bytes]] = {"jsonl": as_jsonl, "ocsf": as_ocsf}


class Export:
    """An export of `log` in one of the FORMATS. A cursor remembers how far it came; without one it begins anew.

    `LaneBroken` where the log is not as it was when the cursor was moved last: nothing was exported then.
    """

    def __init__(
        self,
        log: AuditLog,
        form: str,
        wanted: Filter,
        output: Output,
        cursor: Cursor | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        self._folder, self._as_line, self._wanted = log.audit / "lanes", FORMATS[form], wanted
        self._log, self._output, self._cursor, self._progress = log, output, cursor, progress
        self._places: dict[str, Place] = dict(cursor.places) if cursor else {}
        self._lanes = {lane: self._lane(lane, place) for lane, place in self._places.items()}
        self._lines: list[bytes] = []
        self._waiting_bytes = self._waiting_entries = 0

    def run(self) -> None:
        """Export what there is now. `LaneBroken` stops it at its place; what came before is out."""
        try:
            for record in self._fresh():
                self._take(record)
        finally:
            self._flush()

    def _fresh(self) -> Iterator[Record]:
        for lane in self._log.lanes():
            if lane not in self._lanes:
                self._lanes[lane] = self._lane(lane, None)
        streams = [lane.fresh() for lane in self._lanes.values()]
        yield from heapq.merge(*streams, key=lambda record: str(record.entry["ts"]))

    def _lane(self, lane: str, last: Place | None) -> ChainedLines:
        if not is_lane(lane):
            raise LaneBroken(Result.TAMPERED, f"{self._folder}/{lane}", "not the name of a lane")
        return ChainedLines(self._folder / lane, last, self._progress)

    def _take(self, record: Record) -> None:
        if self._wanted.wants(record.entry):
            line = self._as_line(record)
            self._lines.append(line)
            self._waiting_bytes += len(line)
        self._places[record.lane] = record.place
        self._waiting_entries += 1
        if self._waiting_bytes >= _BATCH_BYTES or self._waiting_entries >= _BATCH_ENTRIES:
            self._flush()

    def _flush(self) -> None:
        lines, entries = self._lines, self._waiting_entries
        self._lines, self._waiting_bytes, self._waiting_entries = [], 0, 0
        if lines:
            self._output.write(b"".join(lines))
            self._output.settle()
        if entries and self._cursor:
            self._cursor.move(self._places)
