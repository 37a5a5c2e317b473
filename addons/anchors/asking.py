"""The newest heads that anchors hold, asked for at a start: a lane must reach what was published of it."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import TYPE_CHECKING

from addons import codec, keys
from addons.anchors.configured import anchors_of
from addons.anchors.settings import read_settings
from addons.errors import StartCode, StartRefused
from addons.key_lines import key_lines
from addons.lineage import is_retired
from addons.segment import segment_names
from kernel.errors import KernelError, NoteError, UnknownSigner
from kernel.key_chain import certified
from kernel.note import open_note, stated_checkpoint
from kernel.trust import is_lane

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from addons.anchors.protocol import Anchor
    from addons.home import Home
    from kernel.key_chain import KeyChain

SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """The newest head of each lane that each anchor gave out, and what is wrong with anchors that did not answer."""

    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    silent: tuple[str, ...] = ()


def heads_of(home: Home) -> Asked:
    """What the anchors that the home names hold; `AnchorError` or `AnchorSettingsError` where they cannot be had."""
    return ask(anchors_of(read_settings(home.paths.anchors, home.paths.folder), home), home)


def ask(anchors: Sequence[Anchor], home: Home, seconds: float = SECONDS) -> Asked:
    """Ask all of them at once, for so long. What one has given out by then counts."""
    chains = _chains(home) if anchors else {}
    answers = [_Answer(anchor, home.root.name, chains) for anchor in anchors]
    for answer in answers:
        answer.start()
    deadline = time.monotonic() + seconds
    notes, silent = defaultdict[str, list[str]](list), list[str]()
    for answer in answers:
        answer.join(max(0.0, deadline - time.monotonic()))
        for lane, note in answer.newest().items():
            notes[lane].append(note)
        problem = f"does not answer within {seconds:g} seconds" if answer.is_alive() else answer.problem
        if problem is not None:
            silent.append(f"anchor {answer.anchor.kind} {answer.anchor.target}: {problem}")
    return Asked(dict(notes), tuple(silent))


def check_present(home: Home, asked: Asked) -> None:
    """`StartRefused` where an anchor holds a head of a lane that is gone, and in whose place none goes on."""
    present = set(home.lanes())
    gone = sorted(lane for lane in asked.notes if lane not in present and not is_retired(home.paths, lane, home.root))
    if gone:
        text = f"{home.paths.folder} has lost lane {gone[0]}, of which an anchor holds a head; restore the newest log"
        raise StartRefused(StartCode.ROLLED_BACK, text)


def _chains(home: Home) -> dict[str, KeyChain]:
    """The keys of each lane, as far as its lines prove them: of a lane whose keys are damaged a start tells that."""
    found: dict[str, KeyChain] = {}
    for lane in home.lanes():
        folder = home.paths.lane(lane)
        with suppress(OSError):
            lines = list(key_lines([folder / name for name in segment_names(folder)]))
            # The last line of all may be torn, which a start puts aside.
            for some in (lines[:-1], lines):
                with suppress(KernelError):
                    found[lane] = certified(some, lane, home.root, keys.verifies, codec.parse)
    return found


class _Answer(Thread):
    """One anchor that is asked. A thread that nobody waits for any more keeps no process from ending."""

    def __init__(self, anchor: Anchor, origin: str, chains: Mapping[str, KeyChain]) -> None:
        super().__init__(name=f"anchor-{anchor.kind}", daemon=True)
        self.anchor = anchor
        self.problem: str | None = None
        self._origin, self._chains, self._lock = origin, chains, Lock()
        self._newest: dict[str, tuple[int, str]] = {}

    def run(self) -> None:
        try:
            for note in self.anchor.notes():
                with suppress(NoteError):
                    self._take(note)
        except Exception as fault:  # noqa: BLE001
            # Whatever an anchor fails with, it has not answered.
            self.problem = str(fault) or type(fault).__name__

    def _take(self, note: str) -> None:
        log, _, lane = note.partition("\n")[0].rpartition("/")
        size = stated_checkpoint(note).size
        if log == self._origin and is_lane(lane):
            self._check_unforged(lane, size, note)
            with self._lock:
                self._newest[lane] = max((size, note), self._newest.get(lane, (0, "")))

    def _check_unforged(self, lane: str, size: int, note: str) -> None:
        """`NoteError` where a signature that is none would be the newest one, and hide the head that is."""
        key = self._chains[lane].signer_of(size - 1) if lane in self._chains else None
        with suppress(UnknownSigner):
            open_note(note, [] if key is None else [key], keys.verifies)

    def newest(self) -> dict[str, str]:
        with self._lock:
            return {lane: note for lane, (_, note) in self._newest.items()}
