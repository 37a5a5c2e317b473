"""What verbs did while no Governor ran: they write into lane `cli`, and the next one to run takes it over.

It writes each act into its own lane, with `by` as `cli/SEQ`, and only then does it count: its own lane alone makes its
state, and says how far it has come.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from addons.lane_entries import LaneEntries
from addons.lane_refusals import tampered
from addons.lineage import lineage
from kernel import entry
from kernel.errors import ChainError
from kernel.transition import CLI, act_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from addons.home import Home
    from addons.lane_entries import Proved
    from kernel.loss import Loss

MORE = ("until", "sources")
"""What an act may say beside what every act says."""


def acts(home: Home, taken_over: int) -> list[dict[str, Any]]:
    """The operator entries of lane `cli` after number `taken_over`, in order, as the own lane is to have them.

    `taken_over` is the state's. To be written at a start once the state is known and the clock was looked at, so that a
    clock that was accepted meanwhile is accepted. `StartRefused` where the lane does not hold. Of one that was given up
    counts what its successor vouches for.
    """
    found: list[dict[str, Any]] = []
    for lane, loss in lineage(home.paths, CLI, home.root):
        for seq, body, *_ in _entries(home, lane, loss):
            by = f"{lane}/{seq}"
            if body["type"] == "operator" and (act_number(by) or 0) > taken_over:
                said = entry.operator(body["act"], body["agent"], body["reason"], body["operator"], by)
                found.append(said | {name: body[name] for name in MORE if name in body})
    return found


def _entries(home: Home, lane: str, loss: Loss | None) -> Iterator[Proved]:
    """The entries of the lane that count, each one checked."""
    folder = home.paths.lane(lane)
    if not folder.exists() or (loss is None and not home.paths.lane_key(lane).exists()):
        return
    try:
        yield from islice(LaneEntries(folder, lane, home.root), None if loss is None else loss.entries)
    except ChainError as fault:
        raise tampered(folder, str(fault)) from fault
