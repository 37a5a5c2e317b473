"""The publisher: the newest head to every anchor, no anchor in another's way, and nothing in the way of the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from addons import lane as lane_module
from addons.anchors import publishing
from addons.anchors.file import FileAnchor
from addons.anchors.protocol import AnchorError, Receipt
from addons.anchors.publishing import Publisher
from addons.anchors.receipts import Receipts
from addons.anchors.settings import AnchorSettings, Requirement
from addons.home import Home
from addons.lane import Lane
from kernel.note import opened, parse_checkpoint
from tests.addons.anchored_logs import LOADED
from tests.addons.logs import crashed_copy, entries, kinds, open_lane, outcome, report

AT = "2026-01-02T03:04:05.000006Z"
SOON = AnchorSettings(every_seconds=0.05)  # type: ignore[arg-type]
SELDOM = AnchorSettings(every_seconds=3600)


@dataclass
class Place:
    """An anchor that hangs, fails or answers as a test wants it."""

    kind: str = "witness"
    target: str = "https://w.example.org"
    sizes: list[int] = field(default_factory=list)
    fault: Exception | None = None
    open: threading.Event = field(default_factory=threading.Event)
    asked: int = 0

    def __post_init__(self) -> None:
        self.open.set()

    def publish(self, lane: str, note: str) -> Receipt:
        self.asked += 1
        self.open.wait(30)
        if self.fault is not None:
            raise self.fault
        head = parse_checkpoint(opened(note)[0])
        self.sizes.append(head.size)
        return Receipt(self.kind, self.target, lane, head.size, head.root.hex(), AT, {"n": 1})

    def notes(self) -> Iterator[str]:
        yield from ()


@dataclass
class Published:
    """A lane with its publisher, and what the operator was told."""

    lane: Lane
    publisher: Publisher
    said: list[str]

    def load(self) -> None:
        self.lane.write_now("policy_load", LOADED)

    def chat(self, count: int = 1) -> None:
        for number in range(count):
            self.lane.record("outcome", outcome(f"f{number}", number))

    def end(self) -> None:
        self.lane.close("done")
        self.publisher.close()


@pytest.fixture
def publish(home: Home) -> Iterator[Callable[..., Published]]:
    begun: list[Published] = []

    def publish(*anchors: Any, settings: AnchorSettings = SOON, at: Home = home, **options: Any) -> Published:
        lane, said = open_lane(at), list[str]()
        publisher = Publisher(settings, anchors, lane, Receipts(at.paths.receipts), said.append, **options)
        publisher.start()
        lane.on_checkpoint(lambda note, at_once: publisher.take(note, at_once=at_once))
        begun.append(Published(lane, publisher, said))
        return begun[-1]

    yield publish
    for each in begun:
        each.end()


def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


def anchored(home: Home) -> list[dict[str, Any]]:
    return [entry for entry in entries(home) if entry["type"] == "anchor"]


def test_every_anchor_gets_the_head_and_the_log_says_so(publish, home, tmp_path):
    places = [FileAnchor(tmp_path / "a.notes", home.paths.folder), FileAnchor(tmp_path / "b.notes", home.paths.folder)]
    running = publish(*places)
    running.load()
    until(lambda: len(anchored(home)) == 2)
    running.end()

    for entry in anchored(home):
        note = next(text for text in FileAnchor(Path(entry["target"]), home.paths.folder).notes()
                    if parse_checkpoint(opened(text)[0]).size == entry["size"])
        assert (entry["kind"], entry["of"], entry["proof"]) == ("file", "main", {"offset": 0})
        assert parse_checkpoint(opened(note)[0]).root.hex() == entry["root"]
    assert {receipt.size for receipt in Receipts(home.paths.receipts).newest().values()} == {len(entries(home))}
    assert report(home).result == "verified"


def test_the_last_head_of_a_log_that_ends_is_anchored(publish, home):
    place = Place()
    running = publish(place, settings=SELDOM)
    running.load()
    until(lambda: place.sizes)
    running.chat(3)
    running.end()

    assert kinds(home)[-1] == "close"
    assert place.sizes[-1] == len(entries(home))


def test_an_idle_log_is_not_anchored_again_for_the_sake_of_its_anchor_entries(publish, home, monkeypatch):
    monkeypatch.setattr(lane_module, "CHECKPOINT_SECONDS", 0.05)
    first, second = Place(), Place(kind="s3", target="s3://bucket")
    running = publish(first, second)
    running.load()
    until(lambda: len(anchored(home)) >= 2)
    # Long enough for the lane to sign heads over those entries, and for many turns.
    time.sleep(0.5)
    before = len(anchored(home))
    time.sleep(0.5)

    assert len(anchored(home)) == before <= 4
    assert running.publisher.ages() == {"witness": 0, "s3": 0}
    assert running.publisher.unanchored(running.lane.next_seq) <= before


def test_only_the_newest_head_goes_out_after_a_while_without_answers(publish):
    place = Place()
    place.open.clear()
    running = publish(place)
    for _ in range(20):
        running.load()
    until(lambda: place.asked)
    place.open.set()
    until(lambda: place.sizes and place.sizes[-1] >= running.lane.next_seq - len(place.sizes))

    assert place.asked <= 3


def test_an_anchor_that_hangs_delays_neither_the_other_nor_the_log_nor_the_end(publish):
    hanging, other = Place(), Place(kind="s3", target="s3://bucket")
    hanging.open.clear()
    running = publish(hanging, other)
    for _ in range(3):
        running.load()
    until(lambda: other.sizes)
    started = time.monotonic()
    running.lane.close("done")
    running.publisher.close(0.3)
    took = time.monotonic() - started
    hanging.open.set()

    assert took < 2
    assert other.sizes[-1] >= running.lane.next_seq - 3


def test_what_may_not_wait_goes_out_at_once_and_the_rest_in_its_turn(publish, monkeypatch):
    monkeypatch.setattr(lane_module, "CHECKPOINT_SECONDS", 0.05)
    monkeypatch.setattr(publishing, "LEAST_SECONDS", 0.05)
    place = Place()
    running = publish(place, settings=SELDOM)
    running.load()
    until(lambda: len(place.sizes) == 1)
    running.chat(20)
    # The head over them is there, and an anchor may be asked again long since.
    until(lambda: running.publisher.ages()["witness"] > 0.3)
    assert len(place.sizes) == 1
    running.load()
    until(lambda: len(place.sizes) == 2)


def test_a_thousand_entries_do_not_wait_for_their_turn(publish):
    place = Place()
    running = publish(place, settings=SELDOM)
    running.load()
    until(lambda: len(place.sizes) == 1)
    running.chat(publishing.ENTRIES + 50)

    until(lambda: len(place.sizes) == 2)
    assert place.sizes[1] - place.sizes[0] >= publishing.ENTRIES


def test_a_failure_is_told_once_and_tried_again_until_it_is_over(publish, home, monkeypatch):
    monkeypatch.setattr(publishing, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(publishing, "LONGEST_PAUSE_SECONDS", 0.04)
    place = Place(fault=AnchorError("the way is\x1b[2J blocked"))
    running = publish(place)
    running.load()
    until(lambda: place.asked >= 5)
    said = list(running.said)
    place.fault = None
    until(lambda: place.sizes)
    until(lambda: len(running.said) == 2)
    running.end()

    faults = [entry for entry in entries(home) if entry["type"] == "fault"]
    named = "the anchor witness https://w.example.org"
    assert said == [rf"{named} does not hold the newest head: the way is\x1b[2J blocked"]
    assert running.said[1] == f"{named} answers again"
    assert [(fault["where"], fault["error"]) for fault in faults] == [("anchor", "AnchorError")]


def test_an_anchor_that_comes_and_goes_fills_no_log(publish, home, monkeypatch):
    monkeypatch.setattr(publishing, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(publishing, "LEAST_SECONDS", 0.0)
    place = Place()
    running = publish(place)
    for _ in range(8):
        place.fault, asked = AnchorError("no"), place.asked
        running.load()
        until(lambda asked=asked: place.asked > asked + 1)
        place.fault, count = None, len(place.sizes)
        until(lambda count=count: len(place.sizes) > count)
    running.end()

    assert kinds(home).count("fault") == 1
    assert len(running.said) >= 8


def test_a_fault_of_our_own_ends_no_thread(publish, monkeypatch):
    monkeypatch.setattr(publishing, "FIRST_PAUSE_SECONDS", 0.01)
    place = Place(fault=ZeroDivisionError())
    running = publish(place)
    running.load()
    until(lambda: place.asked > 1)
    place.fault = None

    until(lambda: place.sizes)


def test_pauses_grow_and_are_bounded(publish, monkeypatch):
    monkeypatch.setattr(publishing, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(publishing, "LONGEST_PAUSE_SECONDS", 0.05)
    place = Place(fault=AnchorError("no"))
    running = publish(place)
    running.load()
    until(lambda: place.asked)
    started = time.monotonic()
    # Without a bound ten pauses would take ten seconds at least, half of 0.02, 0.04, 0.08 and so on.
    until(lambda: place.asked > 10, 8)

    assert time.monotonic() - started >= 0.2


def test_what_waits_has_an_age_and_what_is_required_and_not_met_is_said(publish):
    clock = [100.0]
    settings = AnchorSettings(every_seconds=1, requirement=Requirement(1, ("s3", "witness"), 600))
    hanging, other = Place(), Place(kind="file", target="/mnt/x")
    hanging.open.clear()
    running = publish(hanging, other, settings=settings, clock=lambda: clock[0])
    running.load()
    until(lambda: hanging.asked and other.sizes)
    seen = []
    for now in (100.0, 699.0, 701.0):
        clock[0] = now
        seen.append((running.publisher.ages()["witness"], running.publisher.overdue()))
    hanging.open.set()
    until(lambda: running.publisher.overdue() is None)

    assert [age for age, _ in seen] == [0, 599, 601]
    missed = "anchors: 1 of [s3, witness] within 600 s is required, and 0 hold what is so old"
    assert [said for _, said in seen] == [None, None, missed]


def test_a_start_goes_on_from_the_receipts(publish, home, tmp_path):
    place = Place()
    running = publish(place, settings=SELDOM)
    running.chat(50)
    running.load()
    until(lambda: len(anchored(home)) == 1)
    copy = crashed_copy(home, tmp_path / "copy")
    place.open.clear()
    again = publish(place, settings=SELDOM, at=copy)
    unanchored = again.publisher.unanchored(again.lane.next_seq)
    place.open.set()

    assert unanchored < 10 < again.lane.next_seq


def test_a_log_below_its_receipts_is_shown_to_the_anchor_all_the_same(publish, home):
    Receipts(home.paths.receipts).add(Receipt("witness", Place.target, "main", 10**6, "00" * 32, AT, {}))
    place = Place()
    running = publish(place, settings=SELDOM)
    running.load()

    until(lambda: place.sizes)


@pytest.mark.parametrize("content", [
    b"", b"{}\n", b'{"kind":1}\n', b"\xff\xfe\n\n", b"[" * 5000, b'{"at":"', b"x" * 300_000,
], ids=lambda content: str(content[:9]))
def test_receipts_that_anybody_wrote_are_skipped_and_added_to(home, content):
    path = home.paths.receipts / "anchors.jsonl"
    path.write_bytes(content)
    receipts = Receipts(home.paths.receipts)
    kept = Receipt("file", "/mnt/x", "main", 7, "ab" * 32, AT, {"offset": 3})
    receipts.add(kept)

    assert receipts.newest() == {("file", "/mnt/x", "main"): kept}
    assert path.read_bytes().startswith(content)
