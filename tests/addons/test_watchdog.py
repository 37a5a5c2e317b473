"""The watchdog ends a process whose loop stands still, says so, and leaves a log that is whole; it ends no other."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest

from addons.home import Home
from addons.lane import Lane
from addons.watchdog import STALLED, Watchdog
from tests.addons.logs import entries, open_lane

SHORT = 0.4


class Watched:
    """A watchdog whose bite is only noted."""

    def __init__(self, lane: Lane, seconds: float = SHORT) -> None:
        self.left: list[int] = []
        self.bitten = threading.Event()
        self.dog = Watchdog(asyncio.get_running_loop(), lane, seconds, self._leave)
        self.dog.start()

    def _leave(self, status: int) -> None:
        self.left.append(status)
        self.bitten.set()


async def test_a_loop_that_stands_still_ends_the_process_with_words_and_a_closed_log(
        home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    lane = open_lane(home)
    watched = Watched(lane)

    assert watched.bitten.wait(10)

    assert watched.left == [STALLED]
    assert "the event loop has stood still for 0.4 s: the process ends" in capsys.readouterr().err
    assert [(entry["type"], entry.get("where"), entry.get("reason")) for entry in entries(home)[-2:]] == [
        ("fault", "loop", None), ("close", None, "standstill")]


async def test_a_loop_that_turns_now_and_then_is_left_alone(home: Home) -> None:
    lane = open_lane(home)
    watched = Watched(lane)

    for _ in range(8):
        watched.bitten.wait(SHORT / 4)
        await asyncio.sleep(0.05)
    watched.dog.stop()

    assert watched.left == []
    lane.close("stopped")


async def test_a_watchdog_that_was_stopped_bites_nobody(home: Home) -> None:
    lane = open_lane(home)
    watched = Watched(lane)
    watched.dog.stop()

    assert not watched.bitten.wait(3 * SHORT)
    lane.close("stopped")


async def test_time_in_which_the_watchdog_did_not_run_itself_does_not_count(home: Home) -> None:
    """A suspended process: neither its loop nor its watchdog has turned, however late it is."""
    lane = open_lane(home)
    watched = Watched(lane)
    watched.dog.stop()
    watched.dog._stopping = Late()  # type: ignore[assignment]

    watched.dog._watch()

    assert watched.left == []
    lane.close("stopped")


class Late:
    """An event whose wait takes an hour, once."""

    def __init__(self) -> None:
        self.waits = 0

    def wait(self, _: float) -> bool:
        self.waits += 1
        return self.waits > 2


@pytest.mark.parametrize("what", ["stderr", "disk"])
async def test_neither_a_full_pipe_nor_a_hanging_disk_keeps_it_from_ending(
        home: Home, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    lane, release = open_lane(home), threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        release.wait(30)

    if what == "stderr":
        monkeypatch.setattr(sys.stderr, "write", hang)
    else:
        monkeypatch.setattr("os.fdatasync", hang)
    try:
        watched = Watched(lane)

        assert watched.bitten.wait(10)
        assert watched.left == [STALLED]
    finally:
        release.set()
