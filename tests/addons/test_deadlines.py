"""Deadlines: whoever's hook never ends, its client gets a refusal or the end of its connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.test import tflow

from addons import gate
from addons.deadlines import Deadlines
from addons.home import Home
from tests.addons.inside import inside, raw_origin

SHORT = 0.4


class Hanging:
    """An addon with one hook that never returns; `stubborn` about being cancelled so many times."""

    def __init__(self, hook: str, stubborn: float = 0) -> None:
        self.stubborn = stubborn
        setattr(self, hook, self._hang)

    async def _hang(self, *_: Any) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise
                self.stubborn -= 1
                if not self.stubborn:
                    return


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
async def test_a_hook_that_never_ends_is_answered_with_a_refusal(home: Home, hook: str) -> None:
    async with raw_origin() as origin, inside(home, Hanging(hook), deadline=SHORT) as place:
        answer = await place.get(origin.url)

        assert b"403 Forbidden by Governor: DEADLINE" in answer
        assert origin.received == []
        assert (await place.wait_for("fault"))[0]["code"] == "DEADLINE"


async def test_a_hook_that_swallows_its_cancellation_is_refused_and_not_judged(home: Home) -> None:
    async with raw_origin() as origin, inside(home, Hanging("request", stubborn=1), deadline=SHORT) as place:
        answer = await place.get(origin.url)

        assert b"Governor: DEADLINE" in answer
        assert place.entries("decision") == []
        assert origin.received == []


async def test_a_hook_that_cannot_be_cancelled_costs_its_client_the_connection(home: Home) -> None:
    addon = Hanging("request", stubborn=float("inf"))
    async with raw_origin() as origin, inside(home, addon, deadline=SHORT) as place:
        try:
            answer = await place.get(origin.url)
        finally:
            addon.stubborn = 0

        assert answer == b""
        assert origin.received == []


@pytest.mark.parametrize("hook", ["requestheaders", "request", "response"])
async def test_a_replay_whose_hook_never_ends_comes_to_its_end(home: Home, hook: str) -> None:
    flow = tflow.tflow()
    async with inside(home, Hanging(hook), deadline=SHORT):
        await asyncio.wait_for(ReplayHandler(flow, ctx.options).replay(), 5)

        assert flow.response is not None
        assert flow.response.status_code == 403


async def test_a_flow_that_hangs_does_not_delay_another_one(home: Home) -> None:
    class Choosy(Hanging):
        async def request(self, flow: Any) -> None:
            if flow.request.path == "/hangs":
                await self._hang()

    async with raw_origin() as origin, inside(home, Choosy("unused"), deadline=2) as place:
        hanging = asyncio.create_task(place.get(f"{origin.url}/hangs"))
        answers = [await place.get(f"{origin.url}/passes") for _ in range(5)]

        assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 OK"] * 5
        assert not hanging.done()
        assert b"Governor: DEADLINE" in await hanging


async def test_a_cancellation_of_the_task_itself_goes_on_after_the_deadlines_own() -> None:
    refused: list[BaseException] = []
    deadlines = Deadlines(gate.end, 60)

    async def hook() -> None:
        running = deadlines.begin(None, None)  # type: ignore[arg-type]
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            if running.settle():
                refused.append(error)
            if gate._must_go_on(error):
                raise
        finally:
            deadlines.end(running)

    both, called_off = asyncio.create_task(hook()), asyncio.create_task(hook())
    await asyncio.sleep(0)
    for running in tuple(deadlines._running):
        running.call_off()
    both.cancel()
    await asyncio.wait([both, called_off])

    assert len(refused) == 2
    assert both.cancelled()
    assert not called_off.cancelled()
    assert deadlines._running == set()


async def test_nobody_is_overdue_because_the_loop_stood_still() -> None:
    deadlines = Deadlines(gate.end, 1.0)
    running = deadlines.begin(None, None)  # type: ignore[arg-type]

    deadlines._turn(asyncio.get_running_loop(), -1000.0)
    deadlines.stop()

    assert running.calls == 0
