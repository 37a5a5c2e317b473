"""A call of a model as its request says it: which model, how much it may answer, and what has no bound.

Members have the names and the meaning that the providers' public references give them. What readers may read in two
ways has none here: a name twice, a number with a fraction, text that is no UTF-8.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from kernel.comparison import Gap
from kernel.json_fields import read_tree
from kernel.llm.content import input_tokens
from kernel.llm.endpoints import ANTHROPIC, GOOGLE, OPENAI, Api
from kernel.llm.members import unbounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kernel.llm.endpoints import Endpoint

type Place = tuple[str, ...]
"""Where in a body a member stands: the names of the objects around it, and its own."""

MOST_CALL_BYTES = 16 * 2**20
"""A longer body is not read as a call."""
MOST_CHOICES = 2**20
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}", re.ASCII)
_CAPS: Mapping[Api, tuple[Place, ...]] = {
    Api.CHAT: (("max_completion_tokens",), ("max_tokens",)),
    Api.RESPONSES: (("max_output_tokens",),),
    Api.COMPLETIONS: (("max_tokens",),),
    Api.EMBEDDINGS: (),
    Api.MESSAGES: (("max_tokens",),),
    Api.GEMINI: (("generationConfig", "maxOutputTokens"),),
}
_OTHER_SPELLINGS = {
    "systemInstruction": "system_instruction", "toolConfig": "tool_config", "safetySettings": "safety_settings",
    "generationConfig": "generation_config", "cachedContent": "cached_content", "maxOutputTokens": "max_output_tokens",
    "candidateCount": "candidate_count", "thinkingConfig": "thinking_config", "thinkingBudget": "thinking_budget",
    "thinkingLevel": "thinking_level", "responseModalities": "response_modalities",
}  # fmt: skip
"""Gemini's servers read either spelling of these names."""
_SEVERAL = {Api.COMPLETIONS: "prompt", Api.EMBEDDINGS: "input"}
"""The member that may hold several prompts."""
_LARGEST = 2**40
# With tools between its thoughts Anthropic takes such a call, and what limits the answer is then the window.
_THINKS_ON = "it asks for more thinking than it caps its answer at"


class Call(NamedTuple):
    """One call of a model. Sizes are in tokens.

    `caps` are the limits that it sets to each of its `choices`, by place; `cap` is where one belongs. `heeded`: its
    host goes by what it sets. `sends` is the most that it sends, None where only the model's window bounds that: one
    for each of its `prompts`.
    `thinks` is what its cap must leave for thinking. `apart`: what it thinks is no part of its cap. `unbounded` says
    why nothing bounds what it costs. `tells` is the member that has its stream say what was used, None where none need.
    """

    api: Api
    model: str
    body: str
    streams: bool
    choices: int
    sends: int | None
    caps: Mapping[Place, int]
    cap: Place | None
    heeded: bool
    thinks: int = 0
    apart: bool = False
    unbounded: str | None = None
    tells: Place | None = None
    prompts: int = 1

    @property
    def said(self) -> int | None:
        """The most that it would have of each choice."""
        return max(self.caps.values(), default=None)


class _Unreadable(Exception):
    """Readers may read a member in two ways."""


def read_call(asked: Endpoint, body: bytes | Gap, provider: str = OPENAI) -> Call | Gap:
    """The call that a body makes at a provider's endpoint, its content codings taken off; a gap where it has no one
    reading.
    """
    if isinstance(body, Gap):
        return body
    root = read_tree(body)
    if isinstance(root, Gap):
        return root
    if not isinstance(root, dict):
        return Gap("the body is no object")
    try:
        return _call(asked, root, body.decode(), provider)
    except _Unreadable as why:
        return Gap(str(why))


def _call(asked: Endpoint, root: dict[str, Any], body: str, provider: str) -> Call:
    api = asked.api
    _check_names(root)
    if api is Api.GEMINI:
        _check_spellings(root)
    model = root.get("model") if asked.model is None else asked.model
    if not isinstance(model, str) or not _MODEL.fullmatch(model):
        raise _Unreadable("the model's name is none, or has characters that names of models have not")
    # Servers other than Anthropic's may read a cap of nothing as none.
    least = 0 if api is Api.MESSAGES and provider == ANTHROPIC else 1
    caps = {place: size for place in _caps_of(api, root) if (size := _size(root, place, least)) is not None}
    thinks = _thinking(root) if api in (Api.MESSAGES, Api.CHAT) else 0
    own_host = provider == OPENAI or api is not Api.CHAT
    cap = _cap_of(api, root, own_host=own_host)
    return Call(
        api, model, body, asked.streams or _flag(root, "stream"), _choices(api, root),
        input_tokens(api, root, body), caps, cap, bool(caps) and (own_host or cap in caps),
        thinks, _thinks_apart(root) if api is Api.GEMINI else provider == GOOGLE or "gemini" in model.lower(),
        unbounded(api, root) or (_THINKS_ON if min(caps.values(), default=thinks) < thinks else None),
        _telling(api, root),
        _prompts(api, root))


def _caps_of(api: Api, root: Mapping[str, Any]) -> tuple[Place, ...]:
    """Where the limits of a call may stand."""
    if api is not Api.GEMINI:
        return _CAPS[api]
    config = _spelled(root, "generationConfig")
    inside = root.get(config)
    return ((config, _spelled(inside if isinstance(inside, dict) else {}, "maxOutputTokens")),)


def _cap_of(api: Api, root: Mapping[str, Any], *, own_host: bool) -> Place | None:
    """Where a limit is set. OpenAI's newer models take the newer name alone; other hosts may know only the older."""
    places = _caps_of(api, root)
    return places[0 if own_host else -1] if places else None


def _spelled(of: Mapping[str, Any], name: str) -> str:
    return other if (other := _OTHER_SPELLINGS[name]) in of else name


def _check_names(of: Mapping[str, Any]) -> None:
    """Some readers take a name in any case, some end it at a NUL."""
    if len({name.partition("\0")[0].casefold() for name in of}) < len(of):
        raise _Unreadable("two of its names are one to some readers")


def _check_spellings(root: Mapping[str, Any]) -> None:
    config = root.get(_spelled(root, "generationConfig"))
    thinking = config.get(_spelled(config, "thinkingConfig")) if isinstance(config, dict) else None
    if isinstance(config, dict):
        _check_names(config)
    for of in (root, config, thinking):
        if isinstance(of, dict) and any(name in of and other in of for name, other in _OTHER_SPELLINGS.items()):
            raise _Unreadable("a name stands there in both of its spellings")


def _at(root: Mapping[str, Any], place: Place) -> Any:
    value: Any = root
    for name in place:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise _Unreadable(f'what should hold "{name}" is no object')
        value = value.get(name)
    return value


def _size(root: Mapping[str, Any], place: Place, least: int = 0) -> int | None:
    size = _at(root, place)
    if size is None:
        return None
    if type(size) is not int or not least <= size <= _LARGEST:
        raise _Unreadable(f'"{place[-1]}" is no whole number' + (" above 0" if least else ""))
    return size


def _flag(root: Mapping[str, Any], name: str) -> bool:
    value = root.get(name)
    if value is not None and not isinstance(value, bool):
        raise _Unreadable(f'"{name}" is neither true nor false')
    return bool(value)


def _choices(api: Api, root: Mapping[str, Any]) -> int:
    """How many answers are generated."""
    match api:
        case Api.EMBEDDINGS:
            return 0
        case Api.CHAT:
            count = _count(root, ("n",))
        case Api.COMPLETIONS:
            count = max(_count(root, ("n",)), _count(root, ("best_of",))) * _prompts(api, root)
        case Api.GEMINI:
            config = _spelled(root, "generationConfig")
            count = max(_count(root, (config, name)) for name in ("candidateCount", "candidate_count"))
        case _:
            count = 1
    if count > MOST_CHOICES:
        raise _Unreadable("it asks for too many choices")
    return count


def _count(root: Mapping[str, Any], place: Place) -> int:
    size = _size(root, place)
    return 1 if size is None else max(1, size)


def _prompts(api: Api, root: Mapping[str, Any]) -> int:
    """How many prompts its model reads, each by itself: a list of numbers is one prompt, as tokens."""
    prompt = root.get(_SEVERAL[api]) if api in _SEVERAL else None
    if not isinstance(prompt, list) or all(isinstance(each, int) for each in prompt):
        return 1
    return len(prompt)


def _thinking(root: Mapping[str, Any]) -> int:
    """What a cap must leave for thinking: Anthropic takes none that is not above that."""
    budget = _size(root, ("thinking", "budget_tokens"))
    return 0 if budget is None else budget + 1


def _thinks_apart(root: Mapping[str, Any]) -> bool:
    """True unless it says that it does not think.

    Google's reference has thoughts outside `maxOutputTokens`, servers were seen to count them in.
    """
    config = _spelled(root, "generationConfig")
    said = [_at(root, (config, thinking, name)) for thinking in ("thinkingConfig", "thinking_config")
            for name in ("thinkingBudget", "thinking_budget", "thinkingLevel", "thinking_level")]
    # A budget of nothing, and no level beside it.
    return [each for each in said if each is not None] != [0]


def _telling(api: Api, root: Mapping[str, Any]) -> Place | None:
    if api not in (Api.CHAT, Api.COMPLETIONS) or not _flag(root, "stream"):
        return None
    place = ("stream_options", "include_usage")
    return None if _at(root, place) is True else place
