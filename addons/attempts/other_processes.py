"""Processes outside the sandbox: seen, read, traced, robbed of descriptors, ended."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from addons.attempts import standing, system_call
from addons.attempts.attempt import Family, Seen, closed, opened, words
from addons.attempts.surroundings import Surroundings, lines

FAMILY = Family("processes")
_NONE_SEEN = "no process of outside is seen, or EPERM"
_SEIZE = 0x4206
_MOST = 20

type Touch = Callable[[int], None]


def outsiders() -> list[int]:
    """Processes that are not of this sandbox: of other namespaces, or all but our own line in the machine's own."""
    pids = [
        pid for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) if not _of_the_kernel(pid)
    ]
    if standing.in_first_process_namespace():
        return [pid for pid in pids if pid not in _own_line()][:_MOST]
    return [pid for pid in pids if _elsewhere(pid)][:_MOST]


def _of_the_kernel(pid: int) -> bool:
    """Threads of the kernel have no memory of their own, and so nothing to take."""
    return "VmSize" not in standing.status(pid)


def _elsewhere(pid: int) -> bool:
    return any(standing.namespace(pid, kind) not in (None, standing.namespace("self", kind))
               for kind in ("mnt", "net", "user"))


def _own_line() -> set[int]:
    """This process and those that started it, but for the first."""
    line = set()
    pid = os.getpid()
    while pid > 1 and pid not in line:
        line.add(pid)
        pid = int(standing.status(pid).get("PPid", "0"))
    return line


def _each(_: Surroundings, touch: Touch, what: str) -> Seen:
    """Do it to each of them, until it works with one."""
    pids = outsiders()
    if not pids:
        return closed("no process of outside is seen")
    fault: OSError | None = None
    for pid in pids:
        try:
            touch(pid)
        except OSError as refusal:
            fault = refusal
        else:
            return opened(f"{what} process {pid} ({_name(pid)})")
    return closed(f"{len(pids)} processes of outside are seen; {words(fault)}") if fault else closed("nothing was seen")


def _name(pid: int) -> str:
    return standing.status(pid).get("Name", "?")


def _environ(pid: int) -> None:
    if not Path(f"/proc/{pid}/environ").read_bytes():
        raise PermissionError(1, "it has none")


def _memory(pid: int) -> None:
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))


def _files(pid: int) -> None:
    os.listdir(f"/proc/{pid}/fd")
    os.stat(f"/proc/{pid}/fd/0")


def _root(pid: int) -> None:
    theirs, own = os.stat(f"/proc/{pid}/root/"), os.stat("/")
    if (theirs.st_dev, theirs.st_ino) == (own.st_dev, own.st_ino) and standing.namespace(
        pid, "mnt") == standing.namespace("self", "mnt"):
        raise PermissionError(1, "it is our own")


def _folder(pid: int) -> None:
    os.listdir(f"/proc/{pid}/cwd/")


def _trace(pid: int) -> None:
    # Seizing stops nothing, and ends with this process.
    system_call.call("ptrace", _SEIZE, pid, 0, 0)


def _read_memory(pid: int) -> None:
    room = ctypes.create_string_buffer(8)
    here = (ctypes.c_size_t * 2)(ctypes.addressof(room), 8)
    there = (ctypes.c_size_t * 2)(0x1000, 8)
    try:
        system_call.call("process_vm_readv", pid, ctypes.addressof(here), 1, ctypes.addressof(there), 1, 0)
    except OSError as fault:
        # EFAULT: it may, and nothing is at that address.
        if fault.errno != 14:
            raise


def _descriptor(pid: int) -> None:
    handle = os.pidfd_open(pid)
    try:
        os.close(system_call.call("pidfd_getfd", handle, 0, 0))
    finally:
        os.close(handle)


def _signal(pid: int) -> None:
    os.kill(pid, 0)


def _handle_signal(pid: int) -> None:
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, 0)
    finally:
        os.close(handle)


def _enter(pid: int, kind: str) -> None:
    handle = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.setns(handle)
    finally:
        os.close(handle)


for name, way, what, touch in (
    ("environ", "read the environment of processes outside", "read the environment of", _environ),
    ("memory", "open the memory of processes outside", "opened the memory of", _memory),
    ("open-files", "look at the open files of processes outside", "looked at the open files of", _files),
    ("root", "go to the root folder of processes outside", "went to the root folder of", _root),
    ("working-folder", "go to the working folder of processes outside", "went to the working folder of", _folder),
    ("trace", "trace processes outside (ptrace)", "traced", _trace),
    ("read-memory", "read the memory of processes outside (process_vm_readv)", "read the memory of", _read_memory),
    ("take-descriptor", "take a descriptor from processes outside (pidfd_getfd)", "took a descriptor from",
     _descriptor),
    ("kill", "send signals to processes outside", "may send signals to", _signal),
    ("pidfd-kill", "send signals to processes outside through a handle", "may send signals to", _handle_signal),
):
    FAMILY.add(f"others-{name}", way, _NONE_SEEN, partial(_each, touch=touch, what=what))
for kind, where in (
    ("net", "network"),
    ("mnt", "mount"),
    ("pid", "process"),
    ("user", "user"),
    ("uts", "host name"),
    ("ipc", "shared memory"),
):
    FAMILY.add(
        f"enter-{kind}", f"enter the {where} namespace of processes outside (setns)", _NONE_SEEN,
        partial(_each, touch=partial(_enter, kind=kind), what="entered the namespace of"))


@FAMILY.attempt(
    "first-process", "read what process 1 would tell of the machine", "it is one of the sandbox, or unreadable")
def first(_: Surroundings) -> Seen:
    name = standing.status(1).get("Name")
    if name is None:
        return closed("there is no process 1 to read")
    if not standing.in_first_process_namespace():
        return closed(f"process 1 is {name}, in a process namespace of this sandbox")
    return opened(f"process 1 is the machine's own ({name}): all processes are seen")


@FAMILY.attempt("shared-memory", "attach shared memory of processes outside", "none is seen")
def shared_memory(_: Surroundings) -> Seen:
    segments = _segments()
    if not segments:
        return closed("no shared memory of System V is seen")
    return opened(f"{len(segments)} segments are seen, the first of uid {segments[0]}")


def _segments() -> list[str]:
    """The owners of what there is."""
    return [fields[7] for fields in lines("/proc/sysvipc/shm")[1:] if len(fields) > 7]
