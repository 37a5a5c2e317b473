"""`control.sock` in the home: how the command line speaks with a running Governor.

One JSON object per line each way. The folder is 0700, the socket 0600, and the kernel names the peer: only the user
that Governor runs as, and root, are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addons.errors import GovernorError, StartCode, StartRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

SOCKET_NAME = "control.sock"
RUNS = "runs"
MAX_LINE_BYTES = 1024 * 1024
MAX_CONNECTIONS = 16
IDLE_SECONDS = 10.0
HANDLER_SECONDS = 120.0

_PROBE_SECONDS = 1.0
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the final zero included.
_MAX_SOCKET_PATH_BYTES = 103


class ControlError(GovernorError):
    """The running Governor said no, or what it said cannot be read."""


class NotRunning(ControlError):
    """No Governor runs on this home."""


class ControlTimeout(ControlError):
    """A Governor runs, and has not answered in time."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, as the kernel says."""

    uid: int

    @property
    def name(self) -> str:
        return user_name(self.uid)


type Message = dict[str, Any]
type Handler = Callable[[Message, Peer], Awaitable[Message]]


def user_name(uid: int) -> str:
    """The operating system's name of a user, or `uid N` for one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


class ControlServer:
    """Answers verbs on the socket at `path` in the running event loop."""

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        fault: Callable[[str, Exception], object] = lambda where, error: None,
    ) -> None:
        self._path, self._handlers, self._fault = path, dict(handlers), fault
        self._server: asyncio.Server | None = None
        self._inode: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the socket; `StartRefused` when another Governor answers on it or it cannot be made."""
        listener = _listen(self._path)
        self._inode = self._path.stat().st_ino
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_LINE_BYTES)

    async def stop(self) -> None:
        """Close the socket and take its name away. What is under way is cut off."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _peer(writer.get_extra_info("socket"))
        if peer.uid not in (0, os.geteuid()) or len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
        try:
            while line := await asyncio.wait_for(reader.readuntil(b"\n"), IDLE_SECONDS):
                reply = await self._reply(line, peer)
                writer.write(json.dumps(reply).encode() + b"\n")
                await asyncio.wait_for(writer.drain(), IDLE_SECONDS)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # The peer left, stalled or sent a line without end: there is nobody to answer.
            return
        finally:
            writer.transport.abort() if writer.is_closing() else writer.close()

    async def _reply(self, line: bytes, peer: Peer) -> Message:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "that is not JSON"}
        handler = self._handlers.get(str(message.get("verb"))) if isinstance(message, dict) else None
        if handler is None:
            return {"error": f"send one of these as verb: {', '.join(sorted(self._handlers))}"}
        try:
            async with asyncio.timeout(HANDLER_SECONDS):
                return await handler(message, peer)
        except GovernorError as error:
            return {"error": str(error)}
        except Exception as fault:  # noqa: BLE001
            self._fault("control", fault)
            return {"error": f"internal fault {type(fault).__name__}; Governor's own log has more"}


def request(home: Path, verb: str, timeout: float, **fields: Any) -> Message:
    """What the Governor that runs on `home` answers to `verb`. Raises `ControlError` or a class below it.

    Where none serves there, one that serves a single command does: what is done in it holds in the others by their
    ledger.
    """
    return next(requests(home, verb, timeout, **fields))


def requests(home: Path, verb: str, timeout: float, **fields: Any) -> Iterator[Message]:
    """What every Governor that runs on `home` answers: the one that serves there first, then those of single commands.

    Raises as `request` does, at the one that says no.
    """
    some = False
    for name in (SOCKET_NAME, *(str(path.relative_to(home)) for path in sorted(home.glob(f"{RUNS}/*/{SOCKET_NAME}")))):
        with contextlib.suppress(NotRunning):
            answer = _asked(home, name, verb, timeout, fields)
            some = True
            yield answer
    if not some:
        raise NotRunning(f"no Governor runs on {home} (start one with governor serve)")


def _asked(home: Path, name: str, verb: str, timeout: float, fields: Mapping[str, Any]) -> Message:
    try:
        with _connect(home / name, timeout) as connection:
            connection.sendall(json.dumps({"verb": verb, **fields}).encode() + b"\n")
            reply = _read_line(connection)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(f"no Governor runs on {home} (start one with governor serve)") from None
    except (ConnectionResetError, BrokenPipeError):
        reply = b""
    except TimeoutError:
        raise ControlTimeout(f"the Governor on {home} did not answer within {timeout:g} s") from None
    except OSError as error:
        raise ControlError(f"{home / name}: {error.strerror}") from error
    return _opened(home, reply)


def _opened(home: Path, reply: bytes) -> Message:
    try:
        message = json.loads(reply)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise ControlError(f"the Governor on {home} closed the connection: it answers its own user and root alone")
    if "error" in message:
        raise ControlError(str(message["error"]))
    return message


def _read_line(connection: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            break
        received += part
    return bytes(received)


def _connect(path: Path, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with _reachable(path) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection


def _listen(path: Path) -> socket.socket:
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _reachable(path) as name:
            listener.bind(name)
        os.chmod(path, 0o600)
    except OSError as error:
        listener.close()
        raise StartRefused(StartCode.HOME_UNWRITABLE, f"{path}: {error.strerror or error}") from error
    return listener


def _clear(path: Path) -> None:
    """Take a socket away that a dead process left; `StartRefused` when it is alive or no socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StartRefused(StartCode.HOME_UNWRITABLE, f"{path} is not a socket; move it away")
        _connect(path, _PROBE_SECONDS).close()
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StartRefused(StartCode.HOME_UNWRITABLE, f"{path}: {error.strerror or error}") from error
    else:
        raise StartRefused(StartCode.LANE_BUSY, f"a Governor already answers on {path}; stop it or use another home")


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name for the socket that fits the system's limit: a deep home is reached through its open folder."""
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
        yield str(path)
        return
    if not os.path.isdir("/proc/self/fd"):
        raise OSError(0, "the path is too long for a socket; use a home with a shorter one")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _peer(connection: socket.socket) -> Peer:
    if hasattr(socket, "SO_PEERCRED"):
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Peer(uid)
    # macOS: struct xucred begins with a version and the uid; SOL_LOCAL is 0, LOCAL_PEERCRED is 1.
    _, uid = struct.unpack_from("Ii", connection.getsockopt(0, 1, 76))
    return Peer(uid)
