"""What an answer has used, in tokens and in micro-USD, and what of a reservation that settles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from kernel.canonical import MAX_INTEGER
from kernel.llm.spend import whole

if TYPE_CHECKING:
    from kernel.canonical import Value
    from kernel.prices import Price

_MOST_TOKENS = 2**40
NOTHING_GENERATED = frozenset({400, 401, 403, 404, 413, 422, 429})
"""Statuses with which a provider says that it has not begun to answer."""


class Usage(NamedTuple):
    """As a provider reports it: `cached` and `written` are parts of `input`, `reasoning` is one of `output`."""

    model: str
    input: int
    output: int
    cached: int = 0
    written: int = 0
    reasoning: int = 0

    @property
    def tokens(self) -> int:
        return self.input + self.output

    def is_plausible(self) -> bool:
        """False where a number is none that anything can have used."""
        return (all(0 <= each <= _MOST_TOKENS for each in self[1:]) and self.cached + self.written <= self.input
                and self.reasoning <= self.output)

    def cost(self, price: Price) -> int:
        """Micro-USD, rounded up once."""
        plain = self.input - self.cached - self.written
        return whole(plain * price.input + self.cached * price.cached + self.written * price.written
                     + self.output * price.output)


NOTHING = Usage("", 0, 0)


class Bound(NamedTuple):
    """What was held for a call; None of what no account counts."""

    tokens: int | None = None
    usd: int | None = None


def told(usage: Usage, price: Price | None, bound: Bound) -> dict[str, Value]:
    """`usage` of an outcome. `over` says by how much a report goes beyond what was held, which is all that counts.

    An account never gives more than was held: a provider that reports more has broken the bound, not the budget.
    """
    usd = None if price is None else min(usage.cost(price), MAX_INTEGER)
    said: dict[str, Value] = {
        "model": usage.model, "input": usage.input, "output": usage.output, "cached": usage.cached,
        "written": usage.written, "reasoning": usage.reasoning, "tokens": usage.tokens, "usd": usd,
    }
    used: Mapping[str, int | None] = {"tokens": usage.tokens, "usd": usd}
    over: dict[str, Value] = {
        unit: amount - held for unit, held in bound._asdict().items()
        if held is not None and (amount := used[unit]) is not None and amount > held}
    return {**said, "over": over} if over else said
