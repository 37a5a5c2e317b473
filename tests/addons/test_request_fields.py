"""Rules on the fields of a request, as clients, origins and the log see them: what was judged is what is sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from mitmproxy import http
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.test import tflow

from addons.home import Home
from addons.request_bodies import RequestBodies
from addons.request_fields import readable
from addons.spool import IN_MEMORY_BYTES, Room
from kernel.comparison import Gap
from kernel.fields import MOST_BODY_BYTES
from tests.addons.inside import Inside, RawOrigin, get, inside, raw_origin
from tests.addons.test_connection_log import fields, http2
from tests.addons.test_request_bodies import chunked, connection, first_line, post
from tests.addons.test_websocket_tls import contexts, trust_anybody

RULE = """\
version: 1
rules:
  - allow: pay
    to: localhost
    address: 127.0.0.0/8
    schemes: http
    ports: 1-65535
    methods: [GET, POST]
    %s
"""
JSON, FORM = "Content-Type: application/json", "Content-Type: application/x-www-form-urlencoded"
AMOUNT = RULE % 'json: {amount: "<= 20000", currency: eur, channel: absent}'


async def sent(place: Inside, origin: RawOrigin, body: bytes, *headers: str, path: str = "/") -> bytes:
    """The first line of the answer to a POST with this body."""
    request = get(f"{origin.url}{path}", f"Content-Length: {len(body)}", *headers, method="POST") + body
    return (await place.ask(request)).partition(b"\r\n")[0]


async def passes(place: Inside, origin: RawOrigin, body: bytes, *headers: str, path: str = "/") -> bool:
    """True where the origin got exactly this body, False where it got nothing and the client a refusal."""
    before = len(origin.received)
    status = await sent(place, origin, body, *headers, path=path)
    if status == b"HTTP/1.1 200 OK":
        assert origin.received[-1].endswith(b"\r\n\r\n" + body)
        return True
    assert status.startswith(b"HTTP/1.1 403 Forbidden by Governor: ")
    assert len(origin.received) == before
    return False


@pytest.mark.parametrize(("body", "headers", "let_through"), [
    pytest.param(b'{"amount": 2e4, "currency": "eur"}', (JSON,), True, id="what the rule wants"),
    pytest.param(b'{"amount": 20001, "currency": "eur"}', (JSON,), False, id="too much"),
    pytest.param(b'{"amount": 5, "currency": "usd"}', (JSON,), False, id="another currency"),
    pytest.param(b'{"amount": 5, "currency": "eur", "channel": null}', (JSON,), False, id="a field to be absent"),
    pytest.param(b'{"amount": 5, "currency": "eur", "amount": 999999}', (JSON,), False, id="a field twice"),
    pytest.param(b'{"amount": 5, "currency": "eur", "Channel": "x"}', (JSON,), False, id="a field in another case"),
    pytest.param(b'{"amount": 5, "currency": "eur"}', (), False, id="no content type"),
    pytest.param(b'{"amount": 5, "currency": "eur"}', ("Content-Type: text/plain",), False, id="called text"),
    pytest.param(b'{"amount": 5, "currency": "eur"}', (JSON, FORM), False, id="two content types"),
    pytest.param(b"amount=5&currency=eur", (FORM,), False, id="a form"),
    pytest.param(b"", (), False, id="no body"),
])
async def test_a_json_body_is_judged_before_any_of_it_leaves(
        home: Home, body: bytes, headers: tuple[str, ...], let_through: bool) -> None:
    async with raw_origin() as origin, inside(home, policy=AMOUNT) as place:
        assert await passes(place, origin, body, *headers) is let_through


@pytest.mark.parametrize(("body", "let_through"), [
    (b"amount=20000&currency=eur", True),
    (b"amount=%32&currency=chf", True),
    (b"amount=20001&currency=eur", False),
    (b"amount=5&amount=99999&currency=eur", False),
    (b"amount=5&currency=eur;amount=99999", False),
    (b"amount=5&currency=eur&amount[]=99999", False),
])
async def test_a_form_is_judged_before_any_of_it_leaves(home: Home, body: bytes, let_through: bool) -> None:
    policy = RULE % "form: {amount: 1..20000, currency: [eur, chf]}"
    async with raw_origin() as origin, inside(home, policy=policy) as place:
        assert await passes(place, origin, body, FORM) is let_through


GOOD, BAD = b'{"amount": 5, "currency": "eur"}', b'{"amount": 99999, "currency": "eur"}'


@pytest.mark.parametrize(("body", "coding", "let_through"), [
    pytest.param(gzip.compress(GOOD), "gzip", True, id="gzip"),
    pytest.param(zlib.compress(GOOD), "deflate", True, id="deflate"),
    pytest.param(gzip.compress(gzip.compress(GOOD)), "gzip, gzip", True, id="gzip twice"),
    pytest.param(GOOD, "identity", True, id="identity"),
    pytest.param(gzip.compress(BAD), "gzip", False, id="too much"),
    pytest.param(GOOD, "gzip", False, id="not what it says"),
    pytest.param(gzip.compress(GOOD), "identity", False, id="compressed and not called so"),
    pytest.param(gzip.compress(GOOD) + gzip.compress(BAD), "gzip", False, id="a second member"),
    pytest.param(GOOD, "rot13", False, id="an unknown coding"),
    pytest.param(gzip.compress(GOOD + b" " * 60_000), "gzip", True, id="much from little"),
    pytest.param(gzip.compress(GOOD + b" " * 70_000), "gzip", False, id="too much from little"),
    pytest.param(gzip.compress(GOOD + b" " * MOST_BODY_BYTES), "gzip", False, id="too much when decoded"),
])
async def test_a_compressed_body_is_judged_as_its_origin_reads_it(
        home: Home, body: bytes, coding: str, let_through: bool) -> None:
    async with raw_origin() as origin, inside(home, policy=AMOUNT) as place:
        assert await passes(place, origin, body, JSON, f"Content-Encoding: {coding}") is let_through


@pytest.mark.parametrize("more", ["Content-Encoding: identity", "Content_Encoding: gzip",
                                  "Connection: content-encoding"])
async def test_a_content_encoding_that_not_all_readers_see_is_two_readings(home: Home, more: str) -> None:
    async with raw_origin() as origin, inside(home, policy=AMOUNT) as place:
        assert not await passes(place, origin, gzip.compress(GOOD), JSON, "Content-Encoding: gzip", more)


def padded(size: int) -> bytes:
    start = b'{"amount": 5, "currency": "eur", "note": "'
    return start + b"x" * (size - len(start) - 2) + b'"}'


@pytest.mark.parametrize(("size", "let_through"), [
    pytest.param(100 * 1024, True, id="judged at its headers first"),
    pytest.param(MOST_BODY_BYTES, True, id="the longest that is read"),
    pytest.param(MOST_BODY_BYTES + 1, False, id="too long to read"),
])
async def test_a_long_body_is_read_up_to_a_bound(home: Home, size: int, let_through: bool) -> None:
    async with raw_origin() as origin, inside(home, policy=AMOUNT) as place:
        assert await passes(place, origin, padded(size), JSON) is let_through


async def test_a_body_that_waits_in_a_file_is_read_like_any_other(home: Home) -> None:
    async with raw_origin() as origin, inside(home, policy=AMOUNT) as place:
        place.bodies._room.memory_bytes = 64 * IN_MEMORY_BYTES

        assert await passes(place, origin, padded(100 * 1024), JSON)
        assert not await passes(place, origin, padded(100 * 1024).replace(b": 5", b': 99999'), JSON)


async def test_a_chunked_body_is_judged_whole(home: Home) -> None:
    async with raw_origin() as origin, inside(home, policy=AMOUNT) as place:
        for body, status in ((GOOD, b"200"), (BAD, b"403")):
            async with connection(place) as (reader, writer):
                writer.write(post(origin.url, "Transfer-Encoding: chunked", JSON) + chunked(body, 5))

                assert (await first_line(reader)).split(b" ")[1] == status


@pytest.mark.parametrize(("said", "path", "headers", "let_through"), [
    ("query: {debug: absent}", "/?a=1", (), True),
    ("query: {debug: absent}", "/?debug", (), False),
    ("query: {debug: absent}", "/?DEBUG=1", (), False),
    ("query: {page: 1..5}", "/?page=5", (), True),
    ("query: {page: 1..5}", "/?page=5&page=9", (), False),
    ("headers: {x-tenant: acme}", "/", ("X-Tenant: acme",), True),
    ("headers: {x-tenant: acme}", "/", ("X-Tenant: acme", "x-tenant: evil"), False),
    ("headers: {x-tenant: acme}", "/", ("X_Tenant: acme",), False),
    ("content-types: absent", "/", (), True),
    ("content-types: [absent, text/*]", "/", (JSON,), False),
    ("content-types: [absent, text/*]", "/", ("Content-Type: Text/Plain; charset=x",), True),
])
async def test_query_headers_and_content_type_are_judged(
        home: Home, said: str, path: str, headers: tuple[str, ...], let_through: bool) -> None:
    async with raw_origin() as origin, inside(home, policy=RULE % said) as place:
        assert await passes(place, origin, b"", *headers, path=path) is let_through


DENY = RULE % "max-request: 20MiB" + """\
  - deny: large
    to: localhost
    json: {amount: "> 20000"}
"""


@pytest.mark.parametrize(("body", "headers", "let_through"), [
    pytest.param(b'{"amount": 5}', (JSON,), True, id="small"),
    pytest.param(b"{}", (JSON,), True, id="absent"),
    pytest.param(b"", (), True, id="no body"),
    pytest.param(b'{"amount": 20001}', (JSON,), False, id="large"),
    pytest.param(b'{"amount": "99999 "}', (JSON,), False, id="no number that all readers agree on"),
    pytest.param(b'{"amount": 5}', (), False, id="unreadable"),
    pytest.param(padded(MOST_BODY_BYTES + 1), (JSON,), False, id="too long to read"),
])
async def test_a_deny_also_refuses_what_cannot_be_read(
        home: Home, body: bytes, headers: tuple[str, ...], let_through: bool) -> None:
    async with raw_origin() as origin, inside(home, policy=DENY) as place:
        assert await passes(place, origin, body, *headers) is let_through
        (decision,) = await place.wait_for("decision")
        assert decision["rule"] == ("pay" if let_through else "large")


STREAM = RULE % "stream-request: yes"


async def test_a_body_streams_where_no_rule_could_look_at_it(home: Home) -> None:
    policy = STREAM + "  - deny: large\n    to: other.example.org\n    json: {amount: \"> 5\"}\n"
    async with raw_origin() as origin, inside(home, policy=policy) as place, connection(place) as (reader, writer):
        writer.write(post(origin.url, "Transfer-Encoding: chunked", JSON) + b'3\r\n{"a\r\n')

        assert await first_line(reader) == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(("amount", "status"), [(b"5", b"200"), (b"6", b"403")])
async def test_no_body_streams_past_a_deny_that_looks_at_it(home: Home, amount: bytes, status: bytes) -> None:
    policy = STREAM + "  - deny: large\n    to: localhost\n    json: {amount: \"> 5\"}\n"
    body = b'{"amount": ' + amount + b"}"
    async with raw_origin() as origin, inside(home, policy=policy) as place, connection(place) as (reader, writer):
        writer.write(post(origin.url, "Transfer-Encoding: chunked", JSON) + chunked(body, 4)[:-5])
        await asyncio.sleep(0.2)
        assert origin.received == []
        writer.write(b"0\r\n\r\n")

        assert (await first_line(reader)).split(b" ")[1] == status


@pytest.mark.parametrize(("body", "code"), [(GOOD, "ALLOW"), (BAD, "DEFAULT_DENY")])
async def test_an_http2_body_of_unknown_length_is_judged_whole(
        home: Home, tmp_path: Path, body: bytes, code: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        state.initiate_connection()
        while data := await reader.read(65536):
            for event in state.receive_data(data):
                got.append(event)
                if isinstance(event, h2.events.StreamEnded):
                    state.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
            writer.write(state.data_to_send())

    got: list[h2.events.Event] = []
    _, tls = contexts(tmp_path)
    tls.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server, inside(home, TlsConfig(), policy=AMOUNT.replace("http", "https")) as place:
        trust_anybody(tmp_path)
        authority = f"localhost:{server.sockets[0].getsockname()[1]}"
        client = await http2(place, authority)
        client.state.send_headers(
            1, [*fields(**{":method": "POST", ":authority": authority}), ("content-type", "application/json")])
        client.state.send_data(1, body, end_stream=True)
        client.flush()
        decisions = await place.wait_for("decision", 2)
        await place.wait_for("outcome", int(code == "ALLOW"))
        client.writer.close()

        assert [decision["code"] for decision in decisions] == ["TUNNEL", code]
        sent = b"".join(event.data for event in got if isinstance(event, h2.events.DataReceived))
        assert sent == (body if code == "ALLOW" else b"")


async def test_a_refusal_that_no_body_can_lift_comes_before_the_body(home: Home) -> None:
    policy = RULE % "query: {debug: absent}\n    json: {a: x}"
    async with inside(home, policy=policy) as place, connection(place) as (reader, writer):
        writer.write(post("http://localhost/?debug=1", "Transfer-Encoding: chunked", "Expect: 100-continue", JSON))

        assert await first_line(reader) == b"HTTP/1.1 403 Forbidden by Governor: DEFAULT_DENY\r\n"


async def test_a_body_is_invited_where_it_may_be_what_a_rule_wants(home: Home) -> None:
    async with raw_origin() as origin, inside(home, policy=AMOUNT) as place, connection(place) as (reader, writer):
        writer.write(post(origin.url, f"Content-Length: {len(GOOD)}", "Expect: 100-continue", JSON))
        assert (await first_line(reader)).startswith(b"HTTP/1.1 100 ")
        await reader.readline()
        writer.write(GOOD)

        assert await first_line(reader) == b"HTTP/1.1 200 OK\r\n"


async def test_nothing_of_headers_or_bodies_is_written_down(home: Home) -> None:
    policy = RULE % "headers: {x-key: \"s3cret*\"}\n    json: {token: \"t0ken*\"}\n    query: {q: \"qu3ry*\"}"
    async with raw_origin() as origin, inside(home, policy=policy) as place:
        assert await passes(place, origin, b'{"token": "t0ken-1"}', JSON, "X-Key: s3cret-1", path="/?q=qu3ry-1")
        assert not await passes(place, origin, b'{"token": "t0ken-1"}', JSON, "X-Key: s3cret-1", path="/?q=wrong-2")
        decisions = await place.wait_for("decision", 2)

        told = json.dumps([*decisions, *place.entries("outcome")])
        assert [decision["groups"] for decision in decisions] == [["pay"], []]
    assert not any(word in told for word in ("s3cret", "t0ken", "qu3ry", "wrong-2"))
    assert not any(word in (home.paths.folder / "vault.db").read_bytes() for word in (b"s3cret", b"t0ken", b"qu3ry-1"))


async def test_another_addon_cannot_change_a_body_behind_its_verdict(home: Home) -> None:
    class Edits:
        async def request(self, flow) -> None:
            flow.request.content = BAD

    async with raw_origin() as origin, inside(home, Edits(), policy=AMOUNT) as place:
        assert not await passes(place, origin, GOOD, JSON)


def test_a_body_that_is_too_long_is_not_even_fetched(tmp_path: Path) -> None:
    flow = tflow.tflow(req=http.Request.make("POST", "http://example.org/", b"12345"))
    bodies = RequestBodies(tmp_path, Room())

    assert bodies.content(flow, 5) == b"12345"
    assert bodies.content(flow, 4) is None


@pytest.mark.parametrize("body", [None, b"x" * (MOST_BODY_BYTES + 1)])
def test_a_body_that_is_too_long_is_a_gap(body: bytes | None) -> None:
    assert isinstance(readable(body, ()), Gap)
