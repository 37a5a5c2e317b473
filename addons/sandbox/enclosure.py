"""What bubblewrap puts around a command: its own processes, users and view of the file system, and no privileges.

The file system is the caller's, so that the command works as outside, but for what leads out of the network namespace
(sockets of daemons, devices, settings of the kernel) and what is Governor's own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from addons.client_trust.laid import Mount

# Parts of /run that programs are looked up in; the rest of it is sockets.
_PROGRAMS = ("/run/current-system", "/run/opengl-driver", "/run/booted-system")
# What the host runs by itself. Its owner is root, and so is a command of root's, with or without capabilities.
_RUN_BY_THE_HOST = ("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/sbin", "/snap", "/usr",
                    "/var/lib", "/var/spool")
SECCOMP_DESCRIPTOR, INFO_DESCRIPTOR = 3, 4


@dataclass(frozen=True, slots=True)
class View:
    """The file system of a command: what `mounts` show in the place of others, `hidden` folders, which are empty, and
    `read_only` paths.
    """

    working_folder: Path
    hidden: tuple[Path, ...] = ()
    read_only: tuple[Path, ...] = ()
    mounts: tuple[Mount, ...] = ()


def arguments(bwrap: str, view: View, user: int, group: int, command: Sequence[str]) -> list[str]:
    """The command line of bubblewrap. It reads the filter of system calls from `SECCOMP_DESCRIPTOR`, and writes the
    number of its first process to `INFO_DESCRIPTOR`.

    The network is that of whoever executes it. A command of root's can make no user namespaces: in one of its own it
    could mount a /proc that it may write.
    """
    return [
        bwrap, "--die-with-parent", "--unshare-user", "--uid", str(user), "--gid", str(group), "--unshare-pid",
        "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL",
        *(("--disable-userns",) if user == 0 else ()),
        "--seccomp", str(SECCOMP_DESCRIPTOR), "--info-fd", str(INFO_DESCRIPTOR),
        *_file_system(view, user),
        "--chdir", str(view.working_folder), "--", *command,
    ]  # fmt: skip


def _file_system(view: View, user: int) -> Iterator[str]:
    yield from ("--bind", "/", "/")
    if user == 0:
        for folder in filter(_is_real_folder, _RUN_BY_THE_HOST):
            yield from ("--ro-bind", folder, folder)
    yield from ("--ro-bind", "/sys", "/sys", "--dev", "/dev", "--proc", "/proc")
    # Whoever is root outside may write there, with or without capabilities.
    yield from ("--ro-bind", "/proc/sys", "/proc/sys")
    yield from ("--tmpfs", "/run")
    for path in filter(os.path.exists, _PROGRAMS):
        yield from ("--ro-bind", path, path)
    runtime = Path("/run/user", str(user))
    if runtime.exists():
        yield from ("--perms", "0700", "--dir", str(runtime))
    for path in sockets():
        if not any(hidden in Path(path).parents for hidden in view.hidden):
            yield from ("--ro-bind", "/dev/null", path)
    for hidden in view.hidden:
        yield from ("--tmpfs", str(hidden), "--remount-ro", str(hidden))
    for kept in view.read_only:
        yield from ("--ro-bind", str(kept), str(kept))
    for mount in view.mounts:
        yield from ("--ro-bind", str(mount.source), os.path.realpath(mount.target))


def sockets() -> Iterator[str]:
    """The sockets at which somebody listens now, below other folders than /run, and which this user may reach."""
    for path in dict.fromkeys(_bound(Path("/proc").glob("[0-9]*/net/unix"))):
        if not path.startswith(("/run/", "/var/run/", "/dev/", "/proc/")) and _is_socket(path):
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
        return stat.S_ISSOCK(os.lstat(path).st_mode) and os.access(path, os.W_OK)
    except OSError:
        return False


def _is_real_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
