"""A segment ended at an operator's word: by the Governor that writes the lane, or by the verb where nobody does."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from addons import build_info
from addons.acts_alone import WAY, known_home
from addons.audit_log import is_live
from addons.control import NotRunning, request, user_name
from addons.errors import GovernorError
from addons.home import MAIN, Home
from addons.lane import Lane
from addons.lineage import newest
from addons.operator_acts import check_words, said_by
from kernel import entry, trust
from kernel.transition import CLI

if TYPE_CHECKING:
    from pathlib import Path

    from addons.control import Handler, Message, Peer
    from addons.lane import Waiter

VERB = "rotate"
CONTROL_SECONDS = 20.0
_ACT = "audit rotate"


class RotationRefused(GovernorError):
    """A lane that cannot be rotated from here. Nothing was written."""


class RotationControl:
    """The handler for `ControlServer`."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def handlers(self) -> dict[str, Handler]:
        return {VERB: self.rotate}

    async def rotate(self, message: Message, peer: Peer) -> Message:
        lane, claimed = message.get("lane"), message.get("operator")
        if lane not in (None, self._lane.name) or not isinstance(claimed, str | None):
            raise RotationRefused(f"this Governor writes lane {self._lane.name} and rotates no other")
        check_words(_ACT, claimed)
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        number = _begin(self._lane, said_by(peer.name, claimed, "control"), begun)
        await begun
        return {"lanes": [_told(self._lane, number)]}


def rotate(folder: Path, lane: str | None, claimed: str | None) -> list[Message]:
    """Have the segment of a lane, or of what goes on in its place, ended; what follows it. `GovernorError` where not.

    Without a lane, of each that the Governor which runs on the home writes; where none runs, of the proxy's. The new
    segment's first entry is durable on return, and the key before destroyed.
    """
    known = Home.open(known_home(folder).folder)
    if lane is None:
        with suppress(NotRunning):
            return _asked(folder, None, claimed)
        lane = MAIN
    lane = newest(known.paths, lane, known.root) if trust.is_lane(lane) else lane
    if lane not in known.lanes():
        raise RotationRefused(f"{folder} has no lane {lane} (its lanes: {', '.join(known.lanes()) or 'none yet'})")
    if lane != CLI and is_live(known.paths.lane(lane)):
        # It ended meanwhile, or is about to start: then the lane is busy, which its opening says.
        with suppress(NotRunning):
            return _asked(folder, lane, claimed)
    return [_alone(known, lane, claimed)]


def _asked(folder: Path, lane: str | None, claimed: str | None) -> list[Message]:
    told = request(folder, VERB, CONTROL_SECONDS, lane=lane, operator=claimed)
    return list(told["lanes"])


def _alone(home: Home, name: str, claimed: str | None) -> Message:
    lane = Lane.open(home, name, kernel=build_info.kernel_identity())
    try:
        begun: Future[None] = Future()
        number = _begin(lane, said_by(user_name(os.getuid()), claimed, WAY), begun)
        begun.result()
        return _told(lane, number)
    finally:
        lane.close("done")


def _begin(lane: Lane, said: tuple[str, str], begun: Waiter) -> int:
    """Ask for it, with an entry ahead that says who did."""
    lane.record("operator", entry.operator(_ACT, None, "", *said))
    return lane.rotate("operator", begun)


def _told(lane: Lane, number: int) -> Message:
    segment, kid = lane.writes
    return {"lane": lane.name, "segment": segment, "kid": kid, "entry": f"{lane.name}/{number}"}
