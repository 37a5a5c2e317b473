"""One HTTP request to a machine that is not trusted: bounded in time and bytes, never sent on elsewhere."""

from __future__ import annotations

import contextlib
import http.client
import io
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer

CONNECT_SECONDS = 5.0
# From the connection on: the request, the head and the body of the answer.
EXCHANGE_SECONDS = 15.0
MOST_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `location` is where a redirect points."""

    status: int
    body: bytes
    location: str


def post(url: str, content: bytes) -> Answer:
    """The answer to `content` at the http or https `url`; `OSError` or `http.client.HTTPException` where none came."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection = (
        http.client.HTTPSConnection(host, parts.port, timeout=CONNECT_SECONDS, context=ssl.create_default_context())
        if parts.scheme == "https" else http.client.HTTPConnection(host, parts.port, timeout=CONNECT_SECONDS))
    try:
        connection.connect()
        with contextlib.closing(connection.sock) as connected:
            # http.client uses of it what `_Bounded` has; a time-out of the socket alone would begin anew at every byte.
            connection.sock = _Bounded(connected)
            connection.request("POST", parts.path or "/", content, {"Content-Type": "text/plain; charset=utf-8"})
            response = connection.getresponse()
            return Answer(response.status, response.read(), response.getheader("Location", ""))
    finally:
        connection.close()


class _Bounded:
    """A connected socket with one deadline for everything, and a number of bytes that it reads at most."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._deadline = time.monotonic() + EXCHANGE_SECONDS
        self._bytes_left = MOST_ANSWER_BYTES

    def sendall(self, data: bytes) -> None:
        self._wait()
        self._socket.sendall(data)

    def read_into(self, buffer: WriteableBuffer) -> int:
        self._wait()
        count = self._socket.recv_into(buffer)
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise http.client.HTTPException(f"the answer is longer than {MOST_ANSWER_BYTES} bytes")
        return count

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self))

    def close(self) -> None:
        """Nothing: http.client closes before the answer is read, and whoever connected closes in the end."""

    def _wait(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no whole answer within {EXCHANGE_SECONDS:g} s")
        self._socket.settimeout(left)


class _Reading(io.RawIOBase):
    """The answer, read from a bounded socket."""

    def __init__(self, bounded: _Bounded) -> None:
        self._bounded = bounded

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._bounded.read_into(buffer)
