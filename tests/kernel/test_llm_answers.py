"""What an answer has used is what its provider says at its end, in whatever pieces it comes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.canonical import MAX_INTEGER
from kernel.llm.answer import MOST_NAMES, OTHERS, Answer
from kernel.llm.documents import MOST_DOCUMENT_BYTES, Documents
from kernel.llm.endpoints import Api
from kernel.llm.events import MOST_EVENT_BYTES, Events, TooLong
from kernel.llm.usage import Bound, Usage, told
from kernel.prices import Price
from tests.kernel.llm_answers import ANTHROPIC, CHAT, GEMINI, RESPONSES, WHOLE, sse

PRICE = Price(3_000_000, 300_000, 3_750_000, 15_000_000, 200_000, 64_000)


def read(api, pieces, *, streams=True, whole=True):
    answer = Answer(api, "asked", streams=streams)
    for piece in pieces:
        answer.take(piece)
    return answer.usage(whole=whole), dict(answer.tools)


def of_stream(reader, content, cuts):
    found, at = [], 0
    for cut in [*sorted(cuts), len(content)]:
        found += reader.take(content[at:cut])
        at = cut
    return found


@pytest.mark.parametrize(("api", "events", "usage", "tools"), [
    (Api.CHAT, CHAT, Usage("m-1-dated", 120, 45, 20, 0, 30), {"look_up": 1, "save": 1}),
    (Api.RESPONSES, RESPONSES, Usage("m-1-dated", 328, 52, 300, 0, 7), {"look_up": 1}),
    (Api.MESSAGES, ANTHROPIC, Usage("m-1-dated", 1072, 503, 600, 400, 0), {"look_up": 1}),
    (Api.GEMINI, GEMINI, Usage("m-1-dated", 40, 95, 8, 0, 70), {"look_up": 2}),
])
def test_a_stream_of_each_provider_tells_what_it_used(api, events, usage, tools):
    assert read(api, Events().take(sse(events))) == (usage, tools)


@pytest.mark.parametrize(("api", "body", "usage", "tools"), WHOLE)
def test_an_answer_in_one_piece_tells_what_it_used(api, body, usage, tools):
    assert read(api, Documents().take(json.dumps(body, indent=1).encode()), streams=False) == (usage, tools)


@pytest.mark.parametrize(("api", "events", "last"), [
    (Api.CHAT, CHAT, 2), (Api.RESPONSES, RESPONSES, 1), (Api.MESSAGES, ANTHROPIC, 2), (Api.GEMINI, GEMINI, 1),
])
def test_of_an_answer_that_breaks_off_nobody_knows_what_it_cost(api, events, last):
    assert read(api, Events().take(sse(events[:-last])), whole=False)[0] is None
    assert read(api, Events().take(sse(events[:-last])))[0] is None


@pytest.mark.parametrize("events", [
    [{"model": "m", "choices": [{}], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}],
    [{"model": "m", "choices": [], "usage": {"prompt_tokens": -5, "completion_tokens": 1}}],
    [{"model": "m", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": "1"}}],
    [{"model": "m", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2**60}}],
    [{"model": "m", "choices": [], "usage": {"prompt_tokens": 5.0, "completion_tokens": 1}}],
    [{"model": "m", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1,
                                             "prompt_tokens_details": {"cached_tokens": 9}}}],
    [{"model": "m", "choices": [], "usage": None}],
])
def test_numbers_that_are_none_or_not_the_last_tell_nothing(events):
    assert read(Api.CHAT, Events().take(sse(events, done=False)))[0] is None


@pytest.mark.parametrize(("api", "body"), [
    (Api.CHAT, {"choices": [], "usage": {"prompt_tokens": 5}}),
    (Api.CHAT, {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": "6"}}),
    (Api.CHAT, {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": -6}}),
    (Api.CHAT, {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1,
                                         "completion_tokens_details": {"reasoning_tokens": 9}}}),
    (Api.RESPONSES, {"status": "completed", "usage": {"input_tokens": 5}}),
    (Api.MESSAGES, {"type": "message", "usage": {}}),
    (Api.MESSAGES, {"type": "message", "usage": {"input_tokens": 5}}),
    (Api.MESSAGES, {"type": "message", "usage": {"output_tokens": 5}}),
    (Api.MESSAGES, {"type": "message", "usage": {
        "input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": -4}}),
    (Api.GEMINI, {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 5}}),
    (Api.GEMINI, {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {
        "promptTokenCount": 50, "toolUsePromptTokenCount": -40, "candidatesTokenCount": 1}}),
    (Api.GEMINI, {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {
        "promptTokenCount": 50, "totalTokenCount": 60.5, "candidatesTokenCount": 1}}),
])
def test_a_report_that_lacks_a_number_or_has_one_that_is_none_tells_nothing(api, body):
    assert read(api, [json.dumps(body).encode()], streams=False)[0] is None


@pytest.mark.parametrize(("begun", "ended"), [
    ({}, {}), ({"input_tokens": 5}, {}), ({}, {"output_tokens": 5}), ({"input_tokens": -5}, {"output_tokens": 5}),
    ({"input_tokens": 5, "output_tokens": -1}, {}),
])
def test_a_stream_of_messages_that_lacks_a_number_tells_nothing(begun, ended):
    events = [{"type": "message_start", "message": {"usage": begun}},
              {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": ended}]

    assert read(Api.MESSAGES, Events().take(sse(events)))[0] is None


def test_numbers_that_come_with_the_end_of_messages_alone_are_told():
    events = [{"type": "message_start", "message": {"usage": {}}},
              {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
               "usage": {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 2}}]

    assert read(Api.MESSAGES, Events().take(sse(events)))[0] == Usage("asked", 7, 3, 2)


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("choices", [[], [{"delta": {"role": "assistant"}}]])
def test_numbers_behind_which_the_answer_goes_on_tell_nothing(choices, done):
    early = {"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 0}}
    events = [early, {"choices": [{"delta": {"content": "much"}}]}]

    assert read(Api.CHAT, Events().take(sse(events, done=done)))[0] is None
    last = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}
    assert read(Api.CHAT, Events().take(sse([*events, last], done=done)))[0] == Usage("asked", 5, 9)


def test_embeddings_need_not_tell_that_they_give_nothing():
    assert read(Api.EMBEDDINGS, [b'{"usage":{"prompt_tokens":5}}'], streams=False)[0] == Usage("asked", 5, 0)


def test_thinking_that_stands_in_the_total_alone_counts():
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 106}

    assert read(Api.CHAT, [json.dumps({"choices": [], "usage": usage}).encode()])[0].output == 101


@given(st.sampled_from([(Api.CHAT, CHAT), (Api.RESPONSES, RESPONSES), (Api.MESSAGES, ANTHROPIC), (Api.GEMINI, GEMINI)]),
       st.data(), st.sampled_from([b"\n", b"\r", b"\r\n"]), st.booleans())
def test_events_are_the_same_in_whatever_pieces_and_with_whatever_line_ends(answer, data, line_end, bom):
    _, events = answer
    content = (b"\xef\xbb\xbf" if bom else b"") + sse(events, comments=True).replace(b"\n", line_end)
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=12))

    assert of_stream(Events(), content, cuts) == list(Events().take(sse(events)))


def test_each_byte_alone_is_no_different():
    content = sse(CHAT, comments=True).replace(b"\n", b"\r\n")

    assert of_stream(Events(), content, range(len(content))) == list(Events().take(sse(CHAT)))


def test_data_of_several_lines_is_joined():
    assert list(Events().take(b'data: {"a":\ndata:1}\nid: 7\n\ndata\n\n:x\n\n')) == [b'{"a":\n1}', b""]


@pytest.mark.parametrize("content", [b"data: " + b"x" * MOST_EVENT_BYTES, b"data: x\n" * (MOST_EVENT_BYTES // 2 + 1)])
def test_an_event_without_an_end_is_not_kept_without_end(content):
    with pytest.raises(TooLong):
        list(Events().take(content))


objects = st.recursive(st.none() | st.integers() | st.text("ab\"\\{}[],:\u00e4", max_size=6), lambda inner:
                       st.lists(inner, max_size=3) | st.dictionaries(st.text('a"}', max_size=3), inner, max_size=3))


@given(st.lists(st.dictionaries(st.text('b{"', max_size=2), objects, max_size=3), max_size=4), st.data(),
       st.sampled_from(["array", "lines", "pretty"]))
def test_objects_are_found_in_whatever_pieces_they_come(values, data, form):
    if form == "array":
        content = json.dumps(values, ensure_ascii=False).encode()
    else:
        content = "\n".join(json.dumps(each, indent=1 if form == "pretty" else None) for each in values).encode()
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=12))

    assert [json.loads(each) for each in of_stream(Documents(), content, cuts)] == values


def test_an_object_without_an_end_is_not_kept_without_end():
    with pytest.raises(TooLong):
        list(Documents().take(b'{"a":"' + b"x" * MOST_DOCUMENT_BYTES))


def test_what_is_no_json_is_passed_over():
    assert list(Documents().take(b'\x00]}<html>"a{" {"a":1} \\')) == [b'{"a":1}']
    assert read(Api.CHAT, [b"{", b"[1]", b"[" * 100_000, b"\xff", b'{"choices":7,"usage":7}'])[0] is None


@pytest.mark.parametrize("api", list(Api))
@given(value=objects)
def test_whatever_an_answer_holds_nothing_is_raised(api, value):
    for streams in (True, False):
        read(api, [json.dumps(value).encode(), b'{"usage":{},"tool_":1}'], streams=streams)


def test_tools_have_few_short_names_that_print():
    calls = [{"function": {"name": f"tool-{number}\x07{'x' * 100}"}} for number in range(40)]
    _, tools = read(Api.CHAT, [json.dumps({"choices": [{"message": {"tool_calls": calls}}]}).encode()], streams=False)

    assert len(tools) == MOST_NAMES + 1
    assert tools[OTHERS] == 40 - MOST_NAMES
    assert all(name.isprintable() and len(name) <= 64 for name in tools)


def test_a_cost_is_exact_and_rounded_up_once():
    usage = Usage("m", 1072, 503, 600, 400)

    assert usage.cost(PRICE) == -(-(72 * 3_000_000 + 600 * 300_000 + 400 * 3_750_000 + 503 * 15_000_000) // 10**6)
    assert Usage("m", 1, 0).cost(Price(1, 1, 1, 1, 1, 1)) == 1


def test_a_report_above_the_bound_says_by_how_much():
    usage = Usage("m", 1000, 100)

    assert told(usage, PRICE, Bound(1050, 10_000))["over"] == {"tokens": 50}
    assert told(usage, PRICE, Bound(1050, 4000))["over"] == {"tokens": 50, "usd": 500}
    assert "over" not in told(usage, PRICE, Bound(1100, 4500))
    assert told(usage, None, Bound())["usd"] is None


def test_a_cost_that_no_entry_can_hold_is_told_as_the_largest_that_one_can():
    dear = Price(*4 * [10**15], 1000, 1000)

    assert told(Usage("m", 2**40, 2**40), dear, Bound(usd=5))["usd"] == MAX_INTEGER
