"""What became of each flow that was let through: one entry, whatever happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.test import tflow
from mitmproxy.websocket import WebSocketData

from addons.connections import ClientConnection
from addons.home import Home
from addons.in_flight import InFlight
from addons.judged import Judged
from addons.lane import Lane
from addons.metrics import Metrics
from addons.outcomes import Outcomes
from kernel.facts import Agent, Host, Path, RequestFacts
from kernel.measures import Cap, Measures, WebSocketMeasures
from kernel.verdict import Action, Code, Judgement, Verdict
from tests.addons.inside import get, inside, raw_origin
from tests.addons.logs import entries, open_book, open_lane


@pytest.fixture
async def lane(home: Home) -> AsyncIterator[Lane]:
    opened = open_lane(home, loop=asyncio.get_running_loop())
    yield opened
    opened.close("stopped")


@pytest.fixture
def outcomes(lane: Lane) -> Outcomes:
    return Outcomes(lane, open_book(lane), Metrics("0", "0"), InFlight())


@pytest.fixture
def begun(outcomes: Outcomes) -> tuple[http.HTTPFlow, ClientConnection]:
    flow, connection = tflow.tflow(resp=True), ClientConnection("127.0.0.1")
    flow.client_conn.state = ConnectionState.OPEN
    outcomes.begin(flow, granted(WebSocketMeasures()), connection, 7)
    return flow, connection


def granted(websocket: WebSocketMeasures | None) -> Judged:
    allowed = Verdict(Action.ALLOW, Code.ALLOW)
    judgement = Judgement(allowed, (), None, Measures(Cap(100, None), websocket=websocket))
    agent, scheme = Agent("local", "none"), "https" if websocket is None else "wss"
    facts = RequestFacts(agent, "GET", scheme, Host("example.org"), 443, Path("/", ("",)))
    return Judged(allowed, agent, "GET", None, facts=facts, judgement=judgement, number=7, sent=("judged",))


def written(lane: Lane, home: Home) -> list[tuple[str, int | None, int, int, str | None]]:
    lane.close("stopped")
    return [(entry["result"], entry["status"], entry["bytes_up"], entry["bytes_down"], entry["code"])
            for entry in entries(home) if entry["type"] == "outcome"]


type Begun = tuple[http.HTTPFlow, ClientConnection]


def test_a_flow_that_ends_well_tells_its_status_and_its_bytes(
        outcomes: Outcomes, begun: Begun, lane: Lane, home: Home) -> None:
    flow, _ = begun
    outcomes.headers(flow)
    outcomes.completed(flow)

    assert written(lane, home) == [("completed", 200, 7, 7, None)]
    assert len(outcomes) == 0


@pytest.mark.parametrize(("client", "dialled", "told"), [
    pytest.param(ConnectionState.CLOSED, 1.0, ("aborted", None), id="the client left"),
    pytest.param(ConnectionState.OPEN, None, ("not_sent", "ORIGIN_FAILED"), id="the origin was not reached"),
    pytest.param(ConnectionState.OPEN, 1.0, ("failed", "ORIGIN_FAILED"), id="the origin broke off"),
])
def test_a_flow_that_fails_tells_whose_end_it_was(outcomes: Outcomes, begun: Begun, lane: Lane, home: Home,
                                                  client: ConnectionState, dialled: float | None,
                                                  told: tuple[str, str | None]) -> None:
    flow, _ = begun
    flow.client_conn.state, flow.server_conn.timestamp_tcp_setup = client, dialled
    outcomes.failed(flow)

    ((result, _, _, _, code),) = written(lane, home)
    assert (result, code) == told


ENDS: list[tuple[str, Callable[[Outcomes, http.HTTPFlow, ClientConnection], None], str, str | None]] = [
    ("the client is gone", lambda outcomes, _, connection: outcomes.client_gone(connection), "aborted", None),
    ("the process ends", lambda outcomes, *_: outcomes.cut_all(), "cut", None),
    ("another addon answers", lambda outcomes, flow, _: outcomes.not_sent(flow), "not_sent", None),
    ("the answer is refused", lambda outcomes, flow, _: outcomes.refused(flow, Code.FAULT), "cut", "FAULT"),
]


@pytest.mark.parametrize(("close_code", "by_client", "told"), [
    pytest.param(1000, False, ("completed", 101, 7 + 30, 5, None), id="with a close"),
    pytest.param(1006, True, ("aborted", 101, 7 + 30, 5, None), id="the client left"),
    pytest.param(1006, False, ("failed", 101, 7 + 30, 5, "ORIGIN_FAILED"), id="the origin broke off"),
])
def test_a_websocket_tells_its_bytes_when_it_ends(outcomes: Outcomes, begun: Begun, lane: Lane, home: Home,
                                                  close_code: int, by_client: bool, told: object) -> None:
    flow, _ = begun
    flow.response = http.Response.make(101)
    outcomes.headers(flow)
    watch = outcomes.watch(flow)
    assert watch is not None
    watch.meter(30, 0)
    watch.meter(0, 5)
    flow.websocket = WebSocketData(closed_by_client=by_client, close_code=close_code)
    outcomes.websocket_ended(flow)

    assert written(lane, home) == [told]


def test_a_fault_in_a_websocket_is_counted(lane: Lane) -> None:
    metrics = Metrics("0", "0")
    outcomes, flow = Outcomes(lane, open_book(lane), metrics, InFlight()), tflow.tflow(resp=True)
    outcomes.begin(flow, granted(WebSocketMeasures()), ClientConnection("127.0.0.1"), 0)
    watch = outcomes.watch(flow)
    assert watch is not None
    watch.refused(Code.FAULT)

    assert b'governor_faults_total{where="WebSocket"} 1.0' in metrics.render()[0]


def test_a_flow_that_was_not_judged_as_a_websocket_has_no_watch(outcomes: Outcomes) -> None:
    flow = tflow.tflow(resp=True)
    outcomes.begin(flow, granted(None), ClientConnection("127.0.0.1"), 0)

    assert outcomes.watch(flow) is None


def test_a_websocket_that_is_refused_is_cut_and_its_client_is_told_the_decision(
        outcomes: Outcomes, begun: Begun, lane: Lane, home: Home) -> None:
    flow, _ = begun
    watch = outcomes.watch(flow)
    assert watch is not None
    reason = watch.refused(Code.RATE_LIMITED)
    flow.websocket = WebSocketData(close_code=1008)
    outcomes.websocket_ended(flow)

    assert reason == "RATE_LIMITED main/7"
    assert outcomes.watch(flow) is None
    assert written(lane, home) == [("cut", None, 7, 0, "RATE_LIMITED")]


@pytest.mark.parametrize(("end", "result", "code"), [pytest.param(*rest, id=name) for name, *rest in ENDS])
def test_a_flow_ends_once(outcomes: Outcomes, begun: Begun, lane: Lane, home: Home,
                          end: Callable[..., None], result: str, code: str | None) -> None:
    flow, connection = begun
    end(outcomes, flow, connection)
    outcomes.completed(flow)
    outcomes.failed(flow)
    outcomes.client_gone(connection)

    assert [(told[0], told[4]) for told in written(lane, home)] == [(result, code)]
    assert connection.open_flows == set()


def test_a_flow_that_was_not_let_through_has_no_outcome(outcomes: Outcomes, lane: Lane, home: Home) -> None:
    flow = tflow.tflow(resp=True)
    for end in (outcomes.headers, outcomes.completed, outcomes.failed, outcomes.not_sent):
        end(flow)

    assert outcomes.opened(flow) is None
    assert written(lane, home) == []


def test_a_flow_waits_until_its_origin_is_connected(outcomes: Outcomes, begun: Begun) -> None:
    flow, connection = begun
    flow.server_conn.timestamp_start = None
    assert outcomes.waiting(connection) == [(flow, ("judged",))]

    flow.server_conn.timestamp_start = 1.0

    assert outcomes.waiting(connection) == []


@pytest.mark.parametrize(("length", "streams"), [
    ("2", False), ("65536", False), ("65537", True), ("99999999", True), (None, True), ("x", True), ("-1", True),
    ("٢", True),
])
def test_only_a_short_answer_of_known_length_is_held_until_it_is_whole(
        outcomes: Outcomes, begun: Begun, length: str | None, streams: bool) -> None:
    flow, _ = begun
    assert flow.response is not None
    flow.response.headers.pop("content-length", None)
    if length is not None:
        flow.response.headers.fields += ((b"content-length", length.encode()),)
    outcomes.headers(flow)

    assert bool(flow.response.stream) is streams


def test_an_empty_chunk_is_never_written_as_the_end_of_a_chunked_answer(outcomes: Outcomes, begun: Begun) -> None:
    flow, _ = begun
    assert flow.response is not None
    del flow.response.headers["content-length"]
    outcomes.headers(flow)
    meter = flow.response.stream

    assert callable(meter)
    assert [meter(b"data"), meter(b"")] == [b"data", []]


async def test_a_stream_passes_while_it_comes_and_is_counted(home: Home) -> None:
    first, go_on = b"data: 1\n\n", asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def rest(writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with raw_origin(head + b"9\r\n" + first + b"\r\n", rest) as origin, inside(home) as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(get(origin.url))
        await asyncio.wait_for(reader.readuntil(first), 5)
        go_on.set()
        await read_to_its_end(reader)
        writer.close()

        assert (await place.wait_for("outcome"))[0]["bytes_down"] == 18


def read_to_its_end(reader: asyncio.StreamReader) -> Awaitable[bytes]:
    return asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), 5)
