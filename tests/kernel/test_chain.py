"""Lines: what is hashed and signed, and that a line has one spelling only."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from kernel.chain import MAX_LINE_BYTES, entry_hash, line, signed_bytes, split
from kernel.errors import ChainError

RAW = b'{"a":1}'
GOOD = line(RAW, "0123abcd", bytes(range(64)))


def test_a_line_is_these_bytes() -> None:
    expected = (
        b'{"e":{"a":1},"kid":"0123abcd","sig":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMz'
    )
    assert expected + b'Q1Njc4OTo7PD0+Pw=="}\n' == GOOD


def test_hash_and_signed_bytes_carry_the_domain() -> None:
    hashed = entry_hash(RAW)

    assert hashed == blake3(b"governor/audit/entry/v1\0" + RAW).digest()
    assert signed_bytes(hashed) == b"governor/audit/entry/v1\0" + hashed


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=64, max_size=64))
def test_what_was_joined_is_split_again(raw: bytes, signature: bytes) -> None:
    assert split(line(raw, "00ff00ff", signature)) == (raw, "00ff00ff", signature)


def test_a_raw_that_looks_like_the_end_of_a_line_does_not_move_the_cut() -> None:
    raw = b'{"a":"' + GOOD[:-1].replace(b'"', b'\\"') + b'"}'

    assert split(line(raw, "0123abcd", bytes(64)))[0] == raw


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n", id="blank"),
        pytest.param(GOOD[:-1], id="no line feed"),
        pytest.param(GOOD[:-1] + b"\r\n", id="carriage return"),
        pytest.param(b" " + GOOD, id="space before"),
        pytest.param(GOOD.replace(b'"e":', b'"E":'), id="another key"),
        pytest.param(GOOD.replace(b',"kid"', b', "kid"'), id="space within"),
        pytest.param(GOOD.replace(b'"}\n', b'","x":1}\n'), id="one key more"),
        pytest.param(GOOD.replace(b"0123abcd", b"0123ABCD"), id="kid in upper case"),
        pytest.param(GOOD.replace(b"0123abcd", b"0123abc"), id="short kid"),
        pytest.param(GOOD.replace(b'Pw=="', b'Px=="'), id="unused bits of base64"),
        pytest.param(GOOD.replace(b'Pw=="', b'PwA="'), id="65 bytes of signature"),
        pytest.param(GOOD.replace(b"AAEC", b"AA*C"), id="not base64"),
        pytest.param(line(b"x" * MAX_LINE_BYTES, "0123abcd", bytes(64)), id="too long"),
    ],
)
def test_what_is_not_a_line_is_refused(text: bytes) -> None:
    with pytest.raises(ChainError):
        split(text)


@given(st.binary(max_size=300))
def test_any_bytes_are_split_or_refused(text: bytes) -> None:
    try:
        raw, kid, signature = split(text)
    except ChainError:
        return

    assert line(raw, kid, signature) == text
