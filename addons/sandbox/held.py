"""A command in a network of its own, seen from outside (`network.py` is the other side)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from addons import pins
from addons.client_trust.laid import Laid, Mount
from addons.errors import GovernorError
from addons.home import SYSTEM_HOME, home_folder
from addons.sandbox import enclosure, syscall_filter
from addons.sandbox.asked import Asked
from addons.sandbox.inside import environment, governors_own
from addons.sandbox.network import hand_over
from addons.sandbox.ruleset import GATEWAY, PROXY_PORT
from addons.sandbox.run_later import BY_THE_USER
from addons.sandbox.tiers import Tier, tool

ROOT = Path(__file__).resolve().parents[2]
# -I: neither the folder in which the command runs nor what PYTHONPATH or a user's site names is one to import from.
OUR_CODE = ("import sys; root = sys.argv.pop(1); sys.path.insert(0, root); import addons, kernel; "
            "sys.path.remove(root); ")
"""The beginning of a program that has our packages, and nothing else of the folder in which they lie: in a checkout
somebody works there, and what he puts beside them would be taken for a module of Python's.
"""
_NETWORK = OUR_CODE + "from addons.sandbox.network import main; main(int(sys.argv[1]))"
_NOT_STARTED = 125
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_RESOLVERS = Path("/etc/resolv.conf")


class RunFailed(GovernorError):
    """The command was not started: its network or its Governor could not be."""


@asynccontextmanager
async def held(asked: Asked) -> AsyncIterator[Held]:
    """The network of a run; with it the command is gone. Raises `RunFailed`."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            # Not asyncio's: it is the parent of the command, and waited for last.
            process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-I", "-c", _NETWORK, os.fspath(ROOT), str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=governors_own(asked.environment))
        try:
            ports = asked.policy.ports if asked.tier is Tier.NETNS else ()
            ours.sendall(json.dumps({"ports": ports}).encode() + b"\n")
            content, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, ours, 65536, 16)
            told: dict[str, Any] = json.loads(content) if content else {"failed": "its process ended"}
            if "failed" in told:
                raise RunFailed(f"the network of tier {asked.tier} could not be made: {told['failed']}; "
                                "governor doctor says what is missing")
            yield Held(ours, dict(zip(told["listening"], descriptors, strict=True)), told["command"])
        finally:
            process.kill()
            process.wait()


class Held:
    """The command of a tier that holds it. `sockets` are where its Governor is to serve, `modes` as what.

    `ended` has its exit status, or 128 and the number of the signal that ended it; `refused` the packets that led
    nowhere, by kind.
    """

    def __init__(self, channel: socket.socket, sockets: Mapping[str, int], holder: int) -> None:
        self.sockets = sockets
        self.modes = tuple(dict.fromkeys(name.partition("/")[0] for name in sockets))
        self.token: str | None = None
        self.refused: dict[str, int] = {}
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._holder = holder
        self._told: FileIO | None = None

    async def start(self, asked: Asked, folder: Path, laid: Laid) -> None:
        """Start the command, once its Governor serves. From now on it alone has the sockets."""
        for each in self.sockets.values():
            os.close(each)
        view = enclosure.View(Path.cwd(), hidden=_hidden(asked, folder), read_only=_read_only(asked, folder),
                              mounts=(*laid.mounts, *_resolving(asked, folder)))
        bwrap = tool("bwrap")
        if bwrap is None:
            raise RunFailed("bwrap is gone")
        trusting = {name: value for name, value in laid.variables.items() if name not in laid.spared}
        message = {
            "run": enclosure.arguments(bwrap, view, os.geteuid(), os.getegid(), asked.command),
            "keep": [enclosure.SECCOMP_DESCRIPTOR, enclosure.INFO_DESCRIPTOR],
            "environment": environment(asked.environment, asked.agent, asked.tier, trusting,
                                       f"http://127.0.0.1:{PROXY_PORT}"),
        }
        told, tells = os.pipe()
        self._told = FileIO(told)
        filtered = os.memfd_create("filter")
        os.write(filtered, syscall_filter.program())
        os.lseek(filtered, 0, os.SEEK_SET)
        await asyncio.to_thread(hand_over, self._channel, message, [filtered, tells])
        # The line says that it has begun.
        await asyncio.to_thread(self._told.readline)
        self._channel.setblocking(False)  # noqa: FBT003
        asyncio.get_running_loop().add_reader(self._channel, self._hear)

    def count(self) -> None:
        """Ask for the packets refused so far."""
        with suppress(OSError):
            self._channel.send(b'{"count": true}\n')

    def signal(self, number: signal.Signals) -> None:
        """Send the command a signal. Where it is not there any more, one that ends it ends what it left."""
        process = _command_below(self._holder)
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)
        elif number in _ENDING and not self.ended.done():
            self.ended.set_result(128 + number)

    def _hear(self) -> None:
        try:
            content = self._channel.recv(65536)
        except BlockingIOError:
            return
        for line in content.splitlines():
            message = json.loads(line)
            self.refused = message["refused"]
            if "ended" in message and not self.ended.done():
                status = message["ended"]
                if status == 1 and not self._began():
                    status = _NOT_STARTED
                self.ended.set_result(status if status >= 0 else 128 - status)
        if not content:
            asyncio.get_running_loop().remove_reader(self._channel)
            if not self.ended.done():
                # Its process was killed, and the command with it.
                self.ended.set_result(128 + signal.SIGKILL)

    def _began(self) -> bool:
        """Whether bubblewrap, which has ended, came as far as to execute the command: it tells of its end only then."""
        return self._told is not None and b"exit-code" in self._told.read()


def _command_below(holder: int) -> int | None:
    """The command's own process: the second one of its namespace. Its first one was started by bubblewrap, the only
    process below the holder (`network.py`).
    """
    firsts = (first for bubblewrap in _children(holder) for first in _children(bubblewrap))
    for child in (child for first in firsts for child in _children(first)):
        with suppress(OSError):
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
            said = dict(line.split(":", 1) for line in lines)
            if said["NSpid"].split()[-1] == "2" and not said["State"].lstrip().startswith("Z"):
                return int(child)
    return None


def _children(process: int | str) -> list[str]:
    try:
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []


def _hidden(asked: Asked, folder: Path) -> tuple[Path, ...]:
    """Every home of Governor's that is known to this user, and the folders of other runs."""
    known = (folder.parent, asked.home, SYSTEM_HOME, home_folder(None), *(pin.home for pin in pins.everyone()))
    return tuple(path for path in dict.fromkeys(map(Path.resolve, known)) if path.is_dir())


def _read_only(asked: Asked, folder: Path) -> tuple[Path, ...]:
    """What this run or the next relies on, what the user runs later, and which log is the right one."""
    ours = (ROOT / name for name in ("addons", "kernel", "policies", "scripts"))
    code = (*ours, Path(sys.prefix), Path(sys.base_prefix))
    later = (Path.home() / name for name in BY_THE_USER)
    kept = (*code, pins.folder().parent, folder, *asked.policy.files, *later)
    # Nothing can be mounted over a link: what it leads to is kept.
    return tuple(dict.fromkeys(path.resolve() for path in kept if path.exists()))


def _resolving(asked: Asked, folder: Path) -> tuple[Mount, ...]:
    """The list of name servers, in the place of the host's; what else stands there stays."""
    if asked.tier is not Tier.NETNS or not os.path.lexists(_RESOLVERS):
        return ()
    try:
        lines = _RESOLVERS.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    written = folder / "resolv.conf"
    kept = [line for line in lines if not line.lstrip().startswith("nameserver")]
    written.write_text("\n".join([f"nameserver {GATEWAY}", *kept]) + "\n")
    written.chmod(0o644)
    return (Mount(written, _RESOLVERS),)
