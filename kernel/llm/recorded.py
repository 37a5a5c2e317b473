"""A call of a model as the log has it: its bound with everything that it was made of, so that it can be drawn again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kernel.budget import Unit
from kernel.llm.spend import Spend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kernel.entry import Body


def call(provider: str, model: str | None, why: str | None, spend: Spend | None, max_output: int | None,
         changed: Sequence[str]) -> Body:
    """`llm` of a decision. `model` is None where the call could not be read, `why` says why it has no bound.

    `max_output` is how large each choice may be, None where that is not bounded or the call is refused.
    """
    bound: Body | None = None
    if spend is not None:
        size = spend.most if max_output is None else max_output
        bound = {"tokens": spend.amount(Unit.TOKENS, size), "usd": spend.amount(Unit.USD, size), **spend._asdict()}
    return {"provider": provider, "model": model, "unbounded": why, "bound": bound, "max_output": max_output,
            "changed": list(changed)}


def spend_of(entry: Mapping[str, Any]) -> Spend | None:
    """What the call of a decision may cost; None where it is of no call, or of one without a bound."""
    said = entry.get("llm")
    bound = said.get("bound") if said is not None else None
    return None if bound is None else Spend(**{name: bound[name] for name in Spend._fields})
