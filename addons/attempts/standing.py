"""What this process may do and where it is, as the kernel says."""

from __future__ import annotations

import os
from pathlib import Path

NET_ADMIN, SYS_CHROOT, SYS_ADMIN = 12, 18, 21
_FIRST_PROCESS_NAMESPACE = "pid:[4026531836]"


def status(pid: int | str = "self") -> dict[str, str]:
    """The fields of a process's /proc/PID/status; empty where there is none to read."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def holds(capability: int) -> bool:
    """Whether this process has the capability, over whatever its user namespace owns."""
    return bool(int(status().get("CapEff", "0"), 16) >> capability & 1)


def rules_the_host(capability: int) -> bool:
    """Whether it has the capability over the machine itself: then nothing that could change it is tried."""
    return holds(capability) and in_first_user_namespace()


def in_first_user_namespace() -> bool:
    """The one that the machine booted with has all users, each as itself."""
    try:
        return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    except OSError:
        return False


def namespace(pid: int | str, kind: str) -> str | None:
    """The name of a process's namespace; None where this process may not know it."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None


def in_first_process_namespace() -> bool:
    """The one that the machine booted with has all processes."""
    return namespace("self", "pid") == _FIRST_PROCESS_NAMESPACE
