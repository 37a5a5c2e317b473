"""One measure at a time as the size of a request: what a grant lets pass, and what a limit refuses."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from kernel.measures import DEFAULT, NOTHING_SAID, USUAL_LEAST_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kernel.measures import Terms
    from kernel.policy import Policy, Rule

EVERY_SIZE = -1  # of whatever measure

type Amount = int | tuple[int, int]


class Measure(NamedTuple):
    """A measure by name: how much a rule says, and how much a grant that says nothing lets pass; None is all."""

    name: str
    said: Callable[[Terms], Amount | None]
    unsaid: int | None = None
    of_upgrades: bool = False

_DAY_SECONDS = 86_400  # a rate is for a second, a minute, an hour or a day: a whole part of it


def _frame(terms: Terms) -> Amount | None:
    return None if terms.websocket is None else terms.websocket.max_frame_bytes


def _rate(terms: Terms) -> Amount | None:
    rate = None if terms.websocket is None else terms.websocket.max_rate
    return None if rate is None else (rate.count * (_DAY_SECONDS // rate.seconds), rate.count)


def _least_output(terms: Terms) -> Amount | None:
    # The less an answer may be cut down to, the more passes.
    return None if terms.min_output_tokens is None else -terms.min_output_tokens


NO_MEASURE = Measure("", lambda _: None)
MEASURES = (
    Measure("max-request", lambda terms: terms.max_request, unsaid=DEFAULT.max_request.most),
    Measure("max-response", lambda terms: terms.max_response),
    Measure("max-url", lambda terms: terms.max_url),
    Measure("in-flight", lambda terms: terms.in_flight),
    Measure("max-frame", _frame, of_upgrades=True),
    Measure("max-rate", _rate, of_upgrades=True),
    Measure("stream-request", lambda terms: 1 if terms.stream_request else None, unsaid=0),
    Measure("max-output-tokens", lambda terms: terms.max_output_tokens),
    Measure("min-output-tokens", _least_output, unsaid=-USUAL_LEAST_OUTPUT),
)


class Sizes:
    """The amounts of one measure, cut at each that a policy names."""

    def __init__(self, measure: Measure, policies: Iterable[Policy]) -> None:
        self.measure = measure
        rules = [rule for policy in policies for rule in policy.items if rule.terms is not NOTHING_SAID]
        said = {amount for rule in rules if (amount := measure.said(rule.terms)) is not None}
        if said and measure.unsaid is not None:
            said.add(measure.unsaid)
        self.said: list[Amount] = sorted(said)

    @property
    def used(self) -> bool:
        return bool(self.said)

    def _up_to(self, amount: Amount) -> int:
        return (1 << (bisect_left(self.said, amount) + 1)) - 1

    def passed(self, rule: Rule) -> int:
        """The sizes that a grant lets pass."""
        said = self.measure.said(rule.terms)
        if said is None:
            said = self.measure.unsaid
        return EVERY_SIZE if said is None else self._up_to(said)

    def refused(self, rule: Rule) -> int:
        """The sizes that a limit refuses."""
        said = self.measure.said(rule.terms)
        return 0 if said is None else EVERY_SIZE & ~self._up_to(said)
