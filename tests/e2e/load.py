"""Clients in a process of their own: one that asks as fast as it is answered, and several that flood.

`python -m tests.e2e.load JOB` runs the job (JSON) until its standard input ends or its time is over, and prints what it
counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PAUSE_SECONDS = 0.1
_DIALLING = 40
# Time for the answers that are on their way.
_ENDING_SECONDS = 1.0


@dataclass
class Job:
    """What is sent, by how many at once, from which address. `seconds`: None is until it is stopped.

    `padding`: so many bytes follow the content.
    """

    kind: str
    port: int
    content: str
    at_once: int
    address: str = "127.0.0.1"
    seconds: float | None = None
    padding: int = 0


@dataclass
class Count:
    """What came back."""

    answers: int = 0
    connections: int = 0


class _Client:
    def __init__(self, job: Job) -> None:
        self._job, self._content = job, job.content.encode("latin-1") + b"y" * job.padding
        self.count, self.stopping = Count(), False
        self.stopped, self._dialling = asyncio.Event(), asyncio.Semaphore(_DIALLING)

    async def run(self) -> None:
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "ask": self._ask, "dial": self._dial, "hold": self._hold, "drip": self._drip, "push": self._push}
        act = kinds[self._job.kind]

        async def again() -> None:
            while not self.stopping:
                with contextlib.suppress(OSError, EOFError):
                    await act()

        await asyncio.gather(*(again() for _ in range(self._job.at_once)))

    @contextlib.asynccontextmanager
    async def _connection(self):  # type: ignore[no-untyped-def]
        # More at once than a listener's queue holds would be tried again only after seconds.
        async with self._dialling:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._job.port, local_addr=(self._job.address, 0))
        self.count.connections += 1
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _ask(self) -> None:
        """One request after the other on one connection, as long as it lasts."""
        async with self._connection() as (reader, writer):
            while not self.stopping:
                writer.write(self._content)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                self.count.answers += 1

    async def _dial(self) -> None:
        """One connection after the other, each read to its end."""
        async with self._connection() as (reader, writer):
            writer.write(self._content)
            while await reader.read(65536):
                pass
            self.count.answers += 1

    async def _hold(self) -> None:
        """A connection with this on it, and nothing more."""
        async with self._connection() as (reader, writer):
            writer.write(self._content)
            await self._until_stopped(reader)

    async def _until_stopped(self, reader: asyncio.StreamReader) -> None:
        ends = [asyncio.ensure_future(end) for end in (reader.read(1), self.stopped.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    async def _drip(self) -> None:
        """A byte now and then."""
        async with self._connection() as (reader, writer):
            for byte in self._content:
                if self.stopping or reader.at_eof():
                    return
                writer.write(bytes((byte,)))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _push(self) -> None:
        """A request, and the last line of `content` after it for as long as somebody takes it."""
        head, _, piece = self._content.partition(b"\r\n\r\n")
        async with self._connection() as (_, writer):
            writer.write(head + b"\r\n\r\n")
            while not self.stopping:
                writer.write(piece * 1000)
                await writer.drain()


async def _main(job: Job) -> None:
    client = _Client(job)
    running = asyncio.ensure_future(client.run())
    if job.seconds is None:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    else:
        await asyncio.sleep(job.seconds)
    client.stopping = True
    client.stopped.set()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(running, _ENDING_SECONDS)
    print(json.dumps(asdict(client.count)), flush=True)


def count(job: Job) -> Count:
    """What a job that ends by itself counted."""
    done = subprocess.run([sys.executable, "-m", "tests.e2e.load", json.dumps(asdict(job))], cwd=_ROOT, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, timeout=60)
    return Count(**json.loads(done.stdout))


@contextlib.contextmanager
def running(job: Job) -> Iterator[Count]:
    """A job that goes on meanwhile; what it counted stands there afterwards."""
    counted = Count()
    process = subprocess.Popen([sys.executable, "-m", "tests.e2e.load", json.dumps(asdict(job))], cwd=_ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield counted
        out, _ = process.communicate(timeout=30)
        vars(counted).update(json.loads(out))
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(_main(Job(**json.loads(sys.argv[1]))))

