"""The strict reading of a node tree."""

from __future__ import annotations

import pytest

from kernel.document import Keys, Mapping, Reader, Scalar, Sequence, did_you_mean, printable, quote
from kernel.policy import Position

KEYS = Keys("a thing", now=frozenset({"methods", "paths"}), later=frozenset({"budgets"}), required=("methods",))


def at(line: int, column: int = 1) -> Position:
    """A mark as parsers give it counts from 0; the tests speak of lines as people do."""
    return Position("", line - 1, column - 1)


def word(text: str, line: int = 1) -> Scalar:
    return Scalar(text, at(line))


def mapping(*parts: tuple[str, Scalar | Sequence | Mapping]) -> Mapping:
    flat = [node for number, (key, value) in enumerate(parts, 1) for node in (word(key, number), value)]
    return Mapping(flat, at(1))


def test_a_mapping_gives_its_values_by_key():
    reader = Reader("f.yaml")

    found = reader.mapping(mapping(("methods", word("GET")), ("paths", word("/"))), KEYS)

    assert found == {"methods": word("GET"), "paths": word("/")}
    assert reader.findings == []


def test_a_finding_names_file_line_and_column_from_one():
    reader = Reader("f.yaml")

    reader.error("E102", Scalar("x", at(3, 7)), "no")

    assert str(reader.findings[0]) == "f.yaml:3:7: E102 no"


@pytest.mark.parametrize(
    ("key", "code", "said"),
    [
        pytest.param("metods", "E103", 'did you mean "methods"?', id="a misspelt key"),
        pytest.param("budget", "E103", 'did you mean "budgets"?', id="a misspelt key of a later version"),
        pytest.param("zzz", "E103", "known here: methods, paths", id="a key like no other"),
        pytest.param("budgets", "E180", "cannot enforce", id="a key of a later version"),
        pytest.param("<<", "E103", "merge keys are not read", id="a merge key"),
        pytest.param("methods", "E101", "first in line 1", id="a key that stands twice"),
    ],
)
def test_no_key_is_accepted_and_ignored(key, code, said):
    reader = Reader("f.yaml")

    found = reader.mapping(mapping(("methods", word("GET")), (key, word("x"))), KEYS)

    assert found == {"methods": word("GET")}
    assert [finding.code for finding in reader.findings] == [code]
    assert said in str(reader.findings[0])
    assert reader.findings[0].position.line == 2


def test_a_key_that_is_missing_is_asked_for():
    reader = Reader("f.yaml")

    reader.mapping(mapping(("paths", word("/"))), KEYS)

    assert [str(finding) for finding in reader.findings] == ['f.yaml:1:1: E104 a thing needs "methods:"']


def test_a_key_that_is_a_list_is_refused():
    reader = Reader("f.yaml")

    reader.mapping(Mapping([Sequence([], at(2)), word("x")], at(1)), KEYS)

    assert "E102" in [finding.code for finding in reader.findings]


def test_one_word_and_a_list_of_one_word_are_the_same():
    reader = Reader("f.yaml")

    assert reader.words(word("GET"), "methods") == reader.words(Sequence([word("GET")], at(1)), "methods")
    assert reader.findings == []


@pytest.mark.parametrize(
    "node",
    [
        pytest.param(word(""), id="nothing"),
        pytest.param(Sequence([], at(1)), id="an empty list"),
        pytest.param(Sequence([word("")], at(1)), id="a list of nothing"),
        pytest.param(Sequence([Sequence([], at(1))], at(1)), id="a list of lists"),
        pytest.param(Mapping([], at(1)), id="keys and values"),
    ],
)
def test_what_is_no_word_is_no_condition(node):
    reader = Reader("f.yaml")

    assert reader.words(node, "methods") == []
    assert [finding.code for finding in reader.findings] == ["E102"]


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", " ", "x" * 11])
def test_a_line_that_agents_see_is_short_and_printable(text):
    reader = Reader("f.yaml")

    assert reader.line(word(text), "tell", 10) is None
    assert [finding.code for finding in reader.findings] == ["E102"]


def test_what_a_terminal_would_act_on_is_shown_as_an_escape():
    assert printable("a\x1b[31m\u202eb\n") == "a\\x1b[31m\\u202eb\\n"
    assert quote("x" * 100) == '"' + "x" * 60 + '..."'


def test_a_finding_never_carries_a_control_character():
    reader = Reader("f.yaml")

    reader.mapping(mapping(("methods", word("GET")), ("\x1b]0;x\x07", word("x"))), KEYS)

    assert str(reader.findings[0]).isprintable()


def test_a_suggestion_is_made_only_for_what_is_close():
    assert did_you_mean("alow", {"allow", "deny"}) == 'did you mean "allow"?'
    assert did_you_mean("zzz", {"allow", "deny"}) == ""
    assert did_you_mean("a" * 100_000, {"allow"}) == ""
    assert did_you_mean("agent-1x", {f"agent-{number}" for number in range(5000)}) == ""
