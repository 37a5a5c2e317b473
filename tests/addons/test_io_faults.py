"""A fault in any input or output of Governor's: nothing passes, the client hears of it in time, the log stays whole.

Each row lets one request pass, breaks one call, asks again, and then looks at what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from addons import agents_file, durable, identity, judge, keeper, lane
from addons.home import Home
from addons.journal import Clock
from addons.keeper import Keeper
from addons.metrics import Metrics
from addons.segment import Segment
from addons.vault import Vault
from tests.addons.inside import Inside, inside, raw_origin
from tests.addons.logs import open_lane, report
from tests.conftest import SCALE

DEADLINE = 0.8
SLOW = 0.3


class Faulty:
    """What happens in the place of a call, once armed; `release` ends a hang."""

    def __init__(self, fault: str) -> None:
        self.fault, self.release, self.met = fault, threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.met.set()
        match self.fault:
            case "exception":
                raise RuntimeError("what an agent sent")
            case "error":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            case "cancel":
                raise asyncio.CancelledError
            case "hang":
                self.release.wait(20)
            case "slow":
                time.sleep(SLOW)

    async def later(self) -> None:
        """The same for a call that is awaited."""
        if self.fault == "hang":
            await asyncio.Event().wait()
        await asyncio.sleep(SLOW if self.fault == "slow" else 0)
        if self.fault != "slow":
            self()

    def before(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str,
               applies: Callable[..., bool] = lambda *_: True) -> None:
        """Have the call fail where it `applies`, and do what it does elsewhere."""
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if applies(*arguments):
                self()
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, call)


type Inject = Callable[[Inside, Faulty, pytest.MonkeyPatch], None]


def write(place: Inside, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = place.lane._journal.segment._descriptor
    faulty.before(monkeypatch, os, "write", lambda number, _: number == descriptor)


def fdatasync(place: Inside, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = place.lane._journal.segment._descriptor
    faulty.before(monkeypatch, os, "fdatasync", lambda number: number == descriptor)


def look_at_the_segment(_: Inside, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty.before(monkeypatch, Segment, "_check")


def clock_of_the_log(_: Inside, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty.before(monkeypatch, Clock, "timestamp")


def resolver(place: Inside, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = place.resolver._ask

    async def ask(name: str) -> Any:
        await faulty.later()
        return await look_up(name)

    monkeypatch.setattr(place.resolver, "_ask", ask)


def clock_of_the_judge(_: Inside, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty.before(monkeypatch, judge, "perf_counter")


def clock_of_the_grant(_: Inside, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty.before(monkeypatch, judge, "monotonic")


def metrics_of_the_verdict(_: Inside, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty.before(monkeypatch, Metrics, "decision")


def agents(place: Inside, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "LOOK_SECONDS", 0.0)
    place.registry._next_look = 0.0
    os.utime(place.home.paths.agents, ns=(1, 1))
    faulty.before(monkeypatch, agents_file, "load")


LOST, LATE, FAULT = "403 Forbidden by Governor: AUDIT_UNAVAILABLE", "403 Forbidden by Governor: DEADLINE", \
    "403 Forbidden by Governor: FAULT"
OK = "200 OK"
# What a client gets from each fault at each call. What blocks the event loop itself hangs for the watchdog to end.
OF_THE_LOG = {"exception": LOST, "error": LOST, "cancel": LOST, "hang": LATE, "slow": OK}
ON_THE_LOOP = {"exception": FAULT, "error": FAULT, "cancel": FAULT, "slow": OK}
CALLS: dict[Inject, dict[str, str]] = {
    write: OF_THE_LOG, fdatasync: OF_THE_LOG, look_at_the_segment: OF_THE_LOG, clock_of_the_log: OF_THE_LOG,
    resolver: ON_THE_LOOP | {"error": "502 Bad Gateway by Governor: RESOLVE_FAILED", "hang": LATE},
    clock_of_the_judge: ON_THE_LOOP, clock_of_the_grant: ON_THE_LOOP, metrics_of_the_verdict: ON_THE_LOOP,
    agents: ON_THE_LOOP,
}
# A first look: what another row of the same call, or the same fault at the next call, does not show.
FIRST = {"cancel", "hang"}
ROWS = [pytest.param(call, fault, expected, id=f"{call.__name__}-{fault}")
        for call, faults in CALLS.items() for fault, expected in faults.items()
        if SCALE > 1 or fault in FIRST or call in (fdatasync, resolver)]


@pytest.mark.parametrize(("call", "fault", "expected"), ROWS)
async def test_nothing_passes_on_a_fault_in(home: Home, monkeypatch: pytest.MonkeyPatch, call: Inject, fault: str,
                                            expected: str) -> None:
    faulty = Faulty(fault)
    async with raw_origin() as origin, inside(home, deadline=DEADLINE) as place:
        before = await place.get(f"{origin.url}/before")
        call(place, faulty, monkeypatch)
        during = await place.get(f"{origin.url}/during")
        reached = b"/during" in b"".join(origin.received)
        faulty.release.set()
        monkeypatch.undo()
        after = await place.get(f"{origin.url}/after")

        assert faulty.met.is_set() or fault in ("hang", "slow")
        assert status(before) == OK
        assert status(during) == expected
        assert reached == (expected == OK)
        # Where the log is lost before anybody asks, the enforcer counts.
        assert expected == LOST or (counted(place.metrics) > 0) == (expected in (LATE, FAULT))
        # A log that failed once is taken up again by a restart alone; everything else is over when it is over.
        assert status(after) == (LOST if expected == LOST else OK)
        if expected in (LATE, FAULT):
            assert (await place.wait_for("fault"))[0]["code"] == expected.rpartition(" ")[2]

    open_lane(home).close("stopped")
    assert report(home).result == "verified"


def status(answer: bytes) -> str:
    return answer.partition(b"\r\n")[0].decode().removeprefix("HTTP/1.1 ")


def counted(metrics: Metrics) -> float:
    """The faults that the metrics know of."""
    lines = metrics.render()[0].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("governor_faults_total{"))


async def test_a_name_that_hangs_delays_no_other_flow(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_origin() as origin, inside(home, deadline=5.0) as place:
        resolver(place, Faulty("hang"), monkeypatch)
        hanging = asyncio.create_task(place.get(f"{origin.url}/hangs"))
        beside = [await place.get(f"http://127.0.0.1:{origin.port}/beside") for _ in range(3)]

        assert [status(answer) for answer in beside] == [OK] * 3
        assert not hanging.done()
        hanging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hanging


@pytest.mark.parametrize(("call", "fault", "code"), [
    (fdatasync, "hang", "DEADLINE"), (metrics_of_the_verdict, "exception", "FAULT"),
])
async def test_a_decision_that_is_refused_after_all_does_not_stand_open(
        home: Home, monkeypatch: pytest.MonkeyPatch, call: Inject, fault: str, code: str) -> None:
    faulty = Faulty(fault)
    async with raw_origin() as origin, inside(home, deadline=DEADLINE) as place:
        call(place, faulty, monkeypatch)
        answer = await place.get(origin.url)
        faulty.release.set()
        (outcome,) = await place.wait_for("outcome")

        assert status(answer).endswith(code)
        assert (outcome["result"], outcome["code"]) == ("not_sent", code)
        assert origin.received == []


# What no request waits for: the keeper's notes and the vault


FAULTS = ("exception", "error", "cancel", "hang")


@dataclass(frozen=True)
class Kept:
    """A call that is made in a thread of the lane's beside what requests wait for."""

    thread: str
    owner: Any
    name: str

    @property
    def stopped_by(self) -> tuple[str, ...]:
        """What ends the lane: a vault that reports an error is given up alone, a meter's hang is a deadline."""
        match self.name:
            case "keep":
                return "exception", "cancel", "hang"
            case "commit":
                return "exception", "error", "cancel"
        return FAULTS


KEPT = [Kept("keeper-main", Keeper, "write_checkpoint"), Kept("keeper-main", durable, "replace"),
        Kept("keeper-main", os, "fdatasync"), Kept("keeper-main", Vault, "keep"), Kept("lane-main", Metrics, "commit")]
STOPS = [pytest.param(kept, fault, id=f"{kept.name}-{fault}") for kept in KEPT for fault in FAULTS
         if fault in kept.stopped_by and (SCALE > 1 or fault == "cancel" or kept.name in ("replace", "keep"))]


@pytest.mark.parametrize(("kept", "fault"), STOPS)
async def test_no_request_passes_for_long_without(
        home: Home, monkeypatch: pytest.MonkeyPatch, kept: Kept, fault: str) -> None:
    faulty = Faulty(fault)
    monkeypatch.setattr(lane, "CHECKPOINT_SECONDS", 0.1)
    monkeypatch.setattr(keeper, "VAULT_SECONDS", 0.0)
    monkeypatch.setattr(keeper, "STALL_SECONDS", 0.3 if fault == "hang" else 60.0)
    monkeypatch.setattr(keeper, "STOP_SECONDS", 0.3)
    async with raw_origin() as origin, inside(home) as place:
        faulty.before(monkeypatch, kept.owner, kept.name, lambda *_: threading.current_thread().name == kept.thread)
        place.lane.observe(place.metrics)
        async with asyncio.timeout(8):
            while status(await place.get(f"{origin.url}/x")) == OK:
                await asyncio.sleep(0.05)
        seen = len(origin.received)

        assert status(await place.get(f"{origin.url}/x")) == LOST
        assert len(origin.received) == seen
        faulty.release.set()

    monkeypatch.undo()
    if fault == "hang":
        # The files stay open under the thread that hung: the lock is this process's until it ends.
        return
    open_lane(home).close("stopped")
    assert report(home).result == "verified"


@pytest.mark.parametrize("what", ["writer", "keeper"])
async def test_a_disk_that_hangs_does_not_keep_the_process_from_ending(
        home: Home, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    faulty = Faulty("hang")
    monkeypatch.setattr(lane, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(keeper, "STOP_SECONDS", 0.2)
    opened = open_lane(home)
    faulty.before(monkeypatch, os, "fdatasync", lambda *_: threading.current_thread().name.startswith(
        "lane" if what == "writer" else "keeper"))

    started = time.monotonic()
    opened.close("stopped")

    assert time.monotonic() - started < 5
    assert faulty.met.is_set()
    faulty.release.set()


async def test_a_vault_that_reports_an_error_is_given_up_and_the_log_goes_on(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "VAULT_SECONDS", 0.0)
    faulty = Faulty("error")
    async with raw_origin() as origin, inside(home) as place:
        faulty.before(monkeypatch, Vault, "keep")
        await place.get(f"{origin.url}/x")
        (fault,) = await place.wait_for("fault")

        assert (fault["where"], fault["error"]) == ("vault", "OSError")
        assert status(await place.get(f"{origin.url}/y")) == OK


async def test_a_segment_that_cannot_be_opened_refuses_the_start(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    Faulty("error").before(monkeypatch, Segment, "open")

    with pytest.raises(Exception, match="HOME_UNWRITABLE"):
        open_lane(home)
