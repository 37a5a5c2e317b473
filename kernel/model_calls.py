"""Which requests `llm:` means: calls of model APIs, told by their method and path, and by the model that they ask for.

The model stands in the JSON body (`model`) or in the path. So conditions with `llm:` are conditions on method, path and
body: `spread` writes them out, and matcher and analyser know nothing else. A call whose body cannot be read, or names
no model, is covered by what refuses and never by what grants, as with `json:`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from kernel.comparison import Comparison, Field
from kernel.fields import MODEL
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
_ACTIONS = ("generateContent", "streamGenerateContent")
# Ways to ask that are rare, old, or no way at any server that is known: they are refused, and never granted.
_REFUSED_IN_BODY = (*(f"/*/*/v1/{each}" for each in _ENDPOINTS), "/v1/complete")
_REFUSED_ACTIONS = ("embedContent", "batchEmbedContents")
_REFUSED_COLON = "%3A"
_POST = frozenset({"POST"})
_ANY = ("*",)


def spread(where: Conditions, *, wide: bool) -> tuple[Conditions, ...]:
    """Conditions without `llm:` that together mean the same: any of them. `wide` is the reading of what refuses."""
    said = where.llm
    if said is None:
        return (where,)
    return tuple(_spread(replace(where, llm=None), said, wide=wide))


def _spread(where: Conditions, said: Llm, *, wide: bool) -> Iterator[Conditions]:
    posted = replace(where, methods=_POST if where.methods is None else where.methods & _POST)
    json = where.json
    if said.models is not None or not wide:
        json = (*(json or ()), Field(MODEL, Comparison(said.models or _ANY, absent=wide)))
    yield replace(posted, calls=_in_body(wide=wide), json=json)
    in_path = _in_path(said.models or _ANY, wide=wide)
    if in_path:
        yield replace(posted, calls=in_path)
    # What clients begin with has methods of its own, whatever `methods:` says of the calls that follow.
    for method in sorted({call.method for call in said.calls}):
        paths = tuple(dict.fromkeys(call.path for call in said.calls if call.method == method))
        yield replace(where, methods=frozenset({method}), calls=paths)


@cache
def _in_body(*, wide: bool) -> tuple[PathGlob, ...]:
    return _globs((*_IN_BODY, *_REFUSED_IN_BODY) if wide else _IN_BODY)


@cache
def _in_path(models: tuple[str, ...], *, wide: bool) -> tuple[PathGlob, ...]:
    """The paths in which one of the models stands. A name with a slash stands in none."""
    colons = (":", _REFUSED_COLON) if wide else (":",)
    actions = (*_ACTIONS, *_REFUSED_ACTIONS) if wide else _ACTIONS
    return _globs(f"{folder}{_one_star(model)}{colon}{action}" for folder in _IN_PATH for model in models
                  for colon in colons for action in actions if "/" not in model)


def _one_star(glob: str) -> str:
    """The glob with one star where several stand in a row: in a path, two would stand for any number of segments."""
    while "**" in glob:
        glob = glob.replace("**", "*")
    return glob


def _globs(texts: Iterable[str]) -> tuple[PathGlob, ...]:
    return tuple(map(path_glob, dict.fromkeys(texts)))
