"""The system as one process sees it: the processes that share budgets, where agents were last seen, the switch of all.

Pure, total and in integers. What a process hears of the others goes in one event after the other, and what people are
to know comes out. It lets no request pass and refuses none: that is done by each process from its own entries
(kernel/state.py), so what one says of itself here can mislead people and nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from kernel.arithmetic import clamped
from kernel.leases import CUT_OFF_SECONDS, MOST
from kernel.state import GOING, Halt, Switch

SILENT_US = CUT_OFF_SECONDS * 1_000_000
"""For how long a process may not be heard of: then it has refused everything itself, or is gone."""
MOST_SEEN = 100
"""Of how many agents a process tells when it saw them last: of the newest."""
_MOST_TEXT = 200


class Said(NamedTuple):
    """What a process tells of itself. `policy` is the digest of the one in force, `open` how many flows are.

    `ports` are those at which it listens for agents. `halted` and `epoch` are its switch of all agents. `seen` is when
    it last saw agents, in microseconds since 1970.
    """

    lane: str = ""
    policy: str = ""
    version: str = ""
    ready: bool = False
    open: int = 0
    ports: tuple[int, ...] = ()
    halted: bool = False
    epoch: int = 0
    seen: Mapping[str, int] = {}

    def fields(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        return self._asdict() | {"ports": list(self.ports), "seen": dict(self.seen)}


def said(fields: Mapping[str, object]) -> Said:
    """What a process tells, of whatever version it is: what is missing or of another type is as if it were not said."""
    ports, seen = fields.get("ports"), fields.get("seen")
    known = [(name, at) for name, at in seen.items() if type(name) is str and type(at) is int] if _is(seen, dict) else []
    return Said(
        _text(fields.get("lane")), _text(fields.get("policy")), _text(fields.get("version")),
        fields.get("ready") is True, _number(fields.get("open")),
        tuple(port for port in ports if type(port) is int) if _is(ports, list) else (),
        fields.get("halted") is True, _number(fields.get("epoch")),
        {name: clamped(at, MOST) for name, at in known[:MOST_SEEN]})
