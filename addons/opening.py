"""Opening a lane: its lock, its key, its first entries, and the lanes that crashed processes left behind."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

from addons import ahead_keys, durable
from addons.errors import StartCode, StartRefused
from addons.home import FIRST_SEGMENT
from addons.journal import drafts
from addons.keeper import Keeper
from addons.lane_refusals import lost, rolled_back, tampered
from addons.lineage import is_retired, successor
from addons.rebuilding import parsed
from addons.recovery import reopen
from addons.segment import segment_names
from kernel import chain, entry, note, trust
from kernel.errors import KernelError, NoteError
from kernel.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from addons.home import Home
    from addons.journal import Fields, Journal
    from addons.recovery import Reopened
    from kernel.folding import States
    from kernel.loss import Loss

_PAUSE_SECONDS = 0.02
# Where the last lines of a lane are looked for; a lane whose durable head lies farther back is not mentioned.
_TAIL_BYTES = 4 * chain.MAX_LINE_BYTES


def take(home: Home, lane: str, patience_seconds: float = 0.0) -> int:
    """The lane's lock, ours until the descriptor is closed or the process ends; `LANE_BUSY` when another has it.

    With patience a lock is waited for that somebody holds for a look, or to put the lane in order.
    """
    if not trust.is_lane(lane) or lane == "root":
        raise ValueError(f"{lane!r} is no lane name")
    durable.make_folder(home.paths.lane(lane))
    until = time.monotonic() + patience_seconds
    while (lock := _try_lock(home.paths.lane(lane))) is None and time.monotonic() < until:
        time.sleep(_PAUSE_SECONDS)
    if lock is None:
        text = f"another process writes lane {lane} of {home.paths.folder}; stop it, or use another home"
        raise StartRefused(StartCode.LANE_BUSY, text)
    return lock


def open_journal(home: Home, lane: str, kernel: entry.Body, published: Sequence[str] = (),
                 marks: Fields | None = None) -> tuple[Journal, States]:
    """The lane's journal with its first entries, and what the time before left, durably in it. `marks` stand in each.

    With it the states that all its entries make. `StartRefused` where another lane goes on in the place of this one.
    """
    following = successor(home.paths, lane, home.root)
    if following is not None:
        text = f"lane {lane} of {home.paths.folder} was given up, and lane {following} goes on; start again"
        raise StartRefused(StartCode.LANE_BUSY, text)
    siblings = _adopt_siblings(home, lane)
    reopened = reopen(home, lane, published)
    journal = reopened.journal
    journal.marks = marks or {}
    try:
        if not reopened.reading.opened:
            _begin(home, journal, kernel, siblings)
        if reopened.repairs:
            _have_head(home, reopened)
        reopened.repair()
        ahead_keys.settle(home, lane)
        _end_freshness(home)
    except BaseException:
        journal.segment.close()
        raise
    return journal, reopened.reading.states


def _try_lock(folder: Path) -> int | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder / "LOCK", flags, durable.PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def open_successor(home: Home, lane: str, kernel: entry.Body, loss: Loss, *further: entry.Body) -> None:
    """Begin a lane that goes on in the place of a lost one, durably. It is written by whoever opens it next."""
    lock = take(home, lane)
    try:
        journal = reopen(home, lane).journal
        try:
            opening = _opening(home, journal, kernel, [], loss)
            journal.append(drafts([opening, *further], journal.size))
            _sign_head(home, journal)
        finally:
            journal.segment.close()
    finally:
        os.close(lock)


def _opening(home: Home, journal: Journal, kernel: entry.Body, siblings: list[entry.Body],
             loss: Loss | None = None) -> entry.Body:
    """The lane_open of a lane whose key the root certifies, or has certified ahead."""
    key = journal.keys.current
    certificate = ahead_keys.certificate_of(home, key)
    return entry.lane_open(key.verifier_key, certificate, kernel, siblings, None if loss is None else loss.fields())


def _begin(home: Home, journal: Journal, kernel: entry.Body, siblings: list[entry.Body]) -> None:
    """The lane's first entries; the first lane of a log begins with genesis."""
    opening = _opening(home, journal, kernel, siblings)
    with durable.locked(home.paths.lock):
        if journal.size == 0 and not _begun(home):
            if not os.path.lexists(home.paths.fresh):
                raise lost(home, "has keys and has lost its log")
            root = home.root_key()
            genesis = entry.genesis(home.log_id, root.name, root.verifier_key, journal.timestamp(), VERSION)
            journal.append(drafts([genesis], 0), root)
        journal.append(drafts([opening], journal.size))


def _begun(home: Home) -> bool:
    """Whether any lane has a whole entry: genesis, or one that came after it."""
    return any(_first_line(home.paths.lane(lane) / FIRST_SEGMENT).endswith(b"\n") for lane in home.lanes())


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(chain.MAX_LINE_BYTES)


def _end_freshness(home: Home) -> None:
    if os.path.lexists(home.paths.fresh):
        home.paths.fresh.unlink(missing_ok=True)
        durable.sync_folder(home.paths.folder)


def _adopt_siblings(home: Home, own: str) -> list[entry.Body]:
    """Close the lanes whose process is gone; what every other lane holds for certain."""
    siblings = []
    for lane in home.lanes():
        # What was given up is left as it is.
        if lane != own and not is_retired(home.paths, lane, home.root):
            held = _sibling(home, lane)
            if held is not None:
                siblings.append(held)
    return siblings


def _sibling(home: Home, lane: str) -> entry.Body | None:
    lock = _try_lock(home.paths.lane(lane))
    least = _minimum_size(home, lane)
    if lock is None:
        # Its process lives: only what it has signed as durable can be said of it.
        return _holding(home, lane, least)
    try:
        folder = home.paths.lane(lane)
        last = next(_entries_from_the_end(folder), None)
        if last is not None and last[1] == "close":
            if last[0] + 1 < least:
                raise rolled_back(folder, last[0] + 1, least)
            return entry.sibling(lane, last[0] + 1, last[2])
        if (folder / FIRST_SEGMENT).stat().st_size or least:
            return _adopt(home, lane)
        return None
    finally:
        os.close(lock)


def _adopt(home: Home, lane: str) -> entry.Body | None:
    reopened = reopen(home, lane)
    journal = reopened.journal
    try:
        if not reopened.reading.opened:
            # It never got as far as lane_open: there is nothing to close, and its next start goes on from here.
            return None
        _have_head(home, reopened)
        reopened.repair()
        journal.append(drafts([entry.close("adopted")], journal.size))
        _sign_head(home, journal)
        return entry.sibling(lane, journal.size, journal.head)
    finally:
        journal.segment.close()


def _have_head(home: Home, reopened: Reopened) -> None:
    """Before anything follows a lane's opening its head is signed: by that a cut-off lane is told from a new one."""
    if not reopened.reading.has_head:
        _sign_head(home, reopened.journal)


def _sign_head(home: Home, journal: Journal) -> None:
    keeper = Keeper(home, journal.lane, None, lambda _where, _fault: None)
    try:
        keeper.write_checkpoint(journal.checkpoint())
    finally:
        keeper.stop()


def _minimum_size(home: Home, lane: str) -> int:
    text = home.minimum().get(lane)
    if text is None:
        return 0
    try:
        # Not trusted here: `reopen` checks its signature before anything rests on it.
        return note.stated_checkpoint(text).size
    except NoteError as fault:
        raise tampered(home.paths.minimum, f"lane {lane}: {fault}") from fault


def _holding(home: Home, lane: str, size: int) -> entry.Body | None:
    for seq, _, head in _entries_from_the_end(home.paths.lane(lane)):
        if seq == size - 1:
            return entry.sibling(lane, size, head)
        if seq < size:
            break
    return None


def _entries_from_the_end(folder: Path) -> Iterator[tuple[int, str, str]]:
    """(seq, type, hash) of the last entries, newest first; ends at the first line that is none."""
    for name in reversed(segment_names(folder)):
        with (folder / name).open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
            file.seek(start)
            lines = file.read().split(b"\n")
        if lines[-1]:
            return
        for line in reversed(lines[:-1]):
            try:
                raw = chain.split(line + b"\n")[0]
                body = parsed(raw)
            except KernelError:
                return
            yield int(body["seq"]), str(body["type"]), chain.entry_hash(raw).hex()
        if start:
            return
