"""What an operator is answered for several workers: one answer, whatever becomes of one of them meanwhile."""

from __future__ import annotations

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
    """A worker without a process, which answers with this, or fails so."""

    def __init__(self, name: str, answer: dict[str, Any] | Exception, stage: Stage = Stage.SERVING) -> None:
        super().__init__(name, [])
        self.answer, self.stage = answer, stage
        self.heard: list[str] = []

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

    assert told == {"changed": True}
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
