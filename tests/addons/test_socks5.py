"""SOCKS5 byte by byte: what a client is granted, what it is refused, and what the log has to say of either."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
from mitmproxy.proxy import events, mode_servers
from mitmproxy.proxy.layers import modes

from addons import agents_file, gate, socks5
from addons.home import Home
from kernel.identity import digest
from tests.addons.inside import POLICY, SECONDS, Inside, inside, raw_origin, until_closed
from tests.addons.logs import segment

NO_AUTH, USER_PASSWORD = b"\x05\x01\x00", b"\x05\x02\x00\x02"
GRANTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
NOT_ALLOWED, FAILED, NO_COMMAND, NO_ADDRESS_TYPE = (
    bytes((5, reply)) + GRANTED[2:] for reply in (2, 1, 7, 8))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TOKEN = "gov_one"
IDENTITY = POLICY + "identity: {proxy-auth: yes}\n"


def through(home: Home, *others: Any, policy: str = POLICY) -> AbstractAsyncContextManager[Inside]:
    return inside(home, *others, policy=policy, mode="socks5")


def name(text: str | bytes, port: int, command: int = 1) -> bytes:
    """A request for a host by name."""
    host = text.encode("latin-1") if isinstance(text, str) else text
    return bytes((5, command, 0, 3, len(host))) + host + struct.pack("!H", port)


def address(text: str, port: int) -> bytes:
    """A request for a host by its address."""
    kind, family = (4, socket.AF_INET6) if ":" in text else (1, socket.AF_INET)
    return bytes((5, 1, 0, kind)) + socket.inet_pton(family, text) + struct.pack("!H", port)


def login(user: str | bytes, password: str | bytes) -> bytes:
    parts = [part.encode() if isinstance(part, str) else part for part in (user, password)]
    return b"\x01" + b"".join(bytes((len(part),)) + part for part in parts)


def get(host: str, *headers: str, target: str = "/a", version: str = "1.1") -> bytes:
    lines = "".join(f"{line}\r\n" for line in (f"Host: {host}", *headers))
    return f"GET {target} HTTP/{version}\r\n{lines}\r\n".encode("latin-1")


def closing(host: str, *headers: str, target: str = "/a") -> bytes:
    return get(host, "Connection: close", *headers, target=target)


@contextlib.asynccontextmanager
async def client(place: Inside) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    try:
        yield reader, writer
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def tunnel(place: Inside, request: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A granted tunnel, after both replies were read."""
    async with client(place) as (reader, writer):
        writer.write(NO_AUTH + request)
        assert await asyncio.wait_for(reader.readexactly(12), 5) == b"\x05\x00" + GRANTED
        yield reader, writer


async def told(place: Inside, *parts: bytes) -> bytes:
    """All that comes back until the proxy closes; each part is sent for itself."""
    async with client(place) as (reader, writer):
        for part in parts:
            with contextlib.suppress(ConnectionError):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.02)
        return await until_closed(reader)


def register(home: Home, **tokens: str) -> None:
    for agent, token in tokens.items():
        agents_file.change(home.paths.agents, partial(
            agents_file.changed, act=agents_file.Act.ADD, name=agent, sha256=digest(token), operator="root",
            now="2026-01-02T03:04:05.000006Z"))


def decisions(place: Inside) -> list[tuple[str, str, str]]:
    return [(entry["stage"], entry["verdict"], entry["code"]) for entry in place.entries("decision")]


# Granted


async def test_a_request_in_a_tunnel_is_judged_and_sent(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        host = f"localhost:{origin.port}"
        answer = await told(place, NO_AUTH, name("localhost", origin.port), closing(host))

        assert answer == b"\x05\x00" + GRANTED + OK
        assert origin.received == [closing(host)]
        assert decisions(place) == [("connect", "allow", "TUNNEL"), ("request", "allow", "ALLOW")]


async def test_the_decision_is_on_disk_before_the_client_is_told_to_go_on(home: Home) -> None:
    async with through(home) as place, tunnel(place, name("localhost", 8080)):
        (entry,) = place.entries("decision")

        assert (entry["in"]["method"], entry["in"]["host"], entry["in"]["port"]) == ("CONNECT", "localhost", 8080)
        assert place.asked == []


async def test_a_refusal_inside_is_explained_and_reaches_no_origin(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        host = f"localhost:{origin.port}"
        answer = await told(place, NO_AUTH, name("localhost", origin.port), closing(host, target="/denied/x"))

        assert b"HTTP/1.1 403 Forbidden by Governor: DEFAULT_DENY\r\n" in answer
        assert origin.received == []


async def test_a_destination_that_no_rule_reaches_is_granted_so_that_the_refusal_can_be_explained(home: Home) -> None:
    async with through(home) as place:
        answer = await told(place, NO_AUTH, name("evil.example.net", 80), closing("evil.example.net"))

        assert b"x-governor-code: DEFAULT_DENY" in answer
        assert place.asked == []


async def test_one_connection_to_the_origin_serves_all_requests_of_a_tunnel(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        host = f"api.example.org:{origin.port}"
        async with tunnel(place, name("api.example.org", origin.port)) as (reader, writer):
            for _ in range(3):
                writer.write(get(host))
                assert await asyncio.wait_for(reader.readexactly(len(OK)), 5) == OK

        assert origin.received == [get(host) * 3]
        assert place.asked == ["api.example.org"]


async def test_a_client_may_send_everything_at_once_or_byte_by_byte(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        content = NO_AUTH + name("localhost", origin.port) + closing(f"localhost:{origin.port}")
        at_once = await told(place, content)
        async with client(place) as (reader, writer):
            for byte in content[:-20]:
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(content[-20:])
            by_bytes = await until_closed(reader)

        assert at_once == by_bytes == b"\x05\x00" + GRANTED + OK


SPELLINGS = (
    (name("127.1", 80), "127.0.0.1"), (name("0x7f.1", 80), "127.0.0.1"), (name("2130706433", 80), "127.0.0.1"),
    (name("0177.0.0.1", 80), "127.0.0.1"), (address("127.0.0.1", 80), "127.0.0.1"), (address("::1", 80), "::1"),
    (address("::ffff:127.0.0.1", 80), "127.0.0.1"), (name("::1", 80), "::1"), (name("[::1]", 80), "::1"),
    (name("LOCALHOST.", 80), "localhost"), (name("XN--BCHER-KVA.example.org", 80), "xn--bcher-kva.example.org"),
)


async def test_a_destination_is_judged_in_its_canonical_form(home: Home) -> None:
    async with through(home) as place:
        for asked, _ in SPELLINGS:
            async with tunnel(place, asked):
                pass

        assert [entry["in"]["host"] for entry in place.entries("decision")] == [judged for _, judged in SPELLINGS]


async def test_what_is_dialled_is_what_was_judged_whatever_the_spelling(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        answer = await told(place, NO_AUTH, name("0x7f.1", origin.port), closing(f"127.1:{origin.port}"))

        assert answer.endswith(OK)
        assert [entry["in"]["address"] for entry in place.entries("decision")] == [None, "127.0.0.1"]


# Refused: the destination


AMBIGUOUS = (
    name("", 80), name("a" * 255, 80), name("a." * 127 + "a", 80), name("caf\u00e9.example.org", 80),
    name("caf\u00e9.example.org".encode(), 80), name("a\0.example.org", 80), name("a b.example.org", 80),
    name("a..example.org", 80), name("localhost:80", 80), name("user@localhost", 80), name("localhost/", 80),
    name("fe80::1%lo", 80), name("1.2.3.4.5", 80), name("999.1.1.1", 80), name("localhost", 0),
    address("127.0.0.1", 0),
)


async def test_a_destination_with_no_single_reading_is_refused_and_logged(home: Home) -> None:
    async with through(home) as place:
        answers = [await told(place, NO_AUTH + asked) for asked in AMBIGUOUS]

        assert answers == [b"\x05\x00" + NOT_ALLOWED] * len(AMBIGUOUS)
        assert decisions(place) == [("connect", "deny", "NON_CANONICAL")] * len(AMBIGUOUS)
        assert place.asked == []


async def test_a_client_that_rejected_our_certificate_is_refused_where_nothing_could_pass(home: Home) -> None:
    async with through(home) as place:
        place.hooks.rejections.failed("127.0.0.1")
        refused = await told(place, NO_AUTH, name("evil.example.net", 443))

        assert refused == b"\x05\x00" + NOT_ALLOWED
        assert decisions(place) == [("connect", "deny", "DEFAULT_DENY")]
        async with tunnel(place, name("localhost", 443)):
            assert decisions(place)[1:] == [("connect", "allow", "TUNNEL")]


async def test_a_request_that_names_another_host_than_the_tunnel_is_refused(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        for host in ("api.example.org", "127.0.0.1", "localhost"):
            answer = await told(place, NO_AUTH + name("www.example.org", origin.port),
                                closing(f"{host}:{origin.port}"))

            assert b"x-governor-code: DESTINATION_MISMATCH" in answer
            assert b"socks5h" not in answer
        assert origin.received == []


async def test_a_client_that_looks_names_up_itself_is_told_to_leave_that_to_the_proxy(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        host = f"api.example.org:{origin.port}"
        answer = await told(place, NO_AUTH, address("127.0.0.1", origin.port), closing(host))

        assert b"x-governor-code: DESTINATION_MISMATCH" in answer
        assert b"socks5h:// for socks5://" in answer
        assert origin.received == []


TARGETS = (
    ("http://localhost:{port}/a", "ALLOW"), ("http://LOCALHOST.:{port}/a", "ALLOW"),
    ("http://www.example.org:{port}/a", "DESTINATION_MISMATCH"), ("http://localhost/a", "DESTINATION_MISMATCH"),
    ("http://127.0.0.1:{port}/a", "DESTINATION_MISMATCH"),
)


async def test_an_absolute_uri_in_a_tunnel_must_name_the_tunnels_destination(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        for target, _ in TARGETS:
            await told(place, NO_AUTH + name("localhost", origin.port)
                       + closing(f"localhost:{origin.port}", target=target.format(port=origin.port)))

        assert [entry["code"] for entry in place.entries("decision")[1::2]] == [code for _, code in TARGETS]
        assert len(origin.received) == 2


async def test_an_absolute_https_uri_in_clear_is_never_sent_as_https(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        host = f"localhost:{origin.port}"
        await told(place, NO_AUTH, name("localhost", origin.port), closing(host, target=f"https://{host}/a"))

        assert [entry["in"]["scheme"] for entry in place.entries("decision")] == [None, "http"]
        assert not origin.received or origin.received[0].startswith(f"GET http://{host}/a ".encode())


NO_HTTP = (
    b"SSH-2.0-OpenSSH_9.9\r\n", b"\x00\x01\x02\x03" * 64, b"EHLO example.org\r\n\r\n", b"\xff" * 3000 + b"\r\n\r\n",
    b"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /a HTTP/2.0\r\nHost: localhost:{port}\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    NO_AUTH + GRANTED,
)


async def test_what_is_no_plain_http_does_not_pass(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        for content in NO_HTTP:
            async with tunnel(place, name("localhost", origin.port)) as (reader, writer):
                writer.write(content.replace(b"{port}", str(origin.port).encode()))
                writer.write_eof()
                await until_closed(reader)

        assert origin.received == []
        assert [entry["stage"] for entry in place.entries("decision") if entry["verdict"] == "allow"] == (
            ["connect"] * len(NO_HTTP))


DNS_QUESTION = b"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03abc\x00"


async def test_dns_does_not_pass(home: Home) -> None:
    async with through(home) as place:
        sent = [(port, content) for port in (53, 5353) for content in (DNS_QUESTION, b"GET ")]
        answers = [await told(place, NO_AUTH, name("localhost", port), content) for port, content in sent]

        assert answers == [b"\x05\x00" + GRANTED] * len(sent)
        assert place.asked == []
        found = await place.wait_for("connection", len(sent))
        assert {(entry["result"], entry["code"]) for entry in found} == {("refused", "PROTOCOL_REFUSED")}


# Refused: the handshake


NOWHERE: tuple[tuple[tuple[bytes, ...], bytes, str], ...] = (
    ((b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",), b"", "MALFORMED"),
    ((b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",), b"", "MALFORMED"),
    ((b"CONNECT localhost:80 HTTP/1.1\r\n\r\n",), b"", "MALFORMED"),
    ((b"\x16\x03\x01\x02\x00",), b"", "MALFORMED"),
    ((b"\x00",), b"", "MALFORMED"),
    ((b"\x05\x00",), b"\x05\xff", "PROTOCOL_REFUSED"),
    ((b"\x05\x01\x01",), b"\x05\xff", "PROTOCOL_REFUSED"),
    ((b"\x05\xff" + b"\x80" * 255,), b"\x05\xff", "PROTOCOL_REFUSED"),
    ((USER_PASSWORD, b"\x05\x01a\x01b"), b"\x05\x02", "MALFORMED"),
    ((NO_AUTH, name("localhost", 80, command=2)), b"\x05\x00" + NO_COMMAND, "PROTOCOL_REFUSED"),
    ((NO_AUTH, name("localhost", 80, command=3)), b"\x05\x00" + NO_COMMAND, "PROTOCOL_REFUSED"),
    ((NO_AUTH, name("localhost", 80, command=0)), b"\x05\x00" + NO_COMMAND, "PROTOCOL_REFUSED"),
    ((NO_AUTH, b"\x05\x01\x00\x02\x01a\x00\x50"), b"\x05\x00" + NO_ADDRESS_TYPE, "MALFORMED"),
    ((NO_AUTH, b"\x04\x01\x00\x03\x01a\x00\x50"), b"\x05\x00", "MALFORMED"),
    ((NO_AUTH, b"\x05\x01\x01\x03\x01a\x00\x50"), b"\x05\x00", "MALFORMED"),
)


async def test_a_handshake_that_leads_nowhere_is_closed_and_logged(home: Home) -> None:
    async with through(home) as place:
        for number, (parts, answer, code) in enumerate(NOWHERE):
            assert await told(place, *parts) == answer

            entry = (await place.wait_for("connection", number + 1))[-1]
            assert (entry["client"], entry["result"], entry["code"]) == ("127.0.0.1", "refused", code)
        assert place.entries("decision") == []


HALVES = (b"", b"\x05", b"\x05\x02\x00", NO_AUTH, NO_AUTH + b"\x05\x01\x00", USER_PASSWORD + b"\x01\x05ab",
          NO_AUTH + name("localhost", 80)[:-1])


async def test_a_client_that_leaves_within_the_handshake_is_logged(home: Home) -> None:
    async with through(home) as place:
        for half in HALVES:
            async with client(place) as (_, writer):
                writer.write(half)
                await asyncio.sleep(0.02)

        found = await place.wait_for("connection", len(HALVES))
        assert [(entry["result"], entry["code"]) for entry in found] == [("no_request", None)] * len(HALVES)


async def test_a_client_that_stops_within_the_handshake_is_sent_away(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks5, "HANDSHAKE_SECONDS", 0.2)
    async with through(home) as place:
        await asyncio.gather(*(told(place, half) for half in HALVES))

        found = await place.wait_for("connection", len(HALVES))
        assert [(entry["result"], entry["code"]) for entry in found] == [("refused", "DEADLINE")] * len(HALVES)


async def test_a_tunnel_outlives_the_time_for_its_handshake(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks5, "HANDSHAKE_SECONDS", 0.2)
    async with (raw_origin() as origin, through(home) as place,
                tunnel(place, name("localhost", origin.port)) as (reader, writer)):
        await asyncio.sleep(0.4)
        writer.write(closing(f"localhost:{origin.port}"))

        assert await until_closed(reader) == OK


# Who asks


async def test_user_name_and_password_are_an_agents_id_and_token(home: Home) -> None:
    register(home, coder=TOKEN)
    async with raw_origin() as origin, through(home) as place:
        answer = await told(place, USER_PASSWORD, login("coder", TOKEN), name("localhost", origin.port),
                            closing(f"localhost:{origin.port}"))

        assert answer == b"\x05\x02\x01\x00" + GRANTED + OK
        assert [entry["agent"] for entry in place.entries("decision")] == [{"id": "coder", "by": "proxy-auth"}] * 2


WRONG = (
    login("coder", "gov_wrong"), login("other", TOKEN), login("local", TOKEN), login("coder", b"\xff\xfe"),
    login(b"coder", TOKEN.encode() + b"\0"), login("coder", "x" * 255),
)


async def test_wrong_credentials_end_the_handshake_and_are_logged(home: Home) -> None:
    register(home, coder=TOKEN, other="gov_other")
    async with through(home) as place:
        answers = [await told(place, USER_PASSWORD, said) for said in WRONG]

        assert answers == [b"\x05\x02\x01\x01"] * len(WRONG)
        assert decisions(place) == [("connect", "deny", "IDENTITY_REFUSED")] * len(WRONG)
        assert place.entries("connection") == []


async def test_wrong_credentials_are_booked_on_the_address_that_sends_them(home: Home) -> None:
    register(home, coder=TOKEN)
    async with through(home) as place:
        for _ in range(25):
            await told(place, USER_PASSWORD + login("coder", "gov_wrong"))
        counted = place.rate.drain()

        assert len(place.entries("decision")) == 20
        assert {source: dict(each.counts) for source, each in counted.items()} == {
            "127.0.0.1": {"IDENTITY_REFUSED": 5}}


async def test_a_token_that_is_taken_back_holds_for_no_further_request_of_the_tunnel(home: Home) -> None:
    register(home, coder=TOKEN)
    async with raw_origin() as origin, through(home) as place, client(place) as (reader, writer):
        host = f"localhost:{origin.port}"
        writer.write(USER_PASSWORD + login("coder", TOKEN) + name("localhost", origin.port) + get(host))
        assert (await asyncio.wait_for(reader.readexactly(14 + len(OK)), 5)).endswith(OK)
        place.registry.change(lambda known: agents_file.changed(
            known, agents_file.Act.REMOVE, "coder", None, "root", "2026-01-02T03:04:05.000006Z"), lambda: None)
        writer.write(closing(host))

        assert (await until_closed(reader)).startswith(b"HTTP/1.1 407 ")
        assert len(origin.received[0]) == len(get(host))


@pytest.mark.parametrize("greeting", [
    pytest.param((NO_AUTH,), id="none offered"),
    pytest.param((USER_PASSWORD, login("root", "")), id="a user name alone"),
    pytest.param((USER_PASSWORD, login("", "")), id="nothing at all"),
])
async def test_a_client_without_credentials_is_told_inside_that_they_are_needed(
        home: Home, greeting: tuple[bytes, ...]) -> None:
    async with raw_origin() as origin, through(home, policy=IDENTITY) as place:
        answer = await told(place, *greeting, name("localhost", origin.port), closing(f"localhost:{origin.port}"))

        assert GRANTED + b"HTTP/1.1 407 Proxy Authentication Required\r\n" in answer
        assert decisions(place) == [("connect", "allow", "TUNNEL"), ("request", "deny", "IDENTITY_REQUIRED")]
        assert origin.received == []


async def test_credentials_inside_a_tunnel_are_none_and_go_nowhere(home: Home) -> None:
    register(home, coder=TOKEN)
    policy = POLICY.replace("to: [local", "from: anonymous\n    to: [local")
    policy += "identity: {proxy-auth: yes, anonymous: allow}\n"
    async with raw_origin() as origin, through(home, policy=policy) as place:
        await told(place, NO_AUTH, name("localhost", origin.port),
                   closing(f"localhost:{origin.port}", f"Proxy-Authorization: Bearer {TOKEN}"))

        assert [entry["agent"]["id"] for entry in place.entries("decision")] == ["anonymous", "anonymous"]
        assert TOKEN.encode() not in origin.received[0]


async def test_a_client_that_cannot_read_the_407_is_refused_at_once(home: Home) -> None:
    async with through(home, policy=IDENTITY) as place:
        place.hooks.rejections.failed("127.0.0.1")

        assert await told(place, NO_AUTH, name("localhost", 443)) == b"\x05\x00" + NOT_ALLOWED
        assert decisions(place) == [("connect", "deny", "IDENTITY_REQUIRED")]


async def test_until_an_agent_is_known_whatever_a_client_says_is_nobodys(home: Home) -> None:
    async with through(home) as place:
        await told(place, USER_PASSWORD, login("coder", "gov_unknown"), name("localhost", 80), b"x\r\n\r\n")

        assert [entry["agent"]["id"] for entry in place.entries("decision")] == ["local"]


class Seeing:
    """An addon that keeps all it is given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def socks5_auth(self, data: modes.Socks5AuthData) -> None:
        self.seen.append((data.username, data.password, data.valid))
        data.valid = True

    def request(self, flow: Any) -> None:
        self.seen.append((flow.metadata, dict(flow.request.headers)))


@pytest.mark.parametrize("token", [TOKEN, "gov_wrong"])
async def test_no_other_addon_no_log_and_no_line_gets_to_see_a_password(
        home: Home, token: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks5, "HANDSHAKE_SECONDS", 1.0)
    register(home, coder=TOKEN)
    other = Seeing()
    caplog.set_level(logging.DEBUG)
    async with raw_origin() as origin, through(home, other) as place:
        await told(place, USER_PASSWORD, login("coder", token), name("localhost", origin.port),
                   closing(f"localhost:{origin.port}"))
        await told(place, USER_PASSWORD, login("coder", token)[:-1])
        await told(place, USER_PASSWORD, login("coder", token) + b"\x05\x02garbage")
        lines = segment(home).read_text()

        assert other.seen[0] == ("", "", False)
        for text in (str(other.seen), caplog.text, lines):
            assert token not in text


async def test_another_addon_cannot_let_a_client_in(home: Home) -> None:
    register(home, coder=TOKEN)
    async with through(home, Seeing()) as place:
        assert await told(place, USER_PASSWORD, login("coder", "gov_wrong")) == b"\x05\x02\x01\x01"


# Faults


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, TimeoutError])
@pytest.mark.parametrize(("method", "answer"), [
    ("connect", b"\x05\x02\x01\x00" + FAILED), ("credentials", b"\x05\x02\x01\x01")])
async def test_a_fault_refuses(home: Home, method: str, answer: bytes, error: type[BaseException],
                               monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise error

    async with raw_origin() as origin, through(home) as place:
        monkeypatch.setattr(place.judge, method, fail)
        got = await told(place, USER_PASSWORD + login("a", "b") + name("localhost", origin.port)
                         + closing(f"localhost:{origin.port}"))

        assert got == answer
        assert (origin.received, place.entries("decision")) == ([], [])
        expected = "DEADLINE" if error is TimeoutError else "FAULT"
        assert [entry["code"] for entry in await place.wait_for("fault")] == [expected]


async def test_a_log_that_cannot_be_written_refuses(home: Home) -> None:
    async with raw_origin() as origin, through(home) as place:
        place.lane.close("stopped")
        got = await told(place, NO_AUTH, name("localhost", origin.port), closing(f"localhost:{origin.port}"))

        assert got == b"\x05\x00" + NOT_ALLOWED
        assert origin.received == []


async def test_mitmproxys_own_layer_would_pass_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_origin() as origin, through(home) as place:
        monkeypatch.setattr(mode_servers.Socks5Instance, "make_top_layer",
                            lambda self, context: modes.Socks5Proxy(context))
        got = await told(place, NO_AUTH, name("localhost", origin.port), closing(f"localhost:{origin.port}"))

        assert got == b"\x05\x00" + GRANTED
        assert origin.received == []


@pytest.mark.parametrize("kept", [frozenset(), frozenset({"client_connected", "client_disconnected"})])
async def test_without_the_gate_nothing_is_granted(home: Home, kept: frozenset[str]) -> None:
    async with through(home) as place:
        guards, deadlines = gate.installation()
        gate.install({name: guard for name, guard in guards.items() if name in kept}, deadlines)

        assert await told(place, NO_AUTH + name("localhost", 80)) in {b"", b"\x05\x00", b"\x05\x00" + FAILED}
        assert await told(place, USER_PASSWORD + login("a", "b")) in {b"", b"\x05\x02", b"\x05\x02\x01\x01"}


async def test_installing_twice_wraps_once() -> None:
    socks5.install()
    once = mode_servers.Socks5Instance.make_top_layer
    socks5.install()

    assert mode_servers.Socks5Instance.make_top_layer is once


async def test_nothing_is_read_from_a_client_while_its_destination_is_judged(home: Home) -> None:
    async with through(home) as place, client(place) as (_, writer):
        judged, answered = asyncio.Event(), asyncio.Event()
        connect = place.judge.connect

        async def slow(*arguments: Any) -> Any:
            judged.set()
            await answered.wait()
            return await connect(*arguments)

        place.judge.connect = slow  # type: ignore[method-assign]
        writer.write(b"\x05\x01\x00" + name("localhost", 80))
        await asyncio.wait_for(judged.wait(), SECONDS)
        ((handler, _),) = place.hooks.clients.items()
        writer.write(bytes(64 * 2**20))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 1)

        assert sum(len(event.data) for event in handler.layer._paused_event_queue
                   if isinstance(event, events.DataReceived)) < 2**20
        answered.set()
