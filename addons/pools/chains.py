"""What the lanes of a home say to a ledger that is to begin anew: the log is the authority, the ledger keeps count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons.errors import GovernorError
from addons.lane_entries import LaneEntries
from addons.lineage import states_before
from kernel.errors import CanonicalError, ChainError
from kernel.posting import held, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from addons.home import Home
    from kernel.leases import Held, Total
    from kernel.state import State

type Posts = dict[str, tuple[Sequence[Total], Sequence[Held]]]
"""By holder, LOG/LANE."""


class LaneBroken(GovernorError):
    """A lane does not hold, so that nothing can be told from it."""


def posts(home: Home, lanes: Sequence[str], advance: Callable[[], object]) -> Posts:
    """What each lane says; `advance` is called after each. `LaneBroken` where one does not hold."""
    found: Posts = {}
    for lane in lanes:
        state = _state(home, lane)
        if state.pooled or state.leased:
            found[f"{home.log_id}/{lane}"] = list(totals(state)), held(state, "rebuilt")
        advance()
    return found


def _state(home: Home, lane: str) -> State:
    states = states_before(home.paths, lane, home.root)
    try:
        for seq, body, *_ in LaneEntries(home.paths.lane(lane), lane, home.root):
            states.fold(body, f"{lane}/{seq}")
    except (ChainError, CanonicalError) as fault:
        raise LaneBroken(f"{home.paths.lane(lane)}: {fault}; see governor audit verify") from fault
    return states.real
