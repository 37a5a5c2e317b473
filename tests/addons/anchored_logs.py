"""Logs that grow under a test's hand and tell of each signed head, for tests of anchors."""

from __future__ import annotations

import time
from queue import SimpleQueue

from addons.anchors.signed_heads import newest_head
from addons.anchors.submission import submission_key
from addons.home import Home
from kernel import entry
from kernel.note import opened, parse_checkpoint
from tests.addons.logs import open_lane, outcome
from tests.addons.reference_witness import Witness

LOADED = entry.policy_load("00" * 32, ["p.yaml"], "enforce", {"version": "1", "digest": "0"})


class GrowingLog:
    """A lane of a home; `grown` makes it longer and gives its head."""

    def __init__(self, home: Home, lane: str = "main") -> None:
        self.home, self.lane = home, open_lane(home, lane)
        self._notes: SimpleQueue[tuple[str, bool]] = SimpleQueue()
        self.lane.on_checkpoint(lambda note, at_once: self._notes.put((note, at_once)))

    def grown(self, entries: int = 1) -> str:
        """The signed note after so many more entries, all of which are durable."""
        for number in range(entries - 1):
            self.lane.record("outcome", outcome(f"f{number}", number))
        size = self.lane.write_now("policy_load", LOADED) + 1
        while (note := self._notes.get(timeout=20)[0]) and size_of(note) < size:
            pass
        return note

    def kept(self, entries: int = 1) -> str:
        """The same once the note stands in checkpoints.note, which the keeper writes in its own time."""
        note = self.grown(entries)
        deadline = time.monotonic() + 20
        while newest_head(self.home.paths.lane(self.lane.name)) != note:
            assert time.monotonic() < deadline, "the head was not kept"
            time.sleep(0.01)
        return note

    def close(self) -> None:
        self.lane.close("done")


def size_of(note: str) -> int:
    return parse_checkpoint(opened(note)[0]).size


def introduce(witness: Witness, home: Home, lane: str = "main") -> None:
    """Give the witness what governor audit anchor keys prints."""
    witness.know(submission_key(home, lane).verifier_key)
