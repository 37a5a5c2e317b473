"""A lane: one chain of the log, one writer thread, and the promise that what was acknowledged is on disk."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol, Self

from addons import ballast
from addons.errors import AuditUnavailable, StartCode, StartRefused
from addons.intake import SEGMENT_OPEN, Intake
from addons.journal import KEY_ROTATE, Draft, Secrets, drafts
from addons.keeper import Keeper
from addons.opening import open_journal, take
from addons.vault import Vault
from kernel import entry
from kernel.verdict import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from addons.home import Home
    from addons.journal import Fields, Journal, Moment
    from kernel.folding import States

CHECKPOINT_SECONDS = 1.0
CHECKPOINT_ENTRIES = 1000
IDLE_SECONDS = 60.0
# At which length, and at which age, a segment is the last one no more.
SEGMENT_BYTES = 64 * 2**20
SEGMENT_SECONDS = 24 * 3600
HEARTBEAT = "heartbeat"
# A head is signed at once behind these.
_SIGNED_AT_ONCE = frozenset({KEY_ROTATE, SEGMENT_OPEN, HEARTBEAT, "policy_load", "halt", "close"})
# What is written of a lane in which nothing happens.
_NO_USE = frozenset({KEY_ROTATE, SEGMENT_OPEN, HEARTBEAT, "anchor"})
# A disk that does not answer keeps no process from ending: the next start recovers what it holds.
CLOSE_SECONDS = 5.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

type Waiter = asyncio.Future[None] | Future[None]


class Meter(Protocol):
    """What counts the log's entries and times its commits; called in the writer's thread."""

    def entry(self, kind: str) -> None: ...

    def commit(self, seconds: float) -> None: ...


class Lane:
    """An open lane. `record` and `commit` cost the caller microseconds; the writer thread does the rest.

    `states` are what its entries make up to here, when it is opened; whoever goes on from them counts what follows.
    """

    def __init__(self, home: Home, journal: Journal, states: States, lock: int, vault: Vault | None) -> None:
        self.name, self.states = journal.lane, states
        self._home, self._journal, self._lock = home, journal, lock
        self._intake = Intake(journal.size)
        self._keeper = Keeper(home, self.name, vault, self._keeper_failed)
        self._keeper_fault: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_stop: list[Callable[[AuditUnavailable], object]] = []
        self._on_rotate: list[Callable[[], object]] = []
        self._on_checkpoint: list[Callable[[str, bool], object]] = []
        self._rotating = False
        self._used = True
        self._meter: Meter | None = None
        self._signed_size, self._signed_at = 0, 0.0
        self._has_last_words = False
        self._closed = False
        self._writer = threading.Thread(target=self._run, name=f"lane-{self.name}", daemon=True)

    @classmethod
    def open(
        cls,
        home: Home,
        name: str,
        *,
        kernel: entry.Body,
        loop: asyncio.AbstractEventLoop | None = None,
        vault: bool = True,
        keeps_key: bool = False,
        published: Sequence[str] = (),
        patience_seconds: float = 0.0,
        marks: Fields | None = None,
    ) -> Self:
        """Recover the lane, close crashed ones, begin the log where it is new; `StartRefused` when it is not whole.

        `kernel` is `entry.kernel_identity(...)`. Without `vault` the values behind commitments are not kept.
        One that `keeps_key` begins no segment while it is open. `published` are heads of the lane that anchors hold: it
        must reach them. `patience_seconds`: how long to wait for its lock. `marks` stand in each entry from here on.
        """
        try:
            lock = take(home, name, patience_seconds)
            try:
                journal, states = open_journal(home, name, kernel, published, marks)
                lane = cls(home, journal, states, lock, _open_vault(home.paths.vault) if vault else None)
                lane._rotating = keeps_key
                lane._start(loop)
                return lane
            except BaseException:
                os.close(lock)
                raise
        except OSError as fault:
            text = f"{os.fsdecode(fault.filename or home.paths.lane(name))}: {fault.strerror}"
            raise StartRefused(StartCode.HOME_UNWRITABLE, f"{text}; the log must be writable") from fault

    def _start(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._keeper.write_checkpoint(self._checkpoint())
        self._keeper.start()
        self._writer.start()

    @property
    def stopped(self) -> AuditUnavailable | None:
        """Why nothing can be written any more; None while all is well."""
        return self._intake.stopped

    @property
    def kid(self) -> str:
        """The id of the key that signs now."""
        return self._journal.keys.current.kid

    def sign(self, body: str) -> str:
        """The note of `body`, signed with the key that signs now."""
        return self._journal.keys.current.sign_note(body)

    @property
    def next_seq(self) -> int:
        """The number of the next entry."""
        return self._intake.next_seq

    @property
    def durable(self) -> int:
        """How many entries are on disk: all with a lower number."""
        return self._journal.size

    def observe(self, meter: Meter) -> None:
        """Have `meter` told of every entry and every commit from here on."""
        self._meter = meter

    def on_stop(self, callback: Callable[[AuditUnavailable], object]) -> None:
        """Have `callback` told once when the lane stops on a fault: on the event loop, where there is one."""
        self._on_stop.append(callback)

    def on_rotate(self, callback: Callable[[], object]) -> None:
        """Have `callback` called after each segment that is begun: on the event loop, where there is one."""
        self._on_rotate.append(callback)

    def on_checkpoint(self, callback: Callable[[str, bool], object]) -> None:
        """Have `callback` told of each signed head whose entries are durable, and whether it ends what may not wait.

        In the writer's thread: it must return at once.
        """
        self._on_checkpoint.append(callback)

    @property
    def last_ts(self) -> str:
        """The time of the newest entry from before this start; "" where there is none."""
        return self._journal.past.last_ts

    @property
    def last_policy(self) -> str | None:
        """The digest of the policy that the entries from before this start had put in force last, where it is known."""
        return self._journal.past.policy

    def now(self) -> Moment:
        """The present moment, on the clock of this lane's entries."""
        return self._journal.now()

    def record(self, kind: str, fields: Fields, at: Moment | None = None) -> int:
        """Queue an entry that nothing waits for and return its number. It is written within a tenth of a second."""
        return self._intake.put(kind, fields, None, None, at=at)

    def commit(
        self, kind: str, fields: Fields, vault: Secrets | None = None, at: Moment | None = None
    ) -> tuple[int, asyncio.Future[None]]:
        """Queue an entry, of this moment or of `at`; its number, and a future that resolves when it is durable.

        Each `vault` item NAME becomes a commitment `NAME$c` in `fields["in"]`. The future fails with `AuditUnavailable`
        when the lane stops, and with `CanonicalError` when the fields have no canonical form.
        """
        self._loop = loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        return self._intake.put(kind, fields, vault, future, at=at), future

    def write_now(self, kind: str, fields: Fields, at: Moment | None = None) -> int:
        """Write an entry and return its number once it is durable. Blocks."""
        waiter: Future[None] = Future()
        seq = self._intake.put(kind, fields, None, waiter, at=at)
        waiter.result()
        return seq

    def rotate(self, reason: str, waiter: Waiter | None = None) -> int:
        """Begin a segment with a key of its own behind what was asked for before; the number of its first entry.

        `reason` is policy or operator. A `waiter` resolves once that entry is durable, or fails as with `commit`.
        """
        self._rotating = True
        return self._intake.put_rotation(reason, waiter)

    @property
    def writes(self) -> tuple[str, str]:
        """The segment file that is written, and the id of the key that signs it."""
        return self._journal.segment.path.name, self._journal.keys.current.kid

    def close(self, reason: str) -> None:
        """End the lane: what is queued, then `close`, then a checkpoint; as much of it as a stopped lane still can."""
        if self._closed:
            return
        self._closed = True
        with suppress(AuditUnavailable):
            self._intake.put("close", entry.close(reason), None, None, last=True)
            self._intake.wake()
        self._writer.join(CLOSE_SECONDS)
        if self._writer.is_alive():
            # It may still write, and another file could get the number of a file that is closed under it.
            return
        if self._has_last_words:
            with suppress(OSError, AuditUnavailable):
                self._say(entry.close(reason))
        self._keeper.stop()
        self._journal.segment.close()
        os.close(self._lock)

    def _run(self) -> None:
        group: list[Draft] = []
        try:
            while not (group and group[-1].kind == "close"):
                if not self._intake.urgent:
                    self._intake.rest(self._until_checkpoint())
                group = self._intake.drain()
                self._raise_keeper_fault()
                if group:
                    self._write(group)
                self._checkpoint_if_due(group)
                self._begin_segment_if_due()
        except BaseException as fault:  # noqa: BLE001
            self._stop(fault, group)

    def _begin_segment_if_due(self) -> None:
        """Queue the entries between two segments: their places in the chain are given out like any other."""
        reason = self._why_rotate()
        if reason is not None and not self._rotating:
            with suppress(AuditUnavailable):
                self._rotating = True
                self._intake.put_rotation(reason)

    def _why_rotate(self) -> str | None:
        if self._journal.segment.size >= SEGMENT_BYTES:
            return "size"
        # A key that has signed nothing but that there was nothing to sign is as good as a new one.
        return "time" if self._used and self._journal.age_seconds >= SEGMENT_SECONDS else None

    def _write(self, group: list[Draft]) -> None:
        first = group[0]
        if first.kind == KEY_ROTATE:
            first.fields = self._journal.certify(first.fields["reason"])
        elif first.kind == SEGMENT_OPEN:
            self._journal.rotate()
            first.fields = self._journal.beginning or {}
            self._rotating = self._used = False
        secrets = self._journal.append(group)
        if first.kind == SEGMENT_OPEN:
            self._journal.keys.settle()
            self._tell(self._on_rotate)
        self._used = self._used or any(draft.kind not in _NO_USE for draft in group)
        _settle([draft for draft in group if draft.waiter is not None], None)
        self._keeper.take_secrets(secrets)
        if self._meter is not None:
            self._meter.commit(self._journal.segment.commit_seconds)
            for draft in group:
                self._meter.entry("fault" if draft.refused else draft.kind)

    def _checkpoint(self) -> str:
        self._signed_size, self._signed_at = self._journal.size, time.monotonic()
        return self._journal.checkpoint()

    def _until_checkpoint(self) -> float:
        pause = CHECKPOINT_SECONDS if self._journal.size > self._signed_size else IDLE_SECONDS
        return self._signed_at + pause - time.monotonic()

    def _checkpoint_if_due(self, group: list[Draft]) -> None:
        unsigned, due = self._journal.size - self._signed_size, self._until_checkpoint() <= 0
        kinds = {draft.kind for draft in group}
        if kinds & _SIGNED_AT_ONCE or unsigned >= CHECKPOINT_ENTRIES or (unsigned and due):
            note = self._checkpoint()
            self._keeper.take_checkpoint(note)
            for callback in self._on_checkpoint:
                callback(note, bool(kinds & _SIGNED_AT_ONCE - {HEARTBEAT}))
        elif due:
            self._signed_at = time.monotonic()
            with suppress(AuditUnavailable):
                self._intake.put(HEARTBEAT, entry.heartbeat(), None, None)
                self._intake.wake()

    def _keeper_failed(self, where: str, fault: BaseException) -> None:
        if where == "checkpoint":
            self._keeper_fault = fault
            self._intake.wake()
            return
        with suppress(AuditUnavailable):
            self.record("fault", entry.fault(where, type(fault).__name__, Code.FAULT, None))

    def _raise_keeper_fault(self) -> None:
        if self._keeper_fault is not None:
            raise self._keeper_fault
        if self._keeper.stalled:
            raise AuditUnavailable(f"{self._journal.segment.path}: the disk does not answer; see to it and restart")

    def _stop(self, fault: BaseException, group: list[Draft]) -> None:
        """Stop for good. Nothing is tried again: after a failed fsync nobody knows what the disk holds."""
        stopped = fault if isinstance(fault, AuditUnavailable) else AuditUnavailable(_describe(self._journal, fault))
        waiting = group + self._intake.shut(stopped)
        _settle([draft for draft in waiting if draft.waiter is not None], stopped)
        if isinstance(fault, OSError) and fault.errno in _FULL:
            with suppress(OSError, AuditUnavailable):
                self._make_room(fault)
        self._tell([partial(callback, stopped) for callback in self._on_stop])

    def _make_room(self, fault: OSError) -> None:
        """Free the ballast, drop what was half written (nobody was told that it is there), and say why it stops."""
        ballast.free(self._home.paths.ballast)
        self._journal.segment.cut(self._journal.segment.size)
        self._say(entry.fault("lane", type(fault).__name__, Code.AUDIT_UNAVAILABLE, None))
        self._has_last_words = True

    def _say(self, body: entry.Body) -> None:
        if self._journal.ended and self._journal.beginning is None:
            self._journal.rotate()
        beginning = self._journal.beginning
        self._journal.append(drafts([body] if beginning is None else [beginning, body], self._journal.size))
        # Through the keeper's queue: older heads may still wait in it, and the notes stand in the order of their sizes.
        self._keeper.take_checkpoint(self._checkpoint())

    def _tell(self, callbacks: Sequence[Callable[[], object]]) -> None:
        for callback in callbacks:
            if self._loop is None:
                callback()
            else:
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(callback)


def _open_vault(path: Path) -> Vault:
    try:
        return Vault.open(path)
    except sqlite3.Error as fault:
        text = f"{path}: {fault}; restore it from a backup, or move it away: the log stands without it"
        raise StartRefused(StartCode.HOME_UNWRITABLE, text) from fault


def _describe(journal: Journal, fault: BaseException) -> str:
    what = fault.strerror if isinstance(fault, OSError) and fault.strerror else f"{type(fault).__name__}: {fault}"
    return f"{journal.segment.path}: {what}; nothing more is written until a restart finds the log whole"


def _settle(waiting: list[Draft], error: AuditUnavailable | None) -> None:
    """Tell everyone who waits, with one wake-up of the event loop for the whole group."""
    at_once = [draft for draft in waiting if isinstance(draft.waiter, Future)]
    _resolve(at_once, error)
    if len(at_once) < len(waiting):
        on_loop = [draft for draft in waiting if draft not in at_once] if at_once else waiting
        # A loop that was closed meanwhile has nobody left who waits.
        with suppress(RuntimeError):
            on_loop[0].waiter.get_loop().call_soon_threadsafe(_resolve, on_loop, error)


def _resolve(waiting: list[Draft], error: AuditUnavailable | None) -> None:
    for draft in waiting:
        refused = draft.refused or error
        if draft.waiter.done():
            continue
        if refused is None:
            draft.waiter.set_result(None)
        else:
            draft.waiter.set_exception(refused)
