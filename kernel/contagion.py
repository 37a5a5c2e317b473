"""What a policy says of halts that spread: who depends on whom, and what follows for them. Times are in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from kernel.policy import AgentPattern, Position

USUAL_HOPS = 1
USUAL_SECONDS = 600
USUAL_PERCENT = 10


class Prevention(StrEnum):
    """What is done to an agent because another one was halted, from the mildest to the most severe.

    OBSERVE is written down and no more. ASK stands only in policies that are read ahead.
    """

    OBSERVE = "observe"
    THROTTLE = "throttle"
    ASK = "ask"
    QUARANTINE = "quarantine"
    HALT = "halt"

    @property
    def severity(self) -> int:
        return _LADDER.index(self)

    @property
    def holds_back(self) -> bool:
        """True where it takes from an agent what it does: the blast radius bounds how many this happens to."""
        return self is Prevention.QUARANTINE or self is Prevention.HALT


_LADDER = tuple(Prevention)


@dataclass(frozen=True, slots=True)
class OnHalt:
    """What a halt for one of these reasons does along the declared edges, up to so many hops away."""

    reasons: frozenset[str]
    do: Prevention
    hops: int = USUAL_HOPS
    seconds: int = USUAL_SECONDS


@dataclass(frozen=True, slots=True)
class Breaker:
    """So many halts in a group within some seconds, then this for the others of the group."""

    halts: int
    within_seconds: int
    do: Prevention


@dataclass(frozen=True, slots=True)
class Cascade:
    """The `cascade:` section. `depends` says for each name what it needs: when that halts, this is acted upon.

    `members` are the agents that each name of `depends` stands for, `groups` those of every group of the policy, of
    both only agents that the file binds. `blast_percent` is the share of its active agents that a process may hold
    back.
    """

    position: Position
    depends: Mapping[str, tuple[str, ...]]
    members: Mapping[str, tuple[AgentPattern, ...]]
    groups: Mapping[str, tuple[AgentPattern, ...]]
    on_halt: OnHalt | None = None
    breaker: Breaker | None = None
    blast_percent: int = USUAL_PERCENT

    @property
    def seconds(self) -> int:
        """How long what is done holds."""
        return USUAL_SECONDS if self.on_halt is None else self.on_halt.seconds

    @property
    def asks(self) -> bool:
        """True where a human would be asked, which nothing can do yet."""
        return any(each is not None and each.do is Prevention.ASK for each in (self.on_halt, self.breaker))

    @property
    def follows_one_halt(self) -> bool:
        """True where something may follow from one halt, without another one before it."""
        return self.on_halt is not None or (self.breaker is not None and self.breaker.halts == 1)

    def only_observed(self) -> Cascade:
        """The same where a policy is on trial: what would be done is written down."""
        on_halt, breaker = self.on_halt, self.breaker
        return replace(
            self,
            on_halt=on_halt and replace(on_halt, do=Prevention.OBSERVE),
            breaker=breaker and replace(breaker, do=Prevention.OBSERVE))
