"""System calls that Python has no function for, by their numbers."""

from __future__ import annotations

import ctypes
import os
import platform

# (x86_64, aarch64); calls from 424 on have one number everywhere.
NUMBERS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clone3": (435, 435),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "socket": (41, 198),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}

type Argument = int | bytes | ctypes.Array[ctypes.c_char] | None


class NoNumber(OSError):
    """This kind of machine has no number for the call here."""


def call(name: str, *arguments: Argument) -> int:
    """What the call returns; `OSError` as the kernel says."""
    column = _COLUMN.get(platform.machine())
    if column is None or not hasattr(os, "uname") or os.uname().sysname != "Linux":
        raise NoNumber(f"no number is known for {name} on {platform.machine()}")
    library = ctypes.CDLL(None, use_errno=True)
    passed = [ctypes.c_void_p(each) if isinstance(each, int) else each for each in arguments]
    library.syscall.restype = ctypes.c_long
    outcome = int(library.syscall(ctypes.c_long(NUMBERS[name][column]), *passed))
    if outcome == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return outcome
