"""One run of a command: its network, its Governor and what encloses it, from the first to the last of them.

Three processes stand beside the command: this one, which has the caller's terminal and waits; the one of the network
(`network.py`), whose child becomes the command; and Governor (`run_host.py`), in the caller's network. Whoever of them
is killed, the command is left without a way out, and without this one it is killed itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from addons.client_trust.laid import Laid, Mount, lay_out
from addons.errors import GovernorError
from addons.sandbox import enclosure, syscall_filter
from addons.sandbox.inside import environment
from addons.sandbox.post import Post
from addons.sandbox.run_policy import RunPolicy
from addons.sandbox.tiers import TOOL_FOLDERS, Tier, tool
from addons.workers.channel import Channel

ROOT = Path(__file__).resolve().parents[2]
# -P: the folder in which the command runs is none to import from.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
_SERVE = _PROGRAM + "from addons.serve import serve_run; sys.exit(serve_run())"
_NETWORK = _PROGRAM + "from addons.sandbox.network import main; main(int(sys.argv[1]))"

START_SECONDS = 60.0
END_SECONDS = 20.0
_COUNT_SECONDS = 1.0
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT)
_OF_A_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT})
_LEFTOVERS = "governor-run-"


class RunFailed(GovernorError):
    """The command was not started: its network or its Governor could not be."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be run, as whom, and under what. `home` is Governor's, `tier` possible here."""

    command: tuple[str, ...]
    agent: str
    tier: Tier
    home: Path
    policy: RunPolicy
    environment: Mapping[str, str]


@dataclass(slots=True)
class Ended:
    """How a run ended. `status` is the command's, or 128 and the number of the signal that ended it."""

    run: str
    status: int = 0
    policy: str = ""
    seconds: float = 0.0
    packets: dict[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    governor_ended: bool = False
    """Governor ended before the command did, which had no way out from then on."""


async def run(asked: Asked) -> Ended:
    """Run the command to its end, and take away everything that was made for it. Raises `RunFailed` before its start."""
    ended = Ended(_new_run())
    async with AsyncExitStack() as made:
        network = await made.enter_async_context(_network(asked))
        governor = await made.enter_async_context(_governor(asked, ended.run, network.sockets))
        ended.policy = governor.told["policy"]
        folder = made.enter_context(_public_folder())
        laid = lay_out(folder / "trust", governor.told["certificate"].encode(), asked.environment, Path.home())
        ended.missing = laid.missing
        began = time.monotonic()
        await network.start(asked, folder, laid)
        ended.status = await _to_its_end(network, governor)
        ended.seconds = time.monotonic() - began
        ended.packets = dict(network.refused)
        ended.governor_ended = governor.ended.done()
    return ended


def _new_run() -> str:
    """A name that no other run has; later ones come later in order."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(2)}"


async def _to_its_end(network: _Network, governor: _Governor) -> int:
    with _forwarding(network):
        while True:
            done, _ = await asyncio.wait([network.ended], timeout=_COUNT_SECONDS)
            governor.channel.tell("refused_packets", counts=network.refused)
            if done:
                return network.ended.result()
            network.count()


class _forwarding(ExitStack):
    """Signals that this process gets go to the command, but for those that the terminal has sent to both."""

    def __init__(self, network: _Network) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        for each in _FORWARDED:
            loop.add_signal_handler(each, self._forward, network, each)
            self.callback(loop.remove_signal_handler, each)

    @staticmethod
    def _forward(network: _Network, number: signal.Signals) -> None:
        if not (number in _OF_A_TERMINAL and _in_foreground()):
            network.signal(number)


def _in_foreground() -> bool:
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False


@asynccontextmanager
async def _network(asked: Asked) -> AsyncIterator[_Network]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _NETWORK, os.fspath(ROOT), str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env={**asked.environment, "PATH": _path(asked.environment)})
        try:
            ports = asked.policy.ports if asked.tier is Tier.NETNS else ()
            ours.sendall(json.dumps({"ports": ports}).encode() + b"\n")
            content, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, ours, 65536, 16)
            told = json.loads(content) if content else {"failed": "its process ended"}
            if "failed" in told:
                raise RunFailed(f"the network of tier {asked.tier} could not be made: {told['failed']}; "
                                "governor doctor says what is missing")
            yield _Network(ours, dict(zip(told["listening"], descriptors, strict=True)))
        finally:
            process.kill()
            process.wait()


class _Network:
    """The process of the command's network, from outside."""

    def __init__(self, channel: socket.socket, sockets: Mapping[str, int]) -> None:
        self.sockets = sockets
        self.refused: dict[str, int] = {}
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._first_process: int | None = None

    async def start(self, asked: Asked, folder: Path, laid: Laid) -> None:
        """Start the command, enclosed, and from now on hear how it goes."""
        for each in self.sockets.values():
            os.close(each)
        view = enclosure.View(
            Path.cwd(), hidden=_hidden(asked), read_only=_read_only(asked, folder),
            mounts=(*laid.mounts, *_resolving(asked, folder)))
        bwrap = tool("bwrap")
        assert bwrap is not None
        command = enclosure.arguments(bwrap, view, os.geteuid(), os.getegid(), asked.command)
        told, tells = os.pipe()
        with os.fdopen(told, "rb") as info:
            filtered = os.memfd_create("filter")
            os.write(filtered, syscall_filter.program())
            os.lseek(filtered, 0, os.SEEK_SET)
            message = {"run": command, "keep": [enclosure.SECCOMP_DESCRIPTOR, enclosure.INFO_DESCRIPTOR],
                       "environment": environment(asked.environment, asked.agent, asked.tier, laid.variables)}
            socket.send_fds(self._channel, [json.dumps(message).encode() + b"\n"], [filtered, tells])
            os.close(filtered)
            os.close(tells)
            content = await asyncio.to_thread(info.read)
        if content:
            self._first_process = json.loads(content)["child-pid"]
        self._channel.setblocking(False)  # noqa: FBT003
        asyncio.get_running_loop().add_reader(self._channel, self._hear)

    def count(self) -> None:
        """Ask for the packets refused so far."""
        with suppress(OSError):
            self._channel.send(b'{"count": true}\n')

    def signal(self, number: signal.Signals) -> None:
        """Send the command a signal; nothing where it is not there any more."""
        process = None if self._first_process is None else _command_below(self._first_process)
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)

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
                self.ended.set_result(status if status >= 0 else 128 - status)
        if not content:
            asyncio.get_running_loop().remove_reader(self._channel)
            if not self.ended.done():
                # Its process was killed, and the command with it.
                self.ended.set_result(128 + signal.SIGKILL)


def _command_below(first: int) -> int | None:
    """The command's own process: the second one of its namespace, started by the first."""
    try:
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    except OSError:
        return None
    for child in children:
        with suppress(OSError):
            status = Path(f"/proc/{child}/status").read_text()
            numbers = next(line.split() for line in status.splitlines() if line.startswith("NSpid:"))
            if numbers[-1] == "2":
                return int(child)
    return None


@asynccontextmanager
async def _governor(asked: Asked, run: str, sockets: Mapping[str, int]) -> AsyncIterator[_Governor]:
    ours, theirs = socket.socketpair()
    with theirs, tempfile.TemporaryFile() as said, ExitStack() as given:
        policy = None
        if asked.policy.text is not None:
            policy = os.memfd_create("policy")
            given.callback(os.close, policy)
            os.write(policy, asked.policy.text)
            os.lseek(policy, 0, os.SEEK_SET)
        post = Post(run, asked.agent, asked.tier, theirs.fileno(), dict(sockets), policy)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", _SERVE, os.fspath(ROOT), *_options(asked),
            env=dict(asked.environment) | post.environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            pass_fds=post.descriptors,
            # The terminal's signals are for the command.
            process_group=0)
        theirs.close()
        governor = _Governor(await Channel.over(ours), asyncio.ensure_future(process.wait()))
        try:
            await governor.serving(said)
            yield governor
            governor.channel.tell("end")
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(governor.ended), END_SECONDS)
        finally:
            governor.channel.close()
            with suppress(ProcessLookupError):
                if not governor.ended.done():
                    process.kill()
            await governor.ended


class _Governor:
    """The Governor of the run, from outside. `told` is what it said when it began to serve."""

    def __init__(self, channel: Channel, ended: asyncio.Future[int]) -> None:
        self.channel, self.ended = channel, ended
        self.told: Mapping[str, Any] = {}
        self._serving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        channel.on("serving", self._hear)
        self._hearing = asyncio.ensure_future(channel.run())

    async def serving(self, said: Any) -> None:
        """Wait until it serves. Raises `RunFailed` with what it `said` where it does not."""
        either: list[asyncio.Future[Any]] = [self._serving, self.ended]
        await asyncio.wait(either, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not self._serving.done():
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines()
            text = next((line for line in words if line.startswith("governor: ")), words[-1] if words else "")
            raise RunFailed(text or f"Governor did not serve within {START_SECONDS:g} s")

    async def _hear(self, message: Mapping[str, Any]) -> None:
        self.told = message
        if not self._serving.done():
            self._serving.set_result(None)


def _options(asked: Asked) -> Sequence[str]:
    modes = ("transparent@15001", "dns@15053") if asked.tier is Tier.NETNS else ("regular@15001",)
    settings = [f"governor_home={asked.home}", "governor_metrics=127.0.0.1:0"]
    settings += [f"governor_policy={file}" for file in asked.policy.files]
    return [*(part for mode in modes for part in ("--mode", mode)),
            *(part for setting in settings for part in ("--set", setting))]


def _hidden(asked: Asked) -> tuple[Path, ...]:
    return (asked.home,) if asked.home.exists() else ()


def _read_only(asked: Asked, folder: Path) -> tuple[Path, ...]:
    """What the next run, or this one, relies on: what runs outside, what it is told, and which log is the right one."""
    interpreter = Path(sys.prefix)
    pins = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "governor"
    found = (ROOT / "addons", ROOT / "kernel", ROOT / "policies", interpreter, pins, folder, *asked.policy.files)
    return tuple(path for path in found if path.exists())


def _resolving(asked: Asked, folder: Path) -> tuple[Mount, ...]:
    """The list of name servers, in the place of the host's; what else stands there stays."""
    target = Path("/etc/resolv.conf")
    if asked.tier is not Tier.NETNS or not os.path.lexists(target):
        return ()
    from addons.sandbox.network import GATEWAY

    kept = [line for line in _lines(target) if not line.lstrip().startswith("nameserver")]
    written = folder / "resolv.conf"
    written.write_text("\n".join([f"nameserver {GATEWAY}", *kept]) + "\n")
    written.chmod(0o644)
    return (Mount(written, target),)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _path(environment: Mapping[str, str]) -> str:
    return os.pathsep.join((environment.get("PATH", os.defpath), *TOOL_FOLDERS))


class _public_folder(ExitStack):
    """A folder with what the command may read, gone at the end; what killed runs left behind goes, too."""

    def __enter__(self) -> Path:  # type: ignore[override]
        parent = Path(tempfile.gettempdir()).resolve()
        for old in parent.glob(f"{_LEFTOVERS}*"):
            _remove_leftover(old)
        folder = Path(tempfile.mkdtemp(prefix=_LEFTOVERS, dir=parent))
        self.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        descriptor = os.open(folder / "living", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return folder


def _remove_leftover(folder: Path) -> None:
    with suppress(OSError):
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            return
        descriptor = os.open(folder / "living", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
