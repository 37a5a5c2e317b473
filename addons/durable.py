"""Files that survive a crash: written whole under another name, synced, then renamed into place."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from addons import service_user

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a new or renamed file is not, until its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """A private folder at `folder`, there after a crash too."""
    with suppress(FileExistsError):
        os.mkdir(folder, PRIVATE_FOLDER)
        give(folder, folder.parent)
        sync_folder(folder.parent)


def replace(path: Path, content: bytes) -> None:
    """Put `content` at `path`, private and durable; a reader or a crash sees the old file or the new, never a part."""
    write_whole(path, content, PRIVATE_FILE, synced=True)
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes, mode: int, *, synced: bool) -> None:
    """Put `content` at `path`, where a reader sees the old file or the new. Without `synced` a crash may lose both."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            give(descriptor, path.parent)
            if synced:
                os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def give(made: int | Path, folder: Path) -> None:
    """What root makes in the folder of a user of Governor's own is that user's, who could not read it otherwise."""
    if os.geteuid() == 0 and service_user.is_one((owner := os.stat(folder)).st_uid):
        os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=isinstance(made, int))


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte: a short write is continued, as it is torn until it is complete."""
    written = os.write(descriptor, content)
    while written < len(content):
        written += os.write(descriptor, content[written:])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` against other processes and other threads, waiting for it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def exposure(status: os.stat_result) -> str | None:
    """What is wrong with the owner or mode of a private file or folder; None when nothing is.

    What belongs to a user of Governor's own is root's as well.
    """
    if status.st_uid != os.geteuid() and not (os.geteuid() == 0 and service_user.is_one(status.st_uid)):
        return f"belongs to uid {status.st_uid}, Governor runs as uid {os.geteuid()}"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"is open to others (mode {stat.S_IMODE(status.st_mode):04o})"
    return None
