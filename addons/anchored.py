"""What anchoring means for one running Governor: heads out, numbers to the metrics, and what is required of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons.anchors.asking import ask, check_present
from addons.anchors.configured import anchors_of, sealed_store
from addons.anchors.protocol import AnchorError
from addons.anchors.publishing import Publisher
from addons.anchors.receipts import Receipts
from addons.anchors.sealing import Sealing
from addons.anchors.settings import AnchorSettings, AnchorSettingsError, read_settings
from addons.anchors.signed_heads import resting_heads
from addons.audit_log import AuditLog
from addons.errors import StartCode, StartRefused
from addons.metrics import Gauge

if TYPE_CHECKING:
    from collections.abc import Callable

    from addons.anchors.protocol import Anchor
    from addons.home import Home
    from addons.lane import Lane
    from addons.metrics import Metrics
    from kernel.entry import Body


class Anchored:
    """The anchors of one process and their publisher. `unmet` says what is required and not met."""

    def __init__(self, home: Home, say: Callable[[str], object]) -> None:
        """Reads anchors.yaml; `StartRefused` where it cannot be taken."""
        self._home, self._say = home, say
        try:
            self.settings: AnchorSettings = read_settings(home.paths.anchors, home.paths.folder)
            self._anchors: list[Anchor] = anchors_of(self.settings, home)
            self._store = sealed_store(self.settings, home)
        except (AnchorSettingsError, AnchorError) as problem:
            raise StartRefused(StartCode.OPTION_REFUSED, str(problem)) from problem
        self.unmet: str | None = None
        self.silent = 0
        """How many anchors did not answer at the start."""
        self._publisher: Publisher | None = None
        self._sealing: Sealing | None = None

    def published(self, lane: str) -> list[str]:
        """The newest heads of a lane that anchors hold; `StartRefused` where they hold some of a lane that is gone.

        An anchor that does not answer is told, and refuses no start.
        """
        asked = ask(self._anchors, self._home)
        for problem in asked.silent:
            self._say(f"{problem}; this start is not compared with what it holds")
        self.silent = len(asked.silent)
        check_present(self._home, asked)
        return list(asked.notes.get(lane, ()))

    @property
    def stops(self) -> bool:
        """Whether nothing may pass at this moment."""
        return self.settings.stops and self.unmet is not None

    def hints(self) -> list[str]:
        """What `governor status` says of it."""
        return [] if self.unmet is None else [self.unmet]

    def recorded(self) -> Body:
        """What a `config` entry says of it."""
        required = self.settings.requirement
        return {"anchors": [f"{anchor.kind} {anchor.target}" for anchor in self._anchors],
                "anchors_require": None if required is None else str(required),
                "anchors_otherwise": "stop" if self.settings.stops else "alert",
                "segments": self.settings.segments}

    def start(self, lane: Lane, metrics: Metrics) -> None:
        """Publish the heads of `lane` from now on, and those of lanes that nobody writes any more."""
        if self._store is not None:
            sealing = self._sealing = Sealing(self._store, AuditLog.at(self._home.paths.folder), lane, self._say)
            lane.on_rotate(sealing.wake)
            sealing.start()
        if not self._anchors:
            metrics.read(Gauge.UNANCHORED, lambda: lane.next_seq)
            metrics.read(Gauge.ANCHOR_OVERDUE, lambda: 0)
            return
        publisher = self._publisher = Publisher(
            self.settings, self._anchors, lane, Receipts(self._home.paths.receipts), self._say)
        metrics.read(Gauge.UNANCHORED, lambda: publisher.unanchored(lane.next_seq))
        metrics.read(Gauge.ANCHOR_OVERDUE, lambda: publisher.overdue() is not None)
        metrics.read_anchors(publisher.ages)
        publisher.start()
        for note in resting_heads(self._home.paths.lanes):
            publisher.take(note)
        lane.on_checkpoint(lambda note, at_once: publisher.take(note, at_once=at_once))

    def look(self) -> None:
        """See whether what is required is met, and tell the operator when that changes."""
        unmet = None if self._publisher is None else self._publisher.overdue()
        if (unmet is None) is not (self.unmet is None):
            means = "; nothing passes until it is met" if self.settings.stops else ""
            self._say(f"{unmet}{means}" if unmet else "anchors: what is required is met again")
        self.unmet = unmet

    def close(self) -> None:
        """Publish the last head, within five seconds."""
        if self._publisher is not None:
            self._publisher.close()
        if self._sealing is not None:
            self._sealing.close()
