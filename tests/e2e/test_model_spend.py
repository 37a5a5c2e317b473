"""What the clients of model providers spend is held, charged and told, and outlives the process, killed in a stream."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.origins import Origin, _Handler, serving
from tests.e2e.process import Governor, started
from tests.kernel.llm_answers import ANTHROPIC, CHAT, sse

pytestmark = pytest.mark.e2e

POLICY = """\
version: 1
rules:
  - allow: models
    to: 127.0.0.1
    schemes: [http]
    ports: 1-65535
    llm: {models: m-*, max-output-tokens: 1000}
budgets:
  - {budget: purse, each: {usd: 0.05}, every: session, when-used: {100%: deny}}
prices:
  127.0.0.1:
    - {models: m-*, input: 3, cached: 0.3, written: 3.75, output: 15, context: 200k, longest-output: 64k}
"""
# The tokens of kernel/llm_answers.py at these prices: CHAT, and ANTHROPIC.
CHAT_USD = -(-(100 * 3_000_000 + 20 * 300_000 + 45 * 15_000_000) // 10**6)
ANTHROPIC_USD = -(-(72 * 3_000_000 + 600 * 300_000 + 400 * 3_750_000 + 503 * 15_000_000) // 10**6)


class _Provider(_Handler):
    """Streams an answer that tells what it used. Below /never its stream does not end."""

    def reply(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        events = sse(ANTHROPIC) if self.path.endswith("/messages") else sse(CHAT)
        if self.path.startswith("/never"):
            self.wfile.write(b"6\r\n: hi\n\n\r\n")
            threading.Event().wait(30)
            return
        for piece in (events[:100], events[100:], b""):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))


def _stream_openai(governor: Governor, origin: Origin) -> str:
    openai = pytest.importorskip("openai")
    http_client = openai.DefaultHttpxClient(
        proxy=governor.proxy, verify=wire.trusting(governor.ca), trust_env=False)
    with openai.OpenAI(api_key="sk-none", base_url=f"{at(origin)}/v1", http_client=http_client) as client:
        asked = client.chat.completions.create(
            model="m-1", messages=[{"role": "user", "content": "hi"}], stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in asked if chunk.choices)


def _stream_until_refused(governor: Governor, origin: Origin) -> None:
    for _ in range(100):
        _stream_openai(governor, origin)


def _stream_anthropic(governor: Governor, origin: Origin) -> str:
    anthropic = pytest.importorskip("anthropic")
    http_client = anthropic.DefaultHttpxClient(
        proxy=governor.proxy, verify=wire.trusting(governor.ca), trust_env=False)
    with (anthropic.Anthropic(api_key="sk-none", base_url=at(origin), http_client=http_client) as client,
          client.messages.stream(model="m-1", max_tokens=5000, messages=[{"role": "user", "content": "hi"}]) as asked):
        return "".join(asked.text_stream)


@pytest.fixture
def provider() -> Iterator[Origin]:
    with serving(_Provider) as origin:
        yield origin


def at(origin: Origin) -> str:
    """Its address by number: a list of prices names hosts that have a dot."""
    return f"http://127.0.0.1:{origin.port}"


def replayed(governor: Governor) -> dict[str, Any]:
    return json.loads(governor.verb("audit", "replay", "--json").stdout)


def test_a_stream_of_each_client_is_charged_to_the_micro_usd(tmp_path: Path, provider: Origin) -> None:
    with started(tmp_path, POLICY) as governor:
        assert _stream_openai(governor, provider).startswith("Hello")
        assert _stream_anthropic(governor, provider) == "Hello"
        outcomes = governor.wait_for_entry("outcome", 2)
        governor.stop()

        first, second = (json.loads(request[3]) for request in provider.seen.requests)
        assert (first["max_tokens"], second["max_tokens"]) == (1000, 1000)
        assert first["stream_options"] == {"include_usage": True}
        assert [each["usage"]["usd"] for each in outcomes] == [CHAT_USD, ANTHROPIC_USD]
        assert [each["tools"] for each in outcomes] == [{"look_up": 1, "save": 1}, {"look_up": 1}]
        said = replayed(governor)
        assert (said["result"], said["matched"]) == ("equal", 2)


def test_a_purse_is_used_to_its_end_and_then_refused(tmp_path: Path, provider: Origin) -> None:
    openai = pytest.importorskip("openai")
    with started(tmp_path, POLICY) as governor:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            _stream_until_refused(governor, provider)
        spent = [each["usage"]["usd"] for each in governor.entries("outcome")]

        assert refused.value.response.json()["code"] == "BUDGET_EXHAUSTED"
        assert set(spent) == {CHAT_USD}
        assert 0.05 * 10**6 - 12_000 < sum(spent) <= 0.05 * 10**6


def test_what_a_killed_process_held_is_charged(tmp_path: Path, provider: Origin) -> None:
    body = json.dumps({"model": "m-1", "messages": [], "stream": True}).encode()
    call = (f"POST {at(provider)}/never/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{provider.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
    with started(tmp_path, POLICY) as governor, wire.dial(governor.port) as connection:
        connection.sendall(call)
        connection.recv(4096)
        (decision,) = governor.wait_for_entry("decision")
        governor.stop(signal.SIGKILL)
    with started(tmp_path, POLICY) as governor:
        (outcome,) = governor.wait_for_entry("outcome")
        _, told, _ = governor.curl("-H", "accept: application/json", "http://governor.internal/me")
        governor.stop()

        assert (outcome["result"], "usage" in outcome) == ("unknown", False)
        (purse,) = json.loads(told)["budgets"]
        assert purse["limit"] - purse["remaining"] == decision["llm"]["bound"]["usd"]
        assert replayed(governor)["result"] == "equal"
