"""Holds: a held flow waits as long as its client does, is judged afresh, and always ends in an answer or a close."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.test import tflow

from addons import gate, holds
from addons.home import Home
from tests.addons.inside import Inside, get, inside, raw_origin

SHORT = 0.3


class Holding:
    """An addon that holds every flow at one hook, as mitmweb does for an operator."""

    def __init__(self, hook: str) -> None:
        self.flows: list[http.HTTPFlow] = []
        setattr(self, hook, self._hold)

    def _hold(self, flow: http.HTTPFlow) -> None:
        flow.intercept()
        self.flows.append(flow)

    async def flow(self) -> http.HTTPFlow:
        async with asyncio.timeout(5):
            while not self.flows or self.flows[-1]._resume_event is None:
                await asyncio.sleep(0.01)
        return self.flows[-1]


@pytest.mark.parametrize("hook", ["http_connect", "requestheaders", "request"])
async def test_a_held_flow_that_is_killed_is_refused_with_an_explanation(home: Home, hook: str) -> None:
    holding = Holding(hook)
    async with raw_origin() as origin, inside(home, holding) as place:
        connect = get(f"localhost:{origin.port}", method="CONNECT", host="localhost")
        asking = asyncio.create_task(place.ask(connect if hook == "http_connect" else get(origin.url)))
        (await holding.flow()).kill()
        answer = await asking

        assert b"403 Forbidden by Governor: EDITED" in answer
        assert b"ended while it was held" in answer
        assert origin.received == []
        (ended,) = await place.wait_for("fault")
        assert (ended["error"], ended["code"]) == ("EndedWhileHeld", "EDITED")
        assert b'governor_faults_total{where="HTTPFlow"}' not in place.metrics.render()[0]


@pytest.mark.parametrize("hook", ["responseheaders", "response"])
async def test_a_held_answer_that_is_killed_is_not_passed_on(home: Home, hook: str) -> None:
    holding = Holding(hook)
    async with raw_origin() as origin, inside(home, holding) as place:
        asking = asyncio.create_task(place.get(origin.url))
        (await holding.flow()).kill()
        answer = await asking

        assert b"403 Forbidden by Governor: EDITED" in answer
        assert (await place.wait_for("outcome"))[0]["result"] == "cut"


async def test_a_streamed_answer_that_is_killed_at_its_end_does_not_end_well(home: Home) -> None:
    holding = Holding("response")
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    async with raw_origin(chunked) as origin, inside(home, holding) as place:
        asking = asyncio.create_task(place.get(origin.url))
        (await holding.flow()).kill()

        assert not (await asking).endswith(b"0\r\n\r\n")
        assert (await place.wait_for("outcome"))[0]["result"] == "cut"


async def test_a_hold_has_no_deadline_and_the_flow_is_judged_after_it(home: Home) -> None:
    holding = Holding("request")
    async with raw_origin() as origin, inside(home, holding, deadline=SHORT) as place:
        asking = asyncio.create_task(place.get(f"{origin.url}/wanted"))
        flow = await holding.flow()
        await asyncio.sleep(4 * SHORT)
        before = place.entries("decision")
        flow.request.path = "/denied/edited"
        flow.resume()
        answer = await asking

        assert before == []
        assert b"Governor: DEFAULT_DENY" in answer
        assert origin.received == []


async def test_a_hook_that_waits_for_its_own_hold_has_no_deadline_either(home: Home) -> None:
    class Asking(Holding):
        async def request(self, flow: http.HTTPFlow) -> None:
            self._hold(flow)
            await flow.wait_for_resume()

    holding = Asking("unused")
    async with raw_origin() as origin, inside(home, holding, deadline=SHORT) as place:
        asking = asyncio.create_task(place.get(origin.url))
        flow = await holding.flow()
        await asyncio.sleep(4 * SHORT)
        flow.resume()

        assert (await asking).startswith(b"HTTP/1.1 200 OK")


async def test_a_client_that_leaves_ends_the_hold_of_its_flow_and_of_no_other(home: Home) -> None:
    holding = Holding("request")
    async with raw_origin() as origin, inside(home, holding) as place:
        staying = asyncio.create_task(place.get(origin.url))
        other = await holding.flow()
        await leaving(place, holding, origin.url)
        held = gate._deadlines.held()

        assert [running.data for running in held] == [other]
        other.resume()
        assert (await staying).startswith(b"HTTP/1.1 200 OK")
        assert len(origin.received) == 1


async def leaving(place: Inside, holding: Holding, url: str) -> None:
    """Be a client that leaves while its request is held, and wait until nothing of it is left."""
    _, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(f"GET {url}/left HTTP/1.1\r\nHost: {url[7:]}\r\n\r\n".encode())
    while len(holding.flows) < 2:
        await asyncio.sleep(0.01)
    await holding.flow()
    task = next(running.task for running in gate._deadlines.held() if running.data is holding.flows[-1])
    assert task is not None
    writer.close()
    await asyncio.wait_for(asyncio.shield(task), 5)


async def test_the_end_of_the_process_closes_the_connections_of_held_flows(home: Home) -> None:
    holding = Holding("request")
    async with raw_origin() as origin, inside(home, holding) as place:
        asking = asyncio.create_task(place.get(origin.url))
        await holding.flow()
        gate.close()

        assert await asyncio.wait_for(asking, 5) == b""
        assert origin.received == []


async def test_a_flow_that_nobody_waits_for_can_be_killed_as_ever() -> None:
    holds.install()
    flow = tflow.tflow()
    flow.live = True
    flow.intercept()

    flow.kill()

    assert flow.error is not None
    with pytest.raises(Exception, match="not killable"):
        flow.kill()
    with pytest.raises(holds.EndedWhileHeld):
        await holds.wait(flow)


async def test_a_kill_wakes_whoever_waits() -> None:
    holds.install()
    flow: Any = tflow.tflow()
    flow.live = True
    flow.intercept()
    waiting = asyncio.create_task(holds.wait(flow))
    await asyncio.sleep(0)

    holds.end(flow)

    with pytest.raises(holds.EndedWhileHeld):
        await asyncio.wait_for(waiting, 5)
