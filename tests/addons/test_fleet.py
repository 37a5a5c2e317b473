"""Processes over one ledger: a halt of all reaches each of them, and each knows how the others stand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from addons import fleet
from addons.fleet import Fleet, InForce
from addons.home import Home
from addons.pools.in_file import FileLedger
from addons.pools.protocol import LedgerError
from kernel.state import Switch
from kernel.system import CameBack, FellSilent, Joined, PoliciesDiffer, Said
from kernel.verdict import Code
from tests.addons.test_pool_member import Shared, until, verified
from tests.addons.workers import Worker
from tests.kernel.accounting import budget, policy

SHARED = policy(budget({"requests": 50}, {"requests": 100}, name="all"), budget({"requests": 9}, name="own"))


class Process(Worker):
    """A worker that follows the others. `acted` is what its operator is told."""

    def __init__(self, home: Home, ledger: Any, lane: str = "w0", digest: str = "a" * 64) -> None:
        super().__init__(home, ledger, SHARED, lane)
        self.digest, self.acted = digest, []
        self.book.on_halt_all = lambda verdict: self.ended.append("*")
        self.fleet = Fleet(f"{home.log_id}/{lane}", self.book, self.tells, self.member, self.acted.append)
        self.member.about = lambda: self.tells().fields()
        self.member.start()

    def tells(self) -> Said:
        switch = self.state.switch
        return Said(self.lane.name, self.digest, "1.0", True, len(self.open), (8080,), switch.halt is not None,
                    switch.epoch, {"coder": 1_800_000_000_000_000 + int(self.lane.name[1:])})

    async def act(self, act: str) -> str:
        return await self.acts.act(f"agents {act} all", None, "because", "ann", "control")

    def die(self) -> None:
        """End without a word to the ledger."""
        assert self.member._beating is not None
        self.member._beating.cancel()
        self.lane.close("test")


Start = Callable[..., Process]


@pytest.fixture
async def start(home: Home, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts processes over one SQLite ledger, each with its own connection; they leave in the end."""
    started: list[Process] = []

    def start(lane: str, **more: Any) -> Process:
        started.append(Process(home, FileLedger(tmp_path / "pool.db"), lane, **more))
        return started[-1]

    yield start
    for each in started:
        if each.lane.stopped is None:
            each.leave()


def halted(process: Process) -> bool:
    return process.state.switch.halt is not None


async def test_a_halt_of_all_is_in_force_in_every_process_and_so_is_the_release(home: Home, start: Start) -> None:
    processes = [start(f"w{number}") for number in range(3)]
    name = await processes[1].act("halt")
    assert halted(processes[1])
    assert await processes[1].fleet.in_force() == InForce(3, 3)

    assert [each.ended for each in processes] == [["*"]] * 3
    assert [(await each.ask("anybody")).code for each in processes] == [Code.AGENT_HALTED] * 3
    assert [each["reason"] for each in processes[0].entries("operator")] == ["because"]
    await processes[2].act("release")
    assert await processes[2].fleet.in_force() == InForce(3, 3)
    assert [each.state.switch for each in processes] == [Switch(1)] * 3
    for each in processes:
        each.leave()
    assert name.startswith("w1/")
    assert verified(home).value == "verified"


async def test_who_comes_later_or_again_is_halted_until_it_hears_of_the_release(start: Start) -> None:
    first, second = start("w0"), start("w1")
    await first.act("halt")
    await until(lambda: halted(second))
    second.die()
    third, again = start("w2"), start("w1")
    assert (halted(third), halted(again)) == (True, True)
    again.die()
    await first.act("release")

    assert halted(start("w1")) is False


async def test_a_halt_of_all_that_nobody_heard_of_is_told_by_the_next_life(home: Home) -> None:
    ledger = Shared()
    first, second = Process(home, ledger), Process(home, ledger, "w1")
    ledger.away = True
    await first.act("halt")
    first.die()
    ledger.away = False
    again = Process(home, ledger)
    await until(lambda: halted(second))
    for each in (again, second):
        each.leave()


async def test_who_is_cut_off_halts_at_once_and_the_others_once_it_is_back(home: Home) -> None:
    ledger = Shared()
    first, second = Process(home, ledger), Process(home, ledger, "w1")
    ledger.away = True
    await first.act("halt")

    assert (halted(first), halted(second), first.ended) == (True, False, ["*"])
    ledger.away = False
    await until(lambda: halted(second))
    assert await first.fleet.in_force() == InForce(2, 2)
    for each in (first, second):
        each.leave()


async def test_without_the_ledger_nobody_is_released_anywhere(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "CONFIRM_SECONDS", 0.2)
    ledger = Shared()
    first = Process(home, ledger)
    await first.act("halt")
    ledger.away = True
    with pytest.raises(LedgerError):
        await first.act("release")

    assert halted(first)
    assert await first.fleet.in_force() == InForce(1, None)
    ledger.away = False
    first.leave()


async def test_who_does_not_confirm_in_time_is_counted_and_named(
    home: Home, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "CONFIRM_SECONDS", 0.3)
    first, second = start("w0"), start("w1")
    await until(lambda: second.member._tells.get("policy"))
    second.die()
    await first.act("halt")

    assert await first.fleet.in_force() == InForce(1, 2)
    assert [hint for hint in first.fleet.hints() if "w1" in hint] == [
        f"not halted, unlike the rest: w1 ({home.log_id[:12]})"]


async def test_epochs_that_were_counted_alone_do_not_keep_a_halt_or_a_release_away(home: Home) -> None:
    alone = Worker(home, Shared(), SHARED)
    for act in ("halt", "release") * 3:
        await alone.book.act(f"agents {act} all", None, "because", "ann", "control")
    alone.lane.close("test")
    ledger = Shared()
    first, second = Process(home, ledger), Process(home, ledger, "w1")
    assert (first.state.switch, second.state.switch) == (Switch(3), Switch())
    for process in (second, first):
        await process.act("halt")
        await until(lambda: halted(first) and halted(second))
        await process.act("release")
        await until(lambda: not halted(first) and not halted(second))

    assert first.state.switch == second.state.switch == Switch(5)
    for each in (first, second):
        each.leave()


async def test_each_process_tells_of_all(home: Home, start: Start) -> None:
    first, second = start("w0"), start("w1")
    for process in (first, second, second):
        assert (await process.ask()).code is Code.ALLOW
    await first.member.turn()
    await second.member.turn()
    await first.fleet.look()
    told = first.fleet.fields()

    assert [row["holder"] for row in told["fleet"]] == [f"{home.log_id}/w0", f"{home.log_id}/w1"]
    assert told["fleet"][1].pop("seen")
    assert told["fleet"][1] == {
        "holder": f"{home.log_id}/w1", "lane": "w1", "alive": True, "ready": True, "policy": "a" * 64,
        "version": "1.0", "open": 2, "ports": [8080]}
    [shared] = told["system"]["budgets"]
    assert (shared["budget"], shared["unit"], shared["limit"], shared["each"]) == ("all", "requests", 100, False)
    assert shared["spent"] + shared["held"] >= 3
    assert shared["remaining"] == 100 - shared["spent"] - shared["held"]
    assert told["system"]["halted"] is False
    assert first.fleet.hints() == []
    assert await first.fleet.last_seen() == {"coder": "2027-01-15T08:00:00.000001Z"}


async def test_a_process_never_asks_for_everything_that_the_ledger_keeps(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(ledger: FileLedger) -> Any:
        raise AssertionError("it was asked for")

    monkeypatch.setattr(FileLedger, "overview", everything)
    one, other = start("w0"), start("w1")
    await one.act("halt")
    assert await one.fleet.in_force() == InForce(2, 2)
    await one.fleet.look()
    assert set(await one.fleet.last_seen()) == {"coder"}

    assert [row["lane"] for row in one.fleet.fields()["fleet"]] == ["w0", "w1"]
    assert halted(other)


async def test_two_policies_in_force_are_told_with_who_has_them(home: Home, start: Start) -> None:
    first, second = start("w0"), start("w1", digest="b" * 64)
    await until(lambda: second.member._tells.get("policy"))
    await second.member.turn()
    await first.fleet.look()
    log = home.log_id[:12]

    assert first.fleet.hints() == [
        f"2 policies are in force: {'a' * 12} in w0 ({log}); {'b' * 12} in w1 ({log}) (governor reload on each host)"]
    assert [type(act) for act in first.acted] == [Joined, Joined, PoliciesDiffer]


async def test_who_falls_silent_is_not_ready_and_is_named(home: Home) -> None:
    now = [time.time_ns() // 1000]
    ledger = Shared(clock=lambda: now[0])
    first, second = Process(home, ledger), Process(home, ledger, "w1")
    await until(lambda: second.member._tells.get("policy"))
    await first.fleet.look()
    assert second.member._beating is not None
    second.member._beating.cancel()
    await asyncio.sleep(0.05)
    now[0] += 12_000_000
    await first.member.turn()
    await first.fleet.look()

    assert [(row["alive"], row["ready"]) for row in first.fleet.fields()["fleet"]] == [(True, True), (False, False)]
    assert first.fleet.hints() == [f"w1 ({home.log_id[:12]}) has not been heard of for 12 s"]
    assert [type(act) for act in first.acted] == [Joined, Joined, FellSilent]
    await second.member.turn()
    await first.fleet.look()
    assert (first.fleet.hints(), type(first.acted[-1])) == ([], CameBack)
    for each in (first, second):
        each.leave()


async def test_who_is_gone_for_long_is_waited_for_no_more(home: Home) -> None:
    now = [time.time_ns() // 1000]
    ledger = Shared(clock=lambda: now[0])
    first, second = Process(home, ledger), Process(home, ledger, "w1")
    await until(lambda: second.member._tells.get("policy"))
    second.die()
    now[0] += 20_000_000
    await first.member.turn()
    await first.act("halt")

    assert await first.fleet.in_force() == InForce(1, 1)
    first.leave()


async def test_a_process_alone_is_its_own_fleet(home: Home) -> None:
    process = Process(home, Shared())
    alone = Fleet("l/w0", process.book, process.tells)
    await process.book.act("agents halt all", None, "because", "ann", "control")

    assert await alone.in_force() == InForce(1, 1)
    assert [row["lane"] for row in alone.fields()["fleet"]] == ["w0"]
    assert (alone.fields()["system"]["halted"], alone.fields()["system"]["reason"]) == (True, "because")
    process.leave()
