"""Mounts: making them, widening them, and going past them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable
from functools import partial

from addons.attempts import standing, system_call
from addons.attempts.attempt import Family, Seen, closed, not_here, opened, refused, words
from addons.attempts.surroundings import Surroundings, lines

FAMILY = Family("mounts")
_NOT_PERMITTED = "EPERM"
_BIND, _REMOUNT, _READ_ONLY = 4096, 32, 1
_EXPIRE = 4
_OPEN_TREE_CLONE = 1


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="governor-attempt-")


def _mount(_: Surroundings, kind: str, source: str = "none", flags: int = 0) -> Seen:
    if standing.rules_the_host(standing.SYS_ADMIN):
        return opened("this process may mount on the machine itself; not tried")
    with _folder() as folder:
        try:
            system_call.call("mount", source.encode() + b"\0", folder.encode() + b"\0", kind.encode() + b"\0", flags, 0)
        except OSError as fault:
            return refused(fault)
        with contextlib.suppress(OSError):
            system_call.call("umount2", folder.encode() + b"\0", 2)
    return opened(f"{kind or source} was mounted, and taken away again")


for kind, what in (
    ("proc", "processes"),
    ("sysfs", "the kernel's settings"),
    ("tmpfs", "memory"),
    ("cgroup2", "cgroups"),
    ("devpts", "terminals"),
    ("mqueue", "message queues"),
    ("bpf", "BPF programs"),
    ("debugfs", "debugging"),
    ("overlay", "layers"),
):
    FAMILY.add(f"mount-{kind}", f"mount a file system of {what} ({kind})", _NOT_PERMITTED, partial(_mount, kind=kind))
FAMILY.add(
    "mount-bind", "show a folder at another place (mount --bind)", _NOT_PERMITTED,
    partial(_mount, kind="", source="/usr", flags=_BIND))


@FAMILY.attempt("remount", "make a read-only mount writable (mount -o remount,rw)", _NOT_PERMITTED)
def remount(_: Surroundings) -> Seen:
    if standing.rules_the_host(standing.SYS_ADMIN):
        return opened("this process may remount on the machine itself; not tried")
    for place, options in mounted():
        if "ro" not in options.split(","):
            continue
        try:
            system_call.call("mount", b"none\0", place.encode() + b"\0", b"none\0", _BIND | _REMOUNT, 0)
        except OSError as fault:
            return refused(fault)
        with contextlib.suppress(OSError):
            system_call.call("mount", b"none\0", place.encode() + b"\0", b"none\0", _BIND | _REMOUNT | _READ_ONLY, 0)
        return opened(f"{place} was made writable, and read-only again")
    return not_here("nothing is mounted read-only")


@FAMILY.attempt("unmount", "take mounts away that hide what lies under them", _NOT_PERMITTED)
def unmount(_: Surroundings) -> Seen:
    if standing.rules_the_host(standing.SYS_ADMIN):
        return opened("this process may unmount on the machine itself; not tried")
    said = "nothing is mounted"
    for place, _options in mounted():
        try:
            # Asked to expire: the first time the kernel takes nothing away, and says whether it would.
            system_call.call("umount2", place.encode() + b"\0", _EXPIRE)
        except OSError as fault:
            if fault.errno in (errno.EAGAIN, errno.EBUSY):
                return opened(f"it may take {place} away")
            said = words(fault)
        else:
            said = "it did nothing"
    return closed(said)


def mounted() -> list[tuple[str, str]]:
    """Place and options of each mount, the latest first."""
    return [(fields[4], fields[5]) for fields in reversed(lines("/proc/self/mountinfo")) if len(fields) > 5]


def _tried(_: Surroundings, capability: int, act: Callable[[], object], what: str) -> Seen:
    if standing.rules_the_host(capability):
        return opened(f"this process may {what} on the machine itself; not tried")
    try:
        act()
    except OSError as fault:
        return refused(fault)
    return opened(f"it can {what}")


def _change_root() -> None:
    os.chroot("/")


def _pivot() -> None:
    with _folder() as folder:
        system_call.call("pivot_root", folder.encode() + b"\0", folder.encode() + b"\0")


def _detached_tree() -> None:
    os.close(system_call.call("open_tree", -100, b"/\0", _OPEN_TREE_CLONE))


def _new_file_system() -> None:
    os.close(system_call.call("fsopen", b"tmpfs\0", 0))


def _private_mounts() -> None:
    os.unshare(os.CLONE_NEWNS)


for name, way, capability, act, what in (
    ("chroot", "change the root folder (and leave it upwards)", standing.SYS_CHROOT, _change_root,
     "change its root folder"),
    ("pivot-root", "put another root in the place of this one", standing.SYS_ADMIN, _pivot, "change the root"),
    ("open-tree", "copy a tree of mounts (open_tree)", standing.SYS_ADMIN, _detached_tree, "copy trees of mounts"),
    ("fsopen", "make a file system by the newer calls (fsopen)", standing.SYS_ADMIN, _new_file_system,
     "make file systems"),
    ("unshare-mounts", "take a copy of all mounts (unshare -m)", standing.SYS_ADMIN, _private_mounts,
     "take a copy of all mounts"),
):
    FAMILY.add(name, way, _NOT_PERMITTED, partial(_tried, capability=capability, act=act, what=what))


@FAMILY.attempt("file-handles", "open files by their handles, past every mount (open_by_handle_at)", _NOT_PERMITTED)
def file_handles(_: Surroundings) -> Seen:
    handle = (8).to_bytes(4, "little") + (1).to_bytes(4, "little") + (2).to_bytes(8, "little")
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(system_call.call("open_by_handle_at", root, handle, os.O_RDONLY))
    except OSError as fault:
        # Asked only after the capability was looked for: a handle that leads nowhere.
        return opened("handles are taken from it") if fault.errno in (errno.ESTALE, errno.EINVAL) else refused(fault)
    finally:
        os.close(root)
    return opened("a handle of its own making was opened")


def _node(_: Surroundings, kind: int, device: int, what: str) -> Seen:
    with _folder() as folder:
        path = os.path.join(folder, "node")
        try:
            os.mknod(path, kind | 0o600, device)
        except OSError as fault:
            return refused(fault)
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as fault:
            return closed(f"the node was made, and does not open: {words(fault)}")
        finally:
            os.unlink(path)
    return opened(f"{what} was made and opened")


FAMILY.add(
    "mknod-disk", "make a node for a disk (mknod)", _NOT_PERMITTED,
    partial(_node, kind=stat.S_IFBLK, device=os.makedev(7, 0), what="a node for a disk"))
FAMILY.add(
    "mknod-memory", "make a node for the memory of the machine (mknod)", _NOT_PERMITTED,
    partial(_node, kind=stat.S_IFCHR, device=os.makedev(1, 1), what="a node for memory"))


@FAMILY.attempt("escape-upwards", "go up from the working folder", "it ends at the root")
def upwards(_: Surroundings) -> Seen:
    # From the root itself nothing leads up; a working folder may have been left outside of it.
    if os.path.samestat(os.stat("../" * 40), os.stat("/")):
        return closed("above all is the root")
    return opened("the working folder lies outside of the root folder")


@FAMILY.attempt("host-root", "find the machine's own root in a usual place", "not there")
def host_root(_: Surroundings) -> Seen:
    for place in ("/host", "/rootfs", "/hostfs", "/host_root", "/mnt/host"):
        if os.path.isdir(f"{place}/etc") and os.path.isdir(f"{place}/proc"):
            return opened(f"a root lies at {place}")
    return closed("none of the usual places has one")
