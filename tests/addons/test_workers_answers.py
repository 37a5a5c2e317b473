"""What an operator is answered for several workers: one answer, whatever becomes of one of them meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from addons.control import ControlError, Peer
from addons.errors import GovernorError
from addons.workers.answers import Answers
from addons.workers.channel import ChannelError, Refused
from addons.workers.slot import Slot, Stage

ANN = Peer(0)
HALT = {"act": "halt", "agent": "coder", "reason": "it uploads"}


class Worker(Slot):
    """A worker without a process, which answers with this, or fails so. One that is not `there` stands still."""

    def __init__(self, name: str, answer: dict[str, Any] | Exception, stage: Stage = Stage.SERVING) -> None:
        super().__init__(name, [])
        self.answer, self.stage = answer, stage
        self.heard: list[str] = []
        self.there = True

    async def is_there(self) -> bool:
        if not self.there:
            await asyncio.sleep(0.2)
        return self.there

    async def ask(self, word: str, seconds: float, **fields: Any) -> dict[str, Any]:
        self.heard.append(word)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def answers(*workers: Worker) -> Answers:
    policy: Any = None
    return Answers(workers, policy)


@pytest.mark.parametrize("act", ["halt", "halt all"])
async def test_a_halt_is_asked_of_the_next_worker_where_one_ends_before_it_answers(act):
    workers = Worker("w0", ChannelError("it has ended")), Worker("w1", {"changed": True})
    told = await answers(*workers).agents(HALT | {"act": act}, ANN)

    assert told == {"changed": True, "unanswered": ["w0"]}
    assert [worker.heard for worker in workers] == [["agents"], ["agents"]]


@pytest.mark.parametrize("act", ["release", "release all", "quarantine"])
async def test_what_is_not_the_same_done_twice_is_asked_once_and_the_worker_is_named(act):
    workers = Worker("w0", ChannelError("it has ended")), Worker("w1", {"changed": True})
    with pytest.raises(ControlError, match="worker w0: it has ended"):
        await answers(*workers).agents(HALT | {"act": act}, ANN)

    assert workers[1].heard == []


async def test_a_no_is_told_in_its_own_words_and_no_other_worker_is_asked():
    workers = Worker("w0", Refused("no agent coder is known here")), Worker("w1", {"changed": True})
    with pytest.raises(GovernorError, match=r"^no agent coder is known here$"):
        await answers(*workers).agents(HALT, ANN)

    assert workers[1].heard == []


async def test_a_halt_that_no_worker_answers_is_no_halt():
    with pytest.raises(ControlError, match="worker w1: it has ended"):
        await answers(*(Worker(name, ChannelError("it has ended")) for name in ("w0", "w1"))).agents(HALT, ANN)


async def test_while_no_worker_serves_nothing_is_done_and_that_is_said():
    with pytest.raises(ControlError, match="no worker serves at the moment"):
        await answers(Worker("w0", {"changed": True}, Stage.STARTING)).agents(HALT, ANN)


async def test_a_clock_that_one_worker_found_right_is_accepted_in_the_others():
    workers = Worker("w0", Refused("the clock has not jumped")), Worker("w1", {"changed": True})

    assert await answers(*workers).clock({"act": "accept"}, ANN) == {"changed": True}
    with pytest.raises(GovernorError, match=r"^the clock has not jumped$"):
        await answers(workers[0]).clock({"act": "accept"}, ANN)


async def test_a_clock_that_a_worker_may_not_have_accepted_is_no_success():
    workers = Worker("w0", {"changed": True}), Worker("w1", ChannelError("no answer within 100 s"))
    with pytest.raises(ControlError, match="worker w1: no answer"):
        await answers(*workers).clock({"act": "accept"}, ANN)


def standing_still(name: str) -> Worker:
    worker = Worker(name, {"changed": True})
    worker.there = False
    return worker


@pytest.mark.parametrize("act", ["halt", "halt all", "release", "quarantine", "add", "rotate", "remove"])
async def test_an_act_goes_to_a_worker_that_is_there_and_says_which_has_not_answered(act):
    workers = standing_still("w0"), Worker("w1", {"changed": True}), Worker("w2", {"changed": True})
    told = await answers(*workers).agents(HALT | {"act": act}, ANN)

    assert told == {"changed": True, "unanswered": ["w0"]}
    assert (workers[0].heard, workers[1].heard[0]) == ([], "agents")


async def test_a_halt_does_not_wait_for_a_worker_that_stands_still():
    workers = standing_still("w0"), Worker("w1", {"changed": True})
    began = time.monotonic()
    halting = asyncio.create_task(answers(*workers).agents(HALT, ANN))
    while not workers[1].heard:
        await asyncio.sleep(0.01)

    assert time.monotonic() - began < 0.15
    assert (await halting)["unanswered"] == ["w0"]


@pytest.mark.parametrize("act", ["halt", "halt all", "release", "add"])
async def test_an_act_is_done_nowhere_where_every_worker_stands_still(act):
    workers = standing_still("w0"), standing_still("w1")
    with pytest.raises(ControlError, match=r"^workers w0, w1 did not answer within 5 s; nothing was done$"):
        await answers(*workers).agents(HALT | {"act": act}, ANN)

    assert [worker.heard for worker in workers] == [[], []]


async def test_a_registration_that_a_worker_has_not_looked_at_is_told():
    class Deaf(Worker):
        async def ask(self, word: str, seconds: float, **fields: Any) -> dict[str, Any]:
            if word == "registered":
                raise ChannelError("no answer within 5 s")
            return await super().ask(word, seconds, **fields)

    told = await answers(Worker("w0", {"first": True}), Deaf("w1", {})).agents({"act": "add", "agent": "a"}, ANN)

    assert told == {"first": True, "unanswered": ["w1"]}


async def test_agents_are_listed_without_a_worker_that_stands_still_and_it_is_named():
    worker = Worker("w1", {"agents": [], "system": {"halted": False}})
    told = await answers(standing_still("w0"), worker).agents({"act": "list"}, ANN)

    assert told == {"agents": [], "system": {"halted": False}, "unanswered": ["w0"]}


async def test_no_lane_is_rotated_while_a_worker_that_is_asked_stands_still():
    workers = standing_still("w0"), Worker("w1", {"lanes": ["w1"]})
    with pytest.raises(ControlError, match="worker w0 did not answer within 5 s; no lane was rotated"):
        await answers(*workers).rotate({}, ANN)

    assert workers[1].heard == []
    assert await answers(*workers).rotate({"lane": "w1"}, ANN) == {"lanes": ["w1"]}


@pytest.mark.parametrize("what", ["clock", "agents"])
async def test_what_every_worker_must_do_is_no_success_where_one_stands_still(what):
    workers = standing_still("w0"), Worker("w1", {"changed": True, "entries": []})
    ask = getattr(answers(*workers), what)
    with pytest.raises(ControlError, match="worker w0 did not answer within 5 s; the others"):
        await ask({"act": "accept" if what == "clock" else "takeover"}, ANN)

    assert workers[1].heard == [what]
