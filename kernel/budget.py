"""What a policy says agents may use up: budgets, rates and counters, as values.

Money is in micro-USD, sizes are in bytes, times in seconds; a limit is a whole number of its unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from kernel.hours import Zone
from kernel.measures import Rate

if TYPE_CHECKING:
    from kernel.policy import AgentPattern, Position


class Unit(StrEnum):
    """What a budget counts."""

    USD = "usd"
    TOKENS = "tokens"
    REQUESTS = "requests"
    BYTES = "bytes"
    SECONDS = "seconds"
    RISK = "risk"
    NEW_HOSTS = "new-hosts"


SPENT = frozenset({Unit.USD, Unit.TOKENS})
"""What an answer of a model costs, as it says itself. Until then the most that it may cost is held."""


class Every(StrEnum):
    """When a budget begins anew. A session ends with the agent's token; the others come round by the clock."""

    SESSION = "session"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"

    @property
    def renews(self) -> bool:
        return self is not Every.SESSION


class Effect(StrEnum):
    """What is done when a counter or a share of a budget is reached."""

    TELL = "tell"
    THROTTLE = "throttle"
    DENY = "deny"
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class Threshold:
    """`percent` of a budget are used: then this. `rate` is given for a throttle alone."""

    percent: int
    effect: Effect
    rate: Rate | None = None

    @property
    def ends(self) -> bool:
        """True where nothing passes any more once it is reached."""
        return self.effect in (Effect.DENY, Effect.HALT) and self.percent <= 100


@dataclass(frozen=True, slots=True)
class Budget:
    """One item of `budgets:`. `each` is for every agent by itself, `together` for all of them; in whole units."""

    name: str
    agents: tuple[AgentPattern, ...] | None
    each: Mapping[Unit, int]
    together: Mapping[Unit, int]
    every: Every
    zone: Zone
    when_used: tuple[Threshold, ...]
    position: Position

    @property
    def units(self) -> frozenset[Unit]:
        return frozenset(self.each.keys() | self.together.keys())


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One item of `rates:`, named `rates-1` and so on."""

    name: str
    agents: tuple[AgentPattern, ...] | None
    each: Rate | None
    together: Rate | None
    burst: int | None
    position: Position


@dataclass(frozen=True, slots=True)
class Counter:
    """One entry of `counters:`: what follows when the counter reaches its limit, within some seconds if it says so.

    `position` is None for one of a profile.
    """

    name: str
    limit: int
    then: Effect
    within_seconds: int | None = None
    position: Position | None = field(default=None, compare=False)
