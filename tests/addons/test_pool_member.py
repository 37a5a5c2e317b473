"""Processes that share a ledger: what is leased, drawn, given back and told, with a lane and a book each."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from addons.audit_log import AuditLog
from addons.errors import StartRefused
from addons.home import Home
from addons.pools import setting
from addons.pools.in_file import FileLedger
from addons.pools.joining import bring_over, joined
from addons.pools.memory import MemoryLedger
from addons.pools.protocol import LedgerError, NotJoined
from addons.pools.setting import Pool
from addons.verifying import verify_log
from kernel import entry
from kernel.budget import Effect, Unit
from kernel.contagion import Breaker, Cascade, OnHalt, Prevention
from kernel.leases import LEASE_SECONDS, Kind, News
from kernel.ledger.members import MOST_UNKNOWN
from kernel.measures import Rate
from kernel.pattern import agent_pattern
from kernel.policy import Position
from kernel.report import Result
from kernel.step import Want
from kernel.trial import Mode
from kernel.verdict import Code
from tests.addons.logs import entries
from tests.addons.workers import POOLED, Worker
from tests.kernel.accounting import DENIED, at, budget, policy, rate

MIB = 2**20
FAR = "2099-01-01T00:00:00.000000Z"
_ONE, _NEEDS = (agent_pattern("one"),), (agent_pattern("needs-*"),)
CASCADE = Cascade(Position("policy.yaml", 1, 1), {"needs": ("one",)}, {"needs": _NEEDS, "one": _ONE}, {},
                  OnHalt(frozenset({"OVERRISK"}), Prevention.THROTTLE))


class Shared(MemoryLedger):
    """A ledger that can be cut off, and that answers late."""

    away = False
    lost_answers = 0

    def _transact(self, call: Any) -> Any:
        if self.away:
            raise LedgerError("the ledger does not answer")
        answer = super()._transact(call)
        if self.lost_answers:
            self.lost_answers -= 1
            raise LedgerError("the answer was lost")
        return answer

    def _read(self, call: Any) -> Any:
        if self.away:
            raise LedgerError("the ledger does not answer")
        return super()._read(call)


@pytest.fixture
def ledger() -> Shared:
    return Shared()


def spent(ledger: Shared, unit: str = "requests") -> int:
    return sum(each.spent + each.held for each in ledger.overview().balances if each.purse.unit == unit)


async def until(holds: Any, seconds: float = 5.0) -> None:
    for _ in range(int(seconds / 0.01)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def verified(home: Home) -> Result:
    return verify_log(AuditLog.at(home.paths.folder), home.root, every_signature=True).result


async def test_two_processes_never_draw_more_than_there_is(home: Home, ledger: Shared) -> None:
    workers = [Worker(home, ledger, policy(budget({"requests": 100})), f"w{number}") for number in range(2)]
    for worker in workers:
        worker.member.start()
    passed = 0
    for _ in range(40):
        for verdict in await asyncio.gather(*(worker.ask() for worker in workers for _ in range(3))):
            passed += verdict.code is Code.ALLOW
    for worker in workers:
        worker.leave()

    assert 90 <= passed <= 100
    assert ledger.overview().balances[0].spent == passed
    assert verified(home) is Result.VERIFIED


async def test_what_is_not_drawn_is_given_back_and_serves_another(home: Home, ledger: Shared) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 40})), name) for name in ("w0", "w1"))
    one.member.start()
    await one.ask()
    assert spent(ledger) > 1
    await until(lambda: ledger.overview().balances[0].held == 0)

    codes = [(await two.ask()).code for _ in range(40)]
    assert codes.count(Code.ALLOW) == 39
    for worker in (one, two):
        worker.leave()


async def test_a_process_that_dies_leaves_what_its_chain_does_not_say_to_its_next_life(
    home: Home, ledger: Shared
) -> None:
    first = Worker(home, ledger, policy(budget({"requests": 400})))
    for _ in range(3):
        await first.ask()
    held = ledger.overview().balances[0].held
    assert held > 3
    first.lane.close("test")

    second = Worker(home, ledger, policy(budget({"requests": 400})))
    balance = ledger.overview().balances[0]
    assert (balance.spent, balance.held) == (3, 0)
    assert second.state.leases == {}
    second.leave()
    assert verified(home) is Result.VERIFIED


async def test_a_lease_that_no_entry_tells_of_is_written_down_by_the_next_life(home: Home, ledger: Shared) -> None:
    first = Worker(home, ledger, policy(budget({"requests": 400})))
    ledger.lost_answers = 1
    assert (await first.ask()).code is Code.POOL_UNREACHABLE
    assert spent(ledger) > 0
    first.lane.close("test")

    second = Worker(home, ledger, policy(budget({"requests": 400})))
    second.leave()

    acts = [(each["act"], each["lease"]) for each in second.entries("lease")]
    assert acts == [("granted", 1), ("settled", 1)]
    assert spent(ledger) == 0
    assert verified(home) is Result.VERIFIED


async def test_a_lease_that_was_lost_before_an_entry_told_of_it_is_written_down_by_the_next_life(home: Home) -> None:
    now = [time.time_ns() // 1000]
    ledger = Shared(clock=lambda: now[0])
    first = Worker(home, ledger, policy(budget({"requests": 400})))
    ledger.lost_answers = 1
    await first.ask()
    first.lane.close("test")
    now[0] += LEASE_SECONDS * 1_000_000
    with pytest.raises(NotJoined):
        # Somebody looks, and all that was held is lost.
        ledger.beat("x/w9", "r", 0, now[0], {})

    second = Worker(home, ledger, policy(budget({"requests": 400})))
    second.leave()

    assert [(each["act"], each["lease"]) for each in second.entries("lease")] == [("granted", 1), ("settled", 1)]
    assert verified(home) is Result.VERIFIED


async def test_of_two_leases_the_next_life_writes_down_the_one_whose_answer_was_lost(
    home: Home, ledger: Shared
) -> None:
    first = Worker(home, ledger, policy(budget({"requests": 400})))
    ledger.lost_answers = 1
    await first.ask("one")
    first.member._leasing._asking.clear()
    assert (await first.ask("two")).code is Code.ALLOW
    first.lane.close("test")

    second = Worker(home, ledger, policy(budget({"requests": 400})))
    second.leave()

    granted = [(each["lease"], each["for"]) for each in second.entries("lease") if each["act"] == "granted"]
    assert granted == [(2, "two"), (1, "one")]
    assert verified(home) is Result.VERIFIED


async def test_a_lease_is_written_down_before_the_ledger_forgets_it(home: Home, ledger: Shared) -> None:
    first = Worker(home, ledger, policy(budget({"requests": 400})))
    ledger.lost_answers = 1
    await first.ask()
    first.lane.close("test")
    written: list[list[str]] = []
    ledger.settle = lambda holder, settled: written.append(  # type: ignore[method-assign]
        [each["act"] for each in entries(home, "w0") if each["type"] == "lease"])

    second = Worker(home, ledger, policy(budget({"requests": 400})))
    second.lane.close("test")

    assert written == [["granted", "settled"]]


async def test_the_ledger_forgets_no_lease_whose_entry_is_not_on_disk(
    home: Home, ledger: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, disk = Worker(home, ledger, policy(budget({"tokens": 400}))), threading.Event()
    append = worker.lane._journal.append
    monkeypatch.setattr(worker.lane._journal, "append", lambda group: disk.wait(10) and append(group))
    await worker.member.obtain([Want(("b", "tokens", "coder"), 0, 400, 5, 5)])
    await worker.member.turn()
    before = [each.lease for _, each in ledger.overview().leases]
    disk.set()
    await worker.lane.commit("config", entry.config(POOLED, {}))[1]
    await worker.member.turn()

    assert (before, ledger.overview().leases) == ([1], ())
    worker.leave()


async def test_what_was_leased_at_the_very_end_is_given_back(home: Home, ledger: Shared) -> None:
    worker = Worker(home, ledger, policy(budget({"tokens": 400})))
    await worker.member.obtain([Want(("b", "tokens", "coder"), 0, 400, 5, 5)])
    worker.leave()

    assert spent(ledger, "tokens") == 0
    assert ledger.overview().leases == ()
    assert verified(home) is Result.VERIFIED


async def test_what_is_asked_for_by_a_request_and_a_stream_at_once_is_leased_once(home: Home, ledger: Shared) -> None:
    worker = Worker(home, ledger, policy(budget({"bytes": 400})))
    want = Want(("b", "bytes", "coder"), 0, 400, 5, 5)
    asking = asyncio.create_task(worker.member.obtain([want]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    worker.member.obtain_now([want])
    await asking
    [(_, held)] = ledger.overview().leases

    assert [lease.amount for lease in worker.state.leases.values()] == [held.amount]
    assert worker.state.leased["b", "bytes", "coder"].amount == held.amount
    worker.leave()
    assert verified(home) is Result.VERIFIED


async def test_of_one_account_nothing_is_asked_before_what_was_asked_is_answered(home: Home, ledger: Shared) -> None:
    worker = Worker(home, ledger, policy(budget({"requests": 400})))
    ledger.lost_answers = 1
    await worker.ask()
    [asked] = worker.member._leasing._asking.values()
    later = Want(asked.ask.purse[:3], asked.ask.purse.window + 4, 400, 1, 1)
    await worker.member.obtain([later])
    await worker.member.obtain([later])

    worker.leave()
    granted = [(each["lease"], each["window"] - asked.ask.purse.window) for each in worker.entries("lease")
               if each["act"] == "granted"]
    assert granted == [(1, 0), (2, 4)]


async def test_a_lease_of_a_window_that_is_over_is_written_down_once(home: Home, ledger: Shared) -> None:
    first = Worker(home, ledger, policy(budget({"requests": 400})))
    await first.ask()
    [granted] = first.entries("lease")
    later = {"act": "refused", "lease": None, "window": granted["window"] + 4, "amount": 0, "elsewhere": 400}
    first.book.record("lease", {name: granted[name] for name in ("pool", "budget", "unit", "for")} | later, "coder")
    first.lane.close("test")

    second = Worker(home, ledger, policy(budget({"requests": 400})))
    second.leave()

    assert [each["lease"] for each in second.entries("lease") if each["act"] == "granted"] == [1]
    assert verified(home) is Result.VERIFIED


async def test_what_is_granted_after_the_ledger_came_back_from_an_older_state_stands_under_its_new_id(
    home: Home, ledger: Shared
) -> None:
    worker = Worker(home, ledger, policy(budget({"requests": 400, "bytes": 10**9})))
    await worker.ask()
    before, ledger.server = ledger.server, "restored"
    await worker.member.turn()
    assert (await worker.ask("other")).code is Code.ALLOW
    worker.leave()

    assert {each["pool"] for each in worker.entries("lease") if each["for"] == "other"} == {"restored"}
    assert worker.entries("lease")[0]["pool"] == before
    assert verified(home) is Result.VERIFIED


async def test_what_a_chain_says_is_said_again_until_the_ledger_has_answered(
    home: Home, ledger: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, repost, times = Worker(home, ledger, policy(budget({"requests": 400}))), ledger.repost, 0

    def unanswered(*word: Any) -> None:
        nonlocal times
        times += 1
        repost(*word)
        if times == 1:
            raise LedgerError("the answer was lost")

    await worker.ask()
    ledger.server = "restored"
    monkeypatch.setattr(ledger, "repost", unanswered)
    for _ in range(3):
        await worker.member.turn()
    worker.leave()

    assert times == 2


async def test_an_answer_that_was_lost_is_asked_for_again(home: Home, ledger: Shared) -> None:
    worker = Worker(home, ledger, policy(budget({"requests": 400})))
    ledger.lost_answers = 1
    assert (await worker.ask()).code is Code.POOL_UNREACHABLE
    assert (await worker.ask()).code is Code.ALLOW

    assert [each.lease for _, each in ledger.overview().leases] == [1]
    worker.leave()


async def test_without_an_answer_nothing_new_passes_and_what_is_leased_does(home: Home, ledger: Shared) -> None:
    worker = Worker(home, ledger, policy(budget({"requests": 400})))
    await worker.ask()
    ledger.away = True

    assert (await worker.ask()).code is Code.ALLOW
    assert (await worker.ask("other")).code is Code.POOL_UNREACHABLE
    worker.lane.close("test")


async def test_who_hears_nothing_for_too_long_is_cut_off_and_comes_back(
    home: Home, ledger: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(home, ledger, policy(budget({"requests": 400})))
    cut: list[str] = []
    worker.member.on_cut_off = lambda: cut.append("all")
    worker.member.start()
    monkeypatch.setattr("addons.pools.member.CUT_OFF_SECONDS", 0.1)
    ledger.away = True
    await until(lambda: worker.member.cut_off and cut == ["all"])
    ledger.away = False
    await until(lambda: not worker.member.cut_off)

    assert cut == ["all"]
    worker.leave()


async def test_what_was_lost_with_the_silence_stays_drawable_and_is_counted_once(home: Home) -> None:
    now = [time.time_ns() // 1000]
    ledger = Shared(clock=lambda: now[0])
    worker, other = (Worker(home, ledger, policy(budget({"requests": 32})), name) for name in ("w0", "w1"))
    await worker.ask()
    held = ledger.overview().balances[0].held
    now[0] += 1_900_000
    for _ in range(8):
        now[0] += 2_000_000
        await other.member.turn()
    assert ledger.overview().balances[0].stranded == held

    codes = [(await worker.ask()).code for _ in range(held)]
    spent_before = ledger.overview().balances[0].spent
    worker.lane.close("test")
    again = Worker(home, ledger, policy(budget({"requests": 32})))
    assert codes.count(Code.ALLOW) >= held - 1
    assert spent_before == ledger.overview().balances[0].spent <= 32
    for each in (again, other):
        each.lane.close("test")


async def test_a_halt_reaches_the_other_process_at_once(home: Home, ledger: Shared) -> None:
    halting = policy(budget({"requests": 1}, when_used=[at(100, Effect.HALT)]))
    one, two = (Worker(home, ledger, halting, name, beat_seconds=5.0) for name in ("w0", "w1"))
    one.member.on_told = two.member.poke
    for worker in (one, two):
        worker.member.start()
    await one.ask()
    assert (await one.ask()).code is Code.EXHAUSTION
    await until(lambda: two.ended == ["coder"], 1.0)

    assert (await two.ask()).code is Code.AGENT_HALTED
    for worker in (one, two):
        worker.leave()
    [halt] = two.entries("halt")
    assert (halt["decision"].partition("/")[0], halt["heard"]) == ("w0", 1)


async def test_a_halt_is_counted_by_the_process_that_brought_it_about(home: Home, ledger: Shared) -> None:
    halting = policy(budget({"requests": 1}, when_used=[at(100, Effect.HALT)]))
    one, two = (Worker(home, ledger, halting, name) for name in ("w0", "w1"))
    for worker in (one, two):
        worker.member.start()
    await one.ask()
    await one.ask()
    await two.acts.act("agents halt", "writer", "because", "ann", "control")
    await two.acts.act("agents halt all", None, "because", "ann", "control")
    await until(lambda: len(one.ended) == len(two.ended) == 2 and bool(one.state.switch.halt))

    assert (one.halts, two.halts) == (["EXHAUSTION"], ["OPERATOR", "OPERATOR"])
    for worker in (one, two):
        worker.leave()


async def test_a_halt_that_nobody_heard_of_is_told_by_the_next_life(home: Home, ledger: Shared) -> None:
    halting = policy(budget({"requests": 1}, when_used=[at(100, Effect.HALT)]))
    one = Worker(home, ledger, halting)
    await one.ask()
    await one.ask()
    one.lane.close("test")
    again, two = Worker(home, ledger, halting), Worker(home, ledger, halting, "w1")
    for worker in (again, two):
        worker.member.start()

    await until(lambda: two.ended == ["coder"])
    for worker in (again, two):
        worker.leave()


async def test_a_quarantine_that_nobody_heard_of_is_told_by_the_next_life(home: Home, ledger: Shared) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    ledger.away = True
    await one.acts.act("agents quarantine", "coder", "odd", "ann", "control", until=FAR)
    one.lane.close("test")
    ledger.away = False
    again = Worker(home, ledger, policy(budget({"requests": 9})))
    await two.member.turn()
    for worker in (again, two):
        worker.leave()

    assert [(each["reason"], each["operator"], each["until"]) for each in two.entries("operator")] == [
        ("odd", "ann", FAR)]


async def test_what_a_life_has_heard_the_next_one_does_not_tell_again(home: Home, ledger: Shared) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    await one.acts.act("agents halt", "coder", "because", "ann", "control")
    await one.acts.act("agents quarantine", "writer", "odd", "ann", "control", until=FAR)
    await one.acts.act("agents halt all", None, "because", "ann", "control")
    await one.member.turn()
    await two.member.turn()
    for worker in (one, two):
        worker.leave()
    for worker in [Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1")]:
        worker.leave()

    assert ledger.overview().news == 3


async def test_a_ledger_that_was_made_anew_is_told_what_was_only_heard_too(home: Home, ledger: Shared) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    await one.acts.act("agents halt", "coder", "because", "ann", "control")
    await one.acts.act("agents quarantine", "writer", "odd", "ann", "control", until=FAR)
    await one.acts.act("agents halt all", None, "because", "ann", "control")
    await one.member.turn()
    await two.member.turn()
    for worker in (one, two):
        worker.leave()
    anew = Shared()
    Worker(home, anew, policy(budget({"requests": 9})), "w1").leave()
    three = Worker(home, anew, policy(budget({"requests": 9})), "w2")

    assert bool(three.state.agent("coder").halt)
    assert three.state.agent("writer").quarantine.why == "odd"
    assert bool(three.state.switch.halt)
    three.leave()


LONG_AGO = "2001-01-01T00:00:00.000000Z"


def slowed(agent: str, until: str | None, do: Prevention = Prevention.THROTTLE) -> News:
    said = entry.preventive(agent, do, until, "one", ["one", agent], 1, "w9/1", "cascade", degraded=False)
    return News(Kind.PREVENTIVE, agent, f"x/w9/{agent}", said)


def read_only(agent: str, until: str, number: int) -> News:
    said = entry.operator("agents quarantine", agent, "odd", "ann", "w9") | {"until": until}
    return News(Kind.QUARANTINE, agent, f"x/w9/{number}", said)


async def test_what_is_over_is_not_written_into_a_lane_that_comes_to_a_ledger(home: Home, ledger: Shared) -> None:
    told = [*(slowed(f"a{number}", LONG_AGO) for number in range(300)), read_only("b", LONG_AGO, 1),
            read_only("c", FAR, 2), read_only("c", LONG_AGO, 3), slowed("d", LONG_AGO, Prevention.HALT),
            slowed("e", FAR), read_only("f", FAR, 4), slowed("g", LONG_AGO)]
    for news in told:
        ledger.tell("x/w9", news)
    for _ in range(2):
        worker = Worker(home, ledger, policy(budget({"requests": 9})))
        worker.leave()

    heard = [(each["agent"], each["heard"]) for kind in ("preventive", "operator") for each in worker.entries(kind)]
    # The newest is there as it says how far the lane has heard: a next life hears nothing again.
    assert heard == [("d", 304), ("e", 305), ("g", 307), ("f", 306)]
    assert (worker.state.heard, worker.state.agent("c").quarantine) == (307, None)
    assert bool(worker.state.agent("d").halt)


def damaged(ledger: Shared, **changed: Any) -> None:
    """The newest news are other than was told."""
    table = ledger.tables.table("news")
    newest = max(table)
    table[newest] = table[newest]._replace(**changed)


def operator(**fields: Any) -> str:
    return json.dumps({"type": "operator", "agent": "coder", "reason": "odd", "operator": "ann", "by": "w9", **fields})


UNREADABLE = [
    pytest.param({"kind": "novel"}, "kind 'novel' is not known here .a newer version", id="a kind of a newer version"),
    pytest.param({"said": "{"}, "is damaged", id="torn"),
    pytest.param({"said": "[]"}, "it has no fields", id="no fields"),
    pytest.param({"said": "{}"}, "type None is not known", id="no type"),
    pytest.param({"said": '{"type":"decision"}'}, "type 'decision' is not known", id="an entry that is no news"),
    pytest.param({"said": operator(act="agents praise")}, "act 'agents praise' is not known", id="an unknown act"),
    pytest.param({"said": operator(act="agents quarantine")}, "KeyError: 'until'", id="a field is missing"),
    pytest.param({"said": operator(act="agents quarantine", until="soon")}, "ValueError", id="a field that is no time"),
]


@pytest.mark.parametrize(("changed", "told"), UNREADABLE)
async def test_with_news_that_cannot_be_taken_nothing_passes_and_no_process_starts(
    home: Home, ledger: Shared, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], told: str
) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    await one.acts.act("agents halt", "writer", "because", "ann", "control")
    await one.acts.act("agents quarantine", "coder", "odd", "ann", "control", until=FAR)
    await one.member.turn()
    damaged(ledger, **changed)
    monkeypatch.setattr("addons.pools.member.CUT_OFF_SECONDS", 0.1)
    two.member.start()
    await until(lambda: bool(two.said))
    for _ in range(3):
        await two.member.turn()

    assert re.search(f"^news 2 of the ledger.*{told}.*; nothing passes until it can be taken$", two.said[0])
    assert (two.member.cut_off, len(two.said)) == (True, 1)
    assert two.state.agent("coder").quarantine is None
    with pytest.raises(LedgerError, match=told):
        Worker(home, ledger, policy(budget({"requests": 9})), "w2")
    for worker in (one, two):
        worker.leave()
    assert verified(home) is Result.VERIFIED


async def test_who_is_a_stranger_to_its_ledger_says_what_is_to_be_done(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Shared()
    worker = Worker(home, ledger, policy(budget({"requests": 9})))
    ledger.leave(f"{home.log_id}/w0")
    monkeypatch.setattr("addons.pools.member.CUT_OFF_SECONDS", 0.1)
    worker.member.start()
    await until(lambda: bool(worker.said))
    worker.leave()

    assert "nothing passes until this process is started again" in worker.said[0]
    assert "governor pool rebuild" in worker.said[0]


def open_files(of: Path) -> list[str]:
    """The descriptors of this process that a ledger in a file has open."""
    found = (Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))
    return [str(each) for each in found if each.is_symlink() and os.readlink(each).startswith(str(of))]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
async def test_nothing_of_a_ledger_stays_open_after_lanes_were_brought_over_or_a_start_was_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = tmp_path / "pool.db"
    for lane in ("w0", "w1"):
        worker = Worker(home, FileLedger(pool), policy(budget({"requests": 9})), lane)
        await worker.ask()
        worker.leave()
    assert open_files(pool) == []

    bring_over(Pool(setting.Kind.SQLITE, str(pool)), home, {"main"}, print)
    assert [each["reason"] for each in worker.entries("close")] == ["test", "brought over"]
    assert open_files(pool) == []
    monkeypatch.setattr(FileLedger, "beat", lambda *_: (_ for _ in ()).throw(LedgerError("away")))
    with pytest.raises(StartRefused, match="away"):
        joined(Pool(setting.Kind.SQLITE, str(pool)), home, "w0", worker.book, print, {})
    assert open_files(pool) == []


async def alone(home: Home, *acts: tuple[str, str | None]) -> None:
    """What an operator does in lane w0 while it knows of no others."""
    worker = Worker(home, Shared(), policy(budget({"requests": 9})), option="sqlite:alone.db")
    for act, agent in acts:
        await worker.book.act(act, agent, "because", "ann", "control")
    worker.leave()


HALTED, RELEASED = ("agents halt", "coder"), ("agents release", "coder")
ALL_HALTED, ALL_RELEASED = ("agents halt all", None), ("agents release all", None)


@pytest.mark.parametrize(("known", "own"), [
    pytest.param([HALTED], [], id="halted there"),
    pytest.param([HALTED], [RELEASED, RELEASED], id="halted there, in a later epoch here"),
    pytest.param([RELEASED], [HALTED], id="halted here, in a later epoch there"),
    pytest.param([RELEASED], [RELEASED, RELEASED, HALTED], id="halted here, in an earlier epoch there"),
    pytest.param([HALTED, RELEASED], [HALTED], id="halted here, released there from another halt"),
    pytest.param([ALL_HALTED], [ALL_HALTED, ALL_RELEASED], id="all halted there"),
    pytest.param([ALL_HALTED, ALL_RELEASED], [ALL_HALTED], id="all halted here, in a later epoch there"),
    pytest.param([ALL_HALTED, ALL_RELEASED], [ALL_HALTED, ALL_RELEASED, ALL_HALTED], id="all halted here"),
])
async def test_who_is_halted_on_either_side_when_a_lane_comes_to_a_ledger_is_halted_on_both(
    home: Home, ledger: Shared, known: list[tuple[str, str | None]], own: list[tuple[str, str | None]]
) -> None:
    there = Worker(home, ledger, policy(budget({"requests": 9})), "w1")
    there.member.start()
    for act, agent in known:
        await there.acts.act(act, agent, "because", "ann", "control")
    await alone(home, *own)
    here = Worker(home, ledger, policy(budget({"requests": 9})))
    here.member.start()

    await until(lambda: all(worker.book.halted("coder", None) for worker in (here, there)))
    act, agent = RELEASED if HALTED in (*known, *own) else ALL_RELEASED
    await there.acts.act(act, agent, "fine", "ann", "control")
    await until(lambda: not any(worker.book.halted("coder", None) for worker in (here, there)))
    assert here.state.agent("coder").epoch == there.state.agent("coder").epoch
    for worker in (here, there):
        worker.leave()
    assert verified(home) is Result.VERIFIED


async def test_a_lane_that_comes_to_another_ledger_hears_all_of_it(home: Home, ledger: Shared) -> None:
    before = Shared()
    for lane, agents in (("w2", "abc"), ("w0", "")):
        worker = Worker(home, before, policy(budget({"requests": 9})), lane)
        for agent in agents:
            await worker.acts.act("agents halt", agent, "because", "ann", "control")
        await worker.member.turn()
        worker.leave()
    there = Worker(home, ledger, policy(budget({"requests": 9})), "w1")
    for agent in "defg":
        await there.acts.act("agents halt", agent, "because", "ann", "control")
    await there.member.turn()
    here = Worker(home, ledger, policy(budget({"requests": 9})), option="redis://h.example.org")
    await there.member.turn()

    for worker in (here, there):
        assert {agent for agent in "abcdefg" if worker.state.agent(agent).halt} == set("abcdefg")
        worker.leave()


async def test_who_was_halted_while_a_lane_was_away_from_its_ledger_is_halted_once_it_is_back(
    home: Home, ledger: Shared
) -> None:
    first = Worker(home, ledger, policy(budget({"requests": 9})))
    first.member.start()
    await first.acts.act("agents release", "coder", "because", "ann", "control")
    first.leave()
    await alone(home, HALTED)
    again, other = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))

    assert all(worker.book.halted("coder", None) for worker in (again, other))
    for worker in (again, other):
        worker.leave()


async def test_who_was_released_while_a_process_was_away_is_released_there(home: Home, ledger: Shared) -> None:
    halting = policy(budget({"requests": 1}, when_used=[at(100, Effect.HALT)]))
    one, two = (Worker(home, ledger, halting, name) for name in ("w0", "w1"))
    two.member.start()
    await one.ask()
    await one.ask()
    await one.member.turn()
    one.leave()
    await until(lambda: two.book.halted("coder", None))
    await two.acts.act("agents release", "coder", "fine", "ann", "control")
    again = Worker(home, ledger, halting)

    assert not again.book.halted("coder", None)
    for worker in (again, two):
        worker.leave()


async def test_of_two_quarantines_the_one_that_was_told_last_holds_everywhere(home: Home, ledger: Shared) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    await one.acts.act("agents quarantine", "coder", "first", "ann", "control", until=FAR)
    await two.acts.act("agents quarantine", "coder", "second", "ann", "control", until=FAR)
    for worker in (two, one, two):
        await worker.member.turn()

    assert [worker.state.agent("coder").quarantine.why for worker in (one, two)] == ["first", "first"]
    for worker in (one, two):
        worker.leave()


async def test_a_release_is_counted_once_and_the_same_everywhere(home: Home, ledger: Shared) -> None:
    workers = [Worker(home, ledger, policy(budget({"requests": 9})), f"w{number}") for number in range(3)]
    for worker in workers:
        worker.member.start()
    await workers[0].acts.act("agents halt", "coder", "because", "ann", "control")
    await until(lambda: all(worker.state.agent("coder").halt for worker in workers))
    name = await workers[1].acts.act("agents release", "coder", "fine", "ann", "control")
    await until(lambda: all(worker.state.agent("coder").epoch == 1 for worker in workers))

    assert name.startswith("w1/")
    assert [worker.state.agent("coder").halt for worker in workers] == [None] * 3
    for worker in workers:
        worker.leave()
    again = Worker(home, ledger, policy(budget({"requests": 9})), "w2")
    again.leave()
    assert again.state.agent("coder").epoch == 1
    assert len(again.entries("operator")) == 2


async def test_an_act_for_which_nobody_waits_any_more_is_done_when_it_is_heard(
    home: Home, ledger: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("addons.pools.member.TELL_SECONDS", 0.01)
    worker = Worker(home, ledger, policy(budget({"requests": 9})))
    with pytest.raises(LedgerError, match="not in force here yet"):
        await worker.acts.act("agents release", "coder", "fine", "ann", "control")
    await worker.member.turn()

    assert (worker.state.agent("coder").epoch, worker.said) == (1, [])
    worker.leave()


async def test_nothing_is_kept_of_news_for_which_nobody_waits(home: Home, ledger: Shared) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    for worker in (one, two):
        worker.member.start()
    for agent in "abc":
        await one.acts.act("agents halt", agent, "because", "ann", "control")
        await one.acts.act("agents release", agent, "fine", "ann", "control")
    await until(lambda: all(worker.state.agent("c").epoch == 1 for worker in (one, two)))

    assert [worker.member._waiting for worker in (one, two)] == [{}, {}]
    for worker in (one, two):
        worker.leave()


async def test_an_act_of_the_verbs_that_was_heard_already_is_done(home: Home, ledger: Shared) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    one.member.start()
    first = await one.acts.act("agents halt", "coder", "because", "ann", "cli/7")
    await two.member.turn()

    assert (first.partition("/")[0], await two.acts.act("agents halt", "coder", "because", "ann", "cli/7")) == (
        "w0", "pool/1")
    for worker in (one, two):
        worker.leave()


async def test_a_halt_that_a_release_has_overtaken_is_not_said_to_be_done(home: Home, ledger: Shared) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    one.member.start()
    await one.acts.act("agents release", "coder", "fine", "ann", "control")

    with pytest.raises(LedgerError, match="was released elsewhere meanwhile; do it again"):
        await two.acts.act("agents halt", "coder", "because", "ann", "cli/7")
    for worker in (one, two):
        worker.leave()


async def test_a_process_that_comes_later_hears_all_that_was_told(home: Home, ledger: Shared) -> None:
    one = Worker(home, ledger, policy(budget({"requests": 9})))
    one.member.start()
    for agent in ("a", "b"):
        await one.acts.act("agents halt", agent, "because", "ann", "control")
    await one.acts.act("agents rotate", "c", "", "ann", "control")
    two = Worker(home, ledger, policy(budget({"requests": 9})), "w1")

    assert [bool(two.state.agent(name).halt) for name in "abc"] == [True, True, False]
    assert two.state.agent("c").session == 1
    for worker in (one, two):
        worker.leave()


async def test_a_process_hears_what_is_told_after_numbers_that_the_ledger_has_lost(home: Home, ledger: Shared) -> None:
    ledger.join("another/w0", "r", {})
    ledger.beat("another/w0", "r", 600, time.time_ns() // 1000, {})
    one = Worker(home, ledger, policy(budget({"requests": 9})))
    await one.acts.act("agents halt", "coder", "because", "ann", "control")
    await one.member.turn()
    two = Worker(home, ledger, policy(budget({"requests": 9})), "w1")

    assert two.state.agent("coder").halt is not None
    for worker in (one, two):
        worker.leave()


async def test_a_process_that_has_heard_much_more_than_a_new_ledger_hears_what_is_told_there(home: Home) -> None:
    before = Worker(home, Shared(), policy(budget({"requests": 9})))
    said = entry.operator("agents rotate", "other", "", "ann", "w1") | {"heard": 2 * MOST_UNKNOWN + 1}
    before.book.record("operator", said, "other")
    before.leave()
    anew = Shared()
    one, two = (Worker(home, anew, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    await two.acts.act("agents halt", "coder", "because", "ann", "control")
    await two.member.turn()
    await one.member.turn()

    assert one.state.agent("coder").halt is not None
    for worker in (one, two):
        worker.leave()


async def test_a_halt_that_is_told_to_a_ledger_made_anew_is_new_to_who_has_heard_of_the_old_one(
    home: Home, ledger: Shared
) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    for _ in range(3):
        await one.acts.act("agents halt", "other", "because", "ann", "control")
        await one.member.turn()
        await asyncio.gather(one.acts.act("agents release", "other", "fine", "ann", "control"), one.member.turn())
    await two.member.turn()
    two.leave()
    ledger.away = True
    await one.acts.act("agents halt", "coder", "because", "ann", "control")
    one.leave()
    anew = Shared()
    one, two = (Worker(home, anew, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))

    assert two.state.agent("coder").halt is not None
    for worker in (one, two):
        worker.leave()


async def test_a_halt_that_is_told_to_an_older_state_is_new_to_who_has_heard_of_a_later_one(
    home: Home, ledger: Shared
) -> None:
    one, two = (Worker(home, ledger, policy(budget({"requests": 9})), name) for name in ("w0", "w1"))
    older = deepcopy(ledger.tables)
    for agent in ("a", "b"):
        await one.acts.act("agents halt", agent, "because", "ann", "control")
    for worker in (one, two):
        await worker.member.turn()
    ledger.tables, ledger.server = older, "restored"
    await one.acts.act("agents halt", "coder", "because", "ann", "control")
    for worker in (one, two):
        await worker.member.turn()

    assert two.state.agent("coder").halt is not None
    for worker in (one, two):
        worker.leave()


async def test_an_old_release_of_another_ledger_does_not_lift_a_halt_that_came_later(
    home: Home, ledger: Shared
) -> None:
    one = Worker(home, Shared(), policy(budget({"requests": 9})))
    await asyncio.gather(one.acts.act("agents release", "coder", "fine", "ann", "control"), one.member.turn())
    await one.acts.act("agents halt", "coder", "because", "ann", "control")
    one.leave()
    for agent in ("a", "b", "c", "coder"):
        said = entry.operator("agents release", agent, "fine", "bob", "w0/9")
        ledger.tell("y/w0", News(Kind.RELEASE, agent, "y/w0/9", said))
    again = Worker(home, ledger, policy(budget({"requests": 9})))

    assert again.state.agent("c").epoch == 1
    assert again.state.agent("coder").halt is not None
    again.leave()


async def test_points_of_risk_add_up_over_processes(home: Home, ledger: Shared) -> None:
    risky = policy(budget({"risk": 30}, when_used=[at(100, Effect.HALT)]))
    one, two = (Worker(home, ledger, risky, name) for name in ("w0", "w1"))

    assert (await one.ask(verdict=DENIED, risk=20)).code is Code.RULE_DENY
    assert (await two.ask(verdict=DENIED, risk=20)).code is Code.OVERRISK
    for worker in (one, two):
        worker.leave()


async def test_a_destination_is_new_once_for_all_processes(home: Home, ledger: Shared) -> None:
    few = policy(budget({"new-hosts": 2}))
    one, two = (Worker(home, ledger, few, name) for name in ("w0", "w1"))
    codes = [(await worker.ask(place=f"{host}.example:443")).code
             for worker in (one, two) for host in ("a", "b", "c")]

    for worker in (one, two):
        worker.leave()
    assert codes == [Code.ALLOW, Code.ALLOW, Code.BUDGET_EXHAUSTED] * 2
    assert not [each for each in entries(home, "w0") if each["type"] == "lease" and "a.example" in str(each)]


async def test_a_rate_holds_over_processes(home: Home, ledger: Shared) -> None:
    paced = policy(rates=(rate(None, Rate(10, 3600), burst=4),))
    workers = [Worker(home, ledger, paced, f"w{number}") for number in range(2)]
    codes = [(await worker.ask()).code for _ in range(4) for worker in workers]

    assert codes.count(Code.ALLOW) == 4
    assert codes.count(Code.RATE_LIMITED) == 4
    for worker in workers:
        worker.leave()


async def test_turns_in_hand_are_dropped_when_the_ledger_may_not_know_of_them(home: Home, ledger: Shared) -> None:
    worker = Worker(home, ledger, policy(rates=(rate(None, Rate(10, 3600), burst=9),)))
    before = [(await worker.ask()).code for _ in range(2)]
    ledger.server = "restored"
    await worker.member.turn()

    assert before == [Code.ALLOW, Code.ALLOW]
    assert (await worker.ask()).code is Code.RATE_LIMITED
    worker.leave()


async def test_a_stream_leases_more_while_it_lasts(home: Home, ledger: Shared) -> None:
    worker = Worker(home, ledger, policy(budget({"bytes": 100 * MIB})))
    await worker.ask()
    drawn = 0
    for part in range(1, 200):
        more = worker.book.draw_more(worker.open[0], "coder", Mode.ENFORCE, part, Unit.BYTES, 4 * MIB, at_once=True)
        if not isinstance(more, tuple):
            break
        drawn += more[0]

    assert 90 * MIB <= drawn <= 100 * MIB
    assert spent(ledger, "bytes") <= 100 * MIB
    worker.leave()


async def test_what_a_halt_does_to_others_reaches_those_that_another_process_serves(
    home: Home, ledger: Shared
) -> None:
    risky = replace(policy(budget({"risk": 30}, when_used=[at(100, Effect.HALT)])), cascade=CASCADE)
    one, two = (Worker(home, ledger, risky, name) for name in ("w0", "w1"))
    one.member.on_told, two.member.on_told = two.member.poke, one.member.poke
    for worker in (one, two):
        worker.member.start()
    await one.ask("needs-1")
    await two.ask("needs-2")
    await one.ask("one", DENIED, risk=40)
    await until(lambda: all(worker.state.agent(name).preventive for worker in (one, two)
                            for name in ("needs-1", "needs-2")))
    for worker in (one, two):
        worker.leave()

    acts = {lane: [(each["agent"], each["cause"].partition("/")[0], "heard" in each)
                   for each in entries(home, lane) if each["type"] == "preventive"] for lane in ("w0", "w1")}
    assert acts["w0"] == [("needs-1", "w0", False), ("needs-2", "w0", True)]
    assert sorted(acts["w1"]) == [("needs-1", "w0", True), ("needs-2", "w0", False)]


async def test_an_operators_halt_that_a_next_life_tells_stays_the_operators_and_trips_no_breaker(
    home: Home, ledger: Shared
) -> None:
    breaking = replace(policy(budget({"requests": 9})), cascade=replace(
        CASCADE, groups={"needs": _NEEDS}, breaker=Breaker(1, 60, Prevention.THROTTLE)))
    one = Worker(home, ledger, breaking)
    await one.book.act("agents halt", "needs-1", "because", "ann", "control")
    one.lane.close("test")
    two = Worker(home, ledger, breaking, "w1")
    await two.ask("needs-2")
    again = Worker(home, ledger, breaking)
    for worker in (again, two):
        worker.member.start()

    await until(lambda: two.ended == ["needs-1"])
    halt = two.state.agent("needs-1").halt
    assert (halt.reason, halt.by, halt.why) == (Code.OPERATOR, "ann", "because")
    assert two.state.agent("needs-2").preventive is None
    for worker in (again, two):
        worker.leave()


@pytest.mark.parametrize("in_order", [False, True])
async def test_a_process_that_was_away_does_what_follows_from_a_halt_once_it_hears_of_it(
    home: Home, ledger: Shared, in_order: bool
) -> None:
    risky = replace(policy(budget({"risk": 30}, when_used=[at(100, Effect.HALT)])), cascade=CASCADE)
    one, two = (Worker(home, ledger, risky, name) for name in ("w0", "w1"))
    await two.ask("needs-2")
    if in_order:
        two.leave()
    else:
        two.lane.close("test")
    one.member.start()
    await one.ask("one", DENIED, risk=40)
    await until(lambda: ledger.overview().news > 0)
    again = Worker(home, ledger, risky, "w1")
    again.member.start()

    await until(lambda: all(worker.state.agent("needs-2").preventive for worker in (one, again)))
    for worker in (one, again):
        worker.leave()
