"""One policy in all workers: a new one in each of them or in none, whatever becomes of one meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from addons import policy_store
from addons.home import Home
from addons.identity import Registry
from addons.settings import Settings
from addons.workers import common_policy
from addons.workers.channel import ChannelError, Refused
from addons.workers.common_policy import CommonPolicy
from addons.workers.slot import Slot, Stage

POLICY = "version: 1\nrules:\n  - {allow: a, to: a.example.org, methods: reads}\n"
CHANGED = POLICY.replace("a.example.org", "b.example.org")


class Worker(Slot):
    """A worker without a process. `fails` says at which word, and `answers` what else it says to one."""

    def __init__(self, name: str, stage: Stage = Stage.SERVING) -> None:
        super().__init__(name, [])
        self.stage, self.killed, self.there = stage, False, True
        self.fails: dict[str, Exception] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.heard: list[str] = []

    async def is_there(self) -> bool:
        return self.there

    async def ask(self, word: str, seconds: float, **fields: Any) -> dict[str, Any]:
        self.heard.append(word)
        if word in self.fails:
            raise self.fails[word]
        return self.answers.get(word, fields)

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def file(home: Home) -> Path:
    file = home.paths.folder / "policy.yaml"
    file.write_text(POLICY)
    return file


@pytest.fixture
def common(home: Home, file: Path) -> Callable[..., CommonPolicy]:
    def made(*workers: Worker, turns: asyncio.Lock | None = None) -> CommonPolicy:
        asked = Settings((file,), None, "127.0.0.1", 0, strict=False)
        return CommonPolicy(asked, home.paths, Registry(home.paths.agents), workers, turns or asyncio.Lock())

    return made


async def test_all_have_it_ready_before_any_judges_by_it(common, file):
    workers = Worker("w0"), Worker("w1")
    policy = common(*workers)
    before = policy.told()["digest"]
    file.write_text(CHANGED)
    told = await policy.reload("ann", "ann")

    assert (told["ok"], told["policy"] != before) == (True, True)
    assert policy.told()["digest"] == told["policy"]
    assert [worker.heard for worker in workers] == [["prepare", "enforce"]] * 2


@pytest.mark.parametrize("fault", [
    pytest.param(Refused("TAMPERED: the copy is another"), id="it says no"),
    pytest.param(ChannelError("it has ended"), id="it has crashed"),
    pytest.param(ChannelError("no answer within 60 s"), id="it does not answer"),
])
async def test_one_that_is_not_ready_keeps_the_old_one_in_force_in_all(common, file, capsys, fault):
    workers = Worker("w0"), Worker("w1")
    workers[1].fails["prepare"] = fault
    refused = []
    policy = common(*workers)
    policy.on_refused = lambda: refused.append(1)
    before = policy.told()
    file.write_text(CHANGED)
    told = await policy.reload("SIGHUP")

    assert (told["ok"], told["findings"]) == (False, [f"worker w1: {fault}; ask again"])
    assert (policy.told(), refused) == (before, [1])
    assert [worker.heard for worker in workers] == [["prepare"]] * 2
    assert f"the old one stays:\nworker w1: {fault}" in capsys.readouterr().err


async def test_one_that_has_read_another_policy_keeps_the_old_one_in_force(common, file):
    worker = Worker("w0")
    worker.answers["prepare"] = {"digest": "0" * 64}
    file.write_text(CHANGED)

    assert (await common(worker).reload("ann"))["ok"] is False
    assert worker.heard == ["prepare"]


async def test_one_that_does_not_take_what_it_had_ready_is_killed_and_starts_under_the_new_one(common, file):
    workers = Worker("w0"), Worker("w1")
    workers[0].fails["enforce"] = ChannelError("no answer within 10 s")
    policy = common(*workers)
    file.write_text(CHANGED)
    told = await policy.reload("ann")

    assert (told["ok"], [worker.killed for worker in workers]) == (True, [True, False])
    assert policy.told()["digest"] == told["policy"]


async def test_one_that_is_being_started_is_waited_for_and_told_what_is_in_force_then(common, file):
    turns, starting = asyncio.Lock(), Worker("w1", Stage.STARTING)
    policy = common(Worker("w0"), starting, turns=turns)
    await turns.acquire()
    file.write_text(CHANGED)
    reloading = asyncio.create_task(policy.reload("ann"))
    await asyncio.sleep(0.05)
    under = policy.told()["digest"]
    starting.stage = Stage.SERVING
    turns.release()
    told = await reloading

    assert under != told["policy"]
    assert starting.heard == ["prepare", "enforce"]


async def test_one_that_stands_still_keeps_the_old_one_in_force_and_is_named(common, file):
    workers = Worker("w0"), Worker("w1")
    workers[1].there = False
    policy = common(*workers)
    file.write_text(CHANGED)
    told = await policy.reload("ann", "ann")

    assert (told["ok"], told["findings"]) == (False, ["worker w1 did not answer within 5 s; ask again"])
    assert [worker.heard for worker in workers] == [[], []]


@pytest.mark.parametrize(("starting", "said"), [
    pytest.param(True, "worker w1 is being started; ask again", id="a start"),
    pytest.param(False, "another reload is under way; ask again", id="another reload"),
])
async def test_an_operator_does_not_wait_for_ever_for_a_start_or_another_reload(
        common, file, monkeypatch, starting, said):
    monkeypatch.setattr(common_policy, "TURN_SECONDS", 0.05)
    turns, worker = asyncio.Lock(), Worker("w1", Stage.STARTING)
    worker.has_turn = starting
    policy = common(Worker("w0"), worker, turns=turns)
    await turns.acquire()
    file.write_text(CHANGED)
    told = await policy.reload("ann", "ann")
    turns.release()

    assert (told["ok"], told["findings"]) == (False, [said])
    assert (await policy.reload("ann", "ann"))["ok"]


async def test_a_fault_is_told_by_its_class_and_keeps_the_old_one(common, file, monkeypatch, capsys):
    def fails(*_: object) -> None:
        raise RuntimeError("what a file said")

    worker = Worker("w0")
    policy = common(worker)
    monkeypatch.setattr(policy_store, "again", fails)
    told = await policy.reload("SIGHUP")

    assert (told["ok"], worker.heard) == (False, [])
    assert "an internal fault, RuntimeError" in told["findings"][0]
    assert "internal fault, RuntimeError" in capsys.readouterr().err
