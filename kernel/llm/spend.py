"""What a call may cost at most, as a line over the size of its answer, and the largest answer that an account pays.

Money is in micro-USD, prices are in micro-USD for 1,000,000 tokens; a part of a micro-USD counts as a whole one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kernel.budget import Unit
from kernel.llm.change import LONGEST_CHANGE

if TYPE_CHECKING:
    from kernel.llm.request import Call, Place
    from kernel.prices import Price

MILLION = 1_000_000
NO_WINDOW = "it refers to what is stored elsewhere, and the window of its model is not known here"
NO_PRICE = "what its model costs is not known here"
NO_THINKING = "it asks for more thinking than the longest answer may have"


class Spend(NamedTuple):
    """At most `sends` tokens go in, and at most one size, from `least` to `most` tokens, comes out of each choice.

    `input_price` and `output_price` are the dearest that may apply. `body_bytes` is how long the body can be once it is
    changed.
    """

    sends: int
    least: int
    most: int
    choices: int
    input_price: int
    output_price: int
    body_bytes: int = 0

    def amount(self, unit: Unit, output: int) -> int:
        """What it may take of a unit at that size."""
        if unit is Unit.TOKENS:
            return self.sends + output * self.choices
        return whole(self.sends * self.input_price + output * self.choices * self.output_price)

    def paid(self, unit: Unit, left: int) -> int | None:
        """The largest size that `left` of a unit pays, at most `most`; None where it does not pay the least."""
        if self.amount(unit, self.least) > left:
            return None
        if self.amount(unit, self.most) <= left:
            return self.most
        # Between the two lies a size, so one more token costs something.
        if unit is Unit.TOKENS:
            return (left - self.sends) // self.choices
        return (left * MILLION - self.sends * self.input_price) // (self.choices * self.output_price)


def whole(millionths: int) -> int:
    """Micro-USD of an amount in millionths of one, rounded up."""
    return -(-millionths // MILLION)


def spend_of(call: Call, price: Price | None, cap: int | None, floor: int) -> Spend | str:
    """What a call may cost, or why nothing bounds it.

    `cap` is how large an answer may be by the policy, `floor` how far it is lowered to what a remainder pays.
    """
    if call.unbounded is not None:
        return call.unbounded
    if price is None:
        return NO_PRICE
    if min(price.longest_output if cap is None else cap, price.longest_output) < call.thinks:
        return NO_THINKING
    windows = price.context * call.prompts
    sends = windows if call.sends is None else min(call.sends, windows)
    sizes = [size for size in (call.said, cap) if size is not None]
    most = 0 if not call.choices else price.longest_output if call.apart else min([*sizes, price.longest_output])
    least = most if call.apart else min(max(floor, call.thinks), most)
    dearest = max(price.input, price.cached, price.written)
    return Spend(sends, least, most, call.choices, dearest, price.output, len(call.body.encode()) + LONGEST_CHANGE)


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
