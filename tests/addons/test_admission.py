"""How many connections there may be, and what becomes of a source that opens more, or sends garbage on them."""

from __future__ import annotations

import asyncio
import resource
import time

import pytest

from addons import admission
from addons.admission import EACH, MOST, Admission, Stall, raise_file_limit
from addons.home import Home
from addons.refusal_rate import ANSWERS_PER_SECOND, MOST_WAIT_SECONDS, PER_SECOND, RefusalRate
from kernel.verdict import Code
from tests.addons.inside import get, inside, raw_origin, until_closed
from tests.addons.test_heads import connection


class Clock:
    now = 1000.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rate(clock: Clock) -> RefusalRate:
    return RefusalRate(clock, clock)


def counted(rate: RefusalRate) -> dict[str, dict[str, int]]:
    return {source: dict(uncounted.counts) for source, uncounted in rate.drain().items()}


@pytest.mark.parametrize(("files", "most", "each"), [
    (1024, 384, 192), (1_000_000, MOST, EACH), (resource.RLIM_INFINITY, MOST, EACH), (100, 1, 1)])
def test_there_are_no_more_connections_than_files_allow(rate: RefusalRate, files: int, most: int, each: int) -> None:
    made = Admission(rate, files)

    assert (made.most, made.each) == (most, each)


def test_one_address_has_its_share_and_no_more(rate: RefusalRate) -> None:
    doors = Admission(rate, 256 + 2 * 10)

    assert [doors.enter("127.0.0.2") for _ in range(5)] == [None] * 5
    assert doors.enter("127.0.0.2") == Stall(MOST_WAIT_SECONDS, admitted=False)
    assert [doors.enter(f"127.0.0.{number}") for number in range(3, 8)] == [None] * 5
    assert doors.enter("127.0.0.9") == Stall(MOST_WAIT_SECONDS, admitted=False)
    assert counted(rate) == {"127.0.0.2 connections": {"BUSY": 1}, "127.0.0.9 connections": {"BUSY": 1}}
    doors.leave("127.0.0.2")
    assert doors.enter("127.0.0.2") is None


def test_only_so_many_wait_to_be_turned_away(rate: RefusalRate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_MOST_STALLED", 2)
    doors = Admission(rate, 256 + 2)
    doors.enter("127.0.0.2")

    assert [doors.enter("127.0.0.2") for _ in range(3)] == [
        Stall(MOST_WAIT_SECONDS, False), Stall(MOST_WAIT_SECONDS, False), Stall(0.0, False)]
    doors.turned_away()
    doors.turned_away()
    assert doors.enter("127.0.0.2") == Stall(MOST_WAIT_SECONDS, False)


def test_a_source_of_garbage_waits_for_its_turn_until_too_many_wait(rate: RefusalRate, clock: Clock) -> None:
    doors = Admission(rate, 100_000)
    for _ in range(PER_SECOND + 1):
        rate.exceeded("127.0.0.2 connections", Code.MALFORMED)

    waits = [doors.enter("127.0.0.2") for _ in range(int(MOST_WAIT_SECONDS * ANSWERS_PER_SECOND) + 2)]
    assert [round(stall.seconds * ANSWERS_PER_SECOND) for stall in waits[:3] if stall] == [1, 2, 3]
    assert [stall.admitted for stall in (waits[-4], waits[-1]) if stall] == [True, False]
    assert doors.enter("127.0.0.3") is None
    clock.now += 1
    assert doors.enter("127.0.0.2") is None


def test_all_connections_of_an_address_share_its_turns(rate: RefusalRate) -> None:
    doors = Admission(rate, 100_000)
    turns = [doors.turn_seconds("127.0.0.2") for _ in range(10 * ANSWERS_PER_SECOND)]

    assert turns[0] == turns[1] == admission._TURN_SECONDS
    assert turns[-1] == pytest.approx(10)
    assert doors.turn_seconds("127.0.0.3") == admission._TURN_SECONDS


def test_the_soft_limit_on_files_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1000, before[1]), before[1]))

        assert raise_file_limit() == before[1] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_connection_too_many_is_dropped_unread_after_a_while(home: Home) -> None:
    async with inside(home, files=256 + 2 * 2) as place, connection(place) as (_, first):
        first.write(b"GET ")
        await asyncio.sleep(0.1)
        started = time.monotonic()
        async with connection(place) as (reader, writer):
            writer.write(get("http://localhost/denied/x"))
            dropped = await until_closed(reader)
        first.close()
        await asyncio.sleep(0.1)

        assert dropped == b""
        assert time.monotonic() - started > 0.9 * MOST_WAIT_SECONDS
        assert place.entries("decision") == []
        assert counted(place.rate) == {"127.0.0.1 connections": {"BUSY": 1}}
        assert b"403 Forbidden" in await place.get("http://localhost/denied/x")
        assert place.admission._stalled == 0


async def test_refusals_over_the_rate_are_answered_one_after_the_other(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        over = 20

        async def refused() -> bytes:
            return await place.get("http://localhost/denied/x")

        for _ in range(PER_SECOND):
            assert b"403 Forbidden" in await refused()
        started = time.monotonic()
        answers = await asyncio.gather(*(refused() for _ in range(over)))
        waited = time.monotonic() - started
        passed = await place.get(origin.url)

        assert all(answer.startswith(b"HTTP/1.1 429 ") for answer in answers)
        assert waited > 0.9 * over / ANSWERS_PER_SECOND
        assert passed.startswith(b"HTTP/1.1 200 ")
