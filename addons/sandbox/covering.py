"""The sockets of the host's programs, covered in the command's view of the file system.

A network namespace holds no socket that has a path: whoever may write there may connect, and a daemon behind it may do
anything. Bubblewrap would make a file where a socket has just gone; a mount by hand fails, and that is that.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
# What bubblewrap puts something of its own over.
_ELSEWHERE = ("/run/", "/dev/", "/proc/", "/sys/")


def cover() -> None:
    """Take a mount namespace of one's own and cover every socket in it at which somebody listens now. `OSError`."""
    os.unshare(os.CLONE_NEWNS)
    _mount(None, "/", _MS_REC | _MS_PRIVATE)
    for path in sockets():
        try:
            _mount("/dev/null", path, _MS_BIND)
        except (FileNotFoundError, PermissionError):
            # It has gone meanwhile, or lies where the command cannot go either.
            continue


def sockets() -> Iterator[str]:
    """The paths of the sockets that are bound in any network namespace, as far as this user sees them."""
    for path in dict.fromkeys(_bound(Path("/proc").glob("[0-9]*/net/unix"))):
        if not path.startswith(_ELSEWHERE) and _is_socket(path):
            yield path


def _bound(tables: Iterable[Path]) -> Iterator[str]:
    """The paths in the tables of all network namespaces, each read once."""
    seen: set[int] = set()
    for table in tables:
        try:
            namespace = os.stat(table.parents[1] / "ns" / "net").st_ino
            if namespace in seen:
                continue
            seen.add(namespace)
            lines = table.read_text(errors="surrogateescape").splitlines()
        except OSError:
            # It has ended, or belongs to somebody else.
            continue
        for line in lines:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[7].startswith("/"):
                yield fields[7]


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _mount(source: str | None, target: str, flags: int) -> None:
    system = ctypes.CDLL(None, use_errno=True)
    if system.mount(None if source is None else source.encode(), os.fsencode(target), None, flags, None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)
