"""How the fields of a request are read: a text, absent, or unreadable where two readers could differ."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.comparison import UNREAD, Gap, number_of
from kernel.fields import NOT_LOOKED_AT, Fields, Part
from kernel.form_fields import MOST_PAIRS
from kernel.json_fields import MOST_LEVELS, MOST_NODES
from tests.conftest import scaled

JSON = (b"Content-Type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")


UNREADABLE = Gap  # stands for every gap


def seen(fields, part, name):
    value = fields.value(part, name)
    return UNREADABLE if isinstance(value, Gap) else value


def in_json(body, name, kind=JSON):
    return seen(Fields(headers=(kind,), body=body.encode() if isinstance(body, str) else body), Part.JSON, name)


def in_form(body, name, kind=FORM):
    return seen(Fields(headers=(kind,), body=body), Part.FORM, name)


@pytest.mark.parametrize(("body", "name", "value"), [
    ('{"amount": 5}', "amount", "5"),
    ('{"amount": 2e2}', "amount", "200"),
    ('{"amount": 1.50}', "amount", "1.5"),
    ('{"amount": -0}', "amount", "0"),
    ('{"amount": -0.0e7}', "amount", "0"),
    ('{"amount": 1e-3}', "amount", "0.001"),
    ('{"amount": 12.5e1}', "amount", "125"),
    ('{"amount": -1200e-2}', "amount", "-12"),
    ('{"amount": 1e40}', "amount", UNREADABLE),
    ('{"amount": 1e999999999999}', "amount", UNREADABLE),
    (f'{{"amount": 1e{"9" * 5000}}}', "amount", UNREADABLE),
    ('{"amount": 0e999999999999}', "amount", "0"),
    (f'{{"amount": {"9" * 40}}}', "amount", "9" * 40),
    (f'{{"amount": {"9" * 41}}}', "amount", UNREADABLE),
    ('{"amount": "5"}', "amount", "5"),
    ('{"amount": "05"}', "amount", "05"),
    ('{"amount": true}', "amount", "true"),
    ('{"amount": false}', "amount", "false"),
    ('{"amount": null}', "amount", "null"),
    ('{"amount": ""}', "amount", ""),
    ('{"amount": "\\u0035"}', "amount", "5"),
    ('{"\\u0061mount": 5}', "amount", "5"),
    ('{"amount": "\\ud83d\\ude00"}', "amount", "\U0001f600"),
    ('{"amount": "\\\\ud83d"}', "amount", "\\ud83d"),
    ('{"amount": [5]}', "amount", UNREADABLE),
    ('{"amount": {}}', "amount", UNREADABLE),
    ('{"user": {"name": "a"}}', "user.name", "a"),
    ('{"user": {"name": "a"}}', "user.id", None),
    ('{"user": {"name": "a"}}', "account.name", None),
    ('{"user": "a"}', "user.name", UNREADABLE),
    ('{"user": null}', "user.name", UNREADABLE),
    ('{"user": [{"name": "a"}]}', "user.name", UNREADABLE),
    ('{"user.name": "a"}', "user.name", None),
    ("{}", "amount", None),
    ("[]", "amount", UNREADABLE),
    ('"amount"', "amount", UNREADABLE),
])
def test_a_json_field_is_the_text_of_its_scalar(body, name, value):
    assert in_json(body, name) == value


@pytest.mark.parametrize("body", [
    pytest.param('{"amount": 5, "amount": 6}', id="a name twice"),
    pytest.param('{"amount": 5, "\\u0061mount": 6}', id="a name twice, once escaped"),
    pytest.param('{"amount": 5, "x": {"y": 1, "y": 2}}', id="a name twice somewhere else"),
    pytest.param('{"amount": 5, "Amount": 6}', id="a name in two cases"),
    pytest.param('{"AMOUNT": 6}', id="the name in another case alone"),
    pytest.param('{"amount": 5} {"amount": 6}', id="two documents"),
    pytest.param('{"amount": 5, // 6\n}', id="a comment"),
    pytest.param("{'amount': 5}", id="single quotes"),
    pytest.param('{"amount": 5,}', id="a comma too many"),
    pytest.param('{"amount": 05}', id="a leading zero"),
    pytest.param('{"amount": 5, "x": NaN}', id="NaN"),
    pytest.param('{"amount": 5, "x": -Infinity}', id="Infinity"),
    pytest.param('{"amount": 5, "x": "a\nb"}', id="a line break in a string"),
    pytest.param('{"amount": 5, "x": "\\ud800"}', id="half a surrogate pair"),
    pytest.param('{"amount": 5, "x": "\\ud83d\\\\\\ude00"}', id="two halves around a backslash"),
    pytest.param('{"amount": 5, "x": "\\ude00\\ud83d"}', id="two halves the wrong way round"),
    pytest.param('{"amount": 5, "x": "\\\\\\ud800"}', id="half a surrogate pair behind a backslash"),
    pytest.param('{"amount": 5, "x": "\\u0000"}', id="a NUL"),
    pytest.param('{"amount": 5, "\\udc00": 1}', id="half a surrogate pair in a name"),
    pytest.param(b'{"amount": 5, "x": "\xff"}', id="not UTF-8"),
    pytest.param('{"amount": 5}'.encode("utf-16"), id="UTF-16"),
    pytest.param(b'\xef\xbb\xbf{"amount": 5}', id="a byte order mark"),
    pytest.param('{"amount": 5, "x": ' + "[" * MOST_LEVELS + "]" * MOST_LEVELS + "}", id="too deep"),
    pytest.param("[" * 40_000, id="far too deep"),
    pytest.param('{"amount": 5, "x": [' + "[]," * MOST_NODES + "1]}", id="too many lists"),
    pytest.param(" ", id="a blank"),
    pytest.param("amount=5", id="a form"),
])
def test_a_body_with_two_readings_has_no_json_fields(body):
    assert in_json(body, "amount") == UNREADABLE


def test_the_deepest_body_that_is_read():
    inner = MOST_LEVELS - 1

    assert in_json('{"amount": 5, "x": ' + "[" * inner + '"["' + "]" * inner + "}", "amount") == "5"


@pytest.mark.parametrize(("kind", "value"), [
    (b"application/json", "5"),
    (b"Application/JSON; charset=UTF-8", "5"),
    (b"application/vnd.example+json", "5"),
    (b'application/json; charset="utf-8"', "5"),
    (b"application/json; charset=utf-16", UNREADABLE),
    (b"application/json; x=1; charset=latin-1", UNREADABLE),
    (b"text/plain", UNREADABLE),
    (b"application/x-www-form-urlencoded", UNREADABLE),
    (b"multipart/form-data; boundary=x", UNREADABLE),
    (b"application/json, text/plain", UNREADABLE),
    (b"", UNREADABLE),
])
def test_only_what_is_called_json_is_read_as_json(kind, value):
    assert in_json('{"amount": 5}', "amount", (b"content-type", kind)) == value


def test_a_body_without_a_content_type_is_unreadable_and_no_body_has_no_fields():
    assert seen(Fields(body=b'{"amount": 5}'), Part.JSON, "amount") == UNREADABLE
    assert Fields().value(Part.JSON, "amount") is None
    assert Fields(headers=(JSON, FORM)).value(Part.FORM, "amount") is None
    assert seen(Fields(headers=(JSON, FORM), body=b"amount=5"), Part.FORM, "amount") == UNREADABLE


@pytest.mark.parametrize(("body", "name", "value"), [
    (b"amount=5&currency=eur", "currency", "eur"),
    (b"amount=5", "currency", None),
    (b"amount=", "amount", ""),
    (b"amount", "amount", ""),
    (b"amount=%35", "amount", "5"),
    (b"am%6funt=5", "amount", "5"),
    (b"amount=a+b%2Bc", "amount", "a b+c"),
    (b"amount=a=b", "amount", "a=b"),
    (b"name=%C3%BC", "name", "ü"),
    ("name=ü".encode(), "name", "ü"),
    (b"&&amount=5&", "amount", "5"),
    (b"card[number]=4&card[exp]=9", "card[number]", "4"),
    (b"amount=5&amount=6", "amount", UNREADABLE),
    (b"amount=5&amount=5", "amount", UNREADABLE),
    (b"amount=5&x=1&x=2", "amount", "5"),
    (b"amount=5&Amount=6", "amount", UNREADABLE),
    (b"AMOUNT=6", "amount", UNREADABLE),
    (b"amount[]=6", "amount", UNREADABLE),
    (b"amount[x]=6", "amount", UNREADABLE),
    (b"%20amount=6", "amount", UNREADABLE),
    (b"order.id=6", "order_id", UNREADABLE),
    (b"order+id=6", "order_id", UNREADABLE),
    (b"card=6", "card[number]", UNREADABLE),
    (b"card.number=6", "card[number]", UNREADABLE),
    (b"amount_paid=6", "amount", None),
    (b"amount=%", "amount", UNREADABLE),
    (b"amount=5&x=%zz", "amount", UNREADABLE),
    (b"amount=%FF", "amount", UNREADABLE),
    (b"amount=5%00", "amount", UNREADABLE),
    (b"amount+=5", "amount", UNREADABLE),
    (b"amount=\xff", "amount", UNREADABLE),
    (b"amount=5;amount=6", "amount", UNREADABLE),
    (b"amount=5&" + b"x=1&" * MOST_PAIRS, "amount", UNREADABLE),
])
def test_a_form_field_is_read_where_all_readers_read_it_alike(body, name, value):
    assert in_form(body, name) == value


@pytest.mark.parametrize("kind", [b"multipart/form-data; boundary=x", b"application/json", b"text/plain"])
def test_only_urlencoded_forms_are_read(kind):
    assert in_form(b"amount=5", "amount", (b"content-type", kind)) == UNREADABLE


def test_a_query_is_read_as_a_form_is():
    fields = Fields("a=5&b=x%20y&c=1&c=2")

    assert [seen(fields, Part.QUERY, name) for name in "abcd"] == ["5", "x y", UNREADABLE, None]
    assert seen(Fields("a=5;b=6"), Part.QUERY, "a") == UNREADABLE


@pytest.mark.parametrize(("headers", "value"), [
    (((b"X-Tenant", b"acme"),), "acme"),
    (((b"x-tenant", b" \tacme\t "),), "acme"),
    (((b"x-tenant", b"\xe4"),), "\xe4"),
    (((b"x-other", b"acme"),), None),
    (((b"x-tenant", b"acme"), (b"X-TENANT", b"acme")), UNREADABLE),
    (((b"x-tenant", b"acme"), (b"x_tenant", b"evil")), UNREADABLE),
    (((b"x_tenant", b"evil"),), UNREADABLE),
    (((b"x-tenant", b"acme"), (b"Connection", b"close, X-Tenant")), UNREADABLE),
    (((b"x-tenant", b"acme"), (b"connection", b"keep-alive"), (b"connection", b"x_tenant")), UNREADABLE),
    (((b"connection", b"x-tenant"),), UNREADABLE),
    (((b"x-tenant", b"acme"), (b"connection", b"x-tenants")), "acme"),
])
def test_a_header_is_read_where_it_comes_once(headers, value):
    assert seen(Fields(headers=headers), Part.HEADERS, "x-tenant") == value


@pytest.mark.parametrize(("headers", "value"), [
    (((b"content-type", b"Text/HTML ; charset=x"),), "text/html"),
    ((), None),
    (((b"content-type", b"html"),), UNREADABLE),
    (((b"content-type", b"text/html"), (b"connection", b"content-type")), UNREADABLE),
    (((b"content-type", b"text/html"), (b"content-type", b"text/html")), UNREADABLE),
])
def test_the_content_type_is_a_media_type_without_parameters(headers, value):
    assert seen(Fields(headers=headers), Part.CONTENT_TYPES, "") == value


@pytest.mark.parametrize("part", Part)
def test_nothing_is_readable_that_nobody_looked_at(part):
    assert seen(NOT_LOOKED_AT, part, "") == UNREADABLE


def test_a_body_that_has_not_come_is_unread_and_its_headers_are_read():
    fields = Fields("a=5", (JSON,), UNREAD)

    assert fields.value(Part.JSON, "a") is UNREAD
    assert fields.value(Part.FORM, "a") is UNREAD
    assert fields.value(Part.CONTENT_TYPES, "") == "application/json"


_scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(
    allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15) | st.text(max_size=5)
_documents = st.dictionaries(st.sampled_from(["a", "b", "cc"]), st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "y"]), inner)))


@given(_documents)
def test_what_python_reads_is_what_a_field_says(document):
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    for name in ("a", "b", "cc"):
        value = in_json(body, name)

        match document.get(name, ...):
            case e if e is ...:
                assert value in (None, UNREADABLE)
            case bool() | None as scalar:
                assert value == json.dumps(scalar) or value is UNREADABLE
            case int() | float() as number if isinstance(value, str):
                assert number_of(value) is not None
                assert float(value) == float(number)
            case str() as text if isinstance(value, str):
                assert value == text
            case _:
                assert value is UNREADABLE


@given(st.binary(max_size=60) | st.text("{}[]\",:\\u0a1e+-.tfn \ud800", max_size=40).map(
    lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_comes_is_read_or_not_and_nothing_fails(body):
    for kind in (JSON, FORM):
        fields = Fields("", (kind,), body)
        for part in Part:
            value = fields.value(part, "a")
            assert value is None or isinstance(value, str | Gap)


_pieces = st.sampled_from([
    '{"a":', '"a"', '"A"', '"\\u0061"', ":", ",", "{", "}", "[", "]", '"b"', '"x"', "5", "5.0", "1e2", "-0", "05",
    "true", "null", "NaN", '"\\ud800"', '"\\ud83d\\ude00"', '"\\/"', " ", "\n", "\t", "\x00", "\xa0", "//", "'a'", '"',
    "\\", "}}", '","a":6',
])  # fmt: skip
_nearly_json = st.lists(_pieces, max_size=8).map("".join) | st.builds(
    lambda document, place, piece: document[:place] + piece + document[place:],
    st.sampled_from(['{"a":5,"b":{"a":1}}', '{"b":"x","a":"y"}', '{"a":[1],"b":2}', '{"b":1.50}']),
    st.integers(0, 20),
    _pieces,
)


@settings(max_examples=scaled(500))
@given(_nearly_json)
def test_what_is_read_of_a_body_another_reader_reads_alike(text):
    body = text.encode("utf-8", "surrogatepass")
    value = in_json(body, "a") if body else UNREADABLE
    if value is UNREADABLE:
        return
    document = orjson.loads(body)

    if value is None:
        assert "a" not in {name.lower() for name in document}
    elif isinstance(document["a"], str):
        assert document["a"] == value
    elif isinstance(document["a"], float | int) and not isinstance(document["a"], bool):
        assert float(value) == document["a"]
    else:
        assert json.dumps(document["a"]) == value


_form_pieces = st.sampled_from([
    "a", "A", "b", "=", "&", ";", "%61", "%", "+", "%2B", "%3D", "%26", "%00", "[]", "[", "]", ".", "x", "5",
])  # fmt: skip


@settings(max_examples=scaled(500))
@given(st.lists(_form_pieces, max_size=10).map("".join))
def test_what_is_read_of_a_form_another_reader_reads_alike(text):
    value = seen(Fields(text), Part.QUERY, "a")
    if value is UNREADABLE:
        return
    pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=False)

    assert [own for name, own in pairs if name == "a"] == ([] if value is None else [value])
    assert not [name for name, _ in pairs if name != "a" and name.strip().lower().partition("[")[0] == "a"]
