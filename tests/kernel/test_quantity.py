"""Sizes, counts and rates as a policy writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import PatternError
from kernel.measures import Rate
from kernel.quantity import count, duration, money, percentage, positive_size, rate, size, tally


@pytest.mark.parametrize(("text", "found"), [
    ("0", 0), ("1", 1), ("0010", 10), ("10KB", 10_000), ("10MB", 10_000_000), ("3GB", 3 * 10**9),
    ("1KiB", 1024), ("16MiB", 16 * 1024**2), ("2GiB", 2 * 1024**3), ("1000000GB", 10**15),
])  # fmt: skip
def test_a_size_is_in_bytes(text, found):
    assert size(text) == found


@pytest.mark.parametrize(("text", "hint"), [
    ("10mb", "write 10MB"), ("10 MB", "write 10MB"), ("10M", "write 10MB"), ("1mib", "write 1MiB"),
    ("10B", "write 10"), ("1.5MB", "write 1500KB"), ("-1", "10MB"), ("", "10MB"), ("big", "10MB"),
    ("10TB", "write 10000GB"), ("1,000", "write 1000"), ("1 000 000", "write 1000000"), ("1.5 GiB", "write 1536MiB"),
    ("1TiB", "write 1024GiB"),
    ("0.5KB", "write 500"), ("5 bytes", "write 5"), ("1,5MB", "10MB"),
    ("1,0000", "10MB"), ("0.1", "10MB"), ("9.999999999GB", "9999999999"),
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
    ("5/seconds", "write 5/second"), ("10 / minute", "write 10/minute"), ("10 per minute", "write 10/minute"),
    ("1k/minute", "write 1000/minute"), ("1,000/hour", "write 1000/hour"), ("10/Minute", "write 10/minute"),
    ("5/secnd", 'did you mean "second"?'), ("10/week", "100/second"), ("100", "100/second"), ("x/second", "100/second"),
    ("1.5/second", "100/second"),
    ("2000000000/second", "leave it out"),
])  # fmt: skip
def test_what_is_no_rate_is_told_what_one_is(text, hint):
    with pytest.raises(PatternError) as refused:
        rate(text)

    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("parse", "text", "meant"),
    [
        pytest.param(tally, "20", 20, id="a number"),
        pytest.param(tally, "8k", 8_000, id="thousands"),
        pytest.param(tally, "4M", 4_000_000, id="millions"),
        pytest.param(tally, "2G", 2_000_000_000, id="thousands of millions"),
        pytest.param(money, "5", 5_000_000, id="whole dollars"),
        pytest.param(money, "0.25", 250_000, id="cents"),
        pytest.param(money, "0.000001", 1, id="the smallest amount"),
        pytest.param(money, "1000000000", 10**15, id="the largest amount"),
        pytest.param(duration, "90s", 90, id="seconds"),
        pytest.param(duration, "10m", 600, id="minutes"),
        pytest.param(duration, "8h", 28_800, id="hours"),
        pytest.param(duration, "7d", 604_800, id="days"),
        pytest.param(percentage, "80%", 80, id="a percentage"),
        pytest.param(percentage, "150%", 150, id="a percentage above 100"),
    ],
)
def test_a_quantity_is_a_whole_number_of_its_smallest_unit(parse, text, meant):
    assert parse(text) == meant


@pytest.mark.parametrize(
    ("parse", "text", "hint"),
    [
        pytest.param(tally, "4m", "write 4M", id="millions in small letters"),
        pytest.param(tally, "8K", "write 8k", id="thousands in a capital"),
        pytest.param(tally, "1.5M", "write 1500k", id="millions with a point"),
        pytest.param(tally, "4,000", "write 4000", id="a comma in a number"),
        pytest.param(tally, "many", "write a whole number", id="no number"),
        pytest.param(tally, "0", "write a number above 0", id="nothing"),
        pytest.param(tally, "9999999G", "leave it out", id="more than there is"),
        pytest.param(money, "$5", "write 5: usd says", id="a dollar sign"),
        pytest.param(money, "5 USD", "write 5: usd says", id="a currency"),
        pytest.param(money, "2,50", "write 2.50", id="a comma for a point"),
        pytest.param(money, "0.0000001", "at most six places", id="seven places"),
        pytest.param(money, "0.000000", "write an amount above 0", id="no money"),
        pytest.param(money, "1000000001", "leave it out", id="more money than any budget"),
        pytest.param(money, "-5", "write US dollars with a point", id="a debt"),
        pytest.param(money, "\u0665", "write US dollars with a point", id="a digit of another script"),
        pytest.param(duration, "10", "say the unit: 10s, 10m, 10h or 10d", id="no unit"),
        pytest.param(duration, "10 minutes", "write 10m", id="a unit in full"),
        pytest.param(duration, "1h30m", "write 90m", id="two units"),
        pytest.param(duration, "1.5h", "write 90m", id="hours with a point"),
        pytest.param(duration, "2 weeks", "write 14d", id="weeks"),
        pytest.param(duration, "10M", "write a whole number with s, m, h or d", id="months or minutes"),
        pytest.param(duration, "0.5s", "write a whole number with s, m, h or d", id="less than a second"),
        pytest.param(tally, "1,5M", "write a whole number", id="a comma that may be a point"),
        pytest.param(tally, "1.25M", "write 1250k", id="two places"),
        pytest.param(tally, "0.5k", "write 500", id="half a thousand"),
        pytest.param(tally, "0.0M", "write 1", id="nothing with a point"),
        pytest.param(count, "1,000", "write 1000", id="a comma in a count"),
        pytest.param(count, "4k", "write 4000", id="thousands where none are read"),
        pytest.param(money, "$0.10", "write 0.10: usd says", id="cents with a sign"),
        pytest.param(money, "1,000.50", "write 1000.50: usd says", id="a comma and a point"),
        pytest.param(money, ".50", "write 0.50: usd says", id="no digit before the point"),
        pytest.param(duration, "0s", "write a duration such as 10m", id="no time"),
        pytest.param(duration, "4000d", "write a shorter one", id="longer than ten years"),
        pytest.param(percentage, "80", "write 80%", id="no sign"),
        pytest.param(percentage, "80 %", "write 80%", id="a space"),
        pytest.param(percentage, "0%", "write one above 0%", id="nothing used"),
        pytest.param(percentage, "most", "write 80%", id="no percentage"),
    ],
)
def test_a_quantity_in_another_form_is_refused_with_what_to_write(parse, text, hint):
    with pytest.raises(PatternError) as refused:
        parse(text)

    assert refused.value.hint.startswith(hint)


@given(st.text(max_size=12) | st.from_regex(r"[0-9.,%$ ]{0,6}[kKmMGsmhd%]?", fullmatch=True))
def test_no_text_is_read_as_a_quantity_of_another_kind_or_raises_anything_else(text):
    for parse in (tally, money, duration, percentage):
        with suppress(PatternError):
            assert parse(text) > 0


QUANTITIES = st.from_regex(
    r"\$?[0-9]{0,7}([.,_' ][0-9]{1,4})?[ ]?"
    r"(|k|K|m|M|G|KB|kb|MiB|TB|bytes|USD|s|sec|min|hours|weeks|h30m|%|/s|/min| per hour)", fullmatch=True)


@given(QUANTITIES)
def test_what_a_hint_says_to_write_can_be_read(text):
    for parse in (size, positive_size, count, tally, money, duration, percentage, rate):
        try:
            parse(text)
        except PatternError as refused:
            told = re.fullmatch(r"write (\S*[0-9]\S*?)(: usd says.*)?", refused.hint)
            again = _problem(parse, told[1]) if told is not None else ""

            assert " is not " not in again, told


def _problem(parse: Callable[[str], object], text: str) -> str:
    try:
        parse(text)
    except PatternError as refused:
        return refused.problem
    return ""
