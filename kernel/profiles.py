"""The three profiles: how much an agent may do by itself where its policy does not say.

Each counts over a session, refusals and repetitions over a while. A profile halts for points of risk alone, which rules
give: whoever has an agent ask, with a page that it opens, must not be able to end it. kernel/README.md says why the
numbers are what they are, and which honest work stays below them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.budget import Counter, Effect

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEN_MINUTES, _HOUR = 600, 3600

PROFILES: Mapping[str, tuple[Counter, ...]] = {
    "conservative": (
        Counter("risk", 50, Effect.HALT),
        Counter("exploration", 100, Effect.DENY),
        Counter("persistence", 10, Effect.DENY, _TEN_MINUTES),
        Counter("stagnation", 90, Effect.DENY, _HOUR),
        Counter("steps", 20_000, Effect.DENY),
    ),
    "balanced": (
        Counter("risk", 100, Effect.HALT),
        Counter("exploration", 500, Effect.DENY),
        Counter("persistence", 30, Effect.DENY, _TEN_MINUTES),
        Counter("stagnation", 300, Effect.DENY, _HOUR),
        Counter("steps", 1_000_000, Effect.DENY),
    ),
    "aggressive": (
        Counter("risk", 500, Effect.HALT),
        Counter("exploration", 5_000, Effect.DENY),
        Counter("persistence", 100, Effect.DENY, _TEN_MINUTES),
        Counter("stagnation", 1_000, Effect.THROTTLE, _HOUR),
        Counter("steps", 10_000_000, Effect.DENY),
    ),
}


def counters(profile: str | None, said: tuple[Counter, ...]) -> dict[str, Counter]:
    """What counts: the policy's own counters, and those of its profile that it does not name."""
    return {each.name: each for each in (*PROFILES.get(profile or "", ()), *said)}
