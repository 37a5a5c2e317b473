"""Answers of each provider, made after the formats that their public references describe."""

from __future__ import annotations

import json

from kernel.llm.endpoints import Api
from kernel.llm.usage import Usage


def sse(events, *, done=True, comments=False) -> bytes:
    """A stream of these events, an event's name where it has one; OpenAI's chat ends with a word of its own."""
    parts = [b": ping\n\n"] if comments else []
    for event in events:
        name = b"event: %b\n" % event["type"].encode() if "type" in event else b""
        parts.append(name + b"data: " + json.dumps(event).encode() + b"\n\n")
    if done and events and "choices" in events[0]:
        parts.append(b"data: [DONE]\n\n")
    return b"".join(parts)


def _chunk(delta=None, usage=None, finish=None):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m-1-dated",
            "choices": choices, "usage": usage}


def _call(index, name=None, arguments=""):
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"index": index, "type": "function", "function": function} | ({"id": "t"} if name else {})]}


OPENAI_USAGE = {"prompt_tokens": 120, "completion_tokens": 45, "total_tokens": 165,
                "prompt_tokens_details": {"cached_tokens": 20}, "completion_tokens_details": {"reasoning_tokens": 30}}
CHAT = [
    _chunk({"role": "assistant", "content": "Hel"}), _chunk({"content": "lo \"usage\":{}"}),
    _chunk(_call(0, "look_up")), _chunk(_call(0, arguments='{"q":1}')), _chunk(_call(1, "save")),
    _chunk({}, finish="tool_calls"),
    _chunk(usage=OPENAI_USAGE),
]
RESPONSES_USAGE = {"input_tokens": 328, "input_tokens_details": {"cached_tokens": 300}, "output_tokens": 52,
                   "output_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 380}
_CALLED = {"id": "fc-1", "type": "function_call", "name": "look_up", "call_id": "c-1", "arguments": "{}"}
RESPONSES = [
    {"type": "response.created", "response": {"id": "r", "model": "m-1-dated", "status": "in_progress", "usage": None}},
    {"type": "response.output_item.added", "output_index": 0, "item": _CALLED | {"arguments": ""}},
    {"type": "response.output_text.delta", "delta": "Hello"},
    {"type": "response.output_item.done", "output_index": 0, "item": _CALLED},
    {"type": "response.completed", "response": {"id": "r", "model": "m-1-dated", "status": "completed",
                                                "output": [_CALLED], "usage": RESPONSES_USAGE}},
]
ANTHROPIC = [
    {"type": "message_start", "message": {
        "id": "m", "type": "message", "role": "assistant", "model": "m-1-dated", "content": [],
        "usage": {"input_tokens": 72, "cache_creation_input_tokens": 400, "cache_read_input_tokens": 600,
                  "cache_creation": {"ephemeral_5m_input_tokens": 400}, "output_tokens": 1}}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1,
     "content_block": {"type": "tool_use", "id": "t-1", "name": "look_up", "input": {}}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
     "usage": {"output_tokens": 503}},
    {"type": "message_stop"},
]


def _candidate(parts, thoughts, given, finish=None):
    ended = {"finishReason": finish} if finish else {}
    candidate = {"content": {"parts": parts, "role": "model"}, "index": 0} | ended
    return {"candidates": [candidate], "modelVersion": "m-1-dated", "responseId": "r", "usageMetadata": {
        "promptTokenCount": 40, "cachedContentTokenCount": 8, "candidatesTokenCount": given,
        "thoughtsTokenCount": thoughts, "totalTokenCount": 40 + thoughts + given}}


GEMINI = [
    _candidate([{"text": "Hel"}], 70, 5),
    _candidate([{"functionCall": {"name": "look_up", "args": {}}}, {"functionCall": {"name": "look_up"}}], 70, 20),
    _candidate([{"text": "lo"}], 70, 25, "STOP"),
]

WHOLE = [
    (Api.CHAT, {"model": "m-1-dated", "usage": OPENAI_USAGE, "choices": [{"message": {
        "content": None, "tool_calls": [{"id": "t", "type": "function", "function": {"name": "look_up"}}]}}]},
     Usage("m-1-dated", 120, 45, 20, 0, 30), {"look_up": 1}),
    (Api.COMPLETIONS, {"model": "m-1-dated", "choices": [{"text": "hi"}],
                       "usage": {"prompt_tokens": 3, "completion_tokens": 1}}, Usage("m-1-dated", 3, 1), {}),
    (Api.EMBEDDINGS, {"object": "list", "model": "m-1-dated", "data": [{"embedding": [0.1]}],
                      "usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage("m-1-dated", 8, 0), {}),
    (Api.RESPONSES, {"model": "m-1-dated", "status": "completed", "output": [_CALLED], "usage": RESPONSES_USAGE},
     Usage("m-1-dated", 328, 52, 300, 0, 7), {"look_up": 1}),
    (Api.RESPONSES, {"model": "m-1-dated", "status": "queued", "output": [], "usage": None}, None, {}),
    (Api.MESSAGES, {"type": "message", "model": "m-1-dated", "content": [{"type": "tool_use", "name": "look_up"}],
                    "usage": {"input_tokens": 10, "output_tokens": 4}}, Usage("m-1-dated", 10, 4), {"look_up": 1}),
    (Api.MESSAGES, {"type": "error", "error": {"type": "overloaded_error"}}, None, {}),
    (Api.GEMINI, GEMINI, Usage("m-1-dated", 40, 95, 8, 0, 70), {"look_up": 2}),
    (Api.GEMINI, {"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "m-1-dated", "usageMetadata": {
        "promptTokenCount": 4, "totalTokenCount": 4}}, Usage("m-1-dated", 4, 0), {}),
]
