"""What models cost: a price for each model of each provider, as the shipped table and a policy say it.

Prices change, and no table knows every model. A model without a price is unknown, and a budget of money or tokens lets
no request for it pass; a policy says with `prices:` what the table does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kernel.glob import word

if TYPE_CHECKING:
    from collections.abc import Mapping


PROVIDERS = frozenset({"anthropic", "google", "openai"})
"""The providers that have a name of their own in a list of prices. Any other has that of its host."""


class Price(NamedTuple):
    """What a model costs, in micro-USD for a million tokens, and how much it takes and gives, in tokens.

    `cached` is input that was cached before, `written` input that is cached for later. Of several prices that may apply
    (how long the input is, how long it is cached) each is the dearest.
    """

    input: int
    cached: int
    written: int
    output: int
    context: int
    longest_output: int


class Priced(NamedTuple):
    """One item of a list of prices: the globs of the models that have the price."""

    models: tuple[str, ...]
    price: Price


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of each provider: a policy's own, and those of the table that it was read with."""

    own: Mapping[str, tuple[Priced, ...]] = field(default_factory=dict)
    table: Mapping[str, tuple[Priced, ...]] = field(default_factory=dict)

    def of(self, provider: str, model: str) -> Price | None:
        """The price of a model; None where none is known.

        What a policy says goes before the shipped table. In each, a name goes before a pattern, and of patterns the
        longest that matches.
        """
        for priced in (self.own, self.table):
            found = [(glob == model, len(glob), each.price) for each in priced.get(provider, ())
                     for glob in each.models if word(glob).fits(model)]
            if found:
                return max(found)[-1]
        return None

    @property
    def models(self) -> frozenset[str]:
        """Every name and pattern that has a price."""
        return frozenset(glob for priced in (self.own, self.table) for items in priced.values()
                         for each in items for glob in each.models)

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts whose models a policy says prices of: money is spent there."""
        return frozenset(self.own) - PROVIDERS


NO_PRICES = Prices()
