"""Ballast: disk space held back, so that a full disk still leaves room for the log's last words."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from addons import durable

if TYPE_CHECKING:
    from pathlib import Path

BALLAST_BYTES = 64 * 1024 * 1024


def keep(path: Path) -> None:
    """Have the ballast at `path`; `OSError` when the disk has no room for it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, durable.PRIVATE_FILE)
    try:
        if os.fstat(descriptor).st_size != BALLAST_BYTES:
            os.ftruncate(descriptor, 0)
            os.posix_fallocate(descriptor, 0, BALLAST_BYTES)
    finally:
        os.close(descriptor)


def free(path: Path) -> None:
    """Give the ballast's space back to the file system, at once and for good."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(descriptor, 0)
        # A journaling file system hands freed blocks out only after the truncation is committed.
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.unlink(path)
