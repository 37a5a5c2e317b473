"""Damaged HTTP/1 and HTTP/2 against a real Governor: no origin reads a request without a verdict of its own, no
client reads two answers to one request, and nothing crashes or hangs.

Every request carries a mark of its own in its path and its content type, which the log has (the path in the vault).
What the origins received is read by a strict reader and by lenient ones: for each, the requests that it sees are among
those that were allowed, as often at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kernel import normal
from kernel.errors import NonCanonical
from tests.conftest import scaled
from tests.e2e import mutations, wire
from tests.e2e.mutations import PREFACE
from tests.e2e.process import Governor, started
from tests.e2e.readers import LENIENT, STRICT, Message, Reader
from tests.e2e.recorders import OK, Recorder, recording
from tests.e2e.watch import Held

pytestmark = pytest.mark.e2e

SEED = int(os.environ.get("GOVERNOR_FUZZ_SEED", "1"))
ATTEMPTS = scaled(400)
AT_ONCE = 24
QUIET_SECONDS, HANG_SECONDS = 0.5, 20.0
_CONTENT_TYPE = re.compile(rb"[\x21-\x7e]{0,127}")

# Method, host, port, path and content type of one request.
type Key = tuple[str, str, int, str, str]


type Ended = Callable[[bytes], bool]


class Client:
    """What all attempts of one run share."""

    def __init__(self, governor: Governor) -> None:
        self.port, self._contexts = governor.port, {alpn: _trusting(governor, alpn) for alpn in ("http/1.1", "h2")}
        self.hung: list[str] = []

    @contextlib.asynccontextmanager
    async def connected(self) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def say(self, name: str, content: bytes) -> bytes:
        """Send bytes on a new connection; all that comes back. After our end, theirs has to come soon."""
        async with self.connected() as (reader, writer):
            got = await self._exchange(reader, writer, content)
            with contextlib.suppress(OSError):
                writer.write_eof()
            try:
                async with asyncio.timeout(HANG_SECONDS):
                    with contextlib.suppress(ConnectionError):
                        while more := await reader.read(65536):
                            got += more
            except TimeoutError:
                self.hung.append(f"{name}: {content!r} got {got!r}")
        return got

    async def say_in_tunnel(self, port: int, alpn: str, content: bytes, ended: Ended = lambda got: False) -> bytes:
        """Send bytes inside TLS to localhost:PORT; what comes back until `ended` is true of it, or it is quiet."""
        async with self.connected() as (reader, writer):
            writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(self._contexts[alpn], server_hostname="localhost")
            return await self._exchange(reader, writer, content, ended)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes,
                        ended: Ended = lambda got: False) -> bytes:
        """What comes back until `ended` is true of it, their end, or quiet."""
        got = b""
        with contextlib.suppress(OSError, ssl.SSLError):
            for part in _parts(content):
                writer.write(part)
                await asyncio.sleep(0)
            while not ended(got) and (more := await asyncio.wait_for(reader.read(65536), QUIET_SECONDS)):
                got += more
        return got


def _trusting(governor: Governor, alpn: str) -> ssl.SSLContext:
    context = wire.trusting(governor.ca)
    context.set_alpn_protocols([alpn])
    return context


def _parts(content: bytes) -> Iterable[bytes]:
    """The bytes in one piece or in two."""
    cut = content[7] * 5 if len(content) > 7 and content[7] % 2 else len(content)
    return filter(None, (content[:cut], content[cut:]))


type Attempt = Callable[[Client, Random, str], Awaitable[None]]


def plain(origin: Recorder) -> Attempt:
    async def attempt(client: Client, chance: Random, mark: str) -> None:
        await client.say(mark, _damaged(chance, mark, origin.port, f"http://localhost:{origin.port}"))
    return attempt


def tunnelled(origin: Recorder) -> Attempt:
    async def attempt(client: Client, chance: Random, mark: str) -> None:
        connect = f"CONNECT localhost:{origin.port} HTTP/1.1\r\n\r\n".encode()
        await client.say(mark, connect + _damaged(chance, mark, origin.port, ""))
    return attempt


def encrypted(origin: Recorder) -> Attempt:
    async def attempt(client: Client, chance: Random, mark: str) -> None:
        await client.say_in_tunnel(origin.port, "http/1.1", _damaged(chance, mark, origin.port, ""))
    return attempt


def _damaged(chance: Random, mark: str, port: int, prefix: str) -> bytes:
    content, other = (mutations.http1(chance, name, port, prefix) for name in (mark, f"{mark}-other"))
    # Where the damage leaves the two in step, the last request has the connection closed after its answer.
    return mutations.mutated(chance, content, other) + mutations.last(f"{mark}-last", port, prefix)


def http2(origin: Recorder) -> Attempt:
    async def attempt(client: Client, chance: Random, mark: str) -> None:
        frames, other = (mutations.http2(chance, name, origin.port) for name in (mark, f"{mark}-other"))
        content = PREFACE + mutations.mutated_frames(chance, frames, other)
        await client.say_in_tunnel(origin.port, "h2", content + mutations.last2(f"{mark}-last", origin.port),
                                   mutations.is_over)
    return attempt


async def drive(governor: Governor, attempts: list[Attempt], count: int) -> Client:
    client, numbers = Client(governor), iter(range(count))

    async def work() -> None:
        for number in numbers:
            attempt, chance = attempts[number % len(attempts)], Random(f"{SEED}/{number}")
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
                await attempt(client, chance, f"m{number}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return client


# What the log allowed, and what the origins read


def allowed(governor: Governor) -> Counter[Key]:
    with contextlib.closing(sqlite3.connect(governor.home / "vault.db")) as vault:
        paths = dict(vault.execute("""SELECT seq, value FROM "values" WHERE lane = 'main' AND name = 'path'"""))
    return Counter(
        (facts["method"], facts["host"], facts["port"], json.loads(paths[entry["seq"]]), facts["content_type"] or "")
        for entry in governor.entries("decision") if entry["stage"] == "request" and entry["verdict"] == "allow"
        for facts in (entry["in"],))


def read_by(reader: Reader, origin: Recorder) -> Counter[Key]:
    """The requests that this reader sees in what the origin received."""
    found = Counter[Key]()
    for stream in origin.streams:
        found.update(_key(message, origin.port) for message in reader.requests(bytes(stream)))
    return found


def _key(message: Message, port: int) -> Key:
    method, _, rest = message.start.partition(b" ")
    target = rest.rpartition(b" ")[0]
    kind = [value.partition(b";")[0].strip().lower() for value in message.all(b"content-type")][-1:] or [b""]
    host = b"".join(message.all(b"host")).decode("latin-1")
    return (method.decode("latin-1"), _host(host, port), port, target.partition(b"?")[0].decode("latin-1"),
            kind[0].decode() if _CONTENT_TYPE.fullmatch(kind[0]) else "")


def _host(authority: str, port: int) -> str:
    if not authority:
        return "localhost"  # what it was connected as
    try:
        host, named = normal.authority(authority, port)
    except NonCanonical:
        return f"not a host: {authority}"
    return host.name if named == port else f"another port: {authority}"


def http2_keys(origin: Recorder) -> Counter[Key]:
    return Counter(
        (method, _host(authority, origin.port), origin.port, path.partition("?")[0],
         kind.partition(";")[0].strip().lower())
        for method, authority, path, kind in origin.requests)


async def test_no_origin_reads_a_request_that_has_no_verdict(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    chain, trusted = certificate
    async with recording() as clear, recording(chain) as tls, recording(chain, http2=True) as modern:
        with started(tmp_path, trust=trusted) as governor:
            before = descriptors(governor)
            attempts = [plain(clear), tunnelled(clear), encrypted(tls), http2(tls), http2(tls), http2(modern)]
            client = await drive(governor, attempts, ATTEMPTS)
            healthy(governor, await client.say("good", _good(clear)), before)
            faults = Counter((entry["where"], entry["error"]) for entry in governor.entries("fault"))
            governor.stop()
            verdicts = allowed(governor)

    seen = {f"{origin.port}, {reader.name}": read_by(reader, origin) for origin in (clear, tls)
            for reader in (STRICT, *LENIENT)} | {"HTTP/2": http2_keys(modern)}
    unjudged = {name: found - verdicts for name, found in seen.items() if found - verdicts}
    assert unjudged == {}, f"GOVERNOR_FUZZ_SEED={SEED}"
    assert client.hung == []
    assert not faults
    assert all(found.total() > ATTEMPTS / 20 for found in seen.values())


def _good(origin: Recorder) -> bytes:
    return f"GET http://localhost:{origin.port}/good HTTP/1.1\r\nHost: localhost:{origin.port}\r\n\r\n".encode()


def healthy(governor: Governor, answer: bytes, before: int, expected: bytes = OK) -> None:
    """It still serves, says nothing of a crash, has let go of everything, and its log is whole."""
    assert answer == expected
    assert governor.process.poll() is None
    deadline = time.monotonic() + HANG_SECONDS
    while descriptors(governor) > before + 2:
        assert time.monotonic() < deadline, "connections are left open"
        time.sleep(0.05)
    assert [line for line in governor.output if "Traceback" in line or "crashed" in line] == []
    assert governor.verify()["result"] == "verified"


def descriptors(governor: Governor) -> int:
    return len(Held(governor.process.pid).descriptors)


# Answers

ANSWERS = (
    OK,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\ngone",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,
    b"HTTP/1.0 200 OK\r\n\r\nold",
)


SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"


async def test_no_client_reads_two_answers_to_one_request(tmp_path: Path) -> None:
    """Two requests at once on one connection; the first gets a damaged answer. The second's answer is never taken for
    the first's, and nothing else follows the first."""
    wrong: list[str] = []
    answers: dict[bytes, bytes] = {}

    def answer(request: Message) -> bytes:
        return answers.get(request.start.split(b"?")[-1].split()[0], SECOND)

    async def attempt(client: Client, chance: Random, mark: str) -> None:
        content, other = chance.choice(ANSWERS), chance.choice(ANSWERS)
        answers[mark.encode()] = mutations.mutated(chance, content, other) + chance.choice((b"", b"", OK))
        method, url = chance.choice(("GET", "GET", "POST", "HEAD")), f"http://localhost:{origin.port}"
        first = f"{method} {url}/?{mark} HTTP/1.1\r\nHost: localhost:{origin.port}\r\nContent-Length: 0\r\n\r\n"
        got = await client.say(mark, first.encode() + mutations.last("second", origin.port, url))
        wrong.extend(f"GOVERNOR_FUZZ_SEED={SEED}, {mark}, {method}: {reader}: {answers[mark.encode()]!r} became {got!r}"
                     for reader in misled(got, method.encode()))

    async with recording(answer=answer) as origin:
        with started(tmp_path) as governor:
            before = descriptors(governor)
            client = await drive(governor, [attempt], scaled(250))
            healthy(governor, await client.say("good", _good(origin)), before, SECOND)
            faults = {(entry["where"], entry["error"]) for entry in governor.entries("fault")}

    assert wrong == []
    assert client.hung == []
    assert not faults


def misled(got: bytes, method: bytes) -> list[str]:
    """The readers that take for the first answer what is the second's, or see anything else behind it."""
    if method == b"HEAD" and got.startswith(_PAGE):
        return []
    return [reader.name for reader in (STRICT, *LENIENT)
            if got == SECOND or reader.after_the_answer(got, method) not in (b"", SECOND)]


# mitmproxy's own page has a body for HEAD too; the connection is closed after it, so that it answers nothing else.
_PAGE = b"HTTP/1.1 502 Bad Gateway\r\nServer: mitmproxy 12.2.3\r\nConnection: close\r\n"
