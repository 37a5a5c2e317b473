"""Ways out, or ways to bring Governor down, through the size and the coding of a body."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import pytest

from tests.e2e import wire
from tests.e2e.ways_out.ways import (
    Yard,
    everything,
    forget_memory,
    memory,
    most_memory,
    recording,
    statuses,
)

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


def bomb(layers: int = 1) -> bytes:
    """64 MiB of zeros, compressed so often."""
    content = bytes(64 * MIB)
    for _ in range(layers):
        content = gzip.compress(content, 9)
    return content


BOMBS = {
    "gzip": bomb(), "gzip, gzip": bomb(2), "gzip, gzip, gzip": bomb(3),
    "deflate": zlib.compress(bytes(64 * MIB), 9),
}


@pytest.mark.case(35)
def test_a_chunked_body_over_the_limit_is_refused_and_written_down(yard: Yard) -> None:
    """A body without a length says nothing about its size until it is there."""
    size, count = MIB, 17
    with yard.nothing_leaves(), wire.dial(yard.port, 30) as connection:
        connection.sendall(wire.plain("POST", f"{yard.http.url}/x", ("Transfer-Encoding", "chunked")))
        try:
            for _ in range(count):
                connection.sendall(f"{size:x}\r\n".encode() + bytes(size) + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
        except OSError:
            """It is refused while it is sent."""
        answer = wire.read(connection, "POST")

    assert answer is not None
    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")
    assert yard.decisions(answer)[0]["code"] == "BODY_TOO_LARGE"


@pytest.mark.case(38)
@pytest.mark.parametrize("coding", BOMBS)
def test_a_decompression_bomb_passes_as_the_bytes_it_is(yard: Yard, coding: str) -> None:
    """No rule looks into the body, so nothing decodes it: in a request, in a refused one and in an answer."""
    content = BOMBS[coding]
    headers = (("Content-Encoding", coding), ("Content-Length", str(len(content))))
    forget_memory(yard.governor)
    before = memory(yard.governor)
    with recording(b"HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
                   + b"\r\n" + content) as origin:
        answer = yard.ask(wire.plain("POST", f"{origin.url}/x", *headers, body=content), "POST")
        refused = yard.ask(wire.plain("POST", f"{origin.url}/denied/x", *headers, body=content), "POST")

        assert origin.everything.endswith(content)
    assert answer is not None
    assert (answer.status, answer.body) == (200, content)
    assert refused is not None
    assert refused.status == 403
    assert most_memory(yard.governor) - before < 32 * MIB


@pytest.mark.case(39)
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "an-unknown-one", "gzip, an-unknown-one", ""])
def test_a_body_that_cannot_be_decoded_passes_as_the_bytes_it_is(yard: Yard, coding: str) -> None:
    content = b"this is in no coding"
    headers = (("Content-Encoding", coding), ("Content-Length", str(len(content))))
    with recording() as origin:
        answer = yard.ask(wire.plain("POST", f"{origin.url}/x", *headers, body=content), "POST")
        refused = yard.ask(wire.plain("POST", f"{origin.url}/denied/x", *headers, body=content), "POST")

        assert (answer and answer.status, refused and refused.status) == (200, 403)
        assert origin.everything.count(content) == 1
    assert not yard.governor.entries("fault")


# Two readings of one message

TWO_LENGTHS = {
    "a length and chunks": "Content-Length: 4\r\nTransfer-Encoding: chunked",
    "two lengths": "Content-Length: 4\r\nContent-Length: 40",
    "two lengths in one": "Content-Length: 4, 40",
    "a signed length": "Content-Length: +4",
    "a length in other digits": "Content-Length: 0x4",
    "a length with a space": "Content-Length : 4",
    "a negative length": "Content-Length: -4",
    "chunks with a space": "Transfer-Encoding : chunked",
    "chunks in another coding": "Transfer-Encoding: xchunked",
    "chunks before another coding": "Transfer-Encoding: chunked, identity",
    "chunks twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "chunks twice in one": "Transfer-Encoding: chunked, chunked",
    "chunks after a tab": "Transfer-Encoding:\tchunked",
    "chunks after a vertical tab": "Transfer-Encoding: \x0bchunked",
    "chunks on a folded line": "Transfer-Encoding:\r\n chunked",
    "a header with a bare line feed": "X: y\nTransfer-Encoding: chunked",
    "a header with a bare return": "X: y\rTransfer-Encoding: chunked",
    "a header with a NUL": "X: y\x00\r\nContent-Length: 4",
    "chunks with an underscore": "Transfer_Encoding: chunked\r\nContent-Length: 4",
}


@pytest.mark.case(62)
@pytest.mark.parametrize("reading", TWO_LENGTHS)
def test_a_body_whose_end_can_be_read_in_two_ways_hides_no_request(yard: Yard, reading: str) -> None:
    """What the origin gets has one end, whoever reads it, and what follows is judged as a request of its own."""
    hidden = "GET /denied/hidden HTTP/1.1\r\nHost: {host}\r\n\r\n"
    with recording() as origin, wire.dial(yard.port) as connection:
        head = f"POST {origin.url}/x HTTP/1.1\r\nHost: {origin.authority}\r\n{TWO_LENGTHS[reading]}\r\n\r\n"
        connection.sendall((head + "0\r\n\r\n" + hidden.format(host=origin.authority)).encode("latin-1"))
        got = everything(connection, 0.5)

        sent = origin.everything
        assert b"hidden" not in sent
        if sent:
            assert sent.count(b" HTTP/1.1\r\n") == 1
            assert sent.lower().count(b"content-length:") + sent.lower().count(b"transfer-encoding:") == 1
        else:
            assert all(status >= 400 for status in statuses(got))


@pytest.mark.case(64)
@pytest.mark.parametrize(("body", "lengths"), [
    (b"", ("10",)), *((b"0123456789", lengths) for lengths in (
        ("4",), ("10", "10"), ("10", "4"), ("1_0",), ("+10",), ("0010",), ("10, 10",)))])
def test_a_length_over_http2_that_is_not_the_bodys_is_not_sent(yard: Yard, body: bytes,
                                                               lengths: tuple[str, ...]) -> None:
    """An origin that believes it would take what comes next for the rest of the body."""
    authority = f"localhost:{yard.https.port}"
    with yard.nothing_leaves():
        answer = yard.over_http2(authority, wire.fields("POST", authority, "/x", *(
            ("content-length", length) for length in lengths)), body)

    assert answer is None or answer.status == 400


@pytest.mark.case(65)
@pytest.mark.parametrize("value", ["Host", "close, content-length", "TRANSFER-ENCODING", "keep-alive,\tHost ,x"])
def test_a_connection_header_that_has_servers_drop_what_was_judged_is_refused(yard: Yard, value: str) -> None:
    """Whoever stands before the origin may take the named fields out: then the body is read as a request."""
    with yard.nothing_leaves():
        answer = yard.ask(wire.plain("POST", f"{yard.http.url}/x", ("Connection", value), ("Content-Length", "4"),
                                     body=b"body"), "POST")

    assert answer is not None
    assert (answer.status, answer.code) == (400, "MALFORMED")


@pytest.mark.case(67)
def test_what_is_poured_in_behind_an_unanswered_request_is_not_kept(yard: Yard) -> None:
    """mitmproxy would keep all of it for the time after the answer."""
    forget_memory(yard.governor)
    before = memory(yard.governor)
    with recording(b"") as silent, wire.dial(yard.port, 2) as connection:
        connection.sendall(wire.plain("GET", f"{silent.url}/x"))
        with contextlib.suppress(OSError):
            for _ in range(64):
                connection.sendall(bytes(MIB))

    assert most_memory(yard.governor) - before < 32 * MIB


@pytest.mark.case(68)
def test_a_body_in_tiny_chunks_does_not_keep_others_waiting(yard: Yard) -> None:
    """To read a million of them takes so long that all other agents would wait for this one."""
    with wire.dial(yard.port, 1) as connection:
        connection.sendall(wire.plain("POST", f"{yard.http.url}/x", ("Transfer-Encoding", "chunked")))
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(b"1\r\na\r\n" * 10_000)
        answer = wire.ask(yard.port, wire.plain("GET", f"{yard.http.url}/x"), seconds=5)

    assert answer is not None
    assert answer.status == 200
