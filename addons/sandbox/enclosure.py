"""What bubblewrap puts around a command: its own processes, users and view of the file system, and no privileges.

The file system is the caller's, so that the command works as outside, but for what leads out of the network namespace
(sockets of daemons, devices, settings of the kernel) and what is Governor's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from addons.client_trust.laid import Mount
from addons.sandbox.run_later import BY_THE_HOST

# Parts of /run that programs are looked up in; the rest of it is sockets.
_PROGRAMS = ("/run/current-system", "/run/opengl-driver", "/run/booted-system")
# What root reads of the machine's memory there, root reads by name alone.
_OF_THE_MACHINE = ("/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup")
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
        # Their owner is root, and so is a command of root's, with or without capabilities.
        for folder in filter(_is_real_folder, BY_THE_HOST):
            yield from ("--ro-bind", folder, folder)
    yield from ("--ro-bind", "/sys", "/sys", "--dev", "/dev", "--proc", "/proc")
    # Whoever is root outside may write there, with or without capabilities.
    yield from ("--ro-bind", "/proc/sys", "/proc/sys")
    for path in filter(os.path.exists, _OF_THE_MACHINE if user == 0 else ()):
        yield from ("--ro-bind", "/dev/null", path)
    yield from ("--tmpfs", "/run")
    for path in filter(os.path.exists, _PROGRAMS):
        yield from ("--ro-bind", path, path)
    runtime = Path("/run/user", str(user))
    if runtime.exists():
        yield from ("--perms", "0700", "--dir", str(runtime))
    for hidden in view.hidden:
        yield from ("--tmpfs", str(hidden), "--remount-ro", str(hidden))
    for kept in view.read_only:
        yield from ("--ro-bind", str(kept), str(kept))
    for mount in view.mounts:
        bind = "--bind" if mount.writable else "--ro-bind"
        yield from (bind, str(mount.source), os.path.realpath(mount.target))


def _is_real_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
