"""Budgets, rates and halts around a real proxy: what is used up is refused, and what is open ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from addons import websocket_layer
from addons.home import Home
from kernel.bounds import Bounds
from kernel.budget import Counter, Effect
from kernel.entry import preventive
from kernel.folding import States
from kernel.measures import Rate
from tests.addons.inside import Inside, inside
from tests.addons.logs import entries
from tests.addons.test_limits import events, origin, policy
from tests.addons.test_open_hours import refused_in_words
from tests.addons.test_request_bodies import connection, first_line, post
from tests.addons.websocket_ends import CLOSE, TEXT, closing, frame, open_websocket
from tests.kernel import accounting
from tests.kernel.accounting import at, budget, rate

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n"
LONG_SECONDS = 30


@pytest.fixture(autouse=True)
def nobody_watched() -> Iterator[None]:
    yield
    websocket_layer.install(lambda _: None)


@contextlib.asynccontextmanager
async def bounded(home: Home, *budgets: Any, granted: str = "", **said: Any) -> AsyncIterator[Inside]:
    """A proxy under a policy with these budgets."""
    async with inside(home, policy=granted or policy()) as place:
        place.governed = replace(place.governed, bounds=Bounds(accounting.policy(*budgets, **said)))
        yield place


def answering(*parts: bytes, pause: float = 0) -> Any:
    """An origin's answer in these parts, and its connection open for so long."""
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
            # As long as the other end is there.
            await asyncio.wait_for(reader.read(), pause)
        writer.close()

    return answer


OK = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def statuses(place: Inside, url: str, times: int) -> list[str]:
    return [(await place.get(url)).split(b"\r\n", 1)[0].decode().rpartition(" ")[2] for _ in range(times)]


async def test_what_is_used_up_is_refused_by_its_name(home: Home) -> None:
    async with origin(OK) as url, bounded(home, budget({"requests": 2})) as place:
        assert await statuses(place, url, 3) == ["OK", "OK", "BUDGET_EXHAUSTED"]
        last = (await place.wait_for("decision", 3))[-1]
        assert (last["verdict"], last["rule"], last["draws"]) == ("deny", "b", [])
        assert [each["draws"][0]["amount"] for each in place.entries("decision")[:2]] == [1, 1]


async def test_what_the_log_says_is_what_is_counted(home: Home) -> None:
    async with origin(OK) as url, bounded(home, budget({"bytes": 10**7, "requests": 9})) as place:
        await statuses(place, url, 3)
        await place.wait_for("outcome", 3)
        decisions = place.entries("decision")
        account = place.book.state.account(("b", "bytes", "local"))

        assert (account.spent, account.held) == (6, 0)
        assert [each["pre"] for each in decisions] != [each["post"] for each in decisions]
        assert len({each["post"] for each in decisions}) == 3


async def test_a_download_ends_where_its_budget_does(home: Home) -> None:
    most = 3 * 2**20
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"10000\r\n" + bytes(2**16) + b"\r\n"] * 100
    async with origin(answering(head, *chunks)) as url, bounded(home, budget({"bytes": most})) as place:
        got = await place.get(url)
        *parts, last = await place.wait_for("outcome", 3)

        assert 2**20 < last["bytes_down"] <= most
        assert len(got) < most + 10_000
        assert (last["result"], last["code"]) == ("cut", "BUDGET_EXHAUSTED")
        assert [part["part"] for part in parts] == list(range(1, len(parts) + 1))
        assert sum(draw["amount"] for part in parts for draw in part["draws"]) + 2**20 <= most
        assert place.book.state.account(("b", "bytes", "local")).spent == last["bytes_down"]


async def test_an_idle_stream_ends_with_its_seconds(home: Home) -> None:
    async with origin(answering(SSE, pause=LONG_SECONDS)) as url, bounded(home, budget({"seconds": 1})) as place:
        got = (await place.get(url)).partition(b"\r\n\r\n")[2]

        assert refused_in_words(events(got)[-1])["code"] == "BUDGET_EXHAUSTED"


async def test_a_rate_says_when_to_come_again(home: Home) -> None:
    limits = accounting.policy(rates=(rate(Rate(1, 60)),))
    async with origin(OK) as url, inside(home, policy=policy()) as place:
        place.governed = replace(place.governed, bounds=Bounds(limits))
        await place.get(url)
        refused = await place.get(url)

    assert refused.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 60\r\n" in refused.lower()
    assert b"x-governor-verdict: throttle" in refused.lower()


async def test_an_agent_is_told_what_is_left_once_it_is_little(home: Home) -> None:
    said = budget({"requests": 2}, when_used=[at(50, Effect.TELL)])
    async with origin(OK) as url, bounded(home, said) as place:
        assert b"x-governor-remaining-requests: 1\r\n" in (await place.get(url)).lower()


async def test_the_same_request_again_and_again_is_stopped(home: Home) -> None:
    counters = (Counter("stagnation", 3, Effect.DENY, 600),)
    async with origin(OK) as url, bounded(home, counters=counters) as place:
        found = []
        for number in range(4):
            found += await statuses(place, url, 1)
            await place.wait_for("outcome", min(number + 1, 3))
        assert found == ["OK"] * 3 + ["STAGNATION"]
        assert await statuses(place, url + "other", 1) == ["OK"]


async def halt(place: Inside) -> str:
    return await place.book.act("agents halt", "local", "it ran away", "ann", "control")


def request(url: str) -> bytes:
    return f"GET {url} HTTP/1.1\r\nHost: {url.split('/')[2]}\r\n\r\n".encode()


async def halt_all(place: Inside) -> str:
    return await place.book.act("agents halt all", None, "our keys are out", "ann", "control")


halts = pytest.mark.parametrize("halting", [halt, halt_all])


@halts
async def test_a_halt_ends_an_idle_event_stream_in_words(home: Home, halting: Any) -> None:
    async with origin(answering(SSE, pause=LONG_SECONDS)) as url, bounded(home) as place:
        async with connection(place) as (reader, writer):
            writer.write(request(url))
            got = await reader.readuntil(b"data: x\n\n")
            started = time.monotonic()
            await halting(place)
            got += await reader.read()
        ended = (await place.wait_for("outcome"))[-1]

        assert time.monotonic() - started < LONG_SECONDS / 2
        assert refused_in_words(events(got.partition(b"\r\n\r\n")[2])[-1])["code"] == "AGENT_HALTED"
        assert (ended["result"], ended["code"]) == ("cut", "AGENT_HALTED")


async def test_a_halt_ends_an_idle_download_and_it_does_not_look_complete(home: Home) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + bytes(100_000)
    async with origin(answering(head, pause=LONG_SECONDS)) as url, bounded(home) as place:
        async with connection(place) as (reader, writer):
            writer.write(request(url))
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(100_000)
            await halt(place)
            assert await reader.read() == b""
        assert (await place.wait_for("outcome"))[-1]["code"] == "AGENT_HALTED"


@halts
async def test_a_halt_closes_an_idle_websocket_in_words(home: Home, halting: Any) -> None:
    granted = policy("schemes: [ws, wss]", "websocket: {}").replace("    schemes: [http, https]\n", "", 1)
    async with bounded(home, granted=granted) as place, open_websocket(place, place.outcomes.watch) as opened:
        opened.client.send(frame(TEXT, b"hello"))
        assert await opened.origin.next() == (TEXT, b"hello", True)
        await halting(place)
        last = await opened.client.next()
        opened.client.send(frame(CLOSE))
        await opened.origin.rest()
        entry = (await place.wait_for("outcome"))[-1]

        assert last == (CLOSE, closing(1008, f"AGENT_HALTED {entry['decision']}".encode()), True)


async def test_while_all_are_halted_nobody_passes_and_each_is_told_why(home: Home) -> None:
    async with origin(OK) as url, bounded(home) as place:
        await halt_all(place)
        refused = await place.get(url)
        decided = place.entries("decision")[-1]

    assert refused.startswith(b"HTTP/1.1 403 Forbidden by Governor: AGENT_HALTED")
    assert b"all agents are halted" in refused
    assert (decided["verdict"], decided["code"], decided["rule"]) == ("halt", "AGENT_HALTED", None)


async def test_all_go_on_once_all_are_released(home: Home) -> None:
    async with origin(OK) as url, bounded(home) as place:
        await halt_all(place)
        before = await statuses(place, url, 2)
        await place.book.act("agents release all", None, "new keys", "ann", "control")

        assert before + await statuses(place, url, 1) == ["AGENT_HALTED", "AGENT_HALTED", "OK"]
        assert place.asked == ["localhost"]


@halts
async def test_who_is_halted_may_still_ask_governor_about_it(home: Home, halting: Any) -> None:
    async with bounded(home) as place:
        await halting(place)
        got = await place.get("http://governor.internal/me")

    assert got.startswith(b"HTTP/1.1 200 ")


async def quarantine(place: Inside) -> str:
    return await place.book.act("agents quarantine", "local", "it writes too much", "ann", "control",
                                until="2100-01-01T00:00:00.000000Z")


async def quarantine_for_another(place: Inside) -> None:
    place.book.record("preventive", preventive(
        "local", "quarantine", "2100-01-01T00:00:00.000000Z", "other", ["other", "local"], 1, "w1/9", "on-halt",
        degraded=False), "local")


@pytest.mark.parametrize("holding", [quarantine, quarantine_for_another])
async def test_who_may_only_read_loses_its_websocket_in_words(home: Home, holding: Any) -> None:
    granted = policy("schemes: [ws, wss]", "websocket: {}").replace("    schemes: [http, https]\n", "", 1)
    async with bounded(home, granted=granted) as place, open_websocket(place, place.outcomes.watch) as opened:
        opened.client.send(frame(TEXT, b"hello"))
        assert await opened.origin.next() == (TEXT, b"hello", True)
        await holding(place)
        last = await opened.client.next()
        opened.client.send(frame(TEXT, b"more"), frame(CLOSE))
        rest = await opened.origin.rest()
        ended = (await place.wait_for("outcome"))[-1]

        assert last == (CLOSE, closing(1008, f"QUARANTINED {ended['decision']}".encode()), True)
        assert (TEXT, b"more", True) not in rest
        assert (ended["result"], ended["code"]) == ("cut", "QUARANTINED")


@pytest.mark.parametrize("holding", [quarantine, quarantine_for_another])
async def test_who_may_only_read_goes_on_with_what_it_reads(home: Home, holding: Any) -> None:
    asked: list[bytes] = []
    goes_on = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(SSE)
        await goes_on.wait()
        writer.write(b"data: y\n\n")
        writer.close()

    async with origin(slowly) as url, bounded(home) as place, connection(place) as (reader, writer):
        writer.write(request(url))
        await reader.readuntil(b"data: x\n\n")
        await holding(place)
        goes_on.set()
        got = await reader.read()

        assert b"data: y\n\n" in got
        assert b"error" not in got


@pytest.mark.parametrize(("ending", "code"), [
    (halt, "AGENT_HALTED"), (quarantine, "QUARANTINED"), (quarantine_for_another, "QUARANTINED")])
async def test_a_halt_ends_an_upload_and_so_does_a_quarantine(home: Home, ending: Any, code: str) -> None:
    received = bytearray()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65536):
            received.extend(part)

    async with origin(swallow) as url, bounded(home, granted=policy("stream-request: yes")) as place:
        async with connection(place) as (reader, writer):
            writer.write(post(url, "Content-Length: 900000"))
            writer.write(b"first" * 20_000)
            while b"first" not in received:
                await asyncio.sleep(0.01)
            await ending(place)
            before = len(received)
            writer.write(b"later" * 20_000)
            assert f" 403 Forbidden by Governor: {code}".encode() in await first_line(reader)
        assert b"later" not in received
        assert before <= 110_000


async def test_an_answer_that_comes_after_a_halt_is_not_passed_on(home: Home) -> None:
    halted = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await halted.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")

    async with origin(late) as url, bounded(home) as place:
        asking = asyncio.create_task(place.get(url))
        await place.wait_for("decision")
        await halt(place)
        halted.set()
        got = await asking

    assert got.startswith(b"HTTP/1.1 403 Forbidden by Governor: AGENT_HALTED")
    assert b"secret" not in got


async def test_a_short_answer_of_which_a_halt_lets_the_end_come_is_not_passed_on(home: Home) -> None:
    halted = asyncio.Event()

    async def halves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsec")
        await halted.wait()
        writer.write(b"ret")

    async with origin(halves) as url, bounded(home) as place:
        asking = asyncio.create_task(place.get(url))
        await place.wait_for("decision")
        # Long enough for the first half to arrive, which nothing tells.
        await asyncio.sleep(0.1)
        await halt(place)
        halted.set()
        got = await asking

    assert got.startswith(b"HTTP/1.1 403 Forbidden by Governor: AGENT_HALTED")
    assert b"sec" not in got.partition(b"\r\n\r\n")[2].replace(b"seconds", b"")


async def test_who_is_halted_is_refused_before_a_name_is_asked(home: Home) -> None:
    async with origin(OK) as url, bounded(home) as place:
        entry = await halt(place)
        got = await place.get(url)

        assert got.startswith(b"HTTP/1.1 403 Forbidden by Governor: AGENT_HALTED")
        assert b"halted: OPERATOR" in got
        assert place.asked == []
        assert entry == f"main/{place.entries('operator')[0]['seq']}"
        await place.book.act("agents release", "local", "it is well again", "ann", "control")
        assert await statuses(place, url, 1) == ["OK"]


async def test_a_halt_while_the_decision_is_written_keeps_the_request_back(home: Home) -> None:
    reached: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with origin(answer) as url, bounded(home) as place:
        commit = place.lane.commit

        def halting(kind: str, *rest: Any) -> Any:
            number, durable = commit(kind, *rest)
            if kind == "decision" and place.book.state.agent("local").halt is None:
                asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(halt(place)))
            return number, durable

        place.lane.commit = halting  # type: ignore[method-assign]
        got = await place.get(url)
        codes = [entry["code"] for entry in await place.wait_for("decision", 2)]

        assert got.startswith(b"HTTP/1.1 403 Forbidden by Governor: AGENT_HALTED")
        assert reached == []
        assert codes == ["ALLOW", "AGENT_HALTED"]
        assert [entry["result"] for entry in place.entries("outcome")] == ["not_sent"]


def folded(place: Inside) -> States:
    """What the log makes."""
    states = States()
    for entry in entries(place.home):
        states.fold(entry, f"main/{entry['seq']}")
    return states


async def test_a_request_whose_entry_waits_too_long_gives_back_what_it_drew(home: Home) -> None:
    async with origin(OK) as url, bounded(home, budget({"requests": 5, "bytes": 10**7})) as place:
        commit = place.lane.commit

        def failing(kind: str, *rest: Any) -> Any:
            number, _ = commit(kind, *rest)
            late = asyncio.get_running_loop().create_future()
            late.set_exception(TimeoutError("nobody answers"))
            return number, late

        place.lane.commit = failing  # type: ignore[method-assign]
        assert await statuses(place, url, 1) == ["DEADLINE"]
        place.lane.commit = commit  # type: ignore[method-assign]
        assert await statuses(place, url, 1) == ["OK"]
        assert [each["result"] for each in await place.wait_for("outcome", 2)] == ["not_sent", "completed"]

        assert place.book.state.account(("b", "requests", "local"))[1:3] == (1, 0)
        assert not place.book.state.open
        assert place.book.states == folded(place)


async def test_a_budget_that_halts_says_so_in_an_entry_of_its_own(home: Home) -> None:
    async with origin(OK) as url, bounded(home, budget({"requests": 1}, when_used=[at(100, Effect.HALT)])) as place:
        assert await statuses(place, url, 3) == ["OK", "EXHAUSTION", "AGENT_HALTED"]
        (entry,) = await place.wait_for("halt")
        decision = place.entries("decision")[1]

        assert (entry["agent"], entry["reason"], entry["rule"]) == ("local", "EXHAUSTION", "b")
        assert entry["decision"] == f"main/{decision['seq']}"
        assert entry["sources"] == []


async def test_where_it_is_asked_for_the_whole_state_is_compared(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVERNANCE_CONTRACTS_ENABLED", "1")
    async with origin(OK) as url, bounded(home, budget({"requests": 5})) as place:
        await place.get(url)
        await place.wait_for("outcome")
        key = ("b", "requests", "local")
        place.book.state.accounts[key] = place.book.state.account(key)._replace(held=1)
        assert await statuses(place, url, 2) == ["FAULT", "CONTRACT_VIOLATION"]


async def test_after_a_broken_contract_nothing_passes(home: Home) -> None:
    async with origin(OK) as url, bounded(home, budget({"requests": 5})) as place:
        await place.get(url)
        key = ("b", "requests", "local")
        place.book.state.accounts[key] = place.book.state.account(key)._replace(spent=-3)
        assert await statuses(place, url, 2) == ["FAULT", "CONTRACT_VIOLATION"]
        assert (await place.wait_for("fault"))[0]["code"] == "CONTRACT_VIOLATION"
