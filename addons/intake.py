"""Where entries wait for the writer: numbers given out in the order of the calls, and a bell that is rarely rung."""

from __future__ import annotations

from collections import deque
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any

from addons.errors import AuditUnavailable
from addons.journal import KEY_ROTATE, Draft

if TYPE_CHECKING:

    from addons.journal import Fields, Moment, Secrets

# What nobody waits for is written with the next entry that somebody does wait for, or after this time.
LINGER_SECONDS = 0.05
# Bounds what one group signs before its first entry is durable.
MOST_IN_A_GROUP = 256

SEGMENT_OPEN = "segment_open"
# An entry that must be the first of what is written at once: its fields depend on everything before it.
_ALONE = frozenset({KEY_ROTATE, SEGMENT_OPEN})

_AWAKE, _LIGHT, _DEEP = range(3)


class Intake:
    """Many callers, one writer. After `shut` nothing gets in."""

    def __init__(self, first: int) -> None:
        self.next_seq = first
        self.stopped: AuditUnavailable | None = None
        self.urgent = False
        self._queue: deque[Draft] = deque()
        self._order = Lock()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._asleep = _AWAKE

    def put(self, kind: str, fields: Fields, secrets: Secrets | None, waiter: Any, last: bool = False,
            at: Moment | None = None) -> int:
        """Queue an entry of this or another moment and return its number; `last` shuts the intake behind it."""
        with self._order:
            if self.stopped is not None:
                raise AuditUnavailable(*self.stopped.args)
            seq = self.next_seq
            self._queue.append(Draft(seq, kind, fields, secrets, waiter, at))
            self.next_seq = seq + 1
            if last:
                self.stopped = AuditUnavailable("the lane is closed")
            if waiter is not None:
                self.urgent = True
            if self._asleep and (waiter is not None or self._asleep == _DEEP):
                self._ring()
        return seq

    def put_rotation(self, reason: str, waiter: Any = None) -> int:
        """Queue the end of a segment and the beginning of the next, one behind the other; the number of the latter."""
        with self._order:
            if self.stopped is not None:
                raise AuditUnavailable(*self.stopped.args)
            seq = self.next_seq
            self._queue.append(Draft(seq, KEY_ROTATE, {"reason": reason}, None, None))
            self._queue.append(Draft(seq + 1, SEGMENT_OPEN, {}, None, waiter))
            self.next_seq = seq + 2
            self.urgent = True
            self._ring()
        return seq + 1

    def wake(self) -> None:
        """Have the writer look around."""
        with self._order:
            self.urgent = True
            self._ring()

    def shut(self, stopped: AuditUnavailable) -> list[Draft]:
        """Let nothing in any more; what was still waiting."""
        with self._order:
            self.stopped = stopped
            waiting = list(self._queue)
            self._queue.clear()
        return waiting

    def drain(self) -> list[Draft]:
        """The next group, in order; the end and the beginning of a segment begin one. For the writer alone."""
        self.urgent = False
        queue = self._queue
        group: list[Draft] = []
        while queue and len(group) < MOST_IN_A_GROUP and not (group and queue[0].kind in _ALONE):
            group.append(queue.popleft())
        if queue:
            self.urgent = True
        return group

    def rest(self, seconds: float) -> None:
        """Sleep until something must be written, `seconds` at most. For the writer alone."""
        # Light sleep first: in steady traffic the next awaited entry comes soon, and takes the others along.
        if self._sleep(_LIGHT, min(LINGER_SECONDS, seconds)) or self._queue:
            return
        if self._sleep(_DEEP, seconds) and not self.urgent:
            self._sleep(_LIGHT, LINGER_SECONDS)

    def _sleep(self, depth: int, seconds: float) -> bool:
        """Whether the bell rang, or would have."""
        self._asleep = depth
        # Looked at after the depth is set: a caller who did not see it set is seen here.
        if self.urgent or (depth == _DEEP and self._queue):
            self._asleep = _AWAKE
            return True
        try:
            self._bell.get(timeout=max(seconds, 0.0))
        except Empty:
            return False
        finally:
            self._asleep = _AWAKE
        return True

    def _ring(self) -> None:
        self._asleep = _AWAKE
        self._bell.put(None)
