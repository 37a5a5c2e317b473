"""Canonical JSON: one form for each value, and nothing else is read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.canonical import MAX_BYTES, MAX_DEPTH, MAX_INTEGER, encode, parse
from kernel.errors import CanonicalError
from tests.conftest import scaled

KEYS = st.text(st.characters(max_codepoint=0x7F), max_size=12)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-MAX_INTEGER, MAX_INTEGER), TEXTS)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5))


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@settings(max_examples=scaled(200))
@given(VALUES)
def test_the_form_is_that_of_rfc_8785(value: Any) -> None:
    assert encode(value) == rfc8785.dumps(value)


@settings(max_examples=scaled(200))
@given(VALUES)
def test_what_was_encoded_parses_to_the_same_value(value: Any) -> None:
    assert parse(encode(value)) == value


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        pytest.param({"b": 1, "a": [None, True, False]}, b'{"a":[null,true,false],"b":1}', id="sorted keys"),
        pytest.param('\x00\x08\t\n\x0c\r\x1f\x7f"\\/', b'"\\u0000\\b\\t\\n\\f\\r\\u001f\x7f\\"\\\\/"', id="escapes"),
        pytest.param("é\u2028\U0001f600", '"é\u2028\U0001f600"'.encode(), id="nothing else is escaped"),
        pytest.param(MAX_INTEGER, b"9007199254740991", id="greatest integer"),
        pytest.param(-MAX_INTEGER, b"-9007199254740991", id="least integer"),
        pytest.param({}, b"{}", id="empty object"),
        pytest.param(("a", 1), b'["a",1]', id="tuple"),
    ],
)
def test_a_value_has_this_form(value: Any, raw: bytes) -> None:
    assert encode(value) == raw


REFUSED_VALUES = [
    pytest.param(1.0, id="float"),
    pytest.param(math.nan, id="NaN"),
    pytest.param({"a": [math.inf]}, id="infinity inside"),
    pytest.param(MAX_INTEGER + 1, id="integer too great"),
    pytest.param(-MAX_INTEGER - 1, id="integer too small"),
    pytest.param(10**5000, id="integer of 5000 digits"),
    pytest.param("\ud800", id="lone surrogate"),
    pytest.param({"é": 1}, id="key beyond ASCII"),
    pytest.param({"\ud800": 1}, id="surrogate in a key"),
    pytest.param({1: 1}, id="key that is no string"),
    pytest.param(b"bytes", id="bytes"),
    pytest.param({1, 2}, id="set"),
    pytest.param(nested(MAX_DEPTH + 1), id="too deep"),
    pytest.param("x" * MAX_BYTES, id="too long"),
]


@pytest.mark.parametrize("value", REFUSED_VALUES)
def test_a_value_without_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(CanonicalError):
        encode(value)


REFUSED_BYTES = [
    pytest.param(b"", id="nothing"),
    pytest.param(b'{"a":1,"a":1}', id="a key twice"),
    pytest.param(b'{"b":1,"a":1}', id="unsorted keys"),
    pytest.param(b'{"a": 1}', id="white space"),
    pytest.param(b'{"a":1}\n', id="white space after it"),
    pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
    pytest.param(b"1.0", id="fraction"),
    pytest.param(b"1e3", id="exponent"),
    pytest.param(b"1e400", id="infinite exponent"),
    pytest.param(b"-0", id="minus zero"),
    pytest.param(b"-0.0", id="minus zero with fraction"),
    pytest.param(b"01", id="leading zero"),
    pytest.param(b"NaN", id="NaN"),
    pytest.param(b"Infinity", id="Infinity"),
    pytest.param(b"9007199254740992", id="integer too great"),
    pytest.param(b"18446744073709551616", id="integer beyond 64 bits"),
    pytest.param(b"9" * 5000, id="integer of 5000 digits"),
    pytest.param(b'"\\u0041"', id="escape of a letter"),
    pytest.param(b'"\\u001F"', id="escape in upper case"),
    pytest.param(b'"\\/"', id="escaped slash"),
    pytest.param(b'"\\u007f"', id="escaped DEL"),
    pytest.param(b'"\\ud83d\\ude00"', id="escaped pair"),
    pytest.param(b'"\\ud800"', id="lone surrogate"),
    pytest.param(b'"\xed\xa0\x80"', id="surrogate in UTF-8"),
    pytest.param(b'"\xff"', id="not UTF-8"),
    pytest.param(b'"\x01"', id="raw control character"),
    pytest.param('{"é":1}'.encode(), id="key beyond ASCII"),
    pytest.param(b"[" * 100000, id="deep and unclosed"),
    pytest.param(b"[" * 33 + b"]" * 33, id="too deep"),
    pytest.param(b'"' + b"x" * MAX_BYTES + b'"', id="too long"),
    pytest.param(b"{}{}", id="two values"),
]


@pytest.mark.parametrize("raw", REFUSED_BYTES)
def test_bytes_that_are_not_canonical_are_refused(raw: bytes) -> None:
    with pytest.raises(CanonicalError):
        parse(raw)


def test_the_greatest_depth_and_length_are_read() -> None:
    deep, long = encode(nested(MAX_DEPTH)), encode("x" * (MAX_BYTES - 2))

    assert parse(deep) == nested(MAX_DEPTH)
    assert len(parse(long)) == MAX_BYTES - 2  # type: ignore[arg-type]


@settings(max_examples=scaled(300))
@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_the_declared_error(raw: bytes) -> None:
    try:
        value = parse(raw)
    except CanonicalError:
        return

    assert encode(value) == raw
