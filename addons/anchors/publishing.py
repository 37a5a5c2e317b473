"""The publisher: threads that take the heads of a lane to its anchors, and keep what they answer.

Each anchor has a thread of its own, so that one that hangs delays no other, and none a request. Only the newest head is
published: it holds the older ones. The entries that say so are no reason to publish again, or an idle log would grow
for ever.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from addons.anchors.protocol import AnchorError
from addons.audit_text import escaped
from addons.errors import AuditUnavailable
from kernel import entry
from kernel.note import stated_checkpoint
from kernel.verdict import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from addons.anchors.protocol import Anchor, Log, Receipt
    from addons.anchors.receipts import Newest, Receipts
    from addons.anchors.settings import AnchorSettings

ENTRIES = 1000
CLOSE_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
# However often something happens that is told at once, an anchor is asked no more often than this.
LEAST_SECONDS = 1.0
FAULT_SECONDS = 600.0
# Beyond this many anchor entries above what an anchor holds, the oldest count like any other entry.
_MOST_OWN = 10_000


@dataclass(frozen=True, slots=True)
class _Head:
    lane: str
    size: int
    note: str


@dataclass(slots=True)
class _Line:
    """How one anchor stands. Times are of the monotonic clock; `since`: when what it does not hold began to wait."""

    anchor: Anchor
    thread: threading.Thread | None = None
    held: dict[str, int] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    asked_at: float = float("-inf")
    told_at: float = float("-inf")
    at_once: bool = False
    failures: int = 0
    retry_at: float = float("-inf")
    fault_at: float = float("-inf")
    ended: set[str] = field(default_factory=set)
    """The lanes whose last head it was asked to hold, at the end."""


class Publisher:
    """Publishes the heads of one process. `take`, `ages`, `unanchored` and `overdue` cost microseconds."""

    def __init__(self, settings: AnchorSettings, anchors: Sequence[Anchor], log: Log, receipts: Receipts,
                 say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        """`say` tells the operator, in the thread of an anchor."""
        self._settings, self._log, self._receipts, self._say, self._clock = settings, log, receipts, say, clock
        self._lines = [_Line(anchor) for anchor in anchors]
        self._heads: dict[str, _Head] = {}
        self._own: dict[str, deque[int]] = {}
        self._changed = threading.Condition()
        self._closing = False

    def start(self) -> None:
        """Begin. What the receipts say is held counts as held until an anchor says otherwise."""
        newest: Newest = {}
        with suppress(AnchorError):
            newest = self._receipts.newest()
        for line in self._lines:
            line.held = {lane: receipt.size for (kind, target, lane), receipt in newest.items()
                         if (kind, target) == (line.anchor.kind, line.anchor.target)}
            line.thread = threading.Thread(target=self._run, args=(line,), name=f"anchor-{line.anchor.kind}",
                                           daemon=True)
            line.thread.start()

    def take(self, note: str, *, at_once: bool = False) -> None:
        """The newest signed head of a lane, whose entries are durable; `at_once` where it is not to wait its turn."""
        head = stated_checkpoint(note)
        lane = head.origin.rpartition("/")[2]
        with self._changed:
            now = self._clock()
            for line in self._lines:
                # A head that begins anew, after a start, waits from now on.
                if not self._waits(line, lane):
                    line.since[lane] = now
            self._heads[lane] = _Head(lane, head.size, note)
            for line in self._lines:
                line.at_once = line.at_once or (at_once and self._waits(line, lane))
            self._changed.notify_all()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Publish what is left and end; what takes longer is left to the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for line in self._lines:
            if line.thread is not None:
                line.thread.join(max(0.0, end - time.monotonic()))

    def ages(self) -> dict[str, float]:
        """For each kind of anchor, for how many seconds entries have waited that one of them does not hold."""
        with self._changed:
            now = self._clock()
            ages: dict[str, float] = {}
            for line in self._lines:
                ages[line.anchor.kind] = max(ages.get(line.anchor.kind, 0.0), self._age(line, now))
            return ages

    def unanchored(self, entries: int) -> int:
        """How many of the first `entries` of the own lane no anchor holds."""
        with self._changed:
            return max(0, entries - max((line.held.get(self._log.name, 0) for line in self._lines), default=0))

    def overdue(self) -> str | None:
        """What is required and not met, in words; None where all is well."""
        required = self._settings.requirement
        if required is None:
            return None
        with self._changed:
            now = self._clock()
            met = sum(line.anchor.kind in required.kinds and self._age(line, now) <= required.within_seconds
                      for line in self._lines)
        return None if met >= required.count else f"anchors: {required} is required, and {met} hold what is so old"

    def _age(self, line: _Line, now: float) -> float:
        return max((now - line.since[lane] for lane in self._heads if self._waits(line, lane)), default=0.0)

    def _waits(self, line: _Line, lane: str) -> bool:
        """Whether the anchor does not hold an entry of the lane that is more than the word of an anchor."""
        head = self._heads.get(lane)
        if head is None:
            return False
        held = line.held.get(lane, 0)
        own = sum(held <= seq < head.size for seq in self._own.get(lane, ()))
        # A head below what is held: an older log was put back, which the anchor is to be shown.
        return head.size < held or head.size - held > own

    def _run(self, line: _Line) -> None:
        while (head := self._next(line)) is not None:
            try:
                self._held(line, head, line.anchor.publish(head.lane, head.note))
            except Exception as fault:  # noqa: BLE001
                # Whatever it is: a thread that ended silently would never anchor again.
                self._failed(line, fault)

    def _next(self, line: _Line) -> _Head | None:
        """The head to publish next, once its time has come; None at the end."""
        with self._changed:
            while True:
                waiting = [head for lane, head in self._heads.items() if self._waits(line, lane)]
                now = self._clock()
                if self._closing:
                    # Once each: there is no time left for a second try.
                    last = next((head for head in waiting if head.lane not in line.ended), None)
                    if last is not None:
                        line.ended.add(last.lane)
                    return last
                due = min((self._due(line, head) for head in waiting), default=None)
                if due is not None and due <= now:
                    line.asked_at, line.at_once = now, False
                    return min(waiting, key=lambda head: line.since[head.lane])
                self._changed.wait(None if due is None else due - now)

    def _due(self, line: _Line, head: _Head) -> float:
        if line.failures:
            return line.retry_at
        turn = line.told_at + self._settings.every_seconds
        if line.at_once or head.size - line.held.get(head.lane, 0) >= ENTRIES:
            turn = min(turn, line.asked_at + LEAST_SECONDS)
        return turn

    def _held(self, line: _Line, head: _Head, receipt: Receipt) -> None:
        kept: AnchorError | None = None
        try:
            self._receipts.add(receipt)
        except AnchorError as fault:
            kept = fault
        with self._changed:
            recovered, line.failures = line.failures > 0, 0
            line.held[head.lane], line.told_at = head.size, line.asked_at
            # What came while it was being told begins to wait at the earliest when that began.
            line.since[head.lane] = line.asked_at
            self._write(receipt)
        if recovered:
            self._tell(f"{_named(line.anchor)} answers again")
        if kept is not None:
            self._tell(f"the receipt was not kept: {kept}")

    def _write(self, receipt: Receipt) -> None:
        own = self._own.setdefault(self._log.name, deque(maxlen=_MOST_OWN))
        least = min(line.held.get(self._log.name, 0) for line in self._lines)
        while own and own[0] < least:
            own.popleft()
        # A lane that is closed or stopped takes no entry; the receipt is kept beside it.
        with suppress(AuditUnavailable):
            own.append(self._log.record("anchor", entry.anchor(
                receipt.kind, receipt.target, receipt.lane, receipt.size, receipt.root, receipt.proof)))

    def _tell(self, text: str) -> None:
        # The operator's terminal may be gone, and the anchor's thread goes on.
        with suppress(OSError, ValueError):
            self._say(text)

    def _failed(self, line: _Line, fault: Exception) -> None:
        with self._changed:
            line.failures += 1
            now = self._clock()
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(line.failures - 1, 16))
            # Full periods would have all Governors ask a witness again in the same second.
            line.retry_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311
            first, told = line.failures == 1, now - line.fault_at >= FAULT_SECONDS
            if first and told:
                line.fault_at = now
                with suppress(AuditUnavailable):
                    self._log.record("fault", entry.fault("anchor", type(fault).__name__, Code.FAULT, None))
        if first:
            said = str(fault) if isinstance(fault, AnchorError) else f"{type(fault).__name__}: {fault}"
            self._tell(f"{_named(line.anchor)} does not hold the newest head: {escaped(said)}")


def _named(anchor: Anchor) -> str:
    return f"the anchor {anchor.kind} {escaped(anchor.target)}"
