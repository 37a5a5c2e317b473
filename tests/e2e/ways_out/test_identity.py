"""Ways out under another's name, with another's credentials, or without being written down."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import scaled
from tests.e2e import wire
from tests.e2e.origins import Origin, make_certificate, serving
from tests.e2e.process import Governor, started
from tests.e2e.ways_out.ways import POLICY, Yard, forget_memory, get, memory, most_memory

pytestmark = pytest.mark.e2e

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Guarded:
    """A Governor with one registered agent, and that agent's token."""

    governor: Governor
    http: Origin
    https: Origin
    token: str


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Guarded]:
    with (serving() as plain, serving(chain=certificate[0]) as tls,
          started(tmp_path_factory.mktemp("guarded"), POLICY, trust=certificate[1]) as governor):
        added = json.loads(governor.verb("agents", "add", "coder-1", "--json").stdout)
        yield Guarded(governor, plain, tls, added["token"])


def basic(name: str, password: str) -> tuple[str, str]:
    return "Proxy-Authorization", "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.case(52)
def test_a_certificate_that_a_client_made_itself_names_no_agent(guarded: Guarded, tmp_path: Path) -> None:
    """Nobody asks for a certificate, whatever name it has: it brings nothing and replaces nothing."""
    chain, _ = make_certificate(tmp_path)
    context = wire.trusting(guarded.governor.ca)
    context.check_hostname = False
    context.load_cert_chain(chain)
    authority = f"localhost:{guarded.https.port}"
    with (wire.connected(guarded.governor.port, authority, basic("coder-1", guarded.token)) as connection,
          context.wrap_socket(connection, server_hostname="localhost") as inside):
        known = wire.send(inside, get("/known", ("Host", authority)))
    with pytest.raises(wire.Refused) as refused, wire.connected(guarded.governor.port, authority):
        pass

    assert known is not None
    assert known.status == 200
    assert refused.value.answer is not None
    assert (refused.value.answer.status, refused.value.answer.code) == (407, "IDENTITY_REQUIRED")


@pytest.mark.case(53)
def test_proxy_credentials_reach_no_origin_and_no_log(guarded: Guarded) -> None:
    authority = f"localhost:{guarded.https.port}"
    good, bad = basic("coder-1", guarded.token), basic("coder-1", PASSWORD)
    wire.ask(guarded.governor.port, wire.plain("GET", f"{guarded.http.url}/", good))
    wire.ask(guarded.governor.port, wire.plain("GET", f"{guarded.http.url}/", bad))
    wire.ask(guarded.governor.port, wire.plain("GET", f"{guarded.http.url}/", good, bad))
    with wire.tunnel(guarded.governor.port, guarded.governor.ca, authority, good) as inside:
        wire.send(inside, get("/", ("Host", authority), bad))

    seen = [name for origin in (guarded.http, guarded.https) for request in origin.seen.requests for name in request[2]]
    kept = b"".join(file.read_bytes() for file in guarded.governor.home.rglob("*") if file.is_file())
    assert len(guarded.http.seen.requests) >= 1
    assert "proxy-authorization" not in seen
    for secret in (guarded.token, PASSWORD, good[1].split()[1], bad[1].split()[1]):
        assert secret.encode() not in kept


@pytest.mark.case(63)
@pytest.mark.parametrize("headers", [
    pytest.param(lambda token: [basic("coder-1", token), basic("other", "x")], id="two, the first good"),
    pytest.param(lambda token: [basic("other", "x"), basic("coder-1", token)], id="two, the second good"),
    pytest.param(lambda token: [("Proxy_Authorization", basic("coder-1", token)[1])], id="an underscore"),
    pytest.param(lambda token: [("Authorization", basic("coder-1", token)[1])], id="the origin's header"),
    pytest.param(lambda token: [("X-Governor-Agent", "coder-1")], id="Governor's own header"),
    pytest.param(lambda token: [("Connection", "Proxy-Authorization"), basic("other", "x")], id="nominated"),
])
def test_credentials_that_say_two_things_identify_no_one(guarded: Guarded, headers) -> None:  # type: ignore[no-untyped-def]
    before = guarded.http.seen.connections
    answer = wire.ask(guarded.governor.port, wire.plain("GET", f"{guarded.http.url}/", *headers(guarded.token)))

    assert answer is not None
    assert (answer.status, guarded.http.seen.connections) == (407, before)


@pytest.mark.case(63)
def test_credentials_count_for_the_connection_of_their_tunnel_and_no_other(guarded: Guarded) -> None:
    authority, good = f"localhost:{guarded.https.port}", basic("coder-1", guarded.token)
    with wire.dial(guarded.governor.port) as connection:
        first = wire.send(connection, wire.plain("GET", f"{guarded.http.url}/", good))
        second = wire.send(connection, wire.plain("GET", f"{guarded.http.url}/"))
    with wire.tunnel(guarded.governor.port, guarded.governor.ca, authority, good) as inside:
        third = wire.send(inside, get("/", ("Host", authority), basic("other", "x")))

    assert [answer and answer.status for answer in (first, second, third)] == [200, 407, 200]


# Written down


@pytest.mark.case(55)
def test_a_client_that_rejects_our_certificate_is_written_down(yard: Yard) -> None:
    stranger, authority = ssl.create_default_context(), f"localhost:{yard.https.port}"
    # A client of this address may have failed before; a handshake that succeeds makes good for it.
    yard.inside(authority, get("/", ("Host", authority)))
    before = len(yard.governor.entries("connection"))
    with yard.nothing_leaves(), wire.connected(yard.port, "pinned.example.org:443") as connection, pytest.raises(
            ssl.SSLError):
        stranger.wrap_socket(connection, server_hostname="pinned.example.org")
    entry = yard.governor.wait_for_entry("connection", before + 1)[-1]
    yard.inside(authority, get("/", ("Host", authority)))

    assert (entry["client"], entry["result"]) == ("127.0.0.1", "handshake_failed")


# Floods

MALFORMED = (b"GET\r\n\r\n", b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET http://a b/ HTTP/1.1\r\n\r\n",
             b"GET http://[/ HTTP/1.1\r\nHost: [\r\n\r\n", b"\r\n\r\nFOO BAR\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n")


@pytest.mark.case(54)
def test_each_connection_with_a_malformed_request_is_accounted_for(yard: Yard) -> None:
    count = scaled(400)
    time.sleep(2.5)
    first = len(yard.governor.entries())

    def attempt(number: int) -> None:
        with wire.dial(yard.port) as connection:
            connection.sendall(MALFORMED[number % len(MALFORMED)])
            connection.shutdown(1)
            while connection.recv(4096):
                pass

    with yard.nothing_leaves(), ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, range(count)))
    time.sleep(2.5)
    entries = yard.governor.entries()[first:]
    alone = sum(entry["type"] == "connection" for entry in entries)
    counted = sum(sum(entry["counts"].values()) for entry in entries if entry["type"] == "refusals")
    judged = sum(entry["type"] == "decision" for entry in entries)

    assert alone + counted + judged == count


@pytest.mark.case(57)
def test_headers_that_never_end_are_cut_off_and_leave_memory_as_it_was(yard: Yard) -> None:
    count, line = scaled(100), b"X-Padding: " + b"x" * 1000 + b"\r\n"
    forget_memory(yard.governor)
    before = memory(yard.governor)

    def attempt(_: int) -> bool:
        """True when the connection was closed before the megabyte was out."""
        with wire.dial(yard.port) as connection:
            try:
                connection.sendall(b"GET http://localhost/ HTTP/1.1\r\n" + line * 1000)
                connection.settimeout(3)
                return bool(connection.recv(4096)) or True
            except TimeoutError:
                return False
            except OSError:
                return True

    with ThreadPoolExecutor(25) as pool:
        closed = list(pool.map(attempt, range(count)))

    assert all(closed)
    assert most_memory(yard.governor) - before < 32 * 1024 * 1024
