"""Where an export goes: standard output, or a file. Whole lines are added, and nothing counts before it is there."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from addons import durable
from addons.audit_log import AuditLogError

_LOOK_AGAIN_MS = 5
_PIECE_BYTES = 2**16


class Output(Protocol):
    """Takes the lines of an export."""

    def write(self, lines: bytes) -> None:
        """Add whole lines; BrokenPipeError where nobody reads any more."""

    def settle(self) -> None:
        """Wait until what was written is out of this process' hands: on disk, or read."""


class Stream:
    """A descriptor that somebody else opened: a pipe, a terminal, a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mode = os.fstat(descriptor).st_mode
        os.set_blocking(descriptor, True)

    def write(self, lines: bytes) -> None:
        durable.write_all(self._descriptor, lines)

    def settle(self) -> None:
        if stat.S_ISREG(self._mode):
            os.fsync(self._descriptor)
        elif stat.S_ISFIFO(self._mode):
            self._until_read()

    def _until_read(self) -> None:
        # What lies in a pipe is lost with its reader, so that it does not count yet.
        gone = select.poll()
        gone.register(self._descriptor, 0)
        while _unread_bytes(self._descriptor):
            if gone.poll(_LOOK_AGAIN_MS):
                raise BrokenPipeError


class AppendedFile:
    """A file of its own, added to by one export at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[AppendedFile]:
        """The file at `path`, made when absent; a line that a crash left unfinished at its end is cut off."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, durable.PRIVATE_FILE)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AuditLogError(f"{path}: not a regular file; leave --output away to write to a pipe")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AuditLogError(f"{path}: another export writes this file") from None
            if not _cut_unfinished(descriptor):
                raise AuditLogError(f"{path}: it ends in something else than an export does; name another file")
            durable.sync_folder(path.parent)
            yield cls(descriptor)
        finally:
            os.close(descriptor)

    def write(self, lines: bytes) -> None:
        durable.write_all(self._descriptor, lines)

    def settle(self) -> None:
        os.fsync(self._descriptor)


def _unread_bytes(descriptor: int) -> int:
    answer = fcntl.ioctl(descriptor, termios.FIONREAD, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def _cut_unfinished(descriptor: int) -> bool:
    """Cut off the line that a crash left unfinished; nothing, and False, where it is none of an export."""
    end = size = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - _PIECE_BYTES)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end < size:
        if os.pread(descriptor, 1, end) != b"{":
            return False
        os.ftruncate(descriptor, end)
    return True
