"""The lines that bring the keys of a lane, found where they must stand and read in bounds."""

from __future__ import annotations

import json

from addons.key_lines import key_lines
from kernel import chain
from tests.addons.logs import decision, open_lane, segment, segments


def test_what_brings_the_keys_of_a_lane_is_found(home):
    lane = open_lane(home, vault=False)
    for _ in range(2):
        lane.write_now("decision", decision("f"))
        lane.rotate("operator")
    lane.close("done")

    told = [json.loads(line)["e"]["type"] for line in key_lines(segments(home))]
    assert told == ["genesis", "lane_open", "key_rotate", "key_rotate"]


def test_a_line_that_is_too_long_to_be_one_is_not_read_whole(home):
    open_lane(home, vault=False).close("done")
    first = segment(home).read_bytes().splitlines(keepends=True)[0]
    segment(home).write_bytes(first + b'"type":"lane_open"'.rjust(2 * chain.MAX_LINE_BYTES) + b"\n")

    assert list(key_lines(segments(home))) == [first]
