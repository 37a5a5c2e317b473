"""Who listens on Governor's ports: a second process of the same user can join a port and take connections from it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from addons.doctor.check import Check, State
from addons.home import Paths

PROXY, METRICS, WEB = 8080, 9464, 8081
_LISTENING = "0A"
_ASKED_SECONDS = 1.0
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Listener:
    """A process at a port; pid 0 where this user may not see whose it is."""

    port: int
    pid: int

    def __str__(self) -> str:
        return f"{_command(self.pid)} ({self.pid})" if self.pid else "a process of another user"


def checks(paths: Paths) -> Iterator[Check]:
    """For a running Governor: who else is at its ports. Else: whether its usual ports are free."""
    if not Path("/proc/net/tcp").exists():
        return
    ours = _family(_governor(paths))
    by_port = listeners()
    if ours:
        yield from _joined(by_port, ours)
    else:
        yield from _taken(by_port)


def _joined(by_port: Mapping[int, set[Listener]], ours: set[int]) -> Iterator[Check]:
    own = {port: whose for port, whose in by_port.items() if any(each.pid in ours for each in whose)}
    for port, whose in sorted(own.items()):
        others = sorted(str(each) for each in whose if each.pid not in ours)
        if others:
            yield Check(
                "port", State.FAIL,
                f"{', '.join(others)} listens on port {port}, too, and takes connections ungoverned",
                "stop it; give Governor a user of its own, so that no other process can join its ports")
    if own and all(each.pid in ours for whose in own.values() for each in whose):
        yield Check("port", State.OK, f"Governor alone listens on {', '.join(map(str, sorted(own)))}")


def _taken(by_port: Mapping[int, set[Listener]]) -> Iterator[Check]:
    for port, what in ((PROXY, "the proxy"), (METRICS, "metrics")):
        if whose := by_port.get(port):
            named = ", ".join(sorted(map(str, whose)))
            yield Check(
                "port", State.WARN, f"port {port} of {what} is taken by {named}",
                "stop it, or start with another: governor serve --listen-port N --set governor_metrics=127.0.0.1:N")
    if not by_port.get(PROXY) and not by_port.get(METRICS):
        yield Check("port", State.OK, f"ports {PROXY} and {METRICS} are free")


def listeners() -> dict[int, set[Listener]]:
    """Who listens at each TCP port of this network namespace."""
    owners = _owners()
    found: dict[int, set[Listener]] = defaultdict(set)
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for fields in map(str.split, Path(path).read_text().splitlines()[1:]):
                if len(fields) > 9 and fields[3] == _LISTENING:
                    port = int(fields[1].rpartition(":")[2], 16)
                    found[port] |= {Listener(port, pid) for pid in owners.get(fields[9], {0})}
    return found


def _owners() -> dict[str, set[int]]:
    """The processes that hold each socket, by its inode, as far as this user may see."""
    owners: dict[str, set[int]] = defaultdict(set)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{name}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{name}/fd/{descriptor}")
                    if target.startswith("socket:["):
                        owners[target[8:-1]].add(int(name))
    return owners


def _governor(paths: Paths) -> int:
    """The process that answers on the control socket; 0 where none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link, contextlib.suppress(OSError):
        link.settimeout(_ASKED_SECONDS)
        link.connect(str(paths.control_sock))
        return int(struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
    return 0


def _family(pid: int) -> set[int]:
    """A process with all that it started."""
    children: dict[int, set[int]] = defaultdict(set)
    for name in os.listdir("/proc"):
        if name.isdigit():
            children[_parent(int(name))].add(int(name))
    family: set[int] = set()
    waiting = [pid] if pid else []
    while waiting:
        family.add(each := waiting.pop())
        waiting += children[each] - family
    return family


def _parent(pid: int) -> int:
    try:
        # The name, in brackets, may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _command(pid: int) -> str:
    try:
        said = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "a process"
    return "".join(sign if sign.isprintable() else "?" for sign in said)[:_SHOWN] or "a process"
