"""The bound of a call is a line over the size of its answer, in whole micro-USD, and a remainder pays along it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.budget import Unit
from kernel.comparison import Gap
from kernel.json_fields import read_tree
from kernel.llm.change import LONGEST_CHANGE, with_members
from kernel.llm.endpoints import Api, Endpoint
from kernel.llm.request import Call, read_call
from kernel.llm.spend import NO_PRICE, NO_THINKING, Spend, caps, spend_of, written_cap
from kernel.prices import Price

PRICE = Price(input=3_000_000, cached=300_000, written=3_750_000, output=15_000_000, context=200_000,
              longest_output=64_000)
PLAIN = Call(Api.CHAT, "m", "{}", True, 1, 1000, {}, ("max_tokens",), False)
counts = st.integers(0, 2**40)
prices = st.integers(0, 10**12)


@st.composite
def spends(draw):
    least, most = sorted([draw(counts), draw(counts)])
    return Spend(draw(counts), least, most, draw(st.integers(0, 2**20)), draw(prices), draw(prices))


@given(spends(), st.sampled_from([Unit.USD, Unit.TOKENS]), st.integers(0, 10**30))
def test_a_remainder_pays_the_size_it_is_said_to_pay_and_no_larger_one(spend, unit, left):
    size = spend.paid(unit, left)
    if size is None:
        assert spend.amount(unit, spend.least) > left
        return

    assert spend.least <= size <= spend.most
    assert spend.amount(unit, size) <= left
    assert size == spend.most or spend.amount(unit, size + 1) > left


def test_money_is_rounded_up_once():
    assert Spend(1, 0, 1, 1, 1, 1).amount(Unit.USD, 1) == 1
    assert Spend(1000, 0, 100, 2, 3_750_000, 15_000_000).amount(Unit.USD, 100) == 3750 + 3000


def test_the_dearest_price_that_may_apply_counts():
    assert spend_of(PLAIN, PRICE, None, 256)[:6] == (1000, 256, 64_000, 1, 3_750_000, 15_000_000)


@pytest.mark.parametrize(("call", "cap", "floor", "expected"), [
    pytest.param(PLAIN, 8000, 256, (1000, 256, 8000), id="the policy's cap"),
    pytest.param(PLAIN._replace(caps={("max_tokens",): 100}), 8000, 256, (1000, 100, 100), id="its own, smaller"),
    pytest.param(PLAIN, 8000, 1000, (1000, 1000, 8000), id="the policy's floor"),
    pytest.param(PLAIN._replace(thinks=3001), 8000, 256, (1000, 3001, 8000), id="what is to be thought"),
    pytest.param(PLAIN._replace(sends=None), 8000, 256, (200_000, 256, 8000), id="the window"),
    pytest.param(PLAIN._replace(sends=900_000), 8000, 256, (200_000, 256, 8000), id="no more than the window"),
    pytest.param(PLAIN._replace(sends=None, prompts=3), 8000, 256, (600_000, 256, 8000), id="a window for each prompt"),
    pytest.param(PLAIN._replace(sends=500_000, prompts=3), 8000, 256, (500_000, 256, 8000), id="less than the windows"),
    pytest.param(PLAIN._replace(apart=True), 8000, 256, (1000, 64_000, 64_000), id="thoughts outside the cap"),
    pytest.param(PLAIN._replace(choices=0), None, 256, (1000, 0, 0), id="no answer"),
])
def test_what_a_call_may_use(call, cap, floor, expected):
    assert spend_of(call, PRICE, cap, floor)[:3] == expected


@pytest.mark.parametrize(("call", "price", "cap", "why"), [
    (PLAIN._replace(unbounded="it browses"), PRICE, 8000, "it browses"),
    (PLAIN, None, 8000, NO_PRICE),
    (PLAIN._replace(thinks=9000), PRICE, 8000, NO_THINKING),
    (PLAIN._replace(thinks=64_001), PRICE, None, NO_THINKING),
])
def test_what_has_no_bound_says_why(call, price, cap, why):
    assert spend_of(call, price, cap, 256) == why


@pytest.mark.parametrize(("call", "cap", "granted", "most", "written"), [
    pytest.param({}, None, None, None, None, id="nothing says anything"),
    pytest.param({}, None, 64_000, 64_000, None, id="the longest there is, and nothing lowers it"),
    pytest.param({}, 8000, 8000, 8000, {"max_tokens": 8000}, id="the policy's, where there is none"),
    pytest.param({}, 8000, None, None, {"max_tokens": 8000}, id="the policy's, without a budget"),
    pytest.param({}, None, 500, 64_000, {"max_tokens": 500}, id="what the remainder pays"),
    pytest.param({"max_tokens": 100}, 8000, 100, 100, None, id="its own, which is small enough"),
    pytest.param({"max_tokens": 9000}, 8000, 8000, 8000, {"max_tokens": 8000}, id="its own, which is too large"),
    pytest.param({"max_tokens": 9000, "max_completion_tokens": 10}, None, 500, 9000, {"max_tokens": 500}, id="larger"),
])
def test_a_cap_is_written_only_where_it_must_be(call, cap, granted, most, written):
    asked = PLAIN._replace(caps={(name,): size for name, size in call.items()}, heeded=bool(call))
    size = written_cap(asked, cap, granted, most)

    assert (None if size is None else {place[0]: at for place, at in caps(asked, size).items()}) == written


def test_where_a_host_may_not_heed_the_cap_it_is_written_under_the_older_name_too():
    asked = read_call(Endpoint(Api.CHAT), b'{"model":"m","max_completion_tokens":900}', "llm.example.org")

    assert caps(asked, written_cap(asked, None, 900, 900)) == {("max_tokens",): 900}
    assert caps(asked, written_cap(asked, None, 500, 900)) == {("max_tokens",): 500, ("max_completion_tokens",): 500}


def test_what_is_thought_apart_leaves_the_cap_as_the_policy_has_it():
    asked = PLAIN._replace(apart=True, caps={("max_tokens",): 9000}, heeded=True)

    assert written_cap(asked, 8000, 64_000, 64_000) == 8000
    assert written_cap(asked, None, 64_000, 64_000) is None


names = st.sampled_from(["max_tokens", "stream_options", "a", "\u00e4", 'q"', "\\", "\U0001f600"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=12)
places = st.sampled_from([("max_tokens",), ("stream_options", "include_usage"), ("a", "b", "c")])


@st.composite
def bodies(draw, place):
    """An object in some spelling, and one that may hold a member at a place."""
    root = draw(st.dictionaries(names, values, max_size=5))
    of = root
    for name in place[:-1]:
        of[name] = draw(st.none() | st.dictionaries(names, values, max_size=2)) if draw(st.booleans()) else of.get(name)
        if not isinstance(of[name], dict):
            of[name] = None
            break
        of = of[name]
    separators = draw(st.sampled_from([(",", ":"), (" ,\n", "\t: "), (", ", ": ")]))
    text = json.dumps(root, ensure_ascii=draw(st.booleans()), separators=separators)
    return draw(st.sampled_from(["", " ", "\n\t"])) + text + draw(st.sampled_from(["", "\r\n"]))


@given(st.data(), places, st.integers(0, 2**40) | st.booleans())
def test_a_member_is_set_and_nothing_else_changes(data, place, value):
    text = data.draw(bodies(place))
    made = with_members(text, {place: value})

    before, after = json.loads(text), json.loads(made)
    of = after
    for name in place[:-1]:
        of = of[name]
    assert of[place[-1]] is value or of[place[-1]] == value
    assert _without(after, place) == _without(before, place)
    assert not isinstance(read_tree(made.encode()), Gap)


def _without(root, place):
    """The object without that member, and without what would hold it and nothing else."""
    name, *inner = place
    rest = {key: each for key, each in root.items() if key != name}
    inside = _without(root.get(name) or {}, inner) if inner else {}
    return rest | {name: inside} if inside else rest


@pytest.mark.parametrize("asked", [Endpoint(api, "m") for api in Api])
@pytest.mark.parametrize("host", ["openai", "llm.example.org"])
def test_a_body_becomes_no_longer_than_a_budget_of_bytes_holds_for_it(asked, host):
    body = b'{"model":"m","stream":true%b}'
    for said in (b"", b',"max_tokens":99', b',"max_completion_tokens":99', b',"generationConfig":null'):
        call = read_call(asked, body % said, host)
        members = dict(caps(call, 2**40)) | dict.fromkeys(call.caps, 2**40) | ({call.tells: True} if call.tells else {})

        assert len(with_members(call.body, members)) <= len(call.body) + LONGEST_CHANGE


@pytest.mark.parametrize(("text", "members", "made"), [
    ('{}', {("a",): 1}, '{"a":1}'),
    (' { "x" : [1,{"a":2}] } ', {("a",): 1}, ' {"a":1, "x" : [1,{"a":2}] } '),
    ('{"max_tokens": 9000 ,"x":1}', {("max_tokens",): 7}, '{"max_tokens": 7 ,"x":1}'),
    ('{"m\\u0061x": 9}', {("max",): 7}, '{"m\\u0061x": 7}'),
    ('{"o":{"x":1}}', {("o", "p"): True}, '{"o":{"p":true,"x":1}}'),
    ('{"o":null}', {("o", "p"): True}, '{"o":{"p":true}}'),
    ('{"x":"}{\\""}', {("o", "p"): True, ("y",): 2}, '{"y":2,"o":{"p":true},"x":"}{\\""}'),
])
def test_every_other_byte_stays(text, members, made):
    assert with_members(text, members) == made
