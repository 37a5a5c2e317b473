"""Ways out through what HTTP is carried by, or through what is carried where HTTP should be."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons

from addons import settings
from addons.errors import StartRefused
from tests.e2e import wire
from tests.e2e.process import command_line, free_port, scratch_environment, started
from tests.e2e.ways_out.ways import POLICY, RawOrigin, Yard, everything, get, patiently, recording, statuses

pytestmark = pytest.mark.e2e

WEBSOCKET = (("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
             ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="))
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"


# Requests that follow one another


@pytest.mark.case(31)
def test_a_denied_request_after_an_allowed_one_on_the_same_connection_is_refused(yard: Yard) -> None:
    """Plain, where each request names its own origin, and inside a tunnel, where the origin's connection is open."""
    def attempt() -> wire.Answer | None:
        with wire.dial(yard.port) as connection:
            wire.send(connection, wire.plain("GET", f"{yard.http.url}/first"))
            return wire.send(connection, wire.plain("GET", f"{yard.http.url}/denied/second"))

    authority = f"localhost:{yard.https.port}"
    with yard.tunnel(authority) as inside:
        first = wire.send(inside, get("/first", ("Host", authority)))
        second = wire.send(inside, get("/denied/second", ("Host", authority)))
    plain = patiently(attempt)

    assert [answer and answer.status for answer in (first, second, plain)] == [200, 403, 403]
    assert not any("/denied" in line for line in yard.http.seen.lines + yard.https.seen.lines)


@pytest.mark.case(32)
def test_of_two_requests_sent_at_once_the_denied_one_is_refused(yard: Yard) -> None:
    allowed, denied = (wire.plain("GET", f"{yard.http.url}{path}") for path in ("/pipelined", "/denied/pipelined"))
    authority = f"localhost:{yard.https.port}"
    with wire.dial(yard.port) as connection:
        connection.sendall(allowed + denied + allowed)
        plain = everything(connection, 1)
    with yard.tunnel(authority) as inside:
        inside.sendall(get("/pipelined", ("Host", authority)) + get("/denied/pipelined", ("Host", authority)))
        tunnelled = everything(inside, 1)

    assert (statuses(plain)[:2], statuses(tunnelled)) == ([200, 403], [200, 403])
    assert not any("/denied" in line for line in yard.http.seen.lines + yard.https.seen.lines)


@pytest.mark.case(33)
def test_a_second_request_in_an_http2_body_reaches_no_origin_as_a_request(yard: Yard) -> None:
    hidden = b"GET /denied/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = len(yard.https.seen.requests)
    authority = f"localhost:{yard.https.port}"
    answer = yard.over_http2(authority, wire.fields("POST", authority, "/p"), hidden)
    wait = yard.over_http2(authority, wire.fields("POST", authority, "/q"), b"x")

    assert (answer and answer.status, wait and wait.status) == (200, 200)
    assert [(line[0], line[1], line[3]) for line in yard.https.seen.requests[before:]] == [
        ("POST", "/p", hidden), ("POST", "/q", b"x")]


@pytest.mark.case(34)
@pytest.mark.parametrize("announced", [True, False])
def test_trailers_of_a_request_are_refused_and_written_down(yard: Yard, announced: bool) -> None:
    chunked = (("Transfer-Encoding", "chunked"), *((("Trailer", "x-late"),) if announced else ()))
    authority = f"localhost:{yard.https.port}"
    with yard.nothing_leaves():
        http1 = yard.ask(wire.plain("POST", f"{yard.http.url}/x", *chunked,
                                    body=b"4\r\nbody\r\n0\r\nx-late: 1\r\n\r\n"), "POST")
        http2 = yard.over_http2(authority, wire.fields("POST", authority, "/x"), b"body", (("x-late", "1"),))

    for answer in (http1, http2):
        assert answer is not None
        assert (answer.status, answer.code) == (403, "TRAILERS")
        assert yard.decisions(answer)[0]["code"] == "TRAILERS"


@pytest.mark.case(37)
def test_a_denied_request_that_expects_100_continue_is_refused_before_its_body(yard: Yard) -> None:
    head = wire.plain("POST", f"{yard.http.url}/denied/x", ("Content-Length", "4"), ("Expect", "100-continue"))
    with yard.nothing_leaves(), wire.dial(yard.port) as connection:
        connection.sendall(head)
        got = everything(connection, 2)

    assert statuses(got) == [403]


@pytest.mark.case(37)
def test_a_denied_request_that_sends_its_body_without_waiting_is_refused(yard: Yard) -> None:
    head = wire.plain("POST", f"{yard.http.url}/denied/x", ("Content-Length", "4"), ("Expect", "100-continue"))
    with yard.nothing_leaves(), wire.dial(yard.port) as connection:
        connection.sendall(head + b"body")
        got = everything(connection, 2)

    assert statuses(got)[-1] in (403, 429)


# Bytes that are no HTTP


@pytest.mark.case(40)
@pytest.mark.parametrize("content", [
    pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="SSH"),
    pytest.param(b"\x00\x00\x00\x17binary that is no TLS", id="binary"),
    pytest.param(b"EHLO example.org\r\nMAIL FROM:<a@example.org>\r\n\r\n", id="SMTP"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", id="HTTP/2 in clear"),
    pytest.param(b"\x16\x03\x01\x00\x02\x01\x00", id="a broken hello"),
    pytest.param(b"\x17\x03\x03\x00\x10" + bytes(16), id="TLS data before a hello"),
    pytest.param(b"*1\r\n$4\r\nPING\r\n", id="Redis"),
])
@pytest.mark.parametrize("port", [None, 53, 5353])
def test_what_is_no_http_in_a_tunnel_reaches_no_one(yard: Yard, content: bytes, port: int | None) -> None:
    with watched(port) as origin, wire.connected(yard.port, origin.authority) as connection:
        connection.sendall(content)
        got = everything(connection, 0.3)

        assert origin.received == []
    # A handshake that failed would have the next client of this address refused before its own.
    yard.inside(f"localhost:{yard.https.port}", get("/", ("Host", f"localhost:{yard.https.port}")))
    assert not any(status < 400 for status in statuses(got))


@contextlib.contextmanager
def watched(port: int | None) -> Iterator[RawOrigin]:
    """An origin at this port, or at a free one."""
    try:
        with recording(port=port or 0) as origin:
            yield origin
    except OSError as problem:
        pytest.skip(f"port {port} cannot be had here: {problem}")


@pytest.mark.case(47)
@pytest.mark.parametrize("port", [53, 5353])
def test_a_question_to_a_name_server_in_a_tunnel_reaches_no_one(yard: Yard, port: int) -> None:
    """mitmproxy speaks DNS with whatever a tunnel to these ports leads to."""
    question = bytes.fromhex("12340100000100000000000006736563726574076578616d706c65036f72670000010001")
    with yard.nothing_leaves(), watched(port) as origin, wire.connected(yard.port, origin.authority) as connection:
        connection.sendall(len(question).to_bytes(2, "big") + question)
        got = everything(connection, 1)

        assert (origin.received, got) == ([], b"")


@pytest.mark.case(48)
@pytest.mark.parametrize("which", ["x-ahead", "x-behind"])
@pytest.mark.parametrize("act", ["dns@next_layer", "udp@next_layer", "raw@next_layer", "raise@dns_request"])
def test_a_layer_that_another_script_puts_in_carries_nothing(beside: Yard, which: str, act: str) -> None:
    question = bytes.fromhex("12340100000100000000000006736563726574076578616d706c65036f72670000010001")
    with recording() as origin:
        with contextlib.suppress(wire.Refused), wire.connected(
                beside.port, origin.authority, (which, act)) as connection:
            connection.sendall(len(question).to_bytes(2, "big") + question)
            everything(connection, 0.4)

        assert origin.received == []


# Upgrades


@pytest.mark.case(42)
@pytest.mark.parametrize("headers", [
    pytest.param((("Connection", "Upgrade"), ("Upgrade", "foo")), id="an unknown protocol"),
    pytest.param((*WEBSOCKET[:2], ("Sec-WebSocket-Version", "8"), WEBSOCKET[3]), id="WebSocket version 8"),
    pytest.param(WEBSOCKET, id="WebSocket"),
    pytest.param((("Upgrade", "foo"),), id="without Connection"),
    pytest.param((("Connection", "upgrade"), ("uPgRaDe", "TLS/1.0")), id="TLS in the connection"),
    pytest.param((("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")),
                 id="h2c"),
])
def test_no_upgrade_becomes_a_tunnel(yard: Yard, headers: tuple[tuple[str, str], ...]) -> None:
    with recording(SWITCHING) as origin, wire.dial(yard.port) as connection:
        connection.sendall(wire.plain("GET", f"{origin.url}/x", *headers) + b"raw bytes")
        got = everything(connection, 0.5)

        assert b" 101 " not in got
        assert b"raw bytes" not in origin.everything
        # mitmproxy takes `h2c` out itself, and what is left is a plain request.
        assert b"upgrade" not in origin.everything.lower()


@pytest.mark.case(42)
@pytest.mark.parametrize("switching", [SWITCHING, SWITCHING + b"bytes of the origin"])
def test_a_101_that_nobody_asked_for_ends_the_connection(yard: Yard, switching: bytes) -> None:
    with recording(switching) as origin, wire.dial(yard.port) as connection:
        connection.sendall(wire.plain("GET", f"{origin.url}/x"))
        time.sleep(0.3)
        with contextlib.suppress(OSError):
            connection.sendall(b"raw bytes")
        got = everything(connection, 1)

        assert b" 101 " not in got
        assert b"bytes of the origin" not in got
        assert b"raw bytes" not in origin.everything


@pytest.mark.case(43, 44)
@pytest.mark.parametrize("frame", [
    pytest.param(b"\x89\x86\x00\x00\x00\x00secret", id="a ping with data"),
    pytest.param(b"\x88\x88\x00\x00\x00\x00\x03\xe8secret", id="a close with a reason"),
    pytest.param(b"\x01\x86\x00\x00\x00\x00secret" * 20, id="fragments without an end"),
])
def test_no_frame_of_a_websocket_that_no_rule_grants_gets_out(yard: Yard, frame: bytes) -> None:
    accepting = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
    with recording(accepting) as origin, wire.dial(yard.port) as connection:
        connection.sendall(wire.plain("GET", f"{origin.url}/x", *WEBSOCKET) + frame)
        got = everything(connection, 0.5)

        assert statuses(got)[0] in (403, 429)
        assert origin.received == []


@pytest.mark.case(45)
@pytest.mark.parametrize("value", ["H2C, foo", "h2c,websocket", "H2c", "h2c;", "foo, h2c"])
def test_an_upgrade_to_http2_in_any_spelling_is_refused(yard: Yard, value: str) -> None:
    with recording(SWITCHING) as origin:
        answer = yard.ask(wire.plain("GET", f"{origin.url}/x", ("Connection", "Upgrade"), ("Upgrade", value)))

        assert answer is not None
        assert (answer.status, answer.code) == (403, "UPGRADE_REFUSED")
        assert origin.received == []


# Modes

REFUSED_MODES = (
    "reverse:udp://127.0.0.1:1", "wireguard", "reverse:quic://127.0.0.1:1", "reverse:http3://127.0.0.1:1",
    "reverse:dtls://127.0.0.1:1", "reverse:dns://127.0.0.1:1", "local",
    "upstream:http://127.0.0.1:1", "reverse:tcp://127.0.0.1:1", "reverse:http://127.0.0.1:1", "tun",
)


@pytest.mark.case(46, 47, 48)
@pytest.mark.parametrize("mode", REFUSED_MODES)
def test_a_mode_that_is_not_governed_is_refused(mode: str) -> None:
    with taddons.context(Proxyserver()) as context:
        context.options.mode = [mode]
        with pytest.raises(StartRefused, match="MODE_REFUSED"):
            settings.check_at_start(context.options)


@pytest.mark.case(46, 47)
def test_beside_a_governed_mode_one_that_is_not_does_not_start_either(tmp_path: Path) -> None:
    """The real start; `test_start.py` has the rest of what a refused one must not do."""
    policy, name_port = tmp_path / "policy.yaml", free_port()
    policy.write_text(POLICY)
    mode = f"reverse:dns://127.0.0.1:1@127.0.0.1:{name_port}"
    command = command_line(tmp_path / "home", policy, ["--mode", "regular", "--mode", mode], False)
    ended = subprocess.run(command, env=scratch_environment(tmp_path), capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert ended.stderr.startswith("governor: refused to start: MODE_REFUSED: mode reverse:dns")


@pytest.mark.case(46)
def test_governor_has_no_datagram_socket(yard: Yard) -> None:
    """Outside mode dns nothing listens to datagrams, and so nothing could carry QUIC or DNS."""
    pid = yard.governor.process.pid
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(os.readlink(descriptor))
    datagram = {f"socket:[{line.split()[9]}]" for name in ("udp", "udp6")
                for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]}

    assert held & datagram == set()


@pytest.mark.case(41)
def test_raw_bytes_by_socks5_reach_no_one(tmp_path: Path) -> None:
    with recording() as origin, started(tmp_path, POLICY, ["--mode", "socks5"]) as socks, wire.dial(
            socks.port) as connection:
        connection.sendall(b"\x05\x01\x00")
        connection.recv(2)
        connection.sendall(b"\x05\x01\x00\x03\x09localhost" + origin.port.to_bytes(2, "big"))
        connection.recv(10)
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        everything(connection, 1)

        assert origin.received == []
