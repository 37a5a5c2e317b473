"""System calls with which sandboxes have been left: asked for with arguments that do nothing."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import partial

from addons.attempts import system_call
from addons.attempts.attempt import Family, Seen, closed, not_here, opened, words
from addons.attempts.surroundings import Surroundings
from addons.attempts.system_call import Argument, NoNumber

FAMILY = Family("system calls")
_NOT_PERMITTED = "EPERM or ENOSYS"
_DENIED = (errno.EPERM, errno.EACCES, errno.ENOSYS)


def _call(_: Surroundings, name: str, arguments: tuple[Argument, ...], opens: bool) -> Seen:
    """An answer other than a refusal means that the call is there to be used; `opens`: it returns a descriptor."""
    try:
        outcome = system_call.call(name, *arguments)
    except NoNumber as fault:
        return not_here(str(fault))
    except OSError as fault:
        return (
            closed(words(fault))
            if fault.errno in _DENIED
            else opened(f"the kernel takes the call, and answers {words(fault)}")
        )
    if opens:
        os.close(outcome)
    return opened("the kernel takes the call")


_ZEROS = bytes(256)
# Nothing of the arguments makes sense, but for those that have to in order to be refused for the right reason.
for name, way, call, arguments, opens in (
    ("io-uring", "make system calls past every filter (io_uring)", "io_uring_setup", (4, _ZEROS), True),
    ("bpf", "load a BPF program", "bpf",
     (0, ctypes.create_string_buffer(bytes((1, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1)), 128), 72), True),
    ("perf", "watch the kernel (perf_event_open)", "perf_event_open",
     ((1).to_bytes(4, "little") + (112).to_bytes(4, "little") + bytes(104), 0, -1, -1, 8), True),
    ("userfaultfd", "handle page faults of the kernel (userfaultfd)", "userfaultfd", (0,), True),
    ("kexec", "start another kernel (kexec_load)", "kexec_load", (0, 99, 0, 0xFFFF0000), False),
    ("init-module", "load a module from memory (init_module)", "init_module", (_ZEROS, 0, b"\0"), False),
    ("finit-module", "load a module from a file (finit_module)", "finit_module", (-1, b"\0", 0), False),
    ("reboot", "restart the machine (with numbers that are wrong)", "reboot", (0, 0, 0, 0), False),
    ("fanotify", "watch all files of a disk (fanotify)", "fanotify_init", (0x4, 0), True),
    ("key-add", "leave a key in the kernel's keyrings (add_key)", "add_key",
     (b"user\0", b"governor-attempt\0", b"x", 1, -1), False),
    # The kernel runs /sbin/request-key, outside all namespaces.
    ("key-upcall", "have the kernel start a program outside that finds a key (request_key)", "request_key",
     (b"user\0", b"governor-attempt.invalid\0", b"x\0", 0), False),
):
    FAMILY.add(name, way, _NOT_PERMITTED, partial(_call, name=call, arguments=arguments, opens=opens))
