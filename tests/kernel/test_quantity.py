"""Sizes, counts and rates as a policy writes them."""

from __future__ import annotations

import pytest

from kernel.errors import PatternError
from kernel.measures import Rate
from kernel.quantity import count, positive_size, rate, size


@pytest.mark.parametrize(("text", "found"), [
    ("0", 0), ("1", 1), ("0010", 10), ("10KB", 10_000), ("10MB", 10_000_000), ("3GB", 3 * 10**9),
    ("1KiB", 1024), ("16MiB", 16 * 1024**2), ("2GiB", 2 * 1024**3), ("1000000GB", 10**15),
])  # fmt: skip
def test_a_size_is_in_bytes(text, found):
    assert size(text) == found


@pytest.mark.parametrize(("text", "hint"), [
    ("10mb", "write 10MB"), ("10 MB", "write 10MB"), ("10M", "write 10MB"), ("1mib", "write 1MiB"),
    ("10B", "write 10"), ("1.5MB", "10MB"), ("-1", "10MB"), ("", "10MB"), ("big", "10MB"), ("10TB", "10MB"),
    ("1e6", "10MB"), ("٣MB", "10MB"),
])  # fmt: skip
def test_what_is_no_size_is_told_what_one_is(text, hint):
    with pytest.raises(PatternError) as refused:
        size(text)

    assert "is not a size" in refused.value.problem
    assert hint in refused.value.hint


@pytest.mark.parametrize("text", ["1000001GB", "9" * 16, "9" * 100_000])
def test_an_absurd_size_is_refused(text):
    with pytest.raises(PatternError) as refused:
        size(text)

    assert "more than anything" in refused.value.problem


@pytest.mark.parametrize(("parse", "text"), [
    (positive_size, "0"), (positive_size, "0MB"), (count, "0"), (rate, "0/day"),
])  # fmt: skip
def test_what_would_let_nothing_pass_is_refused(parse, text):
    with pytest.raises(PatternError) as refused:
        parse(text)

    assert refused.value.problem == f'"{text}" would let nothing pass'


def test_a_count_is_a_whole_number():
    assert count("8") == 8
    for text in ("8.0", "-8", "eight", "", "1000000001", "4k"):
        with pytest.raises(PatternError):
            count(text)


@pytest.mark.parametrize(("text", "found"), [
    ("100/second", Rate(100, 1)), ("60/minute", Rate(60, 60)), ("1/hour", Rate(1, 3600)), ("5/day", Rate(5, 86400)),
])  # fmt: skip
def test_a_rate_is_a_number_in_a_period(text, found):
    assert rate(text) == found


@pytest.mark.parametrize(("text", "hint"), [
    ("100/s", "write 100/second"), ("60/min", "write 60/minute"), ("60 / m", "write 60/minute"),
    ("5/seconds", 'did you mean "second"?'), ("100", "100/second"), ("x/second", "100/second"),
    ("1.5/second", "100/second"),
    ("2000000000/second", "leave the measure out"),
])  # fmt: skip
def test_what_is_no_rate_is_told_what_one_is(text, hint):
    with pytest.raises(PatternError) as refused:
        rate(text)

    assert hint in refused.value.hint
