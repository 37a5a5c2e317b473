"""The sockets of the host's programs, and views of its kernel, covered in the command's view of the file system.

A network namespace holds no socket that has a path: whoever may write there may connect, and a daemon behind it may do
anything. Bubblewrap would make a file where a socket has just gone; a mount by hand fails, and that is that.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from glob import glob
from pathlib import Path

_MS_RDONLY, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x1, 0x1000, 0x4000, 0x40000
# Where daemons that begin later put theirs.
_FOLDERS = ("/tmp/.X11-unix", "/tmp/.ICE-unix", "/tmp/tmux-*", "/tmp/ssh-*", "/tmp/dbus-*")  # noqa: S108
# What shows the host's processes, settings and devices, in whatever folder it is mounted: of a chroot, or a container.
_OF_THE_KERNEL = frozenset({
    "proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs", "configfs", "securityfs",
    "selinuxfs", "binfmt_misc", "bpf", "nsfs", "pstore", "efivarfs",
})
_ESCAPED = re.compile(r"\\([0-7]{3})")
# What bubblewrap puts something of its own over.
_ELSEWHERE = ("/run/", "/dev/", "/proc/", "/sys/")


def cover() -> None:
    """Take a mount namespace of one's own and cover in it every socket at which somebody listens now, and the folders
    where some will later. `OSError`.
    """
    os.unshare(os.CLONE_NEWNS)
    _mount(None, "/", _MS_REC | _MS_PRIVATE)
    # What has gone meanwhile, or lies where the command cannot go either, needs no cover.
    for folder in (path for pattern in _FOLDERS for path in glob(pattern)):
        with suppress(FileNotFoundError, PermissionError, NotADirectoryError):
            _mount("tmpfs", folder, _MS_RDONLY, kind="tmpfs")
    for path in _views_of_the_kernel():
        with suppress(FileNotFoundError, PermissionError):
            if os.path.isdir(path):
                _mount("tmpfs", path, _MS_RDONLY, kind="tmpfs")
            else:
                _mount("/dev/null", path, _MS_BIND)
    for path in sockets():
        with suppress(FileNotFoundError, PermissionError):
            _mount("/dev/null", path, _MS_BIND)


def _views_of_the_kernel() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        ours, _, theirs = line.partition(" - ")
        path = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), ours.split()[4])
        if theirs.split()[0] in _OF_THE_KERNEL and not f"{path}/".startswith(_ELSEWHERE):
            yield path


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
            # It is the network's own; ns/net tells of the network, too, but not of another user's.
            network = os.stat(table).st_ino
            if network in seen:
                continue
            seen.add(network)
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


def _mount(source: str | None, target: str, flags: int, kind: str | None = None) -> None:
    system = ctypes.CDLL(None, use_errno=True)
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    if system.mount(*texts, flags, None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)
