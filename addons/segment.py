"""One segment file of a lane: appended to by one writer, and watched so that it stays the file at its path."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from typing import TYPE_CHECKING, Self

from addons import durable
from addons.errors import AuditUnavailable

if TYPE_CHECKING:
    from pathlib import Path


_NAME = re.compile(r"[0-9]{6}\.jsonl")


def segment_name(number: int) -> str:
    """The file of a lane's segment; they count from 0."""
    return f"{number:06d}.jsonl"


def segment_names(folder: Path) -> list[str]:
    """The segments of a lane, in order."""
    return sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))


class Segment:
    """An open segment. `size` is its durable length in bytes, `commit_seconds` what the last `append` took."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        status = os.fstat(descriptor)
        self.size = status.st_size
        self._identity = (status.st_dev, status.st_ino, 1)
        self._text = os.fspath(path)
        self.commit_seconds = 0.0

    @classmethod
    def open(cls, path: Path) -> Self:
        """The segment at `path`, made when absent."""
        flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        segment = cls(path, os.open(path, flags, durable.PRIVATE_FILE))
        try:
            durable.sync_folder(path.parent)
        except BaseException:
            segment.close()
            raise
        return segment

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new segment at `path`; `FileExistsError` where one with entries is there."""
        segment = cls.open(path)
        if segment.size:
            segment.close()
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
        return segment

    @property
    def number(self) -> int:
        """Which of its lane's segments it is, from 0 on."""
        return int(self.path.stem)

    def append(self, content: bytes) -> None:
        """Put `content` at the end; durable, and in the file at the path, when this returns."""
        started = time.perf_counter()
        durable.write_all(self._descriptor, content)
        os.fdatasync(self._descriptor)
        self.commit_seconds = time.perf_counter() - started
        self._check(self.size + len(content))
        self.size += len(content)

    def _check(self, size: int) -> None:
        # What was written into an unlinked or replaced file is lost, and no error would say so.
        status = os.stat(self._text, follow_symlinks=False)
        if (status.st_dev, status.st_ino, status.st_nlink) != self._identity or not stat.S_ISREG(status.st_mode):
            raise AuditUnavailable(f"{self.path} is no longer the file that is written; restore it and restart")
        if status.st_size != size:
            raise AuditUnavailable(f"{self.path} was changed by someone else; restore it and restart")

    def cut(self, size: int) -> None:
        """Drop everything after the first `size` bytes."""
        os.ftruncate(self._descriptor, size)
        os.fsync(self._descriptor)
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        os.close(self._descriptor)
