"""What the ways out are tried with: a watched Governor, raw origins, and clients that keep no rules."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import socketserver
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e import wire
from tests.e2e.name_server import NameServer
from tests.e2e.origins import Origin
from tests.e2e.process import Governor

POLICY = """\
version: 1
rules:
  - allow: by-name
    to: [localhost, "*.inside.example.org"]
    address: [127.0.0.0/8, "::1"]
    schemes: [http, https]
    ports: 1-65535
    methods: any
    except: {paths: ["/denied/**"]}
  - allow: by-address
    to: [127.0.0.0/8, 0.0.0.0/8, "::1", "::"]
    schemes: [http, https]
    ports: 1-65535
    methods: reads
    paths: ["/literal/**"]
  - deny: no-gists
    to: [gist.example.org]
never:
  - to: [metadata, link-local]
"""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Yard:
    """A Governor whose every way out is watched. `trap` takes the place of whatever must never be reached.

    `names` is what the Governor asks for addresses; None where this machine gives a process no name server of its own.
    """

    governor: Governor
    names: NameServer | None
    trap: Origin
    http: Origin
    https: Origin

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """How often a name was asked or a server reached."""
        return (len(self.names.questions) if self.names else 0, self.trap.seen.connections,
                self.http.seen.connections, self.https.seen.connections)

    @property
    def port(self) -> int:
        return self.governor.port

    @property
    def metrics_port(self) -> int:
        return int(self.governor.metrics.split(":")[2].partition("/")[0])

    @contextlib.contextmanager
    def nothing_leaves(self) -> Iterator[None]:
        """Fail when a name is asked or a connection opened in here."""
        before = self.counts
        yield
        # A connection that was opened is counted by its server's thread.
        time.sleep(0.05)
        assert self.counts == before

    def ask(self, content: bytes, method: str = "GET", seconds: float = wire.SECONDS) -> wire.Answer | None:
        """One request in clear on a connection of its own."""
        return patiently(lambda: wire.ask(self.port, content, method, seconds))

    def inside(self, authority: str, content: bytes, server_name: str | None = None) -> wire.Answer | None:
        """One request over HTTP/1.1 inside a tunnel."""
        def attempt() -> wire.Answer | None:
            with self.tunnel(authority, server_name=server_name) as connection:
                return wire.send(connection, content)
        return patiently(attempt)

    def over_http2(self, authority: str, fields: wire.Fields, body: bytes = b"",
                   trailers: wire.Fields = ()) -> wire.Answer | None:
        """One request over HTTP/2 inside a tunnel."""
        def attempt() -> wire.Answer | None:
            with self.tunnel(authority, alpn=("h2",)) as connection:
                return wire.Http2(connection).ask(fields, body, trailers)
        return patiently(attempt)

    def tunnel(self, authority: str, **more: Any) -> contextlib.AbstractContextManager[ssl.SSLSocket]:
        return wire.tunnel(self.port, self.governor.ca, authority, **more)

    def decisions(self, answer: wire.Answer) -> list[dict[str, Any]]:
        """The entries that this answer names: one, where the verdict is on disk."""
        number = answer.headers.get("x-governor-entry", "/-1").rpartition("/")[2]
        return [entry for entry in self.governor.entries("decision") if entry["seq"] == int(number)]


def patiently(attempt: Callable[[], wire.Answer | None]) -> wire.Answer | None:
    """The answer to an attempt; made again where too many were refused within this second."""
    while (answer := attempt()) is not None and answer.code == "REFUSAL_RATE":
        time.sleep(1)
    return answer


def get(path: str, *headers: tuple[str, str]) -> bytes:
    return wire.request("GET", path, headers)


def everything(connection: socket.socket, seconds: float = 3.0) -> bytes:
    """All that comes until the other end closes, or is silent for so long."""
    connection.settimeout(seconds)
    got = b""
    with contextlib.suppress(OSError):
        while chunk := connection.recv(65536):
            got += chunk
    return got


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once this is true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def statuses(content: bytes) -> list[int]:
    """The statuses of the answers that follow one another in these bytes."""
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3})", content)]


@dataclass
class RawOrigin:
    """An origin that keeps the bytes of each connection as they come."""

    port: int
    received: list[bytearray] = field(default_factory=list)

    @property
    def authority(self) -> str:
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    @property
    def everything(self) -> bytes:
        return b"".join(self.received)


@contextlib.contextmanager
def recording(answer: bytes | Sequence[bytes] = OK, chain: Path | None = None, port: int = 0,
              address: str = "127.0.0.1") -> Iterator[RawOrigin]:
    """An origin that answers each request head with these bytes, in one piece or in several with pauses between."""
    origin = RawOrigin(port)
    pieces = [answer] if isinstance(answer, bytes) else list(answer)

    class Record(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            record = bytearray()
            origin.received.append(record)
            heads = 0
            with contextlib.suppress(OSError):
                while chunk := self.request.recv(65536):
                    record.extend(chunk)
                    while heads < record.count(b"\r\n\r\n"):
                        heads += 1
                        self.answer()

        def answer(self) -> None:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(0.1)
                self.request.sendall(piece)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that leaves."""

    server = Server((address, port), Record)
    if chain is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    origin.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield origin
    finally:
        server.shutdown()
        server.server_close()


def most_memory(governor: Governor) -> int:
    """The most memory, in bytes, that the process had at once since `forget_memory`."""
    return _status(governor, "VmHWM")


def memory(governor: Governor) -> int:
    """The memory, in bytes, that the process has."""
    return _status(governor, "VmRSS")


def forget_memory(governor: Governor) -> None:
    Path(f"/proc/{governor.process.pid}/clear_refs").write_text("5")


def _status(governor: Governor, name: str) -> int:
    text = Path(f"/proc/{governor.process.pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found, f"this system does not tell {name}"
    return int(found[1]) * 1024


class Web:
    """Who holds mitmweb's password, and everything mitmweb lets them do."""

    def __init__(self, governor: Governor, port: int) -> None:
        self.governor, self.port = governor, port
        token = next(found[1] for line in governor.output if (found := re.search(r"token=(\w+)", line)))
        self._headers = {"Authorization": f"Bearer {token}", "Cookie": "_mitmproxy_xsrf=known",
                         "X-XSRFToken": "known"}

    def call(self, method: str, path: str, content: Any = None) -> tuple[int, str]:
        """Status and text of one call of mitmweb's interface; status 0 where the process is gone."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers=self._headers | {"Content-Type": "application/json"})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError:
            return 0, ""

    def flows(self) -> list[dict[str, Any]]:
        return list(json.loads(self.call("GET", "/flows")[1]))

    def flow(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 10.0) -> dict[str, Any]:
        """The newest flow of which this is true, once there is one."""
        deadline = time.monotonic() + seconds
        while True:
            for found in reversed(self.flows()):
                if wanted(found):
                    return found
            assert time.monotonic() < deadline, "mitmweb shows no such flow"
            time.sleep(0.05)

    def options(self) -> dict[str, Any]:
        return dict(json.loads(self.call("GET", "/options")[1]))
