"""How much of what a policy allows: sizes, rates and numbers, as one rule says them and as they hold together.

Order does not matter. Of each measure the most generous of the grants that hold applies, and the smallest of the
limits that hold caps it: a limit never widens anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `most`. `by` is the rule or limits item that says so; None for what holds where nothing is said."""

    most: int
    by: str | None


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` within `seconds`."""

    count: int
    seconds: int

    def exceeds(self, other: Rate) -> bool:
        """True when this rate is the more generous one. Of equally fast ones it is the one with the longer window."""
        own, others = self.count * other.seconds, other.count * self.seconds
        return (own, self.count) > (others, other.count)


@dataclass(frozen=True, slots=True)
class WebSocketMeasures:
    """What holds inside a WebSocket. None: no such measure."""

    max_frame_bytes: int | None = None
    max_rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What one rule or limits item says; None where it says nothing.

    `in_flight` is for limits, `websocket`, `stream_request` and `min_output_tokens` are for grants.
    """

    max_request: int | None = None
    max_response: int | None = None
    max_url: int | None = None
    in_flight: int | None = None
    websocket: WebSocketMeasures | None = None
    stream_request: bool = False
    max_output_tokens: int | None = None
    min_output_tokens: int | None = None


USUAL_LEAST_OUTPUT = 256
"""An answer of a model is cut down to no fewer tokens than these, where nothing is said."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What applies to one request: bytes of its body, of the response's body and of its URL, and flows at a time.

    None: no such measure. `websocket` is None where no grant lets the request become a WebSocket. `stream_request`
    is True where a grant lets the body pass before it is known whole. `max_output_tokens` is how long a model's answer
    may be; where a budget pays for less, it is cut down to no less than `min_output_tokens`, or refused.
    """

    max_request: Cap
    max_response: Cap | None = None
    max_url: Cap | None = None
    in_flight: Cap | None = None
    websocket: WebSocketMeasures | None = None
    stream_request: bool = False
    max_output_tokens: Cap | None = None
    min_output_tokens: int = USUAL_LEAST_OUTPUT


type Named = tuple[str, Terms]

NOTHING_SAID = Terms()
DEFAULT = Measures(Cap(16 * 2**20, None))
"""What applies where nothing is said."""


def combined(grants: Sequence[Named], limits: Sequence[Named]) -> Measures:
    """What applies where these grants and limits hold, each given with its name and in the order of the policy."""
    if all(terms is NOTHING_SAID for _, terms in (*grants, *limits)):
        return DEFAULT
    said = [terms for _, terms in grants]
    widest = _widest(grants, lambda terms: terms.max_request, DEFAULT.max_request) or DEFAULT.max_request
    return Measures(
        max_request=_narrowed(widest, limits, lambda terms: terms.max_request) or widest,
        max_response=_applying(grants, limits, lambda terms: terms.max_response),
        max_url=_applying(grants, limits, lambda terms: terms.max_url),
        in_flight=_applying((), limits, lambda terms: terms.in_flight),
        websocket=_widest_websocket([terms.websocket for terms in said if terms.websocket is not None]),
        stream_request=any(terms.stream_request for terms in said),
        max_output_tokens=_applying(grants, limits, lambda terms: terms.max_output_tokens),
        min_output_tokens=min((terms.min_output_tokens or USUAL_LEAST_OUTPUT for terms in said),
                              default=USUAL_LEAST_OUTPUT),
    )


def tightest(first: Measures, second: Measures) -> Measures:
    """What satisfies both: one request may be sent to any of several addresses, at which different rules hold."""
    if first is second:
        return first
    websockets = first.websocket, second.websocket
    return Measures(
        max_request=_smaller(first.max_request, second.max_request) or first.max_request,
        max_response=_smaller(first.max_response, second.max_response),
        max_url=_smaller(first.max_url, second.max_url),
        in_flight=_smaller(first.in_flight, second.in_flight),
        websocket=None if None in websockets else _narrowest_websocket([each for each in websockets if each]),
        stream_request=first.stream_request and second.stream_request,
        max_output_tokens=_smaller(first.max_output_tokens, second.max_output_tokens),
        min_output_tokens=max(first.min_output_tokens, second.min_output_tokens),
    )


def _applying(grants: Sequence[Named], limits: Sequence[Named], measure: Callable[[Terms], int | None]) -> Cap | None:
    return _narrowed(_widest(grants, measure, None), limits, measure)


def _widest(grants: Sequence[Named], measure: Callable[[Terms], int | None], unsaid: Cap | None) -> Cap | None:
    """The cap of the most generous grant, the first of equals. `unsaid` is that of a grant that says nothing."""
    caps = [unsaid if (most := measure(terms)) is None else Cap(most, name) for name, terms in grants]
    bounded = [cap for cap in caps if cap is not None]
    return max(bounded, key=lambda cap: cap.most, default=unsaid) if len(bounded) == len(caps) else None


def _narrowed(cap: Cap | None, limits: Sequence[Named], measure: Callable[[Terms], int | None]) -> Cap | None:
    for name, terms in limits:
        most = measure(terms)
        cap = cap if most is None else _smaller(cap, Cap(most, name))
    return cap


def _smaller(first: Cap | None, second: Cap | None) -> Cap | None:
    """The smaller cap, the first of equals; None caps nothing."""
    if first is None or second is None:
        return first or second
    return second if second.most < first.most else first


def _widest_websocket(said: Sequence[WebSocketMeasures]) -> WebSocketMeasures | None:
    if not said:
        return None
    frames = [each.max_frame_bytes for each in said if each.max_frame_bytes is not None]
    rates = [each.max_rate for each in said if each.max_rate is not None]
    widest = rates[0] if rates else None
    for rate in rates:
        widest = rate if widest is not None and rate.exceeds(widest) else widest
    return WebSocketMeasures(
        max(frames) if len(frames) == len(said) else None, widest if len(rates) == len(said) else None)


def _narrowest_websocket(said: Sequence[WebSocketMeasures]) -> WebSocketMeasures:
    rates = [each.max_rate for each in said if each.max_rate is not None]
    narrowest = rates[0] if rates else None
    for rate in rates:
        narrowest = rate if narrowest is not None and narrowest.exceeds(rate) else narrowest
    frames = (each.max_frame_bytes for each in said if each.max_frame_bytes is not None)
    return WebSocketMeasures(min(frames, default=None), narrowest)
