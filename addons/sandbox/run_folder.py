"""The folder of one run with what its command may read: gone at the end, and swept by the next run after a kill."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "governor-run-"
_LIVING = "living"


@contextmanager
def run_folder() -> Iterator[Path]:
    """A new folder that everybody may read, among the temporary ones."""
    parent = Path(tempfile.gettempdir()).resolve()
    sweep(parent, _PREFIX)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        folder.chmod(0o755)
        with living(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def living(folder: Path) -> Iterator[None]:
    """Say that whoever made the folder needs it still, for as long as this process lives."""
    descriptor = os.open(folder / _LIVING, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep(parent: Path, prefix: str = "") -> None:
    """Remove the folders of this user that nobody needs any more."""
    for folder in parent.glob(f"{prefix}*"):
        # One that somebody else removes at the same time, or has just made, is left alone.
        with suppress(OSError):
            if folder.lstat().st_uid == os.geteuid():
                _remove_unless_living(folder)


def _remove_unless_living(folder: Path) -> None:
    descriptor = os.open(folder / _LIVING, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
