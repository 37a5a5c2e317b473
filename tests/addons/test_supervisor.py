"""The supervisor: whatever becomes of a worker, it hears of it, and what it was asked to end ends."""

from __future__ import annotations

import asyncio
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.options import Options

from addons.workers import supervisor as module
from addons.workers.channel import Channel
from addons.workers.slot import Slot
from addons.workers.supervisor import ASKED_TO_STOP, FAULT, Supervisor

# A worker that does nothing, and ends when it is left alone.
IDLE = """\
import json, os, socket
socket.socket(fileno=json.loads(os.environ["GOVERNOR_WORKER"])["channel"]).recv(1)
"""


@pytest.fixture
async def supervisor(monkeypatch) -> Supervisor:
    """Of two workers that have nothing to open."""
    monkeypatch.setattr(Supervisor, "_open", lambda self, opened: None)
    monkeypatch.setattr(module.settings, "declare", lambda loader: None)
    made = Supervisor(Options(), 2, [])
    for slot in made._slots:
        slot._command = [sys.executable, "-c", IDLE]
    return made


async def run(supervisor: Supervisor) -> int:
    loader: Any = SimpleNamespace()
    async with asyncio.timeout(10):
        return await supervisor.run(loader)


async def until(holds) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_workers_that_are_left_alone_end(supervisor):
    running = asyncio.create_task(run(supervisor))
    await until(lambda: all(slot.lives for slot in supervisor._slots))
    supervisor.stop()

    assert await running == ASKED_TO_STOP
    assert not any(slot.lives for slot in supervisor._slots)


async def test_a_worker_that_is_only_being_started_is_not_waited_for_when_all_end(supervisor, monkeypatch):
    over, waits, goes_on = Channel.over, [False, True], asyncio.Event()

    async def slow(connection):
        if waits.pop(0):
            await goes_on.wait()
        return await over(connection)

    monkeypatch.setattr(Channel, "over", slow)
    supervisor._slots[0]._command[-1] += "__import__('time').sleep(1)"
    running = asyncio.create_task(run(supervisor))
    await until(lambda: not waits and supervisor._slots[0].lives)
    began = time.monotonic()
    supervisor.stop()
    await asyncio.sleep(0.1)
    goes_on.set()

    assert await running == ASKED_TO_STOP
    assert time.monotonic() - began < 5
    assert not any(slot.lives for slot in supervisor._slots)


async def test_a_process_that_cannot_be_made_at_the_start_ends_all(supervisor, capsys):
    supervisor._slots[1]._command = ["/nowhere/python"]

    assert await run(supervisor) == FAULT
    assert "governor: worker w1 could not be started: " in capsys.readouterr().err


async def test_a_process_that_cannot_be_made_later_is_tried_again(supervisor, monkeypatch, capsys):
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.01)
    supervisor._all_serving.set()
    command, supervisor._slots[1]._command = supervisor._slots[1]._command, ["/nowhere/python"]
    running = asyncio.create_task(supervisor._keep(1, supervisor._slots[1]))
    await asyncio.sleep(0.1)
    supervisor._slots[1]._command = command
    await until(lambda: supervisor._slots[1].lives)
    supervisor.stop()
    supervisor._slots[1].leave()
    await running

    assert "w1 could not be started: [Errno 2]" in capsys.readouterr().err


async def test_a_fault_of_its_own_ends_all_and_is_told(supervisor, monkeypatch, capsys):
    async def fails(slot, post, meet):
        raise RuntimeError("what nobody expected")

    monkeypatch.setattr(Slot, "live", fails)

    assert await run(supervisor) == FAULT
    assert "stopped on a fault: RuntimeError: what nobody expected" in capsys.readouterr().err
