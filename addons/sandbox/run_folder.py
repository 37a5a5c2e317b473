"""The folder of one run with what its command may read: gone at the end, and swept by the next run after a kill."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from addons.errors import GovernorError

_SYSTEM, _OF_USERS = Path("/run"), Path("/run/user")
_NAME = "governor-runs"
# Whoever may read a folder can hold its lock, for which all runs wait.
_PASSED = 0o711
_WRITTEN_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class NoRunFolder(GovernorError):
    """There is no place for the folders of runs."""


@contextmanager
def run_folder() -> Iterator[Path]:
    """A new folder that everybody may read, in one that no command sees but for its own. Raises `NoRunFolder`.

    The command of another run is the same user, and would put links in the place of what is written here.
    """
    with ExitStack() as lived:
        folder = _made(_parent(), lived)
        try:
            folder.chmod(0o755)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            # Another run's folder may be there.
            with suppress(OSError):
                folder.parent.rmdir()


def _parent() -> Path:
    """Where this user's runs have their folders."""
    user = os.geteuid()
    if user == 0 and os.access(_SYSTEM, os.W_OK):
        return _SYSTEM / _NAME
    own = _OF_USERS / str(user)
    if own.is_dir() and own.stat().st_uid == user:
        return own / _NAME
    return Path(tempfile.gettempdir()).resolve() / f"{_NAME}-{user}"


def _made(parent: Path, lived: ExitStack) -> Path:
    while True:
        try:
            parent.mkdir(mode=_PASSED, exist_ok=True)
            status = parent.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _WRITTEN_BY_OTHERS:
                raise NoRunFolder(f"{parent} is somebody else's, or others can write it; remove it")
            # Whatever the umask: Governor may be another user.
            parent.chmod(_PASSED)
            with swept(parent):
                folder = Path(tempfile.mkdtemp(dir=parent))
                lived.enter_context(living(folder))
                return folder
        except FileNotFoundError:
            # The last run has just ended, and taken it away.
            continue
        except OSError as problem:
            raise NoRunFolder(f"{parent} cannot be made: {problem.strerror}") from problem


@contextmanager
def swept(parent: Path) -> Iterator[None]:
    """Without the folders of this user that nobody needs any more, and without another who sweeps: one that is made
    meanwhile is safe as soon as it is `living`.
    """
    with locked(parent):
        for folder in parent.iterdir():
            # One that somebody removes at the same time is gone already.
            with suppress(OSError):
                if folder.lstat().st_uid == os.geteuid():
                    _remove_unless_living(folder)
        yield


@contextmanager
def living(folder: Path) -> Iterator[None]:
    """Say that whoever made the folder needs it still, for as long as this process lives."""
    with locked(folder):
        yield


def _remove_unless_living(folder: Path) -> None:
    # The lock is the folder's own: one that was half removed when its process was killed is removed, too.
    with locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """With the lock of a folder, which goes with this process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
