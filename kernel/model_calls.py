"""Which requests `llm:` means: calls of model APIs, told by their method and path, and by the model that they ask for.

The model stands in the JSON body (`model`) or in the path. So conditions with `llm:` are conditions on method, path and
body: `spread` writes them out, and matcher and analyser know nothing else. A call whose body cannot be read, or names
no model, is covered by what refuses and never by what grants, as with `json:`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from kernel.comparison import Comparison, Field
from kernel.fields import MODEL
from kernel.glob import PathSet, word
from kernel.pattern import path_glob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kernel.llm_terms import Llm
    from kernel.policy import Conditions, PathGlob

_ENDPOINTS = ("chat/completions", "completions", "embeddings", "messages", "responses")
# Behind a gateway, or at a provider of several APIs, one segment more stands before the version.
_IN_BODY = (
    *(f"{before}/v1/{each}" for before in ("", "/*") for each in _ENDPOINTS),
    "/chat/completions", "/v1beta/openai/chat/completions", "/v1beta/openai/embeddings",
)  # fmt: skip
_IN_PATH = ("/v1/models/", "/v1beta/models/", "/v1alpha/models/")
_ENDS = (":generateContent", ":streamGenerateContent")
# Ways to ask that are rare, old, or no way at any server that is known: they are refused, and never granted.
_REFUSED_IN_BODY = ("/v1/complete",)
_REFUSED_ENDS = (":embedContent", ":batchEmbedContents", "%3AgenerateContent", "%3AstreamGenerateContent")
_CALL = re.compile(
    f"(?:{'|'.join(_IN_PATH)})(?P<model>[^/]*?)(?:{'|'.join(sorted((*_ENDS, *_REFUSED_ENDS), key=len, reverse=True))})")
_POST = frozenset({"POST"})
_ANY = ("*",)


def spread(where: Conditions, *, wide: bool) -> tuple[Conditions, ...]:
    """Conditions without `llm:` that together mean the same: any of them. `wide` is the reading of what refuses."""
    said = where.llm
    if said is None:
        return (where,)
    return tuple(_spread(replace(where, llm=None), said, wide=wide))


def _spread(where: Conditions, said: Llm, *, wide: bool) -> Iterator[Conditions]:
    methods = _POST if where.methods is None else where.methods & _POST
    json = where.json
    if said.models is not None or not wide:
        json = (*(json or ()), Field(MODEL, Comparison(said.models or _ANY, absent=wide)))
    for calls in _in_body(wide=wide):
        yield replace(where, methods=methods, calls=calls, json=json)
    # A name with a slash stands in no path.
    models = None if said.models is None else tuple(model for model in said.models if "/" not in model)
    if models is None or models:
        yield replace(where, methods=methods, calls=_in_path(wide=wide), in_path=models)
    # What clients begin with has methods of its own, whatever `methods:` says of the calls that follow.
    for method in sorted({call.method for call in said.calls}):
        for calls in _dealt(call.path for call in said.calls if call.method == method):
            yield replace(where, methods=frozenset({method}), calls=calls)


@cache
def _in_body(*, wide: bool) -> tuple[tuple[PathGlob, ...], ...]:
    return _dealt(map(path_glob, (*_IN_BODY, *_REFUSED_IN_BODY) if wide else _IN_BODY))


@cache
def _in_path(*, wide: bool) -> tuple[PathGlob, ...]:
    ends = (*_ENDS, *_REFUSED_ENDS) if wide else _ENDS
    return tuple(path_glob(f"{folder}*{end}") for folder in _IN_PATH for end in ends)


def _dealt(globs: Iterable[PathGlob]) -> tuple[tuple[PathGlob, ...], ...]:
    """The globs that are single paths apart from the others: of a list of paths the analyser answers at once."""
    known = tuple(dict.fromkeys(globs))
    lots = tuple(glob for glob in known if "*" not in glob.text), tuple(glob for glob in known if "*" in glob.text)
    return tuple(lot for lot in lots if lot)


def model_in_path(segments: tuple[str, ...]) -> str | None:
    """The model that stands in the path of a call; None where it is no such call."""
    text = "/" + "/".join(segments)
    found = _CALL.fullmatch(text)
    return None if found is None else found["model"]


def with_model(path: str, model: str) -> str:
    """The path with this model in it, where it is that of such a call."""
    found = _CALL.fullmatch(path.replace("%2F", "/"))
    if found is None:
        return path
    # Whatever separates its segments, the model is followed by what follows it here.
    end = len(path) - (len(found[0]) - found.end("model"))
    return path[: end - len(found["model"])] + model + path[end:]


class CallPaths:
    """The paths of calls that have one of these models in them."""

    __slots__ = ("_models", "_paths")

    def __init__(self, calls: Iterable[PathGlob], models: Iterable[str]) -> None:
        self._paths, self._models = PathSet(calls), tuple(map(word, models))

    def has(self, text: str, segments: tuple[str, ...]) -> bool:
        """True for the path of a call that asks one of the models, given as text and as segments."""
        if not self._paths.has(text, segments):
            return False
        model = model_in_path(segments)
        return model is not None and any(each.fits(model) for each in self._models)
