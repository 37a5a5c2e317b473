"""A start beside the heads that anchors hold: an older home is refused, an anchor that is silent is not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from addons.accepted_loss import accept
from addons.anchored import Anchored
from addons.anchors.asking import ask
from addons.anchors.protocol import AnchorError, Receipt
from addons.errors import StartCode, StartRefused
from addons.home import Home
from addons.lane import Lane
from addons.lineage import newest
from tests.addons.logs import KERNEL, entries, minimum, open_lane


@dataclass
class Kept:
    """An anchor that holds these notes, and may fail or hang behind them."""

    held: list[str]
    fault: Exception | None = None
    seconds: float = 0
    kind: str = "file"
    target: str = "elsewhere"
    published: list[str] = field(default_factory=list)

    def publish(self, lane: str, note: str) -> Receipt:
        raise NotImplementedError

    def notes(self) -> Iterator[str]:
        yield from self.held
        time.sleep(self.seconds)
        if self.fault is not None:
            raise self.fault


def written(home: Home, times: int = 1, lane: str = "main") -> Home:
    for _ in range(times):
        open_lane(Home.open(home.paths.folder), lane, vault=False).close("done")
    return Home.open(home.paths.folder)


def older_copy(home: Home) -> tuple[Home, str]:
    """The home as it was, minimum.json and all, and the newest head that was published since."""
    written(home)
    old = home.paths.folder.parent / "old"
    shutil.copytree(home.paths.folder, old)
    written(home)
    return Home.open(old), minimum(home).notes["main"]


def started(home: Home, *anchors: Kept) -> Lane:
    said: list[str] = []
    anchored = Anchored(home, said.append)
    anchored._anchors = list(anchors)
    lane = newest(home.paths, "main", home.root)
    opened = Lane.open(home, lane, kernel=KERNEL, vault=False, published=anchored.published(lane))
    opened.close("started")
    assert len(said) == anchored.silent
    return opened


def test_an_older_home_is_refused_while_an_anchor_holds_a_newer_head(home):
    old, note = older_copy(home)
    with pytest.raises(StartRefused) as caught:
        started(old, Kept([]), Kept([note]))

    assert caught.value.code is StartCode.ROLLED_BACK
    started(home, Kept([note]))


def test_another_story_than_an_anchor_holds_is_tampering(home):
    old, _ = older_copy(home)
    written(old)

    with pytest.raises(StartRefused) as caught:
        started(old, Kept([minimum(home).notes["main"]]))
    assert caught.value.code is StartCode.TAMPERED


@pytest.mark.parametrize("anchor", [
    pytest.param(Kept([], AnchorError("nobody is there")), id="cannot be reached"),
    pytest.param(Kept([], ValueError("a fault of its own")), id="has a fault of its own"),
    pytest.param(Kept([], seconds=5), id="does not answer in time"),
])
def test_an_anchor_that_is_silent_is_told_and_refuses_nothing(home, monkeypatch, anchor):
    monkeypatch.setattr("addons.anchored.ask", lambda anchors, home: ask(anchors, home, 0.2))
    old, _ = older_copy(home)
    before = time.monotonic()

    started(old, anchor)
    assert time.monotonic() - before < 3


def test_what_a_silent_anchor_gave_out_before_counts(home):
    old, note = older_copy(home)

    with pytest.raises(StartRefused):
        started(old, Kept([note], AnchorError("cut off")))


def test_what_is_no_head_of_the_lane_is_passed_over(home):
    old, note = older_copy(home)
    broken = note[:-8] + "AAAA" + note[-4:]

    started(old, Kept(["", "nothing\n", note.replace("governor/", "gOvernor/"), broken]))


def test_a_forged_head_hides_no_real_one(home):
    old, note = older_copy(home)
    origin, size, *rest = note.split("\n")
    forged = "\n".join((origin, str(int(size) + 5), *rest))

    with pytest.raises(StartRefused) as caught:
        started(old, Kept([note, forged]))
    assert caught.value.code is StartCode.ROLLED_BACK


def test_a_lane_of_which_an_anchor_holds_a_head_and_that_is_gone_refuses(home):
    written(home)
    note = minimum(written(home, lane="cli")).notes["cli"]
    other = home.paths.folder.parent / "other"
    shutil.copytree(home.paths.folder, other)
    shutil.rmtree(other / "audit" / "lanes" / "cli")
    (other / "keys" / "cli.key").unlink()
    names = minimum(home)
    from kernel.trust import Minimum, minimum_file
    (other / "minimum.json").write_bytes(minimum_file(Minimum(names.log_id, {"main": names.notes["main"]})))

    with pytest.raises(StartRefused) as caught:
        started(Home.open(other), Kept([note]))
    assert caught.value.code is StartCode.ROLLED_BACK


def test_a_loss_that_only_an_anchor_knows_of_can_be_accepted(home):
    old, note = older_copy(home)
    kept = old.paths.folder.parent / "kept.notes"
    kept.write_text(note)
    old.paths.anchors.write_text(f"anchors:\n  - file: {kept}\n")
    loss = accept(old.paths.folder, "main", "the newest copy is gone", "ann").loss

    assert loss.result == "rolled_back"
    assert started(Home.open(old.paths.folder), Kept([note])).name == "main-1"
    assert entries(old, "main-1")[0]["loss"]["lane"] == "main"
