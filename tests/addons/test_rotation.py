"""`governor audit rotate`: a segment and a key ended by command, with a Governor and without."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner, Result

from addons.control import ControlServer
from addons.home import Home
from addons.rotation import RotationControl
from addons.verbs.audit import audit
from kernel import chain
from tests.addons.logs import decision, entries, kinds, open_lane, report, segments


def rotate(home: Home, *options: str) -> Result:
    return CliRunner().invoke(audit, ["rotate", "--home", str(home.paths.folder), *options])


def test_without_a_governor_the_verb_ends_the_segment_and_its_key(home):
    open_lane(home).close("done")
    before = home.paths.lane_key("main").read_bytes()
    told = json.loads(rotate(home, "--json", "--operator", "ana").stdout)

    assert kinds(home) == ["genesis", "lane_open", "close", "operator", "key_rotate", "segment_open", "close"]
    assert told == {"lane": "main", "segment": "000001.jsonl", "kid": told["kid"], "entry": "main/5"}
    assert {chain.split(line)[1] for line in segments(home)[1].read_bytes().splitlines(keepends=True)} == {told["kid"]}
    assert entries(home)[3] | {"act": "audit rotate", "operator": "ana", "agent": None} == entries(home)[3]
    assert home.paths.lane_key("main").read_bytes() != before
    assert report(home).result == "verified"


async def test_a_running_governor_answers_once_the_new_segment_is_durable(home):
    lane = open_lane(home, loop=asyncio.get_running_loop())
    server = ControlServer(home.paths.control_sock, RotationControl(lane).handlers())
    await server.start()
    writing = asyncio.create_task(written(lane))
    replies = [json.loads((await asyncio.to_thread(rotate, home, "--json")).stdout) for _ in range(3)]
    found = {each["seq"]: each["type"] for each in entries(home)}
    writing.cancel()
    await server.stop()
    lane.close("done")

    assert [found[int(reply["entry"].removeprefix("main/"))] for reply in replies] == ["segment_open"] * 3
    assert [reply["segment"] for reply in replies] == [f"00000{number}.jsonl" for number in (1, 2, 3)]
    assert len({reply["kid"] for reply in replies}) == 3
    assert report(home).result == "verified"


async def written(lane):
    while True:
        _, durable = lane.commit("decision", decision("f"))
        await durable
        await asyncio.sleep(0.001)


async def test_a_lane_that_the_running_governor_does_not_write_is_not_its_to_rotate(home):
    open_lane(home, "w0").close("done")
    lane = open_lane(home, loop=asyncio.get_running_loop())
    worker = open_lane(home, "w0")
    server = ControlServer(home.paths.control_sock, RotationControl(lane).handlers())
    await server.start()
    said = await asyncio.to_thread(rotate, home, "--lane", "w0")
    worker.close("done")
    await server.stop()
    lane.close("done")

    assert said.exit_code == 1
    assert "writes lane main" in said.stderr


def test_a_lane_that_somebody_writes_and_no_governor_answers_for_is_busy(home):
    lane = open_lane(home)
    said = rotate(home)
    lane.close("done")

    assert said.exit_code == 1
    assert "LANE_BUSY" in said.stderr
    assert len(segments(home)) == 1


@pytest.mark.parametrize("lane", ["main", "w3", "../../etc", "\x1b[2J"])
def test_a_lane_that_is_not_there_is_not_made(home, lane):
    open_lane(home, "cli").close("done")
    said = rotate(home, "--lane", lane)

    assert said.exit_code == 1
    assert "has no lane" in said.stderr
    assert "\x1b" not in said.stderr
    assert home.lanes() == ("cli",)


def test_a_folder_that_is_no_home_is_left_alone(tmp_path):
    said = CliRunner().invoke(audit, ["rotate", "--home", str(tmp_path), "--json"])

    assert said.exit_code == 1
    assert "is no home" in json.loads(said.stdout)["error"]
    assert list(tmp_path.iterdir()) == []
