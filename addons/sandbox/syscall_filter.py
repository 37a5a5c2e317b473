"""The seccomp filter of the command: system calls by which a network namespace can be got round.

A program in classic BPF (linux/filter.h, linux/seccomp.h), as `bwrap --seccomp` takes it: eight bytes an instruction.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
# The families whose sockets a network namespace holds. AF_VSOCK reaches the host of a virtual machine from any
# namespace; others reach devices, or code that nobody needs and attackers like.
FAMILIES = (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)
TIOCSTI, TIOCLINUX = 0x5412, 0x541C

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# x86_64 takes calls of another table with this bit.
_X32 = 0x40000000
# Upcalls of keyrings run programs of the host's, one of which looks up names.
_SAME_EVERYWHERE = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}


@dataclass(frozen=True, slots=True)
class _Machine:
    """What AUDIT_ARCH_* says of a machine, and the numbers of its system calls."""

    audit: int
    ioctl: int
    socket: int
    add_key: int
    request_key: int
    keyctl: int


_MACHINES = {
    "x86_64": _Machine(0xC000003E, ioctl=16, socket=41, add_key=248, request_key=249, keyctl=250),
    "aarch64": _Machine(0xC00000B7, ioctl=29, socket=198, add_key=217, request_key=218, keyctl=219),
}


def supported(machine: str = platform.machine()) -> bool:
    """Whether there is a filter for this kind of machine."""
    return machine in _MACHINES


def program(machine: str = platform.machine()) -> bytes:
    """The filter. `KeyError` for a machine that is not `supported`.

    No system call of another architecture (the 32 bit ones would need a filter of their own); sockets of the families
    that a network namespace holds, and no other way to make one (io_uring); no characters pushed into the terminal,
    where the caller's shell would read them; no keyrings.
    """
    known = _MACHINES[machine]
    refused = (known.add_key, known.request_key, known.keyctl, *_SAME_EVERYWHERE.values())
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, known.audit, 1, 0),
        _refuse(errno.ENOSYS),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        _refuse(errno.ENOSYS),
    ]
    for number in refused:
        steps += [_step(_EQUAL, number, 0, 1), _refuse(errno.ENOSYS)]
    families = [step for family in FAMILIES for step in (_step(_EQUAL, family, 0, 1), _step(_RETURN, _ALLOW))]
    families = [_step(_LOAD, _FIRST), *families, _refuse(errno.EAFNOSUPPORT)]
    steps += [_step(_EQUAL, known.socket, 0, len(families)), *families]
    # The upper half of the argument is ignored by the kernel, and by this.
    pushes = [step for call in (TIOCSTI, TIOCLINUX) for step in (_step(_EQUAL, call, 0, 1), _refuse(errno.EPERM))]
    steps += [_step(_EQUAL, known.ioctl, 0, 1 + len(pushes)), _step(_LOAD, _SECOND), *pushes, _step(_RETURN, _ALLOW)]
    return b"".join(steps)


def _step(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, when_true, when_false, value)


def _refuse(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)
