"""What a rule may write as the value of a field, and which values it covers for a grant and for a refusal."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.comparison import UNREAD, UNREADABLE, Comparison, Gap, Interval, alternative, fits, number_of
from kernel.errors import PatternError


def comparison(*texts: str) -> Comparison:
    read = [alternative(text) for text in texts if text != "absent"]
    return Comparison(
        tuple(each for each in read if isinstance(each, str)),
        tuple(each for each in read if isinstance(each, Interval)),
        "absent" in texts,
    )


@pytest.mark.parametrize(("text", "meant"), [
    ("<= 20000", Interval(high=20000)),
    ("<=20000", Interval(high=20000)),
    ("< 5", Interval(high=5, high_open=True)),
    (">= -3", Interval(low=-3)),
    ("> 0", Interval(low=0, low_open=True)),
    ("20001..500000", Interval(20001, 500000)),
    ("7..7", Interval(7, 7)),
    ("-5 .. -1", Interval(-5, -1)),
    ("eur", "eur"),
    ("b*", "b*"),
    ("007", "007"),
    ("1.5", "1.5"),
    ("a..b", "a..b"),
    ("v1..v2", "v1..v2"),
    ("-..-", "-..-"),
])
def test_a_value_is_an_interval_or_a_text(text, meant):
    assert alternative(text) == meant


@pytest.mark.parametrize(("interval", "holds"), [
    (Interval(low=5), [5, 6]),
    (Interval(low=5, low_open=True), [6]),
    (Interval(high=5), [4, 5]),
    (Interval(high=5, high_open=True), [4]),
    (Interval(5, 5), [5]),
])
def test_an_end_of_an_interval_is_included_unless_it_is_open(interval, holds):
    assert [number for number in (4, 5, 6) if Decimal(number) in interval] == holds


FORMS = '(write "<= 20000", "< N", ">= N", "> N" or "1..500", with whole numbers)'
NO_BOUND = "is no comparison with a whole number"
AS_IT_STANDS = "a plain text is compared as it stands"
NO_INTERVAL = f"is no interval of whole numbers {FORMS}"
UNPRINTABLE = "has spaces around it or characters that do not print (write plain text)"


@pytest.mark.parametrize(("text", "told"), [
    ("<= 1.5", f"{NO_BOUND} {FORMS}"),
    ("<", f"{NO_BOUND} {FORMS}"),
    ("=", f"{NO_BOUND} {FORMS}"),
    ("=5", f'{NO_BOUND} (write "5": {AS_IT_STANDS})'),
    ("== eur=", f'{NO_BOUND} (write "eur=": {AS_IT_STANDS})'),
    ("=< 5", f"{NO_BOUND} {FORMS}"),
    ("!eur", f"{NO_BOUND} (a comparison says what is covered: put what is not into except:)"),
    ("5 >", f"{NO_BOUND} {FORMS}"),
    ("<= 20,000", f"{NO_BOUND} {FORMS}"),
    ("1..", NO_INTERVAL),
    ("..5", NO_INTERVAL),
    ("1...5", NO_INTERVAL),
    ("1.5..2", NO_INTERVAL),
    ("007..9", NO_INTERVAL),
    ("9..1", 'runs backwards (write "1..9")'),
    ("a\tb", UNPRINTABLE),
    (" a", UNPRINTABLE),
])
def test_what_is_neither_is_refused_with_what_to_write(text, told):
    with pytest.raises(PatternError) as refused:
        alternative(text)

    assert str(refused.value) == f'"{text}" {told}'


def test_a_text_to_compare_has_at_most_1000_characters():
    assert alternative("x" * 1000) == "x" * 1000

    with pytest.raises(PatternError) as refused:
        alternative("x" * 1001)

    assert str(refused.value) == "a value of 1001 characters is too long to compare (1000 are allowed)"


@pytest.mark.parametrize(("said", "value", "covered"), [
    ("<= 20000", "20000", True),
    ("<= 20000", "20000.5", False),
    ("<= 20000", "-1", True),
    ("<= 20000", "20001", False),
    ("< 5", "4.5", True),
    ("< 5", "4.9999999999999999999999999999999999999", True),
    ("< 5", "5", False),
    ("> 5", "5.1", True),
    ("1..2", "1.5", True),
    ("1..2", "2", True),
    ("1..2", "2.1", False),
    ("eur", "eur", True),
    ("eur", "EUR", False),
    ("b*", "b", True),
    ("b*", "abc", False),
    ("*", "", True),
    ("5", "5", True),
    ("5", "5.0", False),
])
@pytest.mark.parametrize("wide", [True, False])
def test_a_readable_value_is_covered_alike_by_what_grants_and_what_refuses(said, value, covered, wide):
    assert fits(comparison(said), value, wide=wide) is covered


LOOSE = [
    "", "007", "+5", "-0", " 5", "5 ", "1e3", "0x10", "1_000", "5.0", ".5", "5.", "1,5", "5abc", "abc", "\u0665",
    "\uff15", "\xbd", "NaN", "Infinity", "true", "null", "9" * 41, "5\n",
]  # fmt: skip


@pytest.mark.parametrize("text", LOOSE)
def test_as_a_number_every_text_but_the_canonical_one_is_a_gap(text):
    assert fits(comparison("> 500"), text, wide=True)
    assert not fits(comparison("<= 500"), text, wide=False)


def test_a_number_has_at_most_so_many_digits():
    assert number_of("9" * 40) == 10**40 - 1
    assert number_of("-0." + "0" * 38 + "1") is not None
    assert number_of("9" * 41) is None
    assert number_of("0." + "0" * 39 + "1") is None


@pytest.mark.parametrize("said", ["<= 5", "*", "eur", "absent"])
@pytest.mark.parametrize("gap", [UNREADABLE, Gap("it is compressed")])
def test_a_gap_is_covered_by_what_refuses_alone(said, gap):
    assert fits(comparison(said), gap, wide=True)
    assert not fits(comparison(said), gap, wide=False)


@pytest.mark.parametrize("said", ["<= 5", "*", "absent"])
def test_what_has_not_come_yet_is_covered_by_what_grants_alone(said):
    assert fits(comparison(said), UNREAD, wide=False)
    assert not fits(comparison(said), UNREAD, wide=True)


@pytest.mark.parametrize("wide", [True, False])
def test_absent_is_a_value_of_its_own(wide):
    assert fits(comparison("absent"), None, wide=wide)
    assert fits(comparison("eur", "absent"), "eur", wide=wide)
    assert not fits(comparison("*"), None, wide=wide)
    assert not fits(comparison("<= 5"), None, wide=wide)
    assert not fits(comparison("absent"), "absent", wide=wide)


@pytest.mark.parametrize("text", ["<= 20000", "< 5", ">= -3", "> 0", "20001..500000", "eur", "b*"])
def test_a_comparison_is_spelled_as_it_is_written(text):
    assert comparison(text, "absent").spelled == [text, "absent"]


@given(st.text(max_size=8), st.sampled_from(["<= 5", "> 5", "1..2", "x*", "*", "absent"]))
def test_what_grants_covers_no_more_than_what_refuses(value, said):
    if fits(comparison(said), value, wide=False):
        assert fits(comparison(said), value, wide=True)


@given(st.integers(-(10**40) + 1, 10**40 - 1), st.integers(-(10**18), 10**18))
def test_whole_numbers_are_compared_exactly(value, bound):
    assert fits(comparison(f"<= {bound}"), str(value), wide=False) is (value <= bound)
    assert fits(comparison(f"> {bound}"), str(value), wide=False) is (value > bound)
