"""A thousand denied requests of every kind: no connection is opened and no name is asked."""

from __future__ import annotations

import contextlib
import itertools
import json
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.e2e import wire
from tests.e2e.name_server import NameServer, answering
from tests.e2e.origins import Origin, counting, serving
from tests.e2e.process import Governor, started

pytestmark = pytest.mark.e2e

POLICY = """\
version: 1
rules:
  - allow: read-origin
    to: origin.example.org
    address: 127.0.0.0/8
    schemes: [http, https]
    ports: 1-65535
    methods: reads
    paths: ["/allowed/**"]
  - deny: no-gists
    to: [gist.example.org]
never:
  - to: [metadata, link-local]
"""
ORIGIN = "origin.example.org"
MOUNT = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
HANG_SECONDS = 0.3


@dataclass(frozen=True)
class Sealed:
    """A Governor whose names and destinations are watched. `trap` takes the place of every denied origin."""

    governor: Governor
    names: NameServer
    trap: Origin
    origin: Origin

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.names.questions), self.trap.seen.connections, self.origin.seen.connections


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    folder = tmp_path_factory.mktemp("sealed")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("only root can give a process its own name server (unshare -m)")
    with contextlib.ExitStack() as stack:
        try:
            names = stack.enter_context(answering({ORIGIN: "127.0.0.1"}))
        except OSError as problem:
            pytest.skip(f"no name server can be run on port 53: {problem}")
        configuration = folder / "resolv.conf"
        configuration.write_text(f"nameserver {names.address}\noptions timeout:1 attempts:1\n")
        trap, origin = stack.enter_context(counting()), stack.enter_context(serving())
        governor = stack.enter_context(started(
            folder, POLICY, wrapper=["unshare", "-m", "sh", "-c", MOUNT, str(configuration)]))
        yield Sealed(governor, names, trap, origin)


type Try = Callable[[Sealed, int], wire.Answer | None]


def plain(method: str, url: str, *headers: tuple[str, str], body: bytes = b"") -> Try:
    """A request in clear. {trap}, {own} and {metrics} stand for ports, {n} for the number of the attempt."""
    def attempt(sealed: Sealed, number: int) -> wire.Answer | None:
        return wire.ask(sealed.governor.port, wire.plain(method, filled(url, sealed, number), *headers, body=body))
    return attempt


def raw(content: str, seconds: float = wire.SECONDS) -> Try:
    """Bytes as they are."""
    def attempt(sealed: Sealed, number: int) -> wire.Answer | None:
        sent = filled(content, sealed, number).encode("latin-1")
        return wire.ask(sealed.governor.port, sent, seconds=seconds)
    return attempt


def tunnelled(authority: str, content: str, server_name: str | None = None) -> Try:
    """A request inside a tunnel over HTTP/1.1."""
    def attempt(sealed: Sealed, number: int) -> wire.Answer | None:
        with inside(sealed, number, authority, server_name, "http/1.1") as connection:
            return wire.send(connection, filled(content, sealed, number).encode("latin-1"))
    return attempt


def over_http2(authority: str, fields: Callable[[str], wire.Fields], body: bytes = b"",
               trailers: wire.Fields = ()) -> Try:
    def attempt(sealed: Sealed, number: int) -> wire.Answer | None:
        with inside(sealed, number, authority, None, "h2") as connection:
            return wire.Http2(connection).ask(fields(filled(authority, sealed, number)), body, trailers)
    return attempt


@contextlib.contextmanager
def inside(sealed: Sealed, number: int, authority: str, server_name: str | None, alpn: str) -> Iterator[ssl.SSLSocket]:
    with wire.tunnel(sealed.governor.port, sealed.governor.ca, filled(authority, sealed, number),
                     server_name=server_name and filled(server_name, sealed, number), alpn=(alpn,)) as connection:
        yield connection


def in_tunnel_bytes(authority: str, content: str) -> Try:
    """Something that is not TLS in a tunnel."""
    def attempt(sealed: Sealed, number: int) -> wire.Answer | None:
        with wire.connected(sealed.governor.port, filled(authority, sealed, number)) as connection:
            connection.settimeout(HANG_SECONDS)
            return wire.send(connection, filled(content, sealed, number).encode())
    return attempt


def filled(text: str, sealed: Sealed, number: int) -> str:
    metrics = sealed.governor.metrics.split(":")[2].partition("/")[0]
    for name, value in {"trap": sealed.trap.port, "own": sealed.governor.port, "metrics": metrics, "n": number}.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def get(path: str, host: str = f"{ORIGIN}:{{trap}}", *more: str) -> str:
    return "\r\n".join((f"GET {path} HTTP/1.1", f"Host: {host}", *more, "", ""))


LITERALS = ("127.0.0.1", "2130706433", "0x7f000001", "0X7F.1", "127.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0",
            "127.0.0.1.", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]", "169.254.169.254.", "10.0.0.1")
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
AUTHORITY = f"{ORIGIN}:{{trap}}"
ALLOWED = f"http://{AUTHORITY}/allowed/x"

# Each kind with the code it gets; None where no request comes of it and the connection ends.
KINDS: dict[str, tuple[str | None, Try]] = {
    "rule": ("RULE_DENY", plain("GET", "http://gist.example.org:{trap}/")),
    "rule in a tunnel": ("RULE_DENY", tunnelled("gist.example.org:{trap}", get("/", "gist.example.org:{trap}"))),
    "rule over HTTP/2": ("RULE_DENY", over_http2("gist.example.org:443", lambda a: wire.fields("GET", a))),
    "default": ("DEFAULT_DENY", plain("GET", "http://secret-{n}.example.org/")),
    "default in a tunnel": ("DEFAULT_DENY", tunnelled(
        "secret-{n}.example.org:443", get("/", "secret-{n}.example.org"))),
    "default over HTTP/2": ("DEFAULT_DENY", over_http2("secret-{n}.example.org:443", lambda a: wire.fields("GET", a))),
    "path": ("DEFAULT_DENY", plain("GET", f"http://{AUTHORITY}/denied")),
    "method": ("DEFAULT_DENY", plain("DELETE", ALLOWED)),
    "never": ("NEVER", plain("GET", "http://169.254.169.254/latest/meta-data/")),
    "never in a tunnel": ("NEVER", tunnelled("169.254.169.254:443", get("/", "169.254.169.254"))),
    "its own port": ("NEVER", plain("GET", "http://127.0.0.1:{own}/")),
    "the metrics port": ("NEVER", plain("GET", "http://127.0.0.1:{metrics}/metrics")),
    "server name": ("DESTINATION_MISMATCH", tunnelled(AUTHORITY, get("/allowed/x"), "secret-{n}.example.org")),
    "Host header": ("DESTINATION_MISMATCH", raw(
        f"GET {ALLOWED} HTTP/1.1\r\nHost: secret-{{n}}.example.org\r\n\r\n")),
    "Host header in a tunnel": ("DESTINATION_MISMATCH", tunnelled(AUTHORITY, get("/allowed/x", "gist.example.org"))),
    "two Host headers": ("DESTINATION_MISMATCH", raw(
        f"GET {ALLOWED} HTTP/1.1\r\nHost: {AUTHORITY}\r\nHost: secret-{{n}}.example.org\r\n\r\n")),
    "authority over HTTP/2": ("DESTINATION_MISMATCH", over_http2(
        AUTHORITY, lambda a: wire.fields("GET", "secret.example.org", "/allowed/x"))),
    "absolute URI over HTTP/2": ("NON_CANONICAL", over_http2(
        AUTHORITY, lambda a: wire.fields("GET", a, "http://secret.example.org/allowed/x"))),
    "absolute URI in a tunnel": ("DESTINATION_MISMATCH", tunnelled(
        AUTHORITY, get("https://secret-{n}.example.org/allowed/x"))),
    "dot segments": ("NON_CANONICAL", plain("GET", f"http://{AUTHORITY}/allowed/%2e%2e/denied")),
    "a backslash": ("NON_CANONICAL", plain("GET", f"http://{AUTHORITY}/allowed/..%5cdenied")),
    "upgrade to WebSocket": ("UPGRADE_REFUSED", raw(get(ALLOWED, AUTHORITY, *WEBSOCKET))),
    "upgrade to h2c": ("UPGRADE_REFUSED", raw(get(ALLOWED, AUTHORITY, "Connection: Upgrade", "Upgrade: H2C, foo"))),
    "trailers over HTTP/2": ("TRAILERS", over_http2(
        AUTHORITY, lambda a: wire.fields("GET", a, "/allowed/x"), b"body", (("x-late", "1"),))),
    "trailers": ("TRAILERS", raw(
        f"GET {ALLOWED} HTTP/1.1\r\nHost: {AUTHORITY}\r\nTransfer-Encoding: chunked\r\nTrailer: x-late\r\n\r\n"
        "4\r\nbody\r\n0\r\nx-late: 1\r\n\r\n")),
    "method override": ("METHOD_OVERRIDE", plain("GET", ALLOWED, ("X-HTTP-Method-Override", "DELETE"))),
    "path override": ("METHOD_OVERRIDE", plain("GET", ALLOWED, ("X-Original-URL", "/denied"))),
    "GET with a body": ("METHOD_OVERRIDE", plain("GET", ALLOWED, ("Content-Length", "4"), body=b"body")),
    "a tunnel and nothing in it": (None, in_tunnel_bytes("secret-{n}.example.org:443", "")),
    "SSH in a tunnel": (None, in_tunnel_bytes(AUTHORITY, "SSH-2.0-OpenSSH_9.2\r\n")),
    "clear text in a tunnel": ("DEFAULT_DENY", in_tunnel_bytes(AUTHORITY, get("/denied"))),
    "garbage": ("MALFORMED", raw("\x00\x01\x02 secret-{n}\r\n\r\n", HANG_SECONDS)),
    "no Host": ("MALFORMED", raw("GET /allowed/x HTTP/1.1\r\n\r\n")),
    "another scheme": ("MALFORMED", raw(f"GET ftp://{AUTHORITY}/ HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n")),
    "user information": ("MALFORMED", raw(
        f"GET http://secret-{{n}}@{AUTHORITY}/ HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n")),
    "two lengths": ("MALFORMED", raw(
        f"POST {ALLOWED} HTTP/1.1\r\nHost: {AUTHORITY}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        "0\r\n\r\n")),
    **{f"literal {literal}": ("PRIVATE_ADDRESS", plain("GET", f"http://{literal}:{{trap}}/allowed/x"))
       for literal in LITERALS},
}
KINDS["literal 169.254.169.254."] = ("NEVER", KINDS["literal 169.254.169.254."][1])


def test_the_counters_count(sealed: Sealed) -> None:
    """An allowed request asks for its name and connects; a redirected one would be seen by the trap."""
    answer = wire.ask(sealed.governor.port, wire.plain("GET", f"http://{ORIGIN}:{sealed.origin.port}/allowed/x"))
    trapped = wire.ask(sealed.governor.port, wire.plain("GET", f"http://{ORIGIN}:{sealed.trap.port}/allowed/x"))

    assert (answer and answer.status, trapped and trapped.status) == (200, 502)
    assert ORIGIN in sealed.names.questions
    assert (sealed.trap.seen.connections, sealed.origin.seen.connections) == (1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaves_for(sealed: Sealed, kind: str) -> None:
    code, attempt = KINDS[kind]
    before = sealed.counts
    answer = attempt(sealed, 0)
    if answer is not None and answer.code == "REFUSAL_RATE":
        time.sleep(1)
        answer = attempt(sealed, 0)

    assert (answer.code if answer else None) == code
    assert answer is None or answer.status >= 400
    assert sealed.counts == before


def test_a_thousand_denied_requests_open_no_connection_and_ask_no_name(sealed: Sealed) -> None:
    before, first = sealed.counts, sealed.governor.entries()[-1]["seq"] + 1
    told = Counter[str | None]()
    quick = [attempt for name, (_, attempt) in KINDS.items() if name not in SLOW]
    for number, attempt in zip(range(900), itertools.cycle(quick), strict=False):
        answer = attempt(sealed, number)
        told[answer.code if answer else None] += 1
    for attempt in (KINDS[name][1] for name in SLOW):
        told[getattr(attempt(sealed, 0), "code", None)] += 1
    sealed.governor.verb("agents", "add", "coder-1")
    for number in range(100):
        answer = ask_with_token(sealed, f"gov_{number:043}")
        told[answer.code if answer else None] += 1

    assert told.total() >= 1000
    assert sealed.counts == before
    assert told["REFUSAL_RATE"] > 0
    assert {"RULE_DENY", "DEFAULT_DENY", "NEVER", "PRIVATE_ADDRESS", "IDENTITY_REFUSED"} <= set(told)
    assert_accounted(sealed, first, told)


SLOW = ("a tunnel and nothing in it", "SSH in a tunnel", "garbage")


def ask_with_token(sealed: Sealed, token: str) -> wire.Answer | None:
    return wire.ask(sealed.governor.port, wire.plain("GET", ALLOWED.replace("{trap}", str(sealed.trap.port)),
                                                     ("Proxy-Authorization", f"Bearer {token}")))


def assert_accounted(sealed: Sealed, first: int, told: Counter[str | None]) -> None:
    """Every refusal that a client got stands in the log: by itself, or in the counts of a `refusals` entry."""
    time.sleep(1.5)
    entries = [entry for entry in sealed.governor.entries() if entry["seq"] >= first]
    assert not [entry for entry in entries if entry["type"] == "fault"]
    # A head of which no request can be made is its connection's.
    alone = Counter(entry["code"] for entry in entries if entry.get("verdict", "allow") != "allow"
                    or (entry["type"], entry.get("result")) == ("connection", "malformed"))
    counted = sum(count for entry in entries if entry["type"] == "refusals" for count in entry["counts"].values())

    assert counted == told.pop("REFUSAL_RATE")
    told.pop(None, None)
    assert alone == told
    assert sealed.governor.verify()["result"] == "verified"


def test_with_a_token_the_counters_still_count(sealed: Sealed) -> None:
    """The thousand were refused by verdicts, not because the resolver or the network of this Governor is broken."""
    token = json.loads(sealed.governor.verb("agents", "rotate", "coder-1", "--json").stdout)["token"]
    before = sealed.origin.seen.connections
    answer = wire.ask(sealed.governor.port, wire.plain(
        "GET", f"http://{ORIGIN}:{sealed.origin.port}/allowed/x", ("Proxy-Authorization", f"Bearer {token}")))

    assert (answer and answer.status, sealed.origin.seen.connections) == (200, before + 1)
