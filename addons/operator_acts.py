"""What an operator does to an agent or to the clock: which acts there are, and when one has sense.

The same for a running Governor and for a verb that finds none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from addons.errors import GovernorError
from kernel.entry import Body
from kernel.entry import operator as operator_entry
from kernel.identity import RESERVED_IDS
from kernel.standings import Condition, condition, halted, held_back

if TYPE_CHECKING:
    from collections.abc import Container

    from kernel.state import State

MOST_REASON = 500
MOST_NAME = 100
MOST_HINTS = 5
MOST_QUARANTINE_SECONDS = 366 * 86400


class Deed(StrEnum):
    """`act` of the entry."""

    HALT = "agents halt"
    HALT_ALL = "agents halt all"
    RELEASE = "agents release"
    RELEASE_ALL = "agents release all"
    QUARANTINE = "agents quarantine"
    CLOCK = "clock accept"


OF_ALL = frozenset({Deed.HALT_ALL, Deed.RELEASE_ALL})
"""Acts on all agents together: they name none."""


class ActRefused(GovernorError):
    """An act that has no sense as things stand. Nothing was done and nothing was written."""


@dataclass(frozen=True, slots=True)
class Order:
    """An act as it was asked for. `by` is how it arrived, `until` (as the log writes it) the end of a quarantine."""

    deed: Deed
    agent: str | None
    reason: str
    operator: str
    by: str
    until: str | None = None

    def more(self) -> Body:
        """What this act says beside what every act says."""
        return {"until": self.until} if self.deed is Deed.QUARANTINE else {}

    def entry(self) -> Body:
        return operator_entry(self.deed, self.agent, self.reason, self.operator, self.by) | self.more()


def said_by(user: str, claimed: str | None, way: str) -> tuple[str, str]:
    """`operator` and `by` of an entry: the name that was claimed does not hide the user who claims it."""
    return (user, way) if claimed in (None, user) else (str(claimed), f"{way}:{user}")


def check_words(reason: str, operator: str | None) -> None:
    """`ActRefused` unless the reason and the operator's name are words that a line of text can hold."""
    for what, text, most in (("a reason", reason, MOST_REASON), ("the operator's name", operator, MOST_NAME)):
        if text is not None and not (text.strip() and len(text) <= most and text.isprintable()):
            raise ActRefused(f"{what} is one line of 1 to {most} characters")


def has_effect(deed: Deed, agent: str | None, state: State, known: Container[str], now_us: int) -> bool:
    """Whether the act changes anything: to halt who is halted does not. `ActRefused` where it has no sense."""
    if deed is Deed.CLOCK:
        if state.clock_ok:
            raise ActRefused("the clock has not jumped: there is nothing to accept")
        return True
    if deed in OF_ALL:
        return _has_effect_on_all(deed, state)
    if agent is None or not (agent in known or agent in state.agents or agent in RESERVED_IDS):
        raise ActRefused(f"no agent {agent} is known here (governor agents list shows who is)")
    stands = condition(state, agent, now_us)
    if deed is Deed.RELEASE and stands is Condition.RUNNING:
        raise ActRefused(f"{agent} is neither halted nor held back: there is nothing to release it from")
    if deed is Deed.QUARANTINE and stands is Condition.HALTED:
        raise ActRefused(f"{agent} is halted, which is more than a quarantine")
    return not (deed is Deed.HALT and stands is Condition.HALTED)


def _has_effect_on_all(deed: Deed, state: State) -> bool:
    halted = state.switch.halt is not None
    if deed is Deed.RELEASE_ALL and not halted:
        raise ActRefused("all agents are not halted together; who is halted by itself is released by its name")
    return halted == (deed is Deed.RELEASE_ALL)


def hints(state: State, now_us: int) -> list[str]:
    """What an operator should look at, with the verb that helps; most of it only an operator can end."""
    names = list(halted(state))
    everybody = ["all agents are halted: governor agents release --all"] if state.switch.halt is not None else []
    told = everybody + [f"{name} is halted: governor agents show {name}" for name in names[:MOST_HINTS]]
    if len(names) > MOST_HINTS:
        told.append(f"{len(names) - MOST_HINTS} more agents are halted: governor agents list")
    held = held_back(state, now_us)
    if held:
        told.append(f"{len(held)} held back because another agent was halted: governor agents list")
    slowed = sum(each.degraded for each in held.values())
    if slowed:
        told.append(f"a cascade went beyond its blast radius, look at it now: {slowed} are only slowed down")
    if not state.clock_ok:
        told.append("the clock jumped, and no budget is drawn on: governor clock accept")
    if state.broken:
        told.append("a contract of the kernel did not hold, and nothing passes: report it with the log")
    return told
