"""A request made from the fields that it shall have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kernel.example import Example, example
from kernel.fields import Part

JSON, FORM, QUERY, HEADERS, KIND = Part.JSON, Part.FORM, Part.QUERY, Part.HEADERS, Part.CONTENT_TYPES


def test_a_request_says_its_fields():
    said = example({
        (QUERY, "a b"): "1&2", (HEADERS, "x-tenant"): "acme", (JSON, "amount"): "5", (JSON, "user.name"): "ann",
        (JSON, "user.new"): "true"})

    assert said == Example(
        "a%20b=1%262", (("x-tenant", "acme"), ("content-type", "application/json")),
        '{"amount": 5, "user": {"name": "ann", "new": true}}')


def test_a_form_is_called_one_and_no_body_has_no_type():
    assert example({(FORM, "amount"): "5"}) == Example(
        "", (("content-type", "application/x-www-form-urlencoded"),), "amount=5")
    assert example({}) == Example()


def test_what_no_request_can_say_is_none():
    assert example({(JSON, "a"): "x", (FORM, "a"): "x"}) is None
    assert example({(JSON, "a"): "x", (KIND, ""): "text/plain"}) is None
    assert example({(JSON, "a"): "x", (JSON, "a.b"): "y"}) is None
    assert example({(JSON, "a.b"): "y", (JSON, "a"): "x"}) is None
    assert example({(QUERY, "a"): "x", (QUERY, "A"): "y"}) is None
    assert example({(HEADERS, "a"): "\u20ac"}) is None
    assert example({(JSON, "a"): "\ud800"}) is None


_names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="."), min_size=1, max_size=5)
_texts = st.text(max_size=6) | st.sampled_from(["5", "1.5", "007", "true", "null", "-0", "9" * 40])


@given(st.sampled_from([QUERY, FORM, JSON]), st.dictionaries(_names, _texts, min_size=1, max_size=3))
def test_what_is_said_is_read_back_or_is_not_said_at_all(part, texts):
    said = example({(part, name): text for name, text in texts.items()})

    if said is not None:
        assert {name: said.fields.value(part, name) for name in texts} == texts
        assert len(texts) > 1 or said.fields.value(part, "another-name") is None
    else:
        assert len(texts) > 1 or any(c == "\0" or "\ud800" <= c <= "\udfff" for c in "".join(texts.values()))
