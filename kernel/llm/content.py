"""How many tokens what a call sends can be at most.

Tokenizers of these providers work on bytes: a token of text stands for one byte or more. So a body of N bytes has at
most N tokens of text, and what the provider puts around it: roles and separators of each message, a system prompt for
tools, and the tools written out once more in another form. Three things are longer than their bytes. Unicode that a
tokenizer normalises (NFKC makes 33 bytes of the 3 of U+FDFA) is counted as it is then; an image, which compresses to
almost nothing, as the most that its provider's formula gives; thinking that comes back encrypted, which may be packed,
eight times. Whatever else is sent, and whatever stands elsewhere and is only referred to, can fill the model's window.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from kernel.llm.endpoints import Api

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PER_CALL, _PER_PART, _PER_TOOL, _PACKED = 2000, 16, 1000, 8
# OpenAI: 2833 and 5667 for each of at most 8 tiles (gpt-4o-mini, high detail). Anthropic: 4784 at the most.
_IMAGE: Mapping[Api, int] = {Api.CHAT: 50_000, Api.RESPONSES: 50_000, Api.MESSAGES: 5_000}
_ELSEWHERE = ("previous_response_id", "conversation", "cachedContent", "cached_content")
_CONVERSATION = ("messages", "input", "system", "contents", "systemInstruction", "system_instruction")

# Of each kind of part the members in which further parts stand. All other members are text to their provider.
_TEXT: tuple[str, ...] = ()
_PARTS: Mapping[str, tuple[str, ...]] = {
    "text": _TEXT, "input_text": _TEXT, "output_text": _TEXT, "refusal": _TEXT,
    "tool_use": _TEXT, "tool_result": ("content",), "thinking": _TEXT, "redacted_thinking": _TEXT,
    "message": ("content",), "reasoning": _TEXT, "function_call": _TEXT, "function_call_output": ("output",),
    "custom_tool_call": _TEXT, "custom_tool_call_output": ("output",), "local_shell_call": _TEXT,
    "local_shell_call_output": _TEXT, "search_result": ("content",),
}  # fmt: skip
_IMAGES = frozenset({"image", "image_url", "input_image"})
_MESSAGE = frozenset({
    "role", "content", "parts", "name", "text", "status", "phase", "refusal", "annotations", "reasoning",
    "reasoning_content", "tool_calls", "tool_call_id", "function_call", "prefix", "partial", "cache_control"})
"""What stands in a message, or in a part that says no type."""
# Parts of Gemini have no type: what one is says the member that it has.
_GEMINI_TEXT = frozenset({
    "text", "thought", "thoughtSignature", "thought_signature", "functionCall", "function_call", "functionResponse",
    "function_response"})
_ENCRYPTED = ("signature", "data", "encrypted_content", "thoughtSignature", "thought_signature")


class _WholeWindow(Exception):
    """Something is sent of which the size is not known."""


def input_tokens(api: Api, root: Mapping[str, Any], text: str) -> int | None:
    """The most tokens that a call sends, `text` being its body; None where its model's window alone is a bound."""
    try:
        if any(root.get(name) is not None for name in _ELSEWHERE):
            raise _WholeWindow
        parts = list(_parts_of(root.get(name) for name in _CONVERSATION))
        beside = sum(_PER_PART + _beside(api, part) for part in parts)
    except _WholeWindow:
        return None
    tools = [tool for name in ("tools", "functions") if isinstance(said := root.get(name), list) for tool in said]
    return _PER_CALL + _text_bytes(text) + beside + _PER_TOOL * len(tools) + len(json.dumps(tools, default=str))


def _parts_of(values: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Every part of a conversation, the outer ones first."""
    for value in values:
        if isinstance(value, list):
            yield from _parts_of(value)
        elif isinstance(value, dict):
            yield value
            yield from _parts_of(value.get(name) for name in _inside(value))


def _inside(part: Mapping[str, Any]) -> tuple[str, ...]:
    kind = part.get("type")
    if kind is None:
        # Some servers see by its members what a part without a type is.
        if any(part[name] is not None for name in part.keys() - _MESSAGE - _GEMINI_TEXT):
            raise _WholeWindow
        return ("content", "parts")
    if not isinstance(kind, str) or (kind not in _PARTS and kind not in _IMAGES) or _is_stored(part):
        raise _WholeWindow
    return _PARTS.get(kind, ())


def _is_stored(part: Mapping[str, Any]) -> bool:
    """True for reasoning that stands at OpenAI, and only its name here."""
    return part["type"] == "reasoning" and part.get("id") is not None and not part.get("encrypted_content")


def _beside(api: Api, part: Mapping[str, Any]) -> int:
    """How many tokens a part has beside its bytes."""
    if part.get("type") in _IMAGES:
        return _of_image(api, part)
    if api is Api.EMBEDDINGS or (api is Api.GEMINI and not _is_text(part)):
        raise _WholeWindow
    return (_PACKED - 1) * sum(len(part[name]) for name in _ENCRYPTED if isinstance(part.get(name), str))


def _is_text(part: Mapping[str, Any]) -> bool:
    """True for what Gemini reads as text: a message, or a part of one."""
    responses = [part.get(name) for name in ("functionResponse", "function_response")]
    has_parts = any(isinstance(each, dict) and "parts" in each for each in responses)
    return {"role", "parts"}.issuperset(part) or (_GEMINI_TEXT.issuperset(part) and not has_parts)


def _of_image(api: Api, part: Mapping[str, Any]) -> int:
    source = part.get("source" if part["type"] == "image" else "image_url")
    if isinstance(source, dict):
        source = f"data:{source.get('media_type')}" if source.get("type") == "base64" else source.get("url")
    inline = isinstance(source, str) and source.startswith("data:image/") and part.get("file_id") is None
    if not inline or api not in _IMAGE:
        raise _WholeWindow
    return _IMAGE[api]


def _text_bytes(text: str) -> int:
    """The bytes of a body, or of what normalising makes of its characters where that is more."""
    size = len(text.encode())
    if text.isascii() and "\\u" not in text:
        return size
    written = _unescaped(text) if "\\u" in text else text
    return max(size, sum(count * _longest(each) for each, count in Counter(written).items()))


def _unescaped(text: str) -> str:
    """A JSON text with its escapes of Unicode written out, the two halves of a pair as one character."""
    halves = text.encode("raw_unicode_escape").decode("raw_unicode_escape")
    return halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _longest(character: str) -> int:
    """The most bytes that a character has in any normal form. Composing makes none longer.

    One by one: normalising a whole text takes time by the square of the marks that stand in a row.
    """
    return max(len(each.encode(errors="surrogatepass")) for each in (character, normalize("NFKD", character)))
