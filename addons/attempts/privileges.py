"""What this process may do beyond an ordinary one, and how it could become more."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from functools import partial

from addons.attempts import standing, system_call
from addons.attempts.attempt import Family, Seen, closed, not_here, opened, refused, words
from addons.attempts.surroundings import Surroundings

FAMILY = Family("privileges")
_NONE = "all zero"
_SETS = {
    "CapInh": "inheritable",
    "CapPrm": "permitted",
    "CapEff": "effective",
    "CapBnd": "bounding",
    "CapAmb": "ambient",
}
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_SETUID_FOLDERS = (
    "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/lib/dbus-1.0", "/usr/libexec", "/opt",
)


def _capabilities(_: Surroundings, name: str) -> Seen:
    told = standing.status().get(name)
    if told is None:
        return not_here("this kernel does not say")
    return closed("none") if int(told, 16) == 0 else opened(f"{name} is {told}")


for name, what in _SETS.items():
    FAMILY.add(f"capabilities-{what}", f"have capabilities ({what} set)", _NONE, partial(_capabilities, name=name))


@FAMILY.attempt("new-privileges", "gain privileges by starting a program (no_new_privs)", "NoNewPrivs is 1")
def new_privileges(_: Surroundings) -> Seen:
    told = standing.status().get("NoNewPrivs")
    return closed("NoNewPrivs is 1") if told == "1" else opened(f"NoNewPrivs is {told}")


@FAMILY.attempt("no-filter", "make system calls that no filter sees (seccomp)", "Seccomp is 2")
def no_filter(_: Surroundings) -> Seen:
    told = standing.status().get("Seccomp")
    return closed("a filter of system calls is in force") if told == "2" else opened(f"Seccomp is {told}")


@FAMILY.attempt(
    "setuid-programs", "become root by a program with the setuid bit (su, sudo, ping, newuidmap)",
    "NoNewPrivs is 1, or there is none")
def setuid_programs(_: Surroundings) -> Seen:
    found = list(_setuid())
    if not found:
        return closed("there is no such program")
    if standing.status().get("NoNewPrivs") == "1":
        return closed(f"{len(found)} are there, and NoNewPrivs is 1: the bit has no effect")
    return opened(f"{found[0]} has it, and so do {len(found) - 1} more")


def _setuid() -> Iterator[str]:
    for folder in _SETUID_FOLDERS:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    mode = entry.stat().st_mode
                    nosuid = os.statvfs(entry.path).f_flag & os.ST_NOSUID
                    if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID) and not nosuid:
                        yield entry.path


@FAMILY.attempt(
    "file-capabilities", "gain capabilities by a program that has them (setcap)", "NoNewPrivs is 1, or none")
def file_capabilities(_: Surroundings) -> Seen:
    if standing.status().get("NoNewPrivs") == "1":
        return closed("NoNewPrivs is 1: they have no effect")
    for folder in _SETUID_FOLDERS:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    os.getxattr(entry.path, "security.capability")
                    return opened(f"{entry.path} has some")
    return closed("no program has any")


@FAMILY.attempt("become-root", "become root (setuid)", "EPERM")
def become_root(_: Surroundings) -> Seen:
    if os.getuid() == 0:
        # Root without capabilities cannot become anybody.
        return _changed(65534, "somebody else")
    return _changed(0, "root")


def _changed(uid: int, who: str) -> Seen:
    try:
        os.setuid(uid)
    except OSError as fault:
        return refused(fault)
    return opened(f"it became {who}")


@FAMILY.attempt("change-groups", "join other groups (setgroups)", "EPERM")
def change_groups(_: Surroundings) -> Seen:
    try:
        os.setgroups([0])
    except OSError as fault:
        return refused(fault)
    return opened("it joined group 0")


@FAMILY.attempt("mapped-root", "be the machine's own root", "another user, or root of a namespace")
def mapped_root(_: Surroundings) -> Seen:
    if os.getuid() != 0:
        return closed(f"it is uid {os.getuid()}")
    if standing.in_first_user_namespace():
        return opened("it is root of the machine itself")
    return closed("it is root of a user namespace alone")


def _typed(_: Surroundings, request: int, argument: bytes, what: str) -> Seen:
    """Put a byte into the terminal's input, as if a person had typed it. The byte is zero, which means nothing."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        terminal = next((os.dup(each) for each in (0, 1, 2) if os.isatty(each)), -1)
    if terminal < 0:
        return closed("there is no terminal")
    try:
        # The kernel looks at the lower half of the number alone, and so must a filter.
        system_call.call("ioctl", terminal, request, argument)
    except system_call.NoNumber:
        try:
            fcntl.ioctl(terminal, request & 0xFFFFFFFF, argument)
        except OSError as fault:
            return refused(fault)
    except OSError as fault:
        return closed(words(fault))
    finally:
        os.close(terminal)
    return opened(f"{what} was taken")


for name, way, request, argument in (
    ("type", "type into the terminal of whoever started this (TIOCSTI)", _TIOCSTI, b"\0"),
    ("type-high", "the same, under a number with more bits", 1 << 32 | _TIOCSTI, b"\0"),
    ("paste", "paste into the terminal (TIOCLINUX)", _TIOCLINUX, b"\x06\0"),
):
    FAMILY.add(
        f"terminal-{name}", way, "no terminal, EPERM or EIO",
        partial(_typed, request=request, argument=argument, what=name))


@FAMILY.attempt("host-name", "set the machine's name to what it is", "EPERM")
def host_name(_: Surroundings) -> Seen:
    try:
        socket.sethostname(socket.gethostname())
    except OSError as fault:
        return refused(fault)
    return opened("it may name the machine")
