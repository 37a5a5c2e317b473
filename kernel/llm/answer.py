"""What a model's answer says of itself, while it passes: what it used, and which tools it asks for.

Each provider counts in its own way. Anthropic's numbers grow, so the last of each stands; OpenAI's come with the last
piece, Gemini's with each. A number counts only where it is the final one: of an answer that broke off nobody knows what
it has cost.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from kernel.llm.endpoints import Api
from kernel.llm.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MOST_NAMES, _NAME_CHARACTERS = 32, 64
OTHERS = "*"
"""In the place of a tool's name: all that are too many. No tool has this name."""
_DONE = b"[DONE]"
# An event that has none of these says nothing of use.
_OF_USE = re.compile(rb'"usage(?:Metadata)?"\s*:\s*\{|tool_|unction|_call"|"stop_reason"')


class Answer:
    """What the pieces of one answer have said so far."""

    def __init__(self, api: Api, model: str, *, streams: bool) -> None:
        self._api, self._model, self._streams = api, model, streams
        self._usage: dict[str, int] | None = None
        self._final = self._heard = False
        self.tools: Counter[str] = Counter()

    def take(self, piece: bytes) -> None:
        """Take note of one event's data, or of one object of a JSON answer."""
        if piece == _DONE:
            self._final = self._usage is not None
            return
        # Behind a number of OpenAI's every piece is looked at: where the answer goes on, it was not the last one.
        counted = self._usage is not None and self._api in (Api.CHAT, Api.COMPLETIONS)
        if self._heard and not counted and not _OF_USE.search(piece):
            return
        try:
            value = json.loads(piece)
        except (ValueError, RecursionError):
            return
        if isinstance(value, dict):
            self._heard = True
            _TAKE[self._api](self, value)

    def usage(self, *, whole: bool) -> Usage | None:
        """What the answer has used; None where it does not say so. `whole`: it has come to its end."""
        counted = self._usage
        # Gemini's numbers are final with the last piece alone.
        if counted is None or not self._final or (self._api is Api.GEMINI and not whole):
            return None
        usage = Usage(self._model, **counted)
        return usage if usage.is_plausible() else None

    def _named(self, value: Mapping[str, Any]) -> None:
        model = value.get("model") or value.get("modelVersion")
        if isinstance(model, str):
            self._model = printable(model, 128)

    def _counts(self, counted: dict[str, int] | None, *, final: bool) -> None:
        if counted is not None:
            self._usage, self._final = counted, final

    def _called(self, names: Iterable[Any]) -> None:
        for name in names:
            if isinstance(name, str):
                known = printable(name, _NAME_CHARACTERS)
                self.tools[known if known in self.tools or len(self.tools) < MOST_NAMES else OTHERS] += 1

    def chat(self, value: Mapping[str, Any]) -> None:
        self._named(value)
        final = not self._streams or value.get("choices") == []
        if self._streams and value.get("choices"):
            self._usage = None
        # Embeddings generate nothing, so what they say of that is nothing.
        untold = 0 if self._api is Api.EMBEDDINGS else -1
        self._counts(_openai_usage(value.get("usage"), "prompt", "completion", untold), final=final)
        for choice in _objects(value.get("choices")):
            said = choice.get("delta") or choice.get("message")
            if isinstance(said, dict):
                calls = [*_objects(said.get("tool_calls")), {"function": said.get("function_call")}]
                self._called(_name_of(call) for call in calls)

    def responses(self, value: Mapping[str, Any]) -> None:
        kind = value.get("type")
        answer = value.get("response") if self._streams else value
        if isinstance(answer, dict):
            self._named(answer)
            final = answer.get("status") in ("completed", "incomplete", "failed")
            self._counts(_openai_usage(answer.get("usage"), "input", "output"), final=final)
        begun = [value.get("item")] if kind == "response.output_item.added" else []
        items = begun if self._streams else value.get("output")
        self._called(item.get("name") for item in _objects(items) if str(item.get("type")).endswith("_call"))

    def messages(self, value: Mapping[str, Any]) -> None:
        kind = value.get("type")
        if kind in ("message_start", "message"):
            answer = value.get("message") if kind == "message_start" else value
            if isinstance(answer, dict):
                self._named(answer)
                self._counts(_anthropic_usage(answer.get("usage"), {}), final=kind == "message")
                self._called(_tool_uses(_objects(answer.get("content"))))
        elif kind == "message_delta":
            delta = value.get("delta")
            final = isinstance(delta, dict) and delta.get("stop_reason") is not None
            self._counts(_anthropic_usage(value.get("usage"), self._usage or {}), final=final)
        elif kind == "content_block_start":
            self._called(_tool_uses(_objects([value.get("content_block")])))

    def gemini(self, value: Mapping[str, Any]) -> None:
        self._named(value)
        candidates, feedback = list(_objects(value.get("candidates"))), value.get("promptFeedback")
        blocked = isinstance(feedback, dict) and feedback.get("blockReason") is not None
        ended = blocked or any(each.get("finishReason") is not None for each in candidates)
        self._counts(_gemini_usage(value.get("usageMetadata")), final=self._final or ended)
        for candidate in candidates:
            content = candidate.get("content")
            parts = _objects(content.get("parts")) if isinstance(content, dict) else iter(())
            self._called(_name_in(part.get("functionCall")) for part in parts)


_TAKE = {
    Api.CHAT: Answer.chat, Api.COMPLETIONS: Answer.chat, Api.EMBEDDINGS: Answer.chat, Api.RESPONSES: Answer.responses,
    Api.MESSAGES: Answer.messages, Api.GEMINI: Answer.gemini,
}  # fmt: skip


def printable(text: str, most: int) -> str:
    """The beginning of a text, what does not print left out."""
    return "".join(filter(str.isprintable, text[:most]))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (each for each in value if isinstance(each, dict)) if isinstance(value, list) else iter(())


def _name_in(value: Any) -> Any:
    return value.get("name") if isinstance(value, dict) else None


def _name_of(call: Mapping[str, Any]) -> Any:
    return _name_in(call.get("function")) or _name_in(call.get("custom"))


def _tool_uses(blocks: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    return (block.get("name") for block in blocks if str(block.get("type")).endswith("tool_use"))


def _number(said: Mapping[str, Any], *path: str) -> int:
    """A number of tokens; 0 where it is not told, and -1, which nothing can have used, where it is none."""
    value: Any = said
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return 0
    return value if type(value) is int and value >= 0 else -1


def _output(said: Mapping[str, Any], names: tuple[str, ...], total: str, taken: int, untold: int = -1) -> int:
    """What was given: the numbers of these names together, or what the total says is more; -1 where one is none."""
    if all(said.get(name) is None for name in (*names, total)):
        return untold
    given, together = [_number(said, name) for name in names], _number(said, total)
    return -1 if min(*given, together) < 0 else max(sum(given), together - taken)


def _openai_usage(said: Any, sent: str, given: str, untold: int = -1) -> dict[str, int] | None:
    if not isinstance(said, dict) or said.get(f"{sent}_tokens") is None:
        return None
    taken = _number(said, f"{sent}_tokens")
    # Some that speak this language count thinking in the total alone.
    output = _output(said, (f"{given}_tokens",), "total_tokens", taken, untold)
    return {"input": taken, "output": output, "cached": _number(said, f"{sent}_tokens_details", "cached_tokens"),
            "reasoning": _number(said, f"{given}_tokens_details", "reasoning_tokens")}


def _anthropic_usage(said: Any, before: Mapping[str, int]) -> dict[str, int] | None:
    """The numbers that stand now: what is not told again stays as it was."""
    if not isinstance(said, dict):
        return None

    def number(name: str, known: int) -> int:
        return known if said.get(name) is None else _number(said, name)

    cached = number("cache_read_input_tokens", before.get("cached", 0))
    written = number("cache_creation_input_tokens", before.get("written", 0))
    plain = number("input_tokens", before.get("input", -1) - before.get("cached", 0) - before.get("written", 0))
    wrong = min(cached, written, plain) < 0
    output = number("output_tokens", before.get("output", -1))
    return {"input": -1 if wrong else plain + cached + written, "output": output, "cached": cached, "written": written}


def _gemini_usage(said: Any) -> dict[str, int] | None:
    if not isinstance(said, dict) or said.get("promptTokenCount") is None:
        return None
    sent = [_number(said, name) for name in ("promptTokenCount", "toolUsePromptTokenCount")]
    taken = -1 if min(sent) < 0 else sum(sent)
    output = _output(said, ("candidatesTokenCount", "thoughtsTokenCount"), "totalTokenCount", taken)
    return {"input": taken, "output": output, "cached": _number(said, "cachedContentTokenCount"),
            "reasoning": _number(said, "thoughtsTokenCount")}
