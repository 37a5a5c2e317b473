"""The states of a lane kept in files, so that a start need not make them anew from every entry there ever was."""

from __future__ import annotations

from contextlib import suppress
from threading import Lock, Thread
from typing import TYPE_CHECKING

from addons import durable, kept_states
from addons.errors import AuditUnavailable
from kernel import entry, snapshot
from kernel.errors import SnapshotError
from kernel.verdict import Code

if TYPE_CHECKING:
    from pathlib import Path

    from addons.home import Paths
    from addons.lane import Lane
    from kernel.folding import States

KEPT = 2
# A disk that does not answer keeps no process from ending.
FINISH_SECONDS = 5.0
_LONGEST_HEAD = 256


class Snapshots:
    """Keeps the states of one lane, one after the other.

    `begin` and `finish` are for the thread that changes the states: what has its number is counted in them, and nothing
    else is.
    """

    def __init__(self, home: Paths, lane: Lane, states: States) -> None:
        self._home, self._lane, self._states = home, lane, states
        self._one_at_a_time = Lock()
        durable.make_folder(home.states)

    def begin(self) -> Thread:
        """Keep the states as they are now. Another thread does the work, and is over when it is done or has failed."""
        kept = snapshot.Snapshot(self._lane.name, self._lane.next_seq, self._states.copy())
        thread = Thread(target=self._keep, args=(kept,), name=f"state-{self._lane.name}", daemon=True)
        thread.start()
        return thread

    def finish(self) -> None:
        """Keep the states as they are at the end, before the lane is closed."""
        self.begin().join(FINISH_SECONDS)

    def _keep(self, kept: snapshot.Snapshot) -> None:
        with self._one_at_a_time, suppress(AuditUnavailable):
            try:
                self._write(kept)
            except (OSError, ValueError) as fault:
                # The log stands without it, and the next start reads more.
                self._lane.record("fault", entry.fault("state", type(fault).__name__, Code.FAULT, None))

    def _write(self, kept: snapshot.Snapshot) -> None:
        digest, size_bytes = kept_states.keep(self._home.states, kept)
        both = (kept.states.real, kept.states.shadow)
        agents, accounts = sum(len(state.agents) for state in both), sum(len(state.accounts) for state in both)
        self._lane.write_now("state_snapshot", entry.state_snapshot(kept.at, digest, size_bytes, agents, accounts))
        self._forget()

    def _forget(self) -> None:
        """Drop this lane's older files, and what a crash has left half written. What it began with stays."""
        own = [(at, path) for path in self._home.states.iterdir() if (at := self._at(path)) is not None]
        whole = sorted(each for each in own if each[1].suffix == ".json")
        for each in own:
            if each not in whole[-KEPT:] and (each[0] or each not in whole):
                each[1].unlink(missing_ok=True)

    def _at(self, path: Path) -> int | None:
        """The number up to which a file of this lane goes; None for another's, which may go at any moment."""
        try:
            with path.open("rb") as file:
                lane, at = snapshot.head(file.readline(_LONGEST_HEAD))
        except (FileNotFoundError, SnapshotError):
            return None
        return at if lane == self._lane.name else None
