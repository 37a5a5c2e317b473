"""The fault-injection layer: a script beside Governor in a real mitmproxy that fails at one hook of one client.

Each row of the table has a client address of its own, by which the script knows it from the first hook on. A fault lies
`beside` Governor, in the hook of another addon, or `within` it, in what Governor itself does at that hook.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import wire
from tests.e2e.origins import Origin
from tests.e2e.process import Governor

SCRIPT = '''
import asyncio
import dataclasses
import functools

from mitmproxy import exceptions

ROWS = {rows!r}
HOOKS = {{hook for _, hook, _ in ROWS.values()}}


def client_of(data):
    data = getattr(data, "context", data)
    for name in ("client_conn", "client"):
        data = getattr(data, name, data)
    return data.peername[0]


async def fail(place, hook, client):
    row = ROWS.get(client)
    if row is None or row[:2] != (place, hook):
        return
    match row[2]:
        case "exception":
            raise ValueError("what an agent sent")
        case "error":
            raise exceptions.OptionsError("what an agent sent")
        case "cancel":
            raise asyncio.CancelledError
        case "hang":
            await asyncio.Event().wait()
        case "slow":
            await asyncio.sleep(1)


def failing(name, guard):
    async def after(handler, data):
        await fail("within", name, handler.client.peername[0])
        if guard.after is not None and (acting := guard.after(handler, data)) is not None:
            await acting

    return dataclasses.replace(guard, after=after)


class Beside:
    def running(self):
        from addons import gate
        gate._guards = {{name: failing(name, guard) for name, guard in gate._guards.items()}}

    def __getattr__(self, name):
        if name not in HOOKS:
            raise AttributeError(name)
        return functools.partial(self.at, name)

    async def at(self, hook, data):
        await fail("beside", hook, client_of(data))


addons = [Beside()]
'''

SECONDS = 20.0


@dataclass(frozen=True)
class Row:
    """One fault, and the client that meets it."""

    number: int
    place: str
    hook: str
    fault: str

    def __str__(self) -> str:
        return f"{self.fault}-{self.place}-{self.hook}"

    @property
    def client(self) -> str:
        return f"127.1.{self.number // 250}.{self.number % 250 + 1}"

    @property
    def path(self) -> str:
        return f"/row-{self.number}."

    @property
    def is_fault(self) -> bool:
        """What mitmproxy itself does not catch, or what comes from within Governor."""
        return self.fault in ("error", "cancel", "hang") or (self.place, self.fault) == ("within", "exception")


@dataclass(frozen=True)
class Result:
    """What a client got: a status (None: its connection was closed), a code, and when it was over."""

    status: int | None
    code: str | None
    seconds: float


@dataclass(frozen=True)
class Ends:
    """The proxy and everything behind it."""

    governor: Governor
    http: Origin
    https: Origin
    distrusted: Origin
    unused_port: int


type Scenario = Callable[[Ends, Row], wire.Answer | None]


def dial(ends: Ends, row: Row) -> socket.socket:
    return socket.create_connection(("127.0.0.1", ends.governor.port), SECONDS, source_address=(row.client, 0))


def plainly(ends: Ends, row: Row, url: str | None = None) -> wire.Answer | None:
    """A plain GET."""
    with dial(ends, row) as connection:
        return wire.send(connection, wire.plain("GET", f"{url or ends.http.url}{row.path}", ("Connection", "close")))


def unreachable(ends: Ends, row: Row) -> wire.Answer | None:
    """A plain GET to a port where nobody listens."""
    return plainly(ends, row, f"http://localhost:{ends.unused_port}")


def tunnelled(ends: Ends, row: Row, origin: Origin | None = None, ca: Path | None = None) -> wire.Answer | None:
    """A GET over TLS in a tunnel."""
    authority = f"localhost:{(origin or ends.https).port}"
    with dial(ends, row) as connection:
        answer = wire.send(connection, wire.request("CONNECT", authority, (("Host", authority),)), "CONNECT")
        if answer is None or answer.status != 200:
            return answer
        with (contextlib.suppress(OSError),
              wire.trusting(ca or ends.governor.ca).wrap_socket(connection, server_hostname="localhost") as inside):
            return wire.send(inside, wire.request("GET", row.path, (("Host", authority), ("Connection", "close"))))
    return None


def distrusting(ends: Ends, row: Row) -> wire.Answer | None:
    """A client that rejects our certificate."""
    return tunnelled(ends, row, ca=Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"))


def distrusted(ends: Ends, row: Row) -> wire.Answer | None:
    """An origin whose certificate is not trusted."""
    return tunnelled(ends, row, ends.distrusted)


def refused_tunnel(ends: Ends, row: Row) -> wire.Answer | None:
    """A CONNECT that is refused."""
    with dial(ends, row) as connection:
        return wire.send(connection, wire.request("CONNECT", "256.256.256.256:443", (("Host", "x"),)), "CONNECT")


def meet(ends: Ends, row: Row, scenario: Scenario) -> Result:
    """What this row's client gets, and how long it takes."""
    started = time.monotonic()
    answer = None
    with contextlib.suppress(OSError):
        answer = scenario(ends, row)
    return Result(answer and answer.status, answer and answer.code, time.monotonic() - started)
