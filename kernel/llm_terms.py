"""`llm:` of a rule, from text to values: which models it means, and how long their answers may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kernel.choices import choice
from kernel.document import Keys, Node, Reader
from kernel.name_globs import globs
from kernel.quantity import tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kernel.policy import PathGlob, UrlPattern

LLM = Keys("llm", now=frozenset({"models", "max-output-tokens", "min-output-tokens", "also"}))
HOUSEKEEPING = "housekeeping"


class Call(NamedTuple):
    """A harmless call with which the clients of a model API begin. It means every host that has such a path."""

    method: str
    url: UrlPattern

    @property
    def path(self) -> PathGlob:
        return self.url.path


class Llm(NamedTuple):
    """What `llm:` says. None: any model, any length. `calls` are those of `also: housekeeping`.

    The lengths are measures (kernel/measures.py): whether a rule holds hangs on the models alone.
    """

    models: tuple[str, ...] | None = None
    max_output_tokens: int | None = None
    min_output_tokens: int | None = None
    calls: tuple[Call, ...] = ()

    @property
    def housekeeping(self) -> bool:
        return bool(self.calls)

    @property
    def has_measures(self) -> bool:
        return self.max_output_tokens is not None or self.min_output_tokens is not None


def read_llm(reader: Reader, node: Node, calls: tuple[Call, ...]) -> Llm:
    """What stands under the key. `calls` is what housekeeping means."""
    found = reader.mapping(node, LLM) or {}
    longest = reader.value(found, "max-output-tokens", "E221", tally)
    least = reader.value(found, "min-output-tokens", "E221", tally)
    if longest is not None and least is not None and least > longest:
        message = f"no answer has {least} tokens or more where {longest} are the most"
        reader.error("E112", found["min-output-tokens"], message, "write a smaller one, or leave it out")
    also = choice(reader, found, "also", "E226", {HOUSEKEEPING}) is not None
    return Llm(globs(reader, found, "models"), longest, least, calls if also else ())


def refuse_lengths(reader: Reader, found: Mapping[str, Node], said: Llm | None, where: str) -> None:
    """An E112 where lengths of answers are said and nothing passes that could have one."""
    if said is not None and said.has_measures:
        message = f"how long an answer may be means nothing in {where}: it is about what passes"
        hint = "say it in an allow, or in an item of limits: for whatever is allowed"
        reader.error("E112", found["llm"], message, hint)
