"""What a call may cost at most, as a line over the size of its answer, and the largest answer that an account pays.

Money is in micro-USD, prices are in micro-USD for 1,000,000 tokens; a part of a micro-USD counts as a whole one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kernel.budget import Unit

if TYPE_CHECKING:
    from kernel.llm.request import Call, Place
    from kernel.prices import Price

MILLION = 1_000_000
LEAST_OUTPUT = 256
"""How far a call's cap is lowered where the policy does not say: a shorter answer is of little use."""
NO_WINDOW = "it refers to what is stored elsewhere, and the window of its model is not known here"
NO_THINKING = "it asks for more thinking than the longest answer that the policy allows"
NO_CAP = "it sets no cap, and the longest answer of its model is not known here"


class Spend(NamedTuple):
    """At most `sends` tokens go in, and at most one size, from `least` to `most` tokens, comes out of each choice.

    `input_price` and `output_price` are the dearest that may apply; None where no price is known.
    """

    sends: int
    least: int
    most: int
    choices: int
    input_price: int | None = None
    output_price: int | None = None

    def amount(self, unit: Unit, output: int) -> int | None:
        """What it may take of a unit at that size; None where that is not known."""
        if unit is Unit.TOKENS:
            return self.sends + output * self.choices
        if self.input_price is None or self.output_price is None:
            return None
        return whole(self.sends * self.input_price + output * self.choices * self.output_price)

    def paid(self, unit: Unit, left: int) -> int | None:
        """The largest size that `left` of a unit pays, at most `most`; None where it does not pay the least."""
        least, most = self.amount(unit, self.least), self.amount(unit, self.most)
        if least is None or most is None or least > left:
            return None
        if most <= left:
            return self.most
        # Between the two lies a size, so one more token costs something.
        if unit is Unit.TOKENS:
            return (left - self.sends) // self.choices
        assert self.input_price is not None
        assert self.output_price is not None
        return (left * MILLION - self.sends * self.input_price) // (self.choices * self.output_price)


def whole(millionths: int) -> int:
    """Micro-USD of an amount in millionths of one, rounded up."""
    return -(-millionths // MILLION)


def spend_of(call: Call, price: Price | None, cap: int | None, floor: int | None) -> Spend | str:
    """What a call may cost, or why nothing bounds it. `cap` and `floor` are the policy's words on its answer's size."""
    if call.unbounded is not None:
        return call.unbounded
    if cap is not None and cap < call.thinks:
        return NO_THINKING
    sends = _sends(call, price)
    if sends is None:
        return NO_WINDOW
    most = _longest(call, price, cap)
    if most is None:
        return NO_CAP
    least = most if call.apart else min(max(LEAST_OUTPUT if floor is None else floor, call.thinks), most)
    if price is None:
        return Spend(sends, least, most, call.choices)
    return Spend(sends, least, most, call.choices, max(price.input, price.cached, price.written), price.output)


def _sends(call: Call, price: Price | None) -> int | None:
    known = [size for size in (call.sends, None if price is None else price.context) if size is not None]
    return min(known, default=None)


def _longest(call: Call, price: Price | None, cap: int | None) -> int | None:
    """The largest that each choice can be."""
    longest = None if price is None else price.longest_output
    if not call.choices:
        return 0
    if call.apart:
        return longest
    return min((size for size in (call.said, cap, longest) if size is not None), default=None)


def written_cap(call: Call, cap: int | None, granted: int | None, most: int | None) -> int | None:
    """The cap that a call is to be sent with; None where it goes as it is.

    `granted` of `most` tokens of each choice are paid for; None where no account is asked.
    """
    if not call.choices:
        return None
    sizes = [size for size in (call.said, cap) if size is not None]
    if granted is not None and most is not None and not call.apart and (sizes or granted < most):
        sizes.append(granted)
    size = min(sizes, default=None)
    return None if size == call.said and (size is None or call.heeded) else size


def caps(call: Call, size: int) -> dict[Place, int]:
    """The members that cap each choice of a call at a size."""
    lowered = {place: size for place, said in call.caps.items() if said > size}
    return lowered if call.heeded or call.cap is None else lowered | {call.cap: size}
