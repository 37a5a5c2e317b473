"""The entries of a lane, each proved by itself: up to what is unfinished at its end, and to nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from addons.errors import StartCode, StartRefused
from addons.home import Home
from addons.lane_entries import LaneEntries
from addons.takeover import acts
from kernel import chain, entry
from kernel.errors import ChainError
from tests.addons.logs import entries, open_lane, segments

LANE = "cli"


@pytest.fixture
def acted(home: Home) -> Home:
    """A home with an act in each of three segments of lane `cli`, which was ended in order."""
    lane = open_lane(home, LANE, vault=False)
    for agent in ("coder-1", "coder-2", "coder-3"):
        lane.write_now("operator", entry.operator("agents halt", agent, "r", "ann", "cli"))
        if agent != "coder-3":
            lane.rotate("operator")
    lane.close("done")
    return home


def proved(home: Home) -> list[int]:
    return [each.seq for each in LaneEntries(home.paths.lane(LANE), LANE, home.root)]


def without_a_line_feed(home: Home) -> None:
    path = segments(home, LANE)[0]
    path.write_bytes(path.read_bytes()[:-1])


def with_an_endless_line(home: Home) -> None:
    path = segments(home, LANE)[-1]
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, b" " * (chain.MAX_LINE_BYTES + 1), b"\n", *others]))


def test_an_unfinished_last_line_is_not_there_yet(acted):
    whole = len(entries(acted, LANE))
    with segments(acted, LANE)[-1].open("ab") as file:
        file.write(b'{"e":{"torn')

    assert proved(acted) == list(range(whole))


@pytest.mark.parametrize("damage", [without_a_line_feed, with_an_endless_line])
def test_a_line_that_ends_nowhere_before_the_end_of_its_lane_hides_no_act_behind_it(
        acted: Home, damage: Callable[[Home], None]):
    damage(acted)

    with pytest.raises(ChainError, match="line feed"):
        proved(acted)
    with pytest.raises(StartRefused) as caught:
        acts(acted, -1)
    assert caught.value.code is StartCode.TAMPERED
