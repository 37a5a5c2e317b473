"""The clients of model providers: allowed they stream, refused and cut they show what Governor says, and stop."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from addons.ending_words import sse
from addons.refusal import Refused
from kernel.verdict import Action, Code, Verdict
from tests.e2e import wire
from tests.e2e.origins import Origin, _Handler, serving
from tests.e2e.process import Governor, started

pytestmark = pytest.mark.e2e

ENDED = Refused(Verdict(Action.DENY, Code.BODY_TOO_LARGE, None, "the answer is larger than the policy lets pass"),
                "POST", "model.example.org", "coder-1", "flow-1", "main/77", "#agent-platform")
SAID = "Governor ended POST to model.example.org: the answer is larger than the policy lets pass. Your login is fine. "
REFUSED = (r"Governor refused POST to {}: no rule allows this\. Your login is fine\."
           r" Stop: another method, mirror or retry is refused too\. Ask #agent-platform and quote main/\d+\.")
THROTTLED = "too many refusals within a second"


class _Provider(_Handler):
    """Answers "Hello" in two pieces, in the form of either provider. Below /cut its stream ends in Governor's words."""

    def reply(self) -> None:
        asked = json.loads(self.seen.requests[-1][3])
        events = _anthropic_events() if self.path.endswith("/messages") else _openai_events()
        if self.path.startswith("/cut/"):
            events = [*events[:-2], sse(ENDED, llm_host=True)]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        assert asked["stream"] is True
        for event in [*events, b""]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))


def _event(value: dict[str, Any], name: str | None = None) -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def _openai_events() -> list[bytes]:
    def chunk(delta: dict[str, str], finish: str | None) -> bytes:
        return _event({"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny",
                       "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    return [chunk({"role": "assistant", "content": "Hel"}, None), chunk({"content": "lo"}, None), chunk({}, "stop"),
            b"data: [DONE]\n\n"]


def _anthropic_events() -> list[bytes]:
    def said(text: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}

    message = {"id": "m-1", "type": "message", "role": "assistant", "model": "tiny", "content": [],
               "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
    values: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        said("Hel"), said("lo"), {"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
    return [_event(value, value["type"]) for value in values]


@dataclass(frozen=True)
class Client:
    """One provider's client: where it is refused, how it streams, what it raises for an error in a stream."""

    name: str
    refused_host: str
    stream: Callable[..., Iterator[str]]
    stream_error: str

    def error(self, name: str) -> type[Exception]:
        """An exception class of the client's. It is imported late: that takes seconds, and most runs want no client."""
        library = pytest.importorskip(self.name, reason=f"the {self.name} client is not installed")
        return getattr(library, name)  # type: ignore[no-any-return]

    @property
    def refused(self) -> type[Exception]:
        return self.error("PermissionDeniedError")


def _openai_stream(governor: Governor, base_url: str, retries: int = 2) -> Iterator[str]:
    import openai

    http_client = openai.DefaultHttpxClient(
        proxy=governor.proxy, verify=wire.trusting(governor.ca), trust_env=False)
    with openai.OpenAI(api_key="sk-none", base_url=f"{base_url}/v1", max_retries=retries,
                       http_client=http_client) as client:
        for chunk in client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True):
            yield chunk.choices[0].delta.content or ""


def _anthropic_stream(governor: Governor, base_url: str, retries: int = 2) -> Iterator[str]:
    import anthropic

    http_client = anthropic.DefaultHttpxClient(
        proxy=governor.proxy, verify=wire.trusting(governor.ca), trust_env=False)
    with anthropic.Anthropic(api_key="sk-none", base_url=base_url, max_retries=retries,
                             http_client=http_client) as client:
        for event in client.messages.create(
                model="tiny", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=True):
            if event.type == "content_block_delta":
                yield event.delta.text


CLIENTS = [
    Client("openai", "api.openai.com", _openai_stream, "APIError"),
    Client("anthropic", "api.anthropic.com", _anthropic_stream, "APIStatusError"),
]
EACH = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


@dataclass(frozen=True)
class Models:
    """A Governor before a provider on loopback."""

    governor: Governor
    provider: Origin


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Models]:
    with (serving(_Provider, certificate[0]) as provider,
          started(tmp_path_factory.mktemp("models"), trust=certificate[1]) as governor):
        yield Models(governor, provider)


@EACH
def test_an_answer_that_is_allowed_is_streamed(models: Models, client: Client) -> None:
    pytest.importorskip(client.name)

    assert "".join(client.stream(models.governor, models.provider.url)) == "Hello"


@EACH
def test_a_refusal_is_shown_whole_and_not_as_a_broken_login(models: Models, client: Client) -> None:
    with pytest.raises(client.refused, match=REFUSED.format(client.refused_host)) as refused:
        list(client.stream(models.governor, f"https://{client.refused_host}"))

    error: Any = refused.value
    assert error.type == "permission_error"
    # Each client gives to its user what it knows under names of its own.
    body = error.body if client.name == "anthropic" else {"code": error.code}
    assert body["code"] == "DEFAULT_DENY"


@EACH
def test_a_refused_request_is_not_tried_again(models: Models, client: Client) -> None:
    before = len(models.governor.entries("decision"))
    with pytest.raises(client.refused):
        list(client.stream(models.governor, f"https://{client.refused_host}", 5))

    made = models.governor.entries("decision")[before:]
    assert [entry["code"] for entry in made if entry["stage"] == "request"] == ["DEFAULT_DENY"]


@EACH
def test_a_stream_that_is_cut_gives_what_came_and_then_the_words(models: Models, client: Client) -> None:
    came: list[str] = []
    with pytest.raises(client.error(client.stream_error)) as cut:
        came.extend(client.stream(models.governor, f"{models.provider.url}/cut"))

    error: Any = cut.value
    assert "".join(came) == "Hello"
    assert SAID in str(error)
    assert error.type == "permission_error"


@EACH
def test_a_client_that_is_too_fast_is_throttled_and_told_to_wait(models: Models, client: Client) -> None:
    with pytest.raises(client.error("RateLimitError"), match=THROTTLED) as throttled:
        ask_until_throttled(models.governor, client)

    error: Any = throttled.value
    assert "Wait before the next request" in str(error)
    assert (error.response.headers["retry-after"], error.response.headers["x-should-retry"]) == ("1", "true")


@EACH
def test_a_throttled_client_tries_again_and_hears_the_verdict(models: Models, client: Client) -> None:
    flood(models.governor)
    with pytest.raises(client.refused, match=REFUSED.format(client.refused_host)):
        list(client.stream(models.governor, f"https://{client.refused_host}", 20))


def ask_until_throttled(governor: Governor, client: Client) -> None:
    """Raises what the client raises when its request falls into a second in which too many were refused."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        flood(governor)
        with contextlib.suppress(client.refused):
            list(client.stream(governor, f"https://{client.refused_host}", 0))


def flood(governor: Governor) -> None:
    """More refusals than one second may have."""
    with wire.dial(governor.port) as connection:
        for _ in range(60):
            wire.send(connection, wire.plain("GET", "http://gist.example.org/"))
