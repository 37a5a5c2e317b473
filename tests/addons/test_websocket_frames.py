"""Frames as they are read and written, without a connection."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons import websocket_frames as frames
from addons.websocket_frames import Close, FrameReader, Message, Ping, Pong, TooLarge, Unreadable
from tests.addons.websocket_ends import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, closing, fragments, frame

MOST = 1000
PARTS = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


def read(content: bytes, *cuts: int, from_client: bool = True, most_bytes: int = MOST) -> list[frames.Read]:
    """Everything these bytes are read as, in pieces that end at `cuts`."""
    reader, found, start = FrameReader(from_client=from_client, most_bytes=most_bytes), [], 0
    for end in (*sorted(cuts), len(content)):
        found += reader.read(content[start:end])
        start = max(start, end)
    return found


@given(st.lists(st.tuples(PARTS, st.binary(max_size=125)), max_size=4), st.lists(st.integers(0, 900)))
def test_messages_and_pings_are_read_whole_however_their_bytes_come(
        sent: list[tuple[list[bytes], bytes]], cuts: list[int]) -> None:
    content = b"".join(fragments(BINARY, parts) + frame(PING, payload) for parts, payload in sent)

    found = read(content, *(cut for cut in cuts if cut < len(content)))

    assert [one.content for one in found if isinstance(one, Message)] == [b"".join(parts) for parts, _ in sent]
    assert [one.payload for one in found if isinstance(one, Ping)] == [payload for _, payload in sent]


@given(PARTS, st.booleans())
def test_a_message_is_written_in_the_fragments_it_was_read_in(parts: list[bytes], to_origin: bool) -> None:
    (message,) = read(fragments(BINARY, parts))
    assert isinstance(message, Message)

    written = b"".join(frames.message(message, masked=to_origin))

    assert read(written, from_client=to_origin) == [message]
    if not to_origin:
        assert written == fragments(BINARY, parts, masked=False)


@given(st.text(min_size=1, max_size=30), st.data())
def test_text_may_be_cut_within_a_character_and_keeps_its_cuts(text: str, data: st.DataObject) -> None:
    content = text.encode()
    cut = data.draw(st.integers(0, len(content)))

    assert read(fragments(TEXT, [content[:cut], content[cut:]])) == [Message(True, content, (cut, len(content)))]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
def test_no_bytes_are_held_beyond_the_bound_and_nothing_but_the_two_errors_is_raised(
        content: bytes, cuts: list[int]) -> None:
    reader, start = FrameReader(from_client=True, most_bytes=50), 0
    for end in (*sorted(cut for cut in cuts if cut < len(content)), len(content)):
        piece = content[start:end]
        try:
            for _ in reader.read(piece):
                continue
        except (TooLarge, Unreadable):
            return
        assert reader.held_bytes <= 50 + 125 + 14
        start = end


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
@pytest.mark.parametrize("masked", [True, False])
def test_lengths_are_written_in_as_few_bytes_as_they_need(length: int, masked: bool) -> None:
    message = Message(False, b"x" * length, (length,))

    written = b"".join(frames.message(message, masked=masked))

    assert len(written) == len(frame(BINARY, b"x" * length, masked=masked))
    assert read(written, from_client=masked, most_bytes=length) == [message]


def test_each_frame_to_the_origin_has_a_mask_of_its_own() -> None:
    assert len({frames.pong(b"same", masked=True) for _ in range(20)}) > 1


@pytest.mark.parametrize("content", [
    frame(BINARY, b"x" * (MOST + 1)),
    frame(BINARY, length=b"\x7e" + struct.pack("!H", MOST + 1)),
    frame(BINARY, b"x" * 600, final=False) + frame(CONTINUATION, length=b"\x7e" + struct.pack("!H", 401)),
    frame(BINARY, final=False) + frame(CONTINUATION, final=False) * 1024,
], ids=["whole", "announced", "announced in fragments", "countless"])
def test_what_is_too_large_is_refused_as_soon_as_it_shows(content: bytes) -> None:
    with pytest.raises(TooLarge):
        read(content)


def test_a_bound_is_met_by_a_message_of_just_that_size() -> None:
    (message,) = read(fragments(BINARY, [b"x" * 600, b"y" * 400]))

    assert isinstance(message, Message)
    assert len(message.content) == MOST


@pytest.mark.parametrize(("payload", "expected"), [
    (b"", Close(None, "")),
    (closing(1000), Close(1000, "")),
    (closing(1008, "é".encode()), Close(1008, "é")),
    (closing(3000), Close(3000, "")),
    (closing(4999, b"x" * 123), Close(4999, "x" * 123)),
])
def test_a_close_is_read_with_its_code_and_reason(payload: bytes, expected: Close) -> None:
    assert read(frame(CLOSE, payload)) == [expected]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_a_close_code_that_may_not_be_said_is_no_close(code: int) -> None:
    with pytest.raises(Unreadable) as error:
        read(frame(CLOSE, closing(code)))

    assert error.value.close_code == 1002


def test_what_follows_a_close_is_unreadable() -> None:
    reader = FrameReader(from_client=True, most_bytes=MOST)
    assert list(reader.read(frame(CLOSE))) == [Close(None, "")]

    with pytest.raises(Unreadable):
        list(reader.read(b"x"))


def test_pongs_are_read_without_what_they_carry() -> None:
    assert read(frame(PONG, b"payload")) == [Pong()]


@pytest.mark.parametrize(("reason", "told"), [
    ("x" * 200, b"x" * 123), ("é" * 62, "é".encode() * 61), ("\ud800", b"?"), ("ok", b"ok")])
def test_a_reason_is_cut_at_a_whole_character(reason: str, told: bytes) -> None:
    assert frames.close(1008, reason, masked=False) == frame(CLOSE, closing(1008, told), masked=False)


@pytest.mark.parametrize(("content", "ended"), [
    (frame(CLOSE), True),
    (b"x" * 90 + frame(CLOSE), True),
    (b"x" * 50, False),
    (b"x" * 90 + b"\xff\xff", False),
])
def test_the_close_of_a_sender_that_was_cut_is_found_behind_what_it_still_sends(content: bytes, ended: bool) -> None:
    reader = FrameReader(from_client=True, most_bytes=10)
    big = frame(BINARY, b"y" * 100)
    with pytest.raises(TooLarge):
        list(reader.read(big[:16] if content.startswith(b"x") else big))

    assert reader.ends_with(content) is ended
    assert reader.held_bytes <= 14
    assert reader.ends_with(b"more") is False


def test_a_sender_that_cannot_be_read_is_not_kept() -> None:
    reader = FrameReader(from_client=True, most_bytes=10)
    with pytest.raises(Unreadable):
        list(reader.read(b"\xff\xff"))
    held = reader.held_bytes

    assert [reader.ends_with(b"x" * 1000) for _ in range(3)] == [False] * 3
    assert reader.held_bytes == held
