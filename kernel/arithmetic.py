"""The arithmetic of accounts and rates: integers only, without a branch that a proof could not follow.

`tests/kernel/test_proofs.py` proves what each function promises for all integers, on these very functions: there the
numbers are terms of z3, and `choose`, `smaller` and `larger` are built from its `If`.
"""

from __future__ import annotations

KINDS = 4
"""How many kinds of windows there are; `window % KINDS` is the kind."""


def choose(condition: bool, then: int, otherwise: int) -> int:
    """The one branch there is."""
    return then if condition else otherwise


smaller = min
larger = max


def clamped(number: int, most: int) -> int:
    """`number`, moved into 0..`most`; 0 where `most` is negative."""
    return larger(0, smaller(number, most))


def renewed(window: int, amount: int, current: int) -> int:
    """What of an amount of one window counts in the current one: all of it, or nothing.

    It is nothing once a later window has begun, or where a policy has come to count windows of another kind.
    """
    return choose(current > window, 0, choose((window - current) % KINDS == 0, amount, 0))


def remaining(limit: int, spent: int, held: int) -> int:
    """What may still be drawn; 0 where a limit was lowered below what is gone."""
    return larger(0, limit - spent - held)


def drawn(limit: int, spent: int, held: int, least: int, wanted: int) -> int:
    """How much is granted: as much of `wanted` as is left, and nothing where that is less than `least`."""
    left = remaining(limit, spent, held)
    granted = clamped(wanted, left)
    return choose(least < 0, 0, choose(wanted < least, 0, choose(granted < least, 0, granted)))


def freed(held: int, reserved: int) -> int:
    """How much of what is held a settlement ends: what was reserved, and never more than there is."""
    return clamped(reserved, held)


def settled(spent: int, held: int, reserved: int, used: int) -> int:
    """What is spent once a reservation is settled: what was used of it counts, no more than it and no less than 0."""
    return spent + clamped(used, freed(held, reserved))


def interval(count: int, micros: int) -> int:
    """Microseconds between two requests at `count` in `micros`, rounded up: never faster than the rate."""
    return (micros + count - 1) // count


def plausible(due: int, now: int, each: int, burst: int) -> int:
    """When the next request is due. Only a wrong clock puts that behind a whole burst: then one turn of it is left."""
    return choose(due > now + burst * each, now + (burst - 1) * each, due)


def arrival(due: int, now: int, each: int) -> int:
    """When the next request is due, of one that passes now (GCRA: the theoretical arrival time, ITU-T I.371)."""
    return larger(due, now) + each


def early(due: int, now: int, each: int, burst: int) -> int:
    """By how many microseconds a request comes too early; 0 where it passes."""
    return larger(0, arrival(due, now, each) - burst * each - now)
