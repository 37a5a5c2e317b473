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
from addons.sandbox.run_later import BY_THE_HOST, WORKED_IN

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
    """The command line of bubblewrap. It reads the filter of system calls from `SECCOMP_DESCRIPTOR`, and writes to
    `INFO_DESCRIPTOR`: a line when it has begun, and what the command ended with if it was executed.

    The network is that of whoever executes it. A command of root's can make no user namespaces: in one of its own it
    could mount a /proc that it may write.
    """
    return [
        bwrap, "--die-with-parent", "--unshare-user", "--uid", str(user), "--gid", str(group), "--unshare-pid",
        "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL",
        *(("--disable-userns",) if user == 0 else ()),
        "--seccomp", str(SECCOMP_DESCRIPTOR), "--json-status-fd", str(INFO_DESCRIPTOR),
        *_file_system(view, user),
        "--chdir", str(view.working_folder), "--", *command,
    ]  # fmt: skip


def _file_system(view: View, user: int) -> Iterator[str]:
    yield from _roots_view(view.working_folder) if user == 0 else ("--bind", "/", "/")
    for folder in _held_in_place(view, user):
        yield from ("--bind", folder, folder)
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
        yield from ("--tmpfs", str(hidden))
    for kept in view.read_only:
        if user != 0 or str(kept) not in BY_THE_HOST:
            yield from ("--ro-bind", str(kept), str(kept))
    for hidden in view.hidden:
        yield from ("--remount-ro", str(hidden))
    for mount in view.mounts:
        bind = "--bind" if mount.writable else "--ro-bind"
        yield from (bind, str(mount.source), os.path.realpath(mount.target))


def _roots_view(working_folder: Path) -> Iterator[str]:
    """The file system for a command of root's: what the host runs is owned by root, and so by the command, with or
    without capabilities. / cannot be written either, where /bin is a link that another could take the place of.
    """
    yield from ("--ro-bind", "/", "/")
    for name in sorted(os.listdir("/")):
        folder = f"/{name}"
        if _is_real_folder(folder) and folder not in BY_THE_HOST:
            yield from ("--bind", folder, folder)
    yield from ("--bind-try", "/var/tmp", "/var/tmp")  # noqa: S108
    if any(Path(folder) in working_folder.parents for folder in WORKED_IN):
        yield from ("--bind", str(working_folder), str(working_folder))


def _held_in_place(view: View, user: int) -> list[str]:
    """The folders above what is hidden or read-only, the outermost first. One that is mounted cannot be renamed to make
    room for another of the same name.
    """
    above = {folder for path in (*view.hidden, *view.read_only) for folder in path.parents[:-1]}
    of_the_host = [Path(folder) for folder in BY_THE_HOST] if user == 0 else []
    return [str(folder) for folder in sorted(above)
            if os.access(folder.parent, os.W_OK) and folder.parent != Path("/")
            and not any(each in (folder, *folder.parents) for each in of_the_host)]


def _is_real_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
