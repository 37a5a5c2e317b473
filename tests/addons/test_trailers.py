"""The reader of chunked bodies: what arrived at once comes out at once, in order, and too many small chunks end it."""

from __future__ import annotations

import h11
import pytest
from h11._receivebuffer import ReceiveBuffer

from addons.trailers import TrailingReader


def reading(content: bytes, bounded: bool = False) -> tuple[TrailingReader, ReceiveBuffer]:
    reader, buffer = TrailingReader(), ReceiveBuffer()
    reader.bounded = bounded
    buffer += content
    return reader, buffer


def test_chunks_that_arrived_together_are_one_piece_and_the_end_comes_after_it() -> None:
    reader, buffer = reading(b"1\r\na\r\n2\r\nbc\r\n0\r\nx-late: 1\r\n\r\nnext")

    assert [reader(buffer).data, reader(buffer)] == [b"abc", h11.EndOfMessage()]
    assert (reader.trailers, bytes(buffer)) == ([(b"x-late", b"1")], b"next")


def test_a_chunk_that_is_not_complete_is_handed_on_as_far_as_it_came() -> None:
    reader, buffer = reading(b"1\r\na\r\n4\r\nbc")
    first, nothing = reader(buffer), reader(buffer)
    buffer += b"de\r\n0\r\n\r\n"

    assert (first.data, nothing, reader(buffer).data, reader(buffer)) == (b"abc", None, b"de", h11.EndOfMessage())


def test_what_came_before_a_broken_chunk_is_handed_on_before_it_is_told() -> None:
    reader, buffer = reading(b"1\r\na\r\nzz\r\n")

    assert reader(buffer).data == b"a"
    with pytest.raises(h11.ProtocolError):
        reader(buffer)


@pytest.mark.parametrize(("size", "count"), [(1, 10_000), (64, 40_000)])
def test_a_request_in_chunks_passes(size: int, count: int) -> None:
    reader, buffer = reading((f"{size:x}\r\n".encode() + b"a" * size + b"\r\n") * count + b"0\r\n\r\n", bounded=True)

    assert (len(reader(buffer).data), reader(buffer)) == (size * count, h11.EndOfMessage())


def test_a_request_in_too_many_chunks_of_a_byte_is_not_read_and_an_answer_is() -> None:
    content = b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n"
    request, buffer = reading(content, bounded=True)
    answer, other = reading(content)

    assert len(request(buffer).data) < 20_000
    with pytest.raises(h11.ProtocolError):
        request(buffer)
    assert len(answer(other).data) == 100_000
