"""A thread that sends sealed segments away, at each new one and at the start, and tries again where that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from addons.anchors.protocol import AnchorError
from addons.audit_log import is_live
from addons.audit_text import escaped
from addons.errors import AuditUnavailable
from kernel import entry
from kernel.verdict import Code

if TYPE_CHECKING:
    from addons.anchors.protocol import Log
    from addons.anchors.sealed import SealedStore
    from addons.audit_log import AuditLog

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 600.0
CLOSE_SECONDS = 5.0


class Sealing:
    """Sends the segments of every lane of a log. A request never waits for it."""

    def __init__(self, store: SealedStore, log: AuditLog, own: Log, say: Callable[[str], object]) -> None:
        """`say` tells the operator, in another thread, when it begins to fail and when it goes on."""
        self._store, self._log, self._own, self._say = store, log, own, say
        self._wanted, self._closing = threading.Event(), False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="sealing", daemon=True)

    def start(self) -> None:
        self._wanted.set()
        self._thread.start()

    def wake(self) -> None:
        """There is a sealed segment more."""
        self._wanted.set()

    def close(self) -> None:
        """Send the last segment, too, as far as five seconds reach; the next start sends what is left."""
        self._closing = True
        self._wanted.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._wanted.wait(pause if self._failing else None)
            self._wanted.clear()
            closing = self._closing
            pause = FIRST_PAUSE_SECONDS if self._sent(ended=closing) else min(2 * pause, LONGEST_PAUSE_SECONDS)
            if closing:
                return

    def _sent(self, *, ended: bool) -> bool:
        """Whether everything that is sealed is there."""
        try:
            for lane in self._log.lanes():
                # The last segment of a lane that nobody writes may yet grow; then it is sent again.
                rests = ended if lane == self._own.name else not is_live(self._log.lane(lane))
                for _ in self._store.send(self._log, lane, ended=rests):
                    pass
            for _ in self._store.send_surroundings(self._log):
                pass
        except Exception as fault:  # noqa: BLE001
            # Whatever it is: a thread that ended silently would never send a segment again.
            self._failed(fault)
            return False
        if self._failing:
            self._tell(f"segments: {self._store.bucket.location.url} takes them again")
        self._failing = False
        return True

    def _failed(self, fault: Exception) -> None:
        if self._failing:
            return
        self._failing = True
        said = str(fault) if isinstance(fault, AnchorError | OSError) else f"{type(fault).__name__}: {fault}"
        self._tell(f"segments: {escaped(said)}; they stay here and are tried again")
        with suppress(AuditUnavailable):
            self._own.record("fault", entry.fault("segments", type(fault).__name__, Code.FAULT, None))

    def _tell(self, text: str) -> None:
        # The operator's terminal may be gone, and the thread goes on.
        with suppress(OSError, ValueError):
            self._say(text)
