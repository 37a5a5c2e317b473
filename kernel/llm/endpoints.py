"""Which requests ask a model, by method and path, and which others of a model provider cost nothing.

Providers that speak another's language put it below a path of their own (`/openai/v1/chat/completions`), so an endpoint
is known by the end of its path.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Api(StrEnum):
    """The languages in which models are asked."""

    CHAT = "chat completions"
    RESPONSES = "responses"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    GEMINI = "generateContent"


class Endpoint(NamedTuple):
    """Where a model is asked. `model` and `streams` are what the path says of it: Gemini's alone does."""

    api: Api
    model: str | None = None
    streams: bool = False


OPENAI, ANTHROPIC, GOOGLE = "openai", "anthropic", "google"
_PROVIDERS = {
    "api.openai.com": OPENAI, "api.anthropic.com": ANTHROPIC, "generativelanguage.googleapis.com": GOOGLE,
}  # fmt: skip
_ENDS = {
    ("chat", "completions"): Api.CHAT, ("responses",): Api.RESPONSES, ("completions",): Api.COMPLETIONS,
    ("embeddings",): Api.EMBEDDINGS, ("messages",): Api.MESSAGES,
}  # fmt: skip
# What follows one of these in a path is a model, and whatever the body names is passed over.
_NAMED_BEFORE = frozenset({"deployments", "engines", "models"})
_GEMINI = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*):(generateContent|streamGenerateContent)", re.ASCII)
_COUNTING = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*:countTokens", re.ASCII)
_FREE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


def provider_of(host: str) -> str:
    """The provider in a list of prices: the host itself where it is none of the three that have names."""
    return _PROVIDERS.get(host, host)


def endpoint(method: str, segments: Sequence[str]) -> Endpoint | None:
    """The endpoint that a request asks; None where it asks no model that is known here."""
    if method != "POST" or not segments:
        return None
    if len(segments) > 1 and segments[-2] == "models" and (found := _GEMINI.fullmatch(segments[-1])):
        return Endpoint(Api.GEMINI, found[1], found[2] == "streamGenerateContent")
    if not _NAMED_BEFORE.isdisjoint(segments):
        return None
    api = _ENDS.get(tuple(segments[-2:])) or _ENDS.get(tuple(segments[-1:]))
    return None if api is None else Endpoint(api)


def is_free(method: str, segments: Sequence[str]) -> bool:
    """True for requests to a model provider that cost nothing: what reads or deletes, counts tokens or calls off."""
    if method in _FREE_METHODS:
        return True
    match method, *segments:
        case "POST", *_, "messages", "count_tokens":
            return True
        case "POST", *_, "responses", "input_tokens":
            return True
        case "POST", *_, "responses", _, "cancel":
            return True
        case "POST", *_, "models", last:
            return _COUNTING.fullmatch(last) is not None
    return False
