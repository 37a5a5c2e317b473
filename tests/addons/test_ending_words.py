"""What a stream says when it is cut, read back as its clients read it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mitmproxy import http

from addons.ending_words import close_reason, grpc_trailers, sse, takes_events, whole_events
from addons.refusal import Refused
from kernel.verdict import Action, Code, Verdict

HALTED = Refused(Verdict(Action.HALT, Code.AGENT_HALTED, None, "the agent is halted"), "GET", "events.example.org",
                 "coder-1", "flow-1", "main/1234", "#agent-platform")
DETAIL = "Governor ended GET to events.example.org: the agent is halted"


def events(stream: bytes) -> list[tuple[str, str]]:
    """The events that a client dispatches, as (name, data): the standard's algorithm."""
    found, name, data = [], "message", list[str]()
    for line in stream.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                found.append((name, "\n".join(data)))
            name, data = "message", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
    return found


def told(stream: bytes) -> dict[str, Any]:
    name, data = events(stream)[-1]
    assert name == "error"
    return dict(json.loads(data))


@pytest.mark.parametrize("before", [
    b"", b"data: 1\n\n", b"data: 1\r\n\r\n", b"data: 1\r\r", b"data: 1\n", b"data: 1\r\n", b"data: 1\r", b"data: {\"a",
    b"da", b": a comment", b"event: delta", b"event: delta\ndata: 1\n", b"data: \xe2\x82", b"id: 7\nretry: 10"])
def test_the_last_event_of_a_cut_stream_is_the_problem(before: bytes) -> None:
    problem = told(before + sse(HALTED))

    assert (problem["detail"], problem["code"], problem["entry"]) == (DETAIL, "AGENT_HALTED", "main/1234")
    assert problem["next_step"].endswith("Ask #agent-platform and quote main/1234.")


@given(st.binary(max_size=200))
def test_whatever_came_before_the_problem_is_one_event_of_its_own(before: bytes) -> None:
    assert told(before + sse(HALTED))["code"] == "AGENT_HALTED"


def test_whole_events_that_came_before_stay_as_they_are() -> None:
    assert events(b"data: 1\n\ndata: 2\n\n" + sse(HALTED))[:-1] == [("message", "1"), ("message", "2")]


def test_a_model_client_is_told_in_the_form_of_its_provider() -> None:
    problem = told(sse(HALTED, llm_host=True))

    assert (problem["type"], problem["error"]["type"], problem["error"]["code"]) == (
        "error", "permission_error", "AGENT_HALTED")
    assert problem["error"]["message"].startswith(f"{DETAIL}. Your login is fine. ")
    assert problem["entry"] == "main/1234"


@given(st.text(), st.text(), st.booleans())
def test_nothing_that_an_agent_sent_begins_another_event(method: str, target: str, llm_host: bool) -> None:
    said = sse(replace(HALTED, method=method, target=target), llm_host)

    assert said.isascii()
    assert len(events(said)) == 1
    assert said.count(b"\n") == sse(HALTED, llm_host).count(b"\n")


@pytest.mark.parametrize(("chunk", "whole"), [
    (b"data: 1\n\n", b"data: 1\n\n"),
    (b"data: 1\n\ndata: 2", b"data: 1\n\n"),
    (b"data: 1\r\n\r\ndata: 2\r\n", b"data: 1\r\n\r\n"),
    (b"data: 1\r\rda", b"data: 1\r\r"),
    (b"\n\ndata: 1\ndata: 2\n", b"\n\n"),
    (b"data: 1\r\n", b""),
    (b"data: 1\n", b""),
    (b"", b""),
])
def test_what_passes_of_a_last_chunk_ends_with_an_event(chunk: bytes, whole: bytes) -> None:
    assert whole_events(chunk) == whole


@pytest.mark.parametrize(("headers", "takes"), [
    ({"content-type": "text/event-stream"}, True),
    ({"content-type": "Text/Event-Stream; charset=utf-8", "content-encoding": "identity"}, True),
    ({"content-type": "text/event-stream", "content-encoding": "gzip"}, False),
    ({"content-type": "text/event-stream", "content-length": "7"}, False),
    ({"content-type": "application/json"}, False),
    ({}, False),
])
def test_an_event_is_put_only_where_a_client_can_read_it(headers: dict[str, str], takes: bool) -> None:
    response = http.Response.make(200, b"", headers)
    if "content-length" not in headers:
        del response.headers["content-length"]

    assert takes_events(response) is takes


def test_a_websocket_is_closed_with_the_code_and_the_entry() -> None:
    assert close_reason(Code.RULE_DENY, "main/1234") == "RULE_DENY main/1234"
    assert close_reason(Code.BODY_TOO_LARGE, None) == "BODY_TOO_LARGE"


@given(st.sampled_from(Code), st.text(max_size=300))
@example(Code.RULE_DENY, "x" * 200)
@example(Code.RULE_DENY, "é" * 200)
def test_a_close_reason_fits_into_its_frame_as_utf_8(code: Code, entry: str) -> None:
    reason = close_reason(code, entry)

    assert len(reason.encode()) <= 123
    assert reason.startswith(code)


def test_a_grpc_call_ends_with_its_status_and_the_detail() -> None:
    assert grpc_trailers(HALTED).fields == (
        (b"grpc-status", b"7"), (b"grpc-message", DETAIL.encode()))
