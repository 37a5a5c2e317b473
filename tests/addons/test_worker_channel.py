"""The channel between the supervisor and a worker: asked and answered, and never silent about an end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.control import Message
from addons.errors import GovernorError
from addons.workers import worker
from addons.workers.channel import Channel, ChannelError, Refused
from addons.workers.post import Post
from addons.workers.siblings import Siblings

values = st.recursive(
    st.none() | st.booleans() | st.integers(-2**53, 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20)


@contextlib.asynccontextmanager
async def channels() -> AsyncIterator[tuple[Channel, Channel]]:
    """Both ends of one, which hear."""
    ends = [await Channel.over(end) for end in socket.socketpair()]
    hearing = [asyncio.create_task(end.run()) for end in ends]
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            end.close()
        await asyncio.gather(*hearing)


async def echo(message: Message) -> Message:
    return message


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: name not in {"word", "seconds", "self"}), values))
async def test_whatever_json_can_say_comes_back_as_it_was(fields):
    async with channels() as (one, other):
        other.on("echo", echo)

        assert await one.ask("echo", 5, **fields) == fields


async def test_answers_find_who_asked_whatever_their_order():
    async def later(message: Message) -> Message:
        await asyncio.sleep(message["after"])
        return message

    async with channels() as (one, other):
        other.on("later", later)
        answers = await asyncio.gather(*(one.ask("later", 5, after=each / 100) for each in (3, 1, 2, 0)))

    assert [answer["after"] for answer in answers] == [0.03, 0.01, 0.02, 0.0]


async def test_a_large_answer_passes_whole():
    async with channels() as (one, other):
        other.on("echo", echo)

        assert len((await one.ask("echo", 10, text="x" * 5_000_000))["text"]) == 5_000_000


async def test_a_no_is_told_in_its_own_words_and_a_fault_by_its_class_alone():
    async def refuse(_: Message) -> Message:
        raise GovernorError("not today")

    async def fail(_: Message) -> Message:
        raise ValueError("what an agent sent")

    async with channels() as (one, other):
        faults: list[Exception] = []
        other.on_fault = faults.append
        other.on("refuse", refuse)
        other.on("fail", fail)
        with pytest.raises(Refused, match="not today"):
            await one.ask("refuse", 5)
        with pytest.raises(Refused, match="internal fault ValueError") as fault:
            await one.ask("fail", 5)
        with pytest.raises(Refused, match="internal fault KeyError"):
            await one.ask("nobody hears this", 5)
    assert "agent" not in str(fault.value)
    assert [type(each) for each in faults] == [ValueError, KeyError]


async def test_a_fault_is_told_on_its_own_side_where_nobody_waits_for_an_answer():
    noted = asyncio.Event()

    async def fail(_: Message) -> None:
        raise ValueError("what an agent sent")

    async with channels() as (one, other):
        other.on_fault = lambda fault: noted.set()
        other.on("drain", fail)
        one.tell("drain")
        async with asyncio.timeout(5):
            await noted.wait()


async def test_who_does_not_answer_in_time_has_not_answered():
    async def never(_: Message) -> Message:
        await asyncio.sleep(60)
        return {}

    async with channels() as (one, other):
        other.on("never", never)
        with pytest.raises(ChannelError, match="no answer within"):
            await one.ask("never", 0.05)


async def test_an_end_of_the_other_side_ends_what_is_asked_and_what_would_be():
    async with channels() as (one, other):
        async def leave(_: Message) -> Message:
            other.close()
            return {}

        other.on("leave", leave)
        with pytest.raises(ChannelError, match="has ended"):
            await one.ask("leave", 5)
        with pytest.raises(ChannelError, match="has ended"):
            await one.ask("anything", 5)
        one.tell("poke")


async def test_a_poke_from_any_thread_wakes_whoever_waits_for_one():
    woken = asyncio.Event()
    mine, others = Siblings(), Siblings()
    others.on_poke(woken.set)

    async def poked(_: Message) -> None:
        others.poked()

    async with channels() as (one, other):
        other.on("poke", poked)
        loop = asyncio.get_running_loop()
        mine.reach_by(lambda: loop.call_soon_threadsafe(one.tell, "poke"))
        await asyncio.to_thread(mine.poke)
        async with asyncio.timeout(5):
            await woken.wait()


@pytest.mark.parametrize("told", [
    pytest.param(b"", id="it is left alone"), pytest.param(b"\0\0\0\1{", id="what it hears is no JSON"),
])
async def test_a_worker_ends_with_its_channel_however_that_ends(monkeypatch, told):
    ended = []
    monkeypatch.setattr(worker, "ctx", SimpleNamespace(master=SimpleNamespace(shutdown=lambda: ended.append(True))))
    ours, theirs = socket.socketpair()
    alone = worker.Worker(Post(0, 2, (), 0, -1))
    alone._channel = await Channel.over(theirs)
    ours.sendall(told)
    ours.close()
    with contextlib.suppress(ValueError):
        await alone._hear()

    assert ended == [True]


def test_alone_nobody_is_woken():
    siblings = Siblings()
    siblings.poke()
