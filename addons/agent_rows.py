"""What `governor agents list` and `show` tell of agents, as JSON values: the registration and the standing of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from addons.agents_file import AgentsError
from kernel.cascade import cause_of
from kernel.identity import RESERVED_IDS
from kernel.standings import Balance, Condition, budgets, condition, counted, reads_until, risk
from kernel.state import Preventive, Quarantine
from kernel.transition import KERNEL, written
from kernel.verdict import Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from addons.agents_file import Agent, Agents
    from kernel.bounds import Bounds
    from kernel.state import Halt, Standing, State

FIELDS = ("id", "state", "reason", "since", "by", "budgets", "risk", "last_seen")
"""The fields of a row by contract. A row has `until` beside them."""

type Row = dict[str, Any]


def system_told(state: State) -> Row:
    """What is told of all agents together."""
    halt = state.switch.halt
    return {"halted": halt is not None, "since": halt and written(halt.since_us), "by": halt and halt.by,
            "reason": halt and halt.why, "entry": halt and halt.entry, "epoch": state.switch.epoch}


class Rows:
    """Rows of one moment. `bounds` is None where no policy is at hand: then nothing is told of budgets."""

    def __init__(
        self, agents: Agents, last_seen: Mapping[str, str], state: State, bounds: Bounds | None, now_us: int
    ) -> None:
        self._agents, self._last_seen, self._state = agents.agents, last_seen, state
        self._bounds, self._now_us = bounds, now_us

    def system(self) -> Row:
        """How all agents together stand."""
        return system_told(self._state)

    def all(self) -> list[Row]:
        """Every agent that ever had a token, and every other one that was judged, or seen since the start."""
        return [self.row(name) for name in sorted(self._names())]

    def _names(self) -> set[str]:
        return self._agents.keys() | self._state.agents.keys() | self._last_seen.keys()

    def row(self, name: str) -> Row:
        """One agent. `reason` is the code of a halt, `since` and `by` tell of the state that it is in."""
        file = self._agents.get(name)
        stands = self._stands(name, revoked=file is not None and file.removed is not None)
        bounded = self._bounds.of(name) if self._bounds is not None else None
        told = {"id": name, "state": str(stands), **self._came_to(name, stands, file)}
        told["budgets"] = self._told(budgets(self._state, bounded, name, self._now_us) if bounded else ())
        told["risk"] = risk(self._state, bounded, name, self._now_us) if bounded else None
        told["last_seen"] = max(
            filter(None, (file.last_used if file else None, self._last_seen.get(name))), default=None)
        return told

    def shown(self, name: str) -> Row:
        """One agent with everything that is known of it; `AgentsError` for a name that nobody has had."""
        if name not in self._names() and name not in RESERVED_IDS:
            raise AgentsError(f"no agent {name} is known here (governor agents list shows who is)")
        standing = self._state.agent(name)
        halt, stands = self._halt(name), self._stands(name)
        said = halt or self._held_back(standing, stands)
        bounded = self._bounds.of(name) if self._bounds is not None else None
        return self.row(name) | {
            "why": said.why if said else None,
            "rule": halt.rule if halt else None,
            "entry": said.entry if said else None,
            "sources": list(halt.sources) if halt else [],
            "cause": cause_of(standing, self._now_us),
            "counters": self._told(counted(self._state, bounded, name, self._now_us) if bounded else ()),
            "open": sum(flow.agent == name for flow in self._state.open.values()),
            "epoch": standing.epoch,
            "with_all": self._state.switch.halt is not None,
            "session": standing.session,
        }

    def _halt(self, name: str) -> Halt | None:
        """The halt of the agent itself, else that of all agents."""
        return self._state.agent(name).halt or self._state.switch.halt

    def _stands(self, name: str, *, revoked: bool = False) -> Condition:
        """How an agent stands, with what holds for all agents."""
        if self._state.switch.halt is not None:
            return Condition.HALTED
        return condition(self._state, name, self._now_us, revoked=revoked)

    def _came_to(self, name: str, stands: Condition, file: Agent | None) -> Row:
        standing = self._state.agent(name)
        match stands:
            case Condition.HALTED if (halt := self._halt(name)) is not None:
                return _state(str(halt.reason), written(halt.since_us), halt.by)
            case Condition.QUARANTINED | Condition.THROTTLED:
                return _held(standing, self._held_back(standing, stands))
            case Condition.REVOKED if file is not None:
                return _state(None, file.removed, file.by)
        return _state(None, file.added if file else None, file.by if file else None)

    def _held_back(self, standing: Standing, stands: Condition) -> Quarantine | Preventive | None:
        """What an agent that is not halted is held back by: an operator, or another's halt; the one that ends last."""
        match stands:
            case Condition.THROTTLED:
                return standing.preventive
            case Condition.QUARANTINED:
                last = reads_until(standing, self._now_us) == standing.quarantined_until_us
                return standing.quarantine if last else standing.preventive
        return None

    @staticmethod
    def _told(balances: Iterable[Balance]) -> list[Row]:
        return [each._asdict() | {"remaining": each.remaining} for each in balances]


def _held(standing: Standing, held: Quarantine | Preventive | None) -> Row:
    match held:
        case Quarantine():
            return _state("QUARANTINED", written(held.since_us), held.by, written(standing.quarantined_until_us))
        case Preventive():
            return _state(Code.CASCADE, written(held.since_us), KERNEL, written(held.until_us))
    return _state(None, None, None)


def _state(reason: str | None, since: str | None, by: str | None, until: str | None = None) -> Row:
    return {"reason": reason, "since": since, "by": by, "until": until}
