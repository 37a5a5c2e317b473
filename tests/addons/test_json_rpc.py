"""Which bodies are one JSON-RPC 2.0 call, and under which id they wait for an answer."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http

from addons.json_rpc import Call, call_in

CALL: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search"}}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def sent(body: bytes, **headers: str) -> http.Request:
    request = http.Request.make("POST", "https://mcp.example.org/", headers={
        name.replace("_", "-"): value for name, value in headers.items()})
    request.data.content = body
    return request


def call(**changes: Any) -> http.Request:
    return sent(json.dumps(CALL | changes).encode())


@pytest.mark.parametrize("call_id", [0, 1, -7, 2**53, 2**63, 1.5, "", "a-1", "ü\u2028", None, "x" * 256])
def test_a_call_is_found_with_its_id(call_id: object) -> None:
    assert call_in(call(id=call_id)) == Call(call_id)  # type: ignore[arg-type]


@pytest.mark.parametrize("call_id", [True, False, [], {}, ["1"], 10**30, 2.0**60, "x" * 257], ids=repr)
def test_an_id_that_cannot_be_given_back_as_it_came_is_none(call_id: object) -> None:
    assert call_in(call(id=call_id)) is None


@pytest.mark.parametrize("body", [
    pytest.param({"jsonrpc": "2.0", "method": "log"}, id="a notification"),
    pytest.param([CALL], id="a batch"),
    pytest.param(CALL | {"jsonrpc": "1.0"}, id="another version"),
    pytest.param({"id": 1, "method": "x"}, id="no version"),
    pytest.param(CALL | {"method": 7}, id="a method that is no name"),
    pytest.param({"jsonrpc": "2.0", "id": 1, "result": {}}, id="an answer"),
    pytest.param("2.0", id="a text"),
])
def test_what_waits_for_no_answer_is_no_call(body: object) -> None:
    assert call_in(sent(json.dumps(body).encode())) is None


def test_a_call_is_found_under_its_content_coding_and_white_space() -> None:
    body = b" \r\n\t" + json.dumps(CALL).encode() + b"\n"

    assert call_in(sent(gzip.compress(body), content_encoding="gzip")) == Call(1)


@pytest.mark.parametrize("body", [
    pytest.param(b"", id="no body"),
    pytest.param(b"{", id="half a body"),
    pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', id="no UTF-8"),
    pytest.param(b'{"jsonrpc":"2.0","id":NaN,"method":"x"}', id="NaN"),
    pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b"[" * 60_000, id="nested without end"),
    pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b"[" * 5_000 + b"]" * 5_000 + b"}", id="deep"),
    pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x"}' + b" " * 65_536, id="larger than 64 KiB"),
])
def test_a_body_that_cannot_be_read_within_bounds_is_no_call(body: bytes) -> None:
    assert call_in(sent(body)) is None


def test_a_body_that_unfolds_beyond_its_bounds_is_no_call() -> None:
    body = gzip.compress(json.dumps(CALL | {"params": [" " * 1_000_000]}).encode())

    assert len(body) < 65_536
    assert call_in(sent(body, content_encoding="gzip")) is None
    assert call_in(sent(body, content_encoding="lzma")) is None


def test_a_body_that_is_large_before_it_is_decoded_is_no_call() -> None:
    encoded = gzip.compress(json.dumps(CALL).encode())
    with_a_long_name = encoded[:3] + b"\x08" + encoded[4:10] + b"x" * 70_000 + b"\0" + encoded[10:]

    assert call_in(sent(with_a_long_name, content_encoding="gzip")) is None


def test_a_request_whose_body_is_not_at_hand_is_no_call() -> None:
    request = sent(b"")
    request.data.content = None

    assert call_in(request) is None


@given(st.one_of(st.binary(), json_values.map(lambda value: json.dumps(value).encode()),
                 st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "id": json_values, "method": st.text()})
                 .map(lambda value: json.dumps(value).encode())),
       st.sampled_from(["", "gzip", "br", "deflate", "zstd", "\udcff", ",,"]))
def test_whatever_was_sent_nothing_is_raised_and_an_id_is_a_simple_value(body: bytes, encoding: str) -> None:
    found = call_in(sent(body, content_encoding=encoding))

    assert found is None or isinstance(found.id, str | int | float | None)
