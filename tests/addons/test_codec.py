"""The fast codec says what kernel/canonical.py says, for every value and for any bytes."""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons import codec
from kernel import canonical
from kernel.errors import CanonicalError
from tests.conftest import scaled
from tests.kernel.test_canonical import REFUSED_BYTES, REFUSED_VALUES, VALUES


class Colour(StrEnum):
    RED = "red"


@settings(max_examples=scaled(300))
@given(VALUES)
def test_both_encode_alike_and_read_what_they_wrote(value: Any) -> None:
    raw = codec.encode(value)

    assert raw == canonical.encode(value)
    assert codec.parse(raw) == canonical.parse(raw)


@pytest.mark.parametrize("value", REFUSED_VALUES)
def test_a_value_without_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(CanonicalError):
        codec.encode(value)


@pytest.mark.parametrize("raw", REFUSED_BYTES)
def test_bytes_that_are_not_canonical_are_refused(raw: bytes) -> None:
    with pytest.raises(CanonicalError):
        codec.parse(raw)


@settings(max_examples=scaled(500))
@given(st.binary(max_size=40) | st.text('{}[]",:0123456789.eE+-nulltrfas\\/ ', max_size=25).map(str.encode))
def test_any_bytes_are_read_or_refused_alike(raw: bytes) -> None:
    assert _read(codec.parse, raw) == _read(canonical.parse, raw)


@settings(max_examples=scaled(200))
@given(VALUES, st.data())
def test_a_changed_byte_is_judged_alike(value: Any, data: st.DataObject) -> None:
    raw = bytearray(canonical.encode(value))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))

    assert _read(codec.parse, bytes(raw)) == _read(canonical.parse, bytes(raw))


@given(VALUES)
def test_what_is_proved_is_read_alike_by_both(value: Any) -> None:
    raw = codec.encode(value)

    assert codec.read(raw) == canonical.read(raw) == codec.parse(raw)


@pytest.mark.parametrize("raw", [
    b"", b"{", b"NaN", b"[Infinity]", b'"\xff"', b'"\\ud800"', b"[" * 100_000, b"1" * 5000, b"\xff\xfe1\0"])
def test_what_is_no_json_is_refused_by_the_kernels_reader(raw: bytes) -> None:
    with pytest.raises(CanonicalError):
        canonical.read(raw)


@settings(max_examples=scaled(500))
@given(st.binary(max_size=40) | st.text('{}[]",:0123456789.eE+-nulltrfasNI\\ /ud8', max_size=25).map(str.encode))
def test_any_bytes_are_read_alike_where_both_read_them_without_a_fraction(raw: bytes) -> None:
    ours, theirs = _read(codec.read, raw), _read(canonical.read, raw)

    # Numbers beyond 64 bits and fractions are read by each in its own way; no entry has any.
    if _has_form(ours[1]) and _has_form(theirs[1]):
        assert ours == theirs


def _has_form(value: Any) -> bool:
    try:
        canonical.check(value)
    except CanonicalError:
        return False
    return True


def test_string_enums_are_strings_to_both_and_uuids_to_none() -> None:
    assert codec.encode({"a": Colour.RED}) == canonical.encode({"a": Colour.RED}) == b'{"a":"red"}'
    for encode in (codec.encode, canonical.encode):
        with pytest.raises(CanonicalError):
            encode({"a": uuid4()})  # type: ignore[dict-item]


def _read(parse: Any, raw: bytes) -> tuple[str, Any]:
    try:
        return "read", parse(raw)
    except CanonicalError:
        return "refused", None
