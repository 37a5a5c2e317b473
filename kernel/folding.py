"""The two states that a lane's entries make, one entry after the other.

What passed only because its policy is on trial is counted in a state of its own: nothing is enforced from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kernel.state import State
from kernel.transition import change, micros
from kernel.trial import Mode


@dataclass(slots=True)
class States:
    """What is enforced, and what would be: the accounts of requests that pass because their policy is on trial."""

    real: State = field(default_factory=State)
    shadow: State = field(default_factory=State)

    def of(self, mode: object) -> State:
        """The state that a decision of this mode is counted in."""
        return self.shadow if mode == Mode.OBSERVE else self.real

    def changed_by(self, entry: Mapping[str, Any]) -> State:
        """The one of them that an entry changes: an outcome that in which its decision is open."""
        if entry["type"] == "outcome":
            return self.shadow if entry["decision"] in self.shadow.open else self.real
        return self.of(entry.get("mode"))

    def fold(self, entry: Mapping[str, Any], name: str) -> None:
        """Go on to what an entry of the log makes of them. `name` is LANE/SEQ."""
        state = self.changed_by(entry)
        state.take(change(state, entry, name, micros(entry["ts"])))

    def copy(self) -> States:
        """Both as they are now; what comes later does not reach them."""
        return States(self.real.copy(), self.shadow.copy())
