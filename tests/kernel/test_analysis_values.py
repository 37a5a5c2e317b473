"""What a field can be is cut into kinds that the comparisons of policies tell apart, each with a shortest text."""

from __future__ import annotations

from itertools import product

import pytest

from kernel.analysis.bodies import FORM_TYPES, JSON_TYPES, Bodies
from kernel.analysis.language import TooHard
from kernel.analysis.space import bits
from kernel.analysis.values import ABSENT_VALUE, UNREADABLE_VALUE, Values
from kernel.comparison import MOST_DIGITS, UNREADABLE, Comparison, alternative, fits
from kernel.fields import Part


def comparison(text: str) -> Comparison:
    """Alternatives with `|` between them."""
    alternatives = [alternative(each) for each in text.split("|") if each != "absent"]
    globs = tuple(each for each in alternatives if isinstance(each, str))
    return Comparison(globs, tuple(each for each in alternatives if not isinstance(each, str)), "absent" in text)


def values(part: Part, *said: str) -> Values:
    return Values(part, "n", [comparison(each) for each in said])


SHOWN = [
    pytest.param(Part.QUERY, ["a*", "*b|absent"], ["", "a", "b", "ab"], id="globs that meet"),
    pytest.param(Part.QUERY, ["a", "b"], ["a", "b", ""], id="texts"),
    pytest.param(Part.QUERY, ["*"], [""], id="everything"),
    pytest.param(Part.QUERY, ["q*"], ["", "q"], id="a glob of what is shown for anything"),
    pytest.param(Part.QUERY, ["<= 5"], ["", "0", "6", "5"], id="a bound"),
    pytest.param(Part.JSON, ["<= 5", "< 5", ">= 5"], ["", "0", "6", "5"], id="one bound in three ways"),
    pytest.param(Part.JSON, ["-10..5", "> 99"], ["", "-11", "0", "6", "100", "-10", "5", "99"], id="below zero"),
    pytest.param(Part.JSON, ["0..0"], ["", "-1", "1", "0"], id="zero"),
    pytest.param(Part.JSON, ["5..6"], ["", "0", "5.1", "7", "5", "6"], id="fractions"),
    pytest.param(Part.JSON, ["-1..0"], ["", "-2", "-0.1", "1", "-1", "0"], id="fractions below zero"),
    pytest.param(Part.JSON, ["-6..-5"], ["", "-7", "-5.1", "0", "-6", "-5"], id="fractions far below zero"),
    pytest.param(Part.JSON, ["99..100"], ["", "0", "99.1", "101", "99", "100"], id="bounds of unlike length"),
    pytest.param(Part.JSON, ["1*", "5..120"], ["", "1q", "0", "1", "6", "10", "121", "200", "5", "120"],
                 id="a glob of numbers"),
    pytest.param(Part.JSON, ["*.5", "0..1"], ["", ".5", "-1", "-0.5", "0.1", "0.5", "2", "1.5", "0", "1"],
                 id="a glob of fractions"),
    pytest.param(Part.JSON, ["*.05", "0..1"], ["", ".05", "-1", "-0.05", "0.1", "0.05", "2", "1.05", "0", "1"],
                 id="a zero behind the point"),
    pytest.param(Part.JSON, ["007", "1e3", "0..5"], ["007", "1e3", "", "-1", "1", "6", "0", "5"], id="no number"),
    pytest.param(Part.FORM, ["-*", "<= -7"], ["", "-", "-8", "0", "-1", "-7"], id="a sign"),
    pytest.param(Part.HEADERS, ["a *", "*b", "é*"], ["", "b", "é", "éb", "a b", "a q"], id="spaces within a header"),
    pytest.param(Part.HEADERS, ["\u0101*", "b"], ["b", ""], id="what no header can hold"),
    pytest.param(Part.CONTENT_TYPES, ["a/b", "*+json"], ["a/b", "+/+", "+/+json"], id="content types"),
    pytest.param(Part.CONTENT_TYPES, ["A/b", "text/*", "*/xml"], ["q/q", "q/xml", "text/q", "text/xml"],
                 id="content types are in small letters"),
    pytest.param(Part.CONTENT_TYPES, ["a", "a/b/c", "/b", "a/", "x/y"], ["x/y", "a/b"], id="what is no content type"),
]  # fmt: skip
TEXTS = [
    "", "a", "b", "ab", "axb", "q", "z", "0", "-0", "1", "-1", "5", "5.0", "5.5", "05", "6", "7", "-7", "-8", "-10",
    "-5.5", "10", "99", "99.5", "100", "100.5", "120", "119.9", "200", "1q", "0.5", "-0.5", "1.5", ".5", "5.", "--5",
    "0.05", "1.05", "5.05", "1.2.3", "+5", "1e3", "1" * MOST_DIGITS, "-" + "9" * MOST_DIGITS,
    "a b", "éb", "x/y", "text/xml", "é",
]  # fmt: skip


@pytest.mark.parametrize(("part", "said", "shown"), SHOWN)
def test_each_kind_of_texts_is_shown_by_a_shortest_one(part, said, shown):
    known = values(part, *said)

    assert [known.shown(1 << place) for place in bits(known.texts)] == shown
    assert [known.kind(text) for text in shown] == [1 << place for place in bits(known.texts)]


@pytest.mark.parametrize(("part", "said"), [pytest.param(*case.values[:2], id=case.id) for case in SHOWN])
@pytest.mark.parametrize("wide", [False, True])
def test_a_comparison_covers_the_kinds_whose_texts_fit_it(part, said, wide):
    known = values(part, *said)
    texts = [text for text in TEXTS if part is not Part.CONTENT_TYPES or "/" in text]

    for text in said:
        mask = known.mask(comparison(text), wide=wide)
        assert [value for value in (None, UNREADABLE, *texts) if known.kind(value) & mask] == [
            value for value in (None, UNREADABLE, *texts) if fits(comparison(text), value, wide=wide)]


def test_a_set_without_texts_shows_none_and_one_with_some_the_first():
    known = values(Part.QUERY, "a", "b")

    assert known.shown(ABSENT_VALUE | UNREADABLE_VALUE) is None
    assert known.shown(known.kind("b") | known.kind("") | ABSENT_VALUE) == "b"
    assert known.every == known.texts | ABSENT_VALUE | UNREADABLE_VALUE


@pytest.mark.parametrize(("said", "hard"), [
    pytest.param(["1*" * (MOST_DIGITS // 2), "> 5"], True, id="globs that take more digits than a number has"),
    pytest.param(["1*" * (MOST_DIGITS // 2 - 1), "> 5"], False, id="fewer digits"),
    pytest.param(["a*" + "1" * MOST_DIGITS, "> 5"], False, id="a glob that is like no number"),
    pytest.param(["1*" * (MOST_DIGITS // 2)], False, id="no numbers to compare"),
    pytest.param(["1" * MOST_DIGITS, "> 5"], False, id="no star"),
])
def test_globs_of_very_many_digits_are_not_compared_with_numbers(said, hard):
    if hard:
        with pytest.raises(TooHard):
            values(Part.JSON, *said)
    else:
        assert values(Part.JSON, *said).shown(-1) is not None


JSON, FORM = values(Part.JSON, "x", "> 5"), values(Part.FORM, "y")
TYPE = Values(Part.CONTENT_TYPES, "", [JSON_TYPES, FORM_TYPES, comparison("a/b")])
QUERY, HEADER = values(Part.QUERY, "z"), values(Part.HEADERS, "w")
FIELDS = (JSON, FORM, TYPE, QUERY, HEADER)


def sets(words: str) -> list[int]:
    """For each field `-` for absent, `?` for unreadable, `*` for anything, or a text."""
    known = {"-": ABSENT_VALUE, "?": UNREADABLE_VALUE, "j": TYPE.kind("application/json"),
             "f": TYPE.kind("application/x-www-form-urlencoded")}
    return [each.every if word == "*" else known.get(word) or each.kind(word)
            for each, word in zip(FIELDS, words.split(), strict=True)]


@pytest.mark.parametrize(("words", "query", "headers", "body"), [
    ("- - * - -", "", [], None),
    ("* * * * *", "", [], None),
    ("x * * - -", "", ["application/json"], '{"n": "x"}'),
    ("6 ? j - -", "", ["application/json"], '{"n": 6}'),
    ("- ? * - -", "", ["application/json"], "{}"),
    ("? ? j - -", "", ["application/json"], '{"n": []}'),
    ("? - * - -", "", ["application/x-www-form-urlencoded"], "&"),
    ("? y * - -", "", ["application/x-www-form-urlencoded"], "n=y"),
    ("? ? f - -", "", ["application/x-www-form-urlencoded"], "&&n=a&n=a"),
    ("? ? - - -", "", [], "%"),
    ("? ? ? - -", "", ["a", "a"], "%"),
    ("? * a/b - -", "", ["a/b"], "%"),
    ("- - a/b z -", "n=z", ["a/b"], None),
    ("- - - ? w", "n=a&n=a", ["w"], None),
    ("- - - - ?", "", ["a", "a"], None),
])
def test_a_request_with_given_fields_is_shown(words, query, headers, body):
    found = Bodies(FIELDS).shown(sets(words))

    assert (found.query, [value for _, value in found.headers], found.body) == (query, headers, body)
    assert {name for name, _ in found.headers} <= {"content-type", "n"}


def test_a_request_is_shown_wherever_a_body_can_have_such_fields_and_is_read_as_it_was_meant():
    bodies = Bodies(FIELDS)

    for said in product("-?*x", "-?*y", ["-", "?", "*", "j", "f", "a/b"], "-?z", "-?w"):
        wanted = sets(" ".join(said))
        found = bodies.shown(wanted)

        assert bodies.possible(wanted) is (found is not None), said
        if found is not None:
            read = [each.kind(found.fields.value(each.part, each.name)) for each in FIELDS]
            assert all(one & two for one, two in zip(wanted, read, strict=True)), said


@pytest.mark.parametrize("words", [
    "x y * - -", "x - * - -", "- y * - -", "? - j - -", "? - a/b - -", "- ? f - -", "x ? f - -", "* y j - -"])
def test_a_body_has_one_content_type_and_its_fields_one_reading(words):
    bodies = Bodies(FIELDS)

    assert (bodies.possible(sets(words)), bodies.shown(sets(words))) == (False, None)
    assert bodies.matter
    assert not Bodies(FIELDS[2:]).matter
