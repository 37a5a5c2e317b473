"""The filter of system calls, run as the kernel runs it."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from addons.sandbox.syscall_filter import TIOCSTI, program, supported

ALLOWED = 0x7FFF0000
EVERYWHERE = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}
X86 = 0xC000003E, EVERYWHERE | {
    "socket": 41, "ioctl": 16, "add_key": 248, "request_key": 249, "keyctl": 250, "read": 0}
ARM = 0xC00000B7, EVERYWHERE | {
    "socket": 198, "ioctl": 29, "add_key": 217, "request_key": 218, "keyctl": 219, "read": 63}
MACHINES = {"x86_64": X86, "aarch64": ARM}
I386 = 0x40000003


def answer(code: bytes, number: int, architecture: int, *arguments: int) -> int:
    """What classic BPF makes of a `struct seccomp_data` (linux/seccomp.h): the errno, or 0 where the call passes."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    steps, at, held = list(struct.iter_unpack("=HBBI", code)), 0, 0
    while True:
        kind, when_true, when_false, value = steps[at]
        at += 1
        match kind:
            case 0x20:
                held = int.from_bytes(data[value:value + 4], "little")
            case 0x15:
                at += when_true if held == value else when_false
            case 0x35:
                at += when_true if held >= value else when_false
            case 0x06:
                return 0 if value == ALLOWED else value & 0xFFFF
            case _:
                raise AssertionError(f"no instruction {kind:#x}")


@pytest.fixture(params=MACHINES)
def machine(request):
    architecture, numbers = MACHINES[request.param]
    code = program(request.param)
    return lambda name, *arguments: answer(code, numbers[name], architecture, *arguments)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, 16])
def test_sockets_that_the_network_namespace_holds_can_be_made(machine, family):
    assert machine("socket", family, socket.SOCK_STREAM) == 0


@pytest.mark.parametrize("family", [*range(3, 10), *range(11, 16), *range(17, 64), 255, 2**31])
def test_no_other_socket_can_be_made(machine, family):
    assert machine("socket", family, socket.SOCK_STREAM) == errno.EAFNOSUPPORT


def test_the_upper_half_of_an_argument_hides_nothing(machine):
    assert machine("socket", 40 | 1 << 40) == errno.EAFNOSUPPORT
    assert machine("ioctl", 0, TIOCSTI | 1 << 33) == errno.EPERM


@pytest.mark.parametrize("name", [*EVERYWHERE, "add_key", "request_key", "keyctl"])
def test_what_makes_sockets_or_calls_the_host_past_the_filter_is_not_there(machine, name):
    assert machine(name) == errno.ENOSYS


def test_characters_cannot_be_pushed_into_the_terminal_and_everything_else_of_it_works(machine):
    assert machine("ioctl", 0, 0x5412) == machine("ioctl", 0, 0x541C) == errno.EPERM
    assert machine("ioctl", 0, 0x5413) == 0
    assert machine("read", 0) == 0


def test_no_call_of_another_architecture_passes():
    code, (architecture, numbers) = program("x86_64"), X86

    assert answer(code, numbers["read"], I386) == errno.ENOSYS
    assert answer(code, numbers["read"] | 0x40000000, architecture) == errno.ENOSYS


def test_a_machine_without_a_filter_is_known_as_one():
    assert supported("x86_64")
    assert not supported("riscv64")
