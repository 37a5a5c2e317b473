"""What models cost."""

from __future__ import annotations

from typing import NamedTuple


class Price(NamedTuple):
    """Of one model: micro-USD for 1,000,000 tokens of each kind, and how many tokens it takes in and gives at most."""

    input: int
    cached: int
    written: int
    output: int
    context: int
    longest_output: int
