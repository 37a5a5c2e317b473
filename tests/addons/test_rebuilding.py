"""The state at a start: what the log makes it, wherever it is read from, and never what a damaged file says."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blake3 import blake3

from addons import lane as lane_module
from addons.book import Book
from addons.errors import StartCode, StartRefused
from addons.home import Home, Paths
from addons.lane import Lane
from addons.snapshots import Snapshots
from kernel import entry, snapshot
from kernel.bounds import Bounds
from kernel.budget import Counter, Effect, Every
from kernel.folding import States
from kernel.measures import Rate
from kernel.snapshot import Snapshot
from kernel.step import Asked
from kernel.trial import Mode
from kernel.verdict import Verdict
from tests.addons.logs import KERNEL, crashed_copy, decision, entries, kinds, open_lane, report, segments
from tests.conftest import scaled
from tests.kernel.accounting import ALLOWED, DENIED, budget, policy, rate

POLICY = policy(
    budget({"requests": 10**6, "bytes": 10**12, "new-hosts": 50}, {"requests": 10**7, "seconds": 10**6}),
    budget({"requests": 10**6}, every=Every.SESSION, name="session"),
    rates=(rate(Rate(10**6, 1)),), counters=(Counter("persistence", 10**6, Effect.DENY),
                                             Counter("stagnation", 10**6, Effect.DENY)))
BOUNDS = Bounds(POLICY)
GOVERNED: Any = SimpleNamespace(bounds=BOUNDS, policy=POLICY)
AGENTS = ("one", "two", "three")


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "SEGMENT_BYTES", 16384)


def told(states: States) -> bytes:
    """All of the states, as bytes that differ where they do."""
    return snapshot.encode(Snapshot("main", 0, states))


class Live:
    """A process that judges: a lane and its book, with random requests. Segments are told to its snapshots."""

    def __init__(self, home: Home, *, keeps: bool = True, seed: int = 0) -> None:
        self.lane = Lane.open(home, "main", kernel=KERNEL, vault=False)
        self.states = self.lane.states
        self.book = Book(self.lane, self.states, lambda: GOVERNED, lambda agent: ("192.0.2.1",))
        self.snapshots = Snapshots(home.paths, self.lane, self.states)
        self.keeping: list[Any] = []
        if keeps:
            self.lane.on_rotate(lambda: self.keeping.append(self.snapshots.begin()))
        self.open: list[tuple[str, str, Mode]] = []
        self.chance = random.Random(seed)

    async def ask(self, agent: str = "one", verdict: Verdict = ALLOWED, mode: Mode = Mode.ENFORCE, request: str = "r",
                  host: str = "a.example") -> str:
        weighed = await self.book.weigh(GOVERNED, Asked(agent, verdict, place=f"{host}:443", request=request), mode)
        said = weighed.decided.verdict
        facts = entry.request_facts("GET", "https", host, 443, None, None, 0, None) | {"request": request}
        body = entry.decision("request", "f", agent, "none", "0" * 64, facts, (), said.action, said.rule, said.code,
                              said.reason, weighed.mode)
        number, durable = self.book.commit(weighed, body, None)
        await durable
        if said.lets_through or weighed.mode is Mode.OBSERVE:
            self.open.append((f"main/{number}", agent, weighed.mode))
        return f"main/{number}"

    def end(self, name: str, agent: str, mode: Mode, result: str = "completed", down: int = 10) -> None:
        self.book.record("outcome", entry.outcome("f", name, result, 200, 1, down), agent, mode)

    async def run(self, times: int) -> None:
        """So many random things happen."""
        chance = self.chance
        for _ in range(times):
            agent = chance.choice(AGENTS)
            if self.open and chance.random() < 0.45:
                self.end(*self.open.pop(chance.randrange(len(self.open))), down=chance.choice([10, 10, 5000]))
            elif chance.random() < 0.02:
                act = chance.choice(["agents halt", "agents release", "agents add"])
                await self.book.act(act, agent, "because", "ann", "control")
            else:
                await self.ask(agent, chance.choice([ALLOWED, ALLOWED, DENIED]),
                               chance.choice([Mode.ENFORCE, Mode.ENFORCE, Mode.OBSERVE]),
                               f"r{chance.randrange(4)}", f"h{chance.randrange(9)}.example")
            await asyncio.sleep(0)
        # Once this one is durable, all before it are.
        await self.lane.commit("config", entry.config({}, {}))[1]
        for thread in self.keeping:
            await asyncio.to_thread(thread.join)


def restarted(home: Home) -> States:
    """The states of the next start, before anything else happens."""
    lane = open_lane(home, vault=False)
    lane.close("looked at")
    return lane.states


def settled(states: States, lane: str = "main") -> States:
    """The states once every open flow has an outcome that nobody knows."""
    settled = states.copy()
    for name, flow in [*states.real.open.items(), *states.shadow.open.items()]:
        settled.fold(entry.outcome(flow.flow, name, "unknown") | {"ts": "2030-01-01T00:00:00.000000Z"}, name)
    return settled


def of_kind(home: Home, kind: str) -> list[dict[str, Any]]:
    return [each for each in entries(home) if each["type"] == kind]


def kept(home: Home) -> list[Path]:
    return sorted(home.paths.states.iterdir(), key=lambda path: path.stat().st_mtime_ns)


async def test_the_state_after_a_crash_is_what_it_was_with_open_flows_spent(home, tmp_path):
    live = Live(home, seed=1)
    for number in range(scaled(3)):
        await live.run(120)
        copy = crashed_copy(home, tmp_path / f"{number}")

        assert told(restarted(copy)) == told(settled(live.states))
        assert report(copy).result == "verified"
    live.lane.close("done")

    assert len(segments(home)) > 3
    assert len(of_kind(home, "state_snapshot")) > 2


async def test_the_state_of_a_log_without_snapshots_is_made_from_all_of_it(home):
    live = Live(home, keeps=False, seed=2)
    await live.run(200)
    live.lane.close("done")

    assert len(segments(home)) > 2
    assert not kept(home)
    assert told(restarted(home)) == told(settled(live.states))


async def test_a_start_folds_what_came_after_the_snapshot_and_no_more(home, monkeypatch):
    live = Live(home, seed=3)
    await live.run(200)
    live.lane.close("done")
    older, newer = (each["at"] for each in of_kind(home, "state_snapshot")[-2:])

    assert first_folded(home, monkeypatch) == f"main/{newer}"
    kept(home)[-1].unlink()
    assert first_folded(home, monkeypatch) == f"main/{older}"
    kept(home)[0].unlink()
    assert first_folded(home, monkeypatch) == "main/0"


def first_folded(home: Home, monkeypatch: pytest.MonkeyPatch) -> str:
    """The first entry that a start counts."""
    folded: list[str] = []
    real = States.fold

    def fold(states: States, body: Any, name: str) -> None:
        folded.append(name)
        real(states, body, name)

    with monkeypatch.context() as patched:
        patched.setattr(States, "fold", fold)
        open_lane(home, vault=False).close("looked at")
    return folded[0]


async def test_a_state_kept_at_the_end_is_the_one_the_next_start_goes_on_from(home):
    live = Live(home, seed=4)
    await live.run(30)
    live.snapshots.finish()
    live.lane.close("done")
    said = of_kind(home, "state_snapshot")[-1]

    assert told(restarted(home)) == told(settled(live.states))
    assert said["bytes"] == home.paths.state(said["digest"]).stat().st_size
    assert said["agents"] == len(live.states.real.agents) + len(live.states.shadow.agents)
    assert said["accounts"] == len(live.states.real.accounts) + len(live.states.shadow.accounts)
    assert kinds(home)[said["seq"] + 1] == "close"


async def damaged(home: Home, to: Path, seed: int) -> tuple[Live, Home]:
    """A home of several segments, two of their states kept, as a crash leaves it."""
    live = Live(home, seed=seed)
    await live.run(250)
    copy = crashed_copy(home, to)
    live.lane.close("done")
    assert len(kept(copy)) == 2
    return live, copy


async def test_a_kept_state_in_which_a_byte_is_changed_is_not_believed(home, tmp_path):
    live, copy = await damaged(home, tmp_path / "copy", 5)
    chance = random.Random(5)
    for number in range(scaled(6)):
        again = crashed_copy(copy, tmp_path / f"{number}")
        for path in kept(again)[-1:] if number % 2 else kept(again):
            whole = path.read_bytes()
            at = chance.randrange(len(whole))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])

        assert told(restarted(again)) == told(settled(live.states)), number


@pytest.mark.parametrize("attack", ["missing", "empty", "another", "of another lane", "a folder"])
async def test_a_kept_state_that_is_not_the_one_that_was_written_is_not_believed(home, tmp_path, attack):
    live, copy = await damaged(home, tmp_path / "copy", 6)
    older, newer = kept(copy)
    match attack:
        case "missing":
            newer.unlink()
        case "empty":
            newer.write_bytes(b"")
        case "another":
            newer.write_bytes(older.read_bytes())
        case "of another lane":
            newer.write_bytes(newer.read_bytes().replace(b'"main"', b'"w0"', 1))
        case "a folder":
            newer.unlink()
            newer.mkdir()

    assert told(restarted(copy)) == told(settled(live.states))


async def test_a_state_that_a_signed_entry_names_counts_only_for_its_own_lane_and_place(home, tmp_path):
    live, copy = await damaged(home, tmp_path / "copy", 7)
    lane = open_lane(copy, vault=False)
    emptied = snapshot.encode(Snapshot("w0", lane.next_seq, States()))
    for at in (lane.next_seq, lane.next_seq - 1):
        digest = blake3(emptied).hexdigest()
        copy.paths.state(digest).write_bytes(emptied)
        lane.write_now("state_snapshot", entry.state_snapshot(at, digest, len(emptied), 0, 0))
        emptied = snapshot.encode(Snapshot("main", at, States()))
    lane.close("done")

    assert told(restarted(copy)) == told(settled(live.states))


async def test_flows_that_were_open_two_segments_ago_are_closed_as_unknown_and_spent(home, tmp_path):
    live = Live(home, seed=8)
    first = await live.ask("one")
    observed = await live.ask("two", DENIED, Mode.OBSERVE)
    live.open.clear()
    await live.run(200)
    copy = crashed_copy(home, tmp_path / "copy")
    live.lane.close("done")
    assert len(segments(copy)) > 3

    states = restarted(copy)

    unknown = [each["decision"] for each in of_kind(copy, "outcome") if each["result"] == "unknown"]
    assert unknown[:2] == [first, observed]
    assert not states.real.open
    assert not states.shadow.open
    assert all(not account.held for account in states.real.accounts.values())
    assert report(copy).result == "verified"


async def test_of_the_states_of_a_lane_the_last_two_are_kept(home):
    other = Live(home, keeps=False, seed=9)
    await other.run(1)
    foreign = home.paths.state("ab" * 32)
    foreign.write_bytes(snapshot.encode(Snapshot("w0", 7, States())))
    half = home.paths.states / ".half-written"
    half.write_bytes(snapshot.encode(Snapshot("main", 7, States()))[:40])
    for _ in range(4):
        await other.run(3)
        await asyncio.to_thread(other.snapshots.begin().join)
    other.lane.close("done")

    digests = [each["digest"] for each in of_kind(home, "state_snapshot")]
    assert {path.stem for path in kept(home)} == {*digests[-2:], foreign.stem}


async def test_a_state_that_cannot_be_kept_costs_a_fault_and_no_more(home, monkeypatch):
    live = Live(home, seed=10)
    await live.run(3)
    with monkeypatch.context() as patched:
        patched.setattr("addons.durable.replace", _full)
        await asyncio.to_thread(live.snapshots.begin().join)
    await live.run(3)
    live.lane.close("done")

    assert [(each["where"], each["error"]) for each in of_kind(home, "fault")] == [("state", "OSError")]
    assert told(restarted(home)) == told(settled(live.states))


def _full(path: Path, content: bytes) -> None:
    raise OSError(28, "No space left on device")


async def test_a_state_is_kept_as_it_was_when_it_was_asked_for(home, monkeypatch):
    live = Live(home, keeps=False, seed=11)
    await live.run(20)
    before, at, later = told(live.states), live.lane.next_seq, threading.Event()
    real = snapshot.encode
    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "encode", lambda kept: later.wait(10) and real(kept))
        thread = live.snapshots.begin()
        await live.run(20)
        later.set()
        await asyncio.to_thread(thread.join)
    live.lane.close("done")

    said = of_kind(home, "state_snapshot")[0]
    found = snapshot.decode(home.paths.state(said["digest"]).read_bytes())
    assert (told(found.states), found.at, said["at"]) == (before, at, at)


async def test_an_end_does_not_wait_for_a_disk_that_does_not_answer(home, monkeypatch):
    live, answers = Live(home, seed=12), threading.Event()
    monkeypatch.setattr("addons.snapshots.FINISH_SECONDS", 0.05)
    real = Paths.state
    monkeypatch.setattr(Paths, "state", lambda paths, digest: answers.wait(10) and real(paths, digest))
    started = time.monotonic()
    live.snapshots.finish()
    live.lane.close("done")
    waited = time.monotonic() - started
    answers.set()

    assert waited < 4
    assert kinds(home)[-1] == "close"


def test_decisions_of_before_there_were_accounts_are_closed_as_ever(home):
    lane = open_lane(home, vault=False)
    for flow in ("a", "b"):
        body = decision(flow)
        body["in"] = {name: value for name, value in body["in"].items() if name != "request"}
        lane.write_now("decision", body)
    copy = crashed_copy(home, home.paths.folder.with_name("copy"))
    lane.close("done")

    restarted(copy)

    assert [(each["flow"], each["result"]) for each in of_kind(copy, "outcome")] == [("a", "unknown"), ("b", "unknown")]


def test_an_entry_that_this_version_cannot_count_refuses_to_start(home):
    lane = open_lane(home, vault=False)
    lane.write_now("operator", {"type": "operator", "act": "agents quarantine", "agent": "one"})
    lane.close("done")

    with pytest.raises(StartRefused) as caught:
        open_lane(home)
    assert caught.value.code is StartCode.VERSION
