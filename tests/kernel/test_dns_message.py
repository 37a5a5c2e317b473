"""Questions and answers as bytes: what a resolver sends is read, everything else is told from it, nothing crashes."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.dns_message import LARGEST_UDP_BYTES, Question, RecordType, Result, Unreadable, answer, read

V4, V6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def wire(*labels: bytes, kind: int = 1, where: int = 1) -> bytes:
    return b"".join(bytes([len(each)]) + each for each in labels) + b"\0" + struct.pack("!HH", kind, where)


def message(question: bytes, *, flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0),
            more: bytes = b"") -> bytes:
    return struct.pack("!HHHHHH", 0xABCD, flags, *counts) + question + more


def options(size: int = 1232, data: bytes = b"", version: int = 0) -> bytes:
    return b"\0" + struct.pack("!HHIH", 41, size, version << 16, len(data)) + data


EXAMPLE = wire(b"eXample", b"org")


def test_a_question_is_read_as_it_was_asked():
    asked = read(message(EXAMPLE))

    assert (asked.id, asked.labels, asked.type) == (0xABCD, (b"eXample", b"org"), RecordType.A)
    assert (asked.wire, asked.most_bytes, asked.extended) == (EXAMPLE, 512, False)


@pytest.mark.parametrize(("size", "most"), [(0, 512), (600, 600), (65535, LARGEST_UDP_BYTES)])
def test_a_client_says_how_large_an_answer_it_takes_within_bounds(size, most):
    asked = read(message(EXAMPLE, counts=(1, 0, 0, 1), more=options(size, b"\0\x0a\0\x08cookie!!")))

    assert (asked.most_bytes, asked.extended) == (most, True)


@pytest.mark.parametrize(("data", "result"), [
    pytest.param(b"", None, id="nothing"),
    pytest.param(b"\xab\xcd\1", None, id="less than a header"),
    pytest.param(message(EXAMPLE, flags=0x8180), None, id="an answer"),
    pytest.param(message(EXAMPLE, flags=0x2800), Result.REFUSED, id="an update"),
    pytest.param(message(b"", counts=(0, 0, 0, 0)), Result.REFUSED, id="no question"),
    pytest.param(message(EXAMPLE * 2, counts=(2, 0, 0, 0)), Result.REFUSED, id="two questions"),
    pytest.param(message(wire(b"a", where=3)), Result.REFUSED, id="another class"),
    pytest.param(message(EXAMPLE, counts=(1, 1, 0, 0)), Result.FORMERR, id="an answer in a question"),
    pytest.param(message(EXAMPLE, counts=(1, 0, 0, 1)), Result.FORMERR, id="a record that is missing"),
    pytest.param(message(EXAMPLE, counts=(1, 0, 0, 2), more=options() * 2), Result.FORMERR, id="two extensions"),
    pytest.param(message(EXAMPLE, counts=(1, 0, 0, 1), more=b"\1a" + options()), Result.FORMERR, id="a named one"),
    pytest.param(message(EXAMPLE, counts=(1, 0, 0, 1), more=options()[:-1] + b"\5"), Result.FORMERR, id="cut off"),
    pytest.param(message(EXAMPLE, more=b"x"), Result.FORMERR, id="bytes behind it"),
    pytest.param(message(b"\xc0\x0c\0\1\0\1"), Result.FORMERR, id="a pointer to itself"),
    pytest.param(message(b"\x40" + b"a" * 64 + b"\0\0\1\0\1"), Result.FORMERR, id="a label of 64"),
    pytest.param(message(wire(*[b"a" * 63] * 4)), Result.FORMERR, id="a name of 257"),
    pytest.param(message(b"\5ab"), Result.FORMERR, id="a name that is cut off"),
    pytest.param(message(wire(b"a")[:-1]), Result.FORMERR, id="a question that is cut off"),
])
def test_what_is_no_question_is_told_so_or_not_answered(data, result):
    with pytest.raises(Unreadable) as refused:
        read(data)

    reply = refused.value.reply
    assert (None if reply is None else reply[3] & 15) == result
    assert reply is None or (reply[:2], reply[2] & 0x80) == (b"\xab\xcd", 0x80)


def test_the_longest_name_that_there_is_can_be_asked_for():
    assert len(read(message(wire(b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 61))).wire) == 255 + 4


def parts(data: bytes, asked: Question) -> tuple[int, int, bytes]:
    """Flags, number of answers, and what stands behind the question."""
    number, flags, questions, answers, _, _ = struct.unpack_from("!HHHHHH", data)
    assert (number, questions, data[12:12 + len(asked.wire)]) == (asked.id, 1, asked.wire)
    return flags, answers, data[12 + len(asked.wire):]


@pytest.mark.parametrize(("kind", "address"), [(1, V4), (28, V6)])
def test_an_answer_has_the_addresses_of_its_type(kind, address):
    asked = read(message(wire(b"a", b"example", kind=kind)))
    flags, count, rest = parts(answer(asked, Result.NOERROR, (V6, V4), 60), asked)

    assert (flags, count) == (0x8180, 1)
    assert rest == b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(address.packed)) + address.packed


@pytest.mark.parametrize("kind", [16, 64, 65])
def test_no_address_stands_in_a_record_of_another_type(kind):
    asked = read(message(wire(b"a", b"example", kind=kind)))

    assert parts(answer(asked, Result.NOERROR, (V6, V4), 60), asked) == (0x8180, 0, b"")


def test_a_refusal_says_why_to_those_who_can_read_it():
    plain = read(message(EXAMPLE))
    asked = read(message(EXAMPLE, counts=(1, 0, 0, 1), more=options()))

    assert parts(answer(plain, Result.REFUSED, why="Governor: NEVER"), plain) == (0x8185, 0, b"")
    flags, count, rest = parts(answer(asked, Result.REFUSED, why="Governor: NEVER"), asked)
    assert (flags, count) == (0x8185, 0)
    assert rest == options(1232, struct.pack("!HHH", 15, 17, 15) + b"Governor: NEVER")


def test_what_is_too_long_for_a_datagram_is_asked_for_again_over_tcp():
    asked, many = read(message(EXAMPLE)), [ip_address(f"192.0.2.{n}") for n in range(100)]
    flags, count, rest = parts(answer(asked, Result.NOERROR, many, 60), asked)

    assert (flags, count, rest) == (0x8380, 0, b"")
    assert parts(answer(asked, Result.NOERROR, many, 60, udp=False), asked)[:2] == (0x8180, 100)


@given(st.binary(max_size=600))
def test_no_bytes_are_more_than_refused(data):
    with contextlib.suppress(Unreadable):
        asked = read(data)
        assert data.startswith(struct.pack("!H", asked.id))
        assert asked.wire in data


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=6), st.integers(0, 65535), st.booleans(),
       st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4))
def test_a_damaged_question_is_another_one_or_none(labels, kind, extended, damage):
    whole = bytearray(message(wire(*labels, kind=kind), counts=(1, 0, 0, int(extended)),
                              more=options() if extended else b""))
    for place, byte in damage:
        whole[place % len(whole)] = byte
    try:
        asked = read(bytes(whole))
    except Unreadable:
        return
    told = answer(asked, Result.NOERROR, (V4, V6), 60, "why")
    assert len(told) <= asked.most_bytes
    assert told[12:12 + len(asked.wire)] == asked.wire
