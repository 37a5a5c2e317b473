"""How many flows an agent has open: let through and not at their end, however long a stream lasts."""

from __future__ import annotations

from collections import Counter

from kernel.measures import Cap

# Without a policy's word: what one agent, and all of them together, may hold of this process's sockets and memory.
EACH = Cap(512, None)
TOGETHER = Cap(4096, None)


class InFlight:
    """The open flows of this process, by agent."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._together = 0

    def enter(self, agent: str, policy: Cap | None) -> Cap | None:
        """Count one more flow of the agent; the cap that is reached, and nothing is counted, where it must not be."""
        each = EACH if policy is None else policy
        if self._open[agent] >= each.most:
            return each
        if self._together >= TOGETHER.most:
            return TOGETHER
        self._open[agent] += 1
        self._together += 1
        return None

    def leave(self, agent: str) -> None:
        """One of the agent's flows has ended."""
        self._together -= 1
        self._open[agent] -= 1
        if self._open[agent] <= 0:
            del self._open[agent]
