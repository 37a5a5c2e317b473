"""What the supervisor answers on the control socket: the workers' answers as one, and acts that hold in all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from addons.agents_file import Act
from addons.control import ControlError
from addons.errors import GovernorError
from addons.workers import merged_rows
from addons.workers.channel import ChannelError, Refused
from addons.workers.roll_call import RollCall, silent
from addons.workers.slot import SILENT_SECONDS, Slot, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from addons.control import Handler, Message, Peer
    from addons.workers.common_policy import CommonPolicy

# Verbs wait for 20 s. A halt of all agents takes up to 11 s: the ledger's answer, and that of all who share it.
ANSWER_SECONDS = 12.0
STATUS_SECONDS = 2.0


class Answers:
    """The handlers for `ControlServer`."""

    def __init__(self, slots: Sequence[Slot], policy: CommonPolicy) -> None:
        self._slots, self._policy = slots, policy

    def handlers(self) -> dict[str, Handler]:
        return {"status": self.status, "reload": self.reload, "agents": self.agents, "clock": self.clock,
                "rotate": self.rotate}

    async def status(self, message: Message, peer: Peer) -> Message:
        """The status of all workers; ready when each of them is."""
        told = await asyncio.gather(*(_status_of(slot, message, peer) for slot in self._slots))
        answers = {slot.name: answer for slot, answer in zip(self._slots, told, strict=True)}
        found = [answer for answer in answers.values() if answer is not None]
        return {
            "ready": len(found) == len(answers) and all(answer["ready"] for answer in found),
            "mode": self._policy.mode, "policy": self._policy.governed.policy.digest,
            "lanes": [lane for answer in found for lane in answer["lanes"]], "workers": len(found),
            "agents": max((answer["agents"] for answer in found), default=0),
            "halted": list(dict.fromkeys(name for answer in found for name in answer["halted"])),
            # Each worker knows all of them, where they share a ledger.
            "system": found[0]["system"] if found else None, "fleet": _fleet(found),
            "hints": [hint for name, answer in answers.items() for hint in _hints(name, answer)],
        }

    async def reload(self, message: Message, peer: Peer) -> Message:
        return await self._policy.reload(peer.name, peer.name)

    async def agents(self, message: Message, peer: Peer) -> Message:
        match message.get("act"):
            case "list":
                told, missing = await self._of_all(message, peer)
                return {"agents": merged_rows.merged([answer["agents"] for answer in told]),
                        "system": max((answer["system"] for answer in told), key=lambda each: bool(each["halted"])),
                        **_unanswered(missing)}
            case "show":
                told, missing = await self._of_all(message, peer)
                return {"agent": merged_rows.one([answer["agent"] for answer in told]), **_unanswered(missing)}
            case Act.ADD | Act.ROTATE | Act.REMOVE:
                return await self._register(message, peer)
            case "takeover":
                told, missing = await self._of_all(message, peer)
                if missing:
                    raise ControlError(f"{silent(missing)}; the others have taken over what was done without them")
                return {"entries": [entry for answer in told for entry in answer["entries"]]}
        called = RollCall(self._serving())
        done, failed = await self._done_once(called, message, peer)
        _, missing = await called.called()
        return {**done, **_unanswered([*failed, *missing])}

    async def clock(self, message: Message, peer: Peer) -> Message:
        """Where it has no effect in some workers, what it had in the others is told."""
        slots, missing = await self._there(self._serving())
        told = await asyncio.gather(*(_answer(slot, "clock", message, peer) for slot in slots), return_exceptions=True)
        if missing:
            raise ControlError(f"{silent(missing)}; the others were asked, ask again for the rest")
        answers = [answer for answer in told if isinstance(answer, dict)]
        for slot, answer in zip(slots, told, strict=True):
            if isinstance(answer, BaseException) and (not answers or not isinstance(answer, Refused)):
                raise ControlError(f"{answer}" if isinstance(answer, Refused) else f"worker {slot.name}: {answer}")
        return max(answers, key=lambda answer: bool(answer.get("changed")))

    async def rotate(self, message: Message, peer: Peer) -> Message:
        """End the segment of one lane, or of each that is written."""
        asked = [slot for slot in self._serving() if message.get("lane") in (None, slot.name)]
        if not asked:
            names = ", ".join(slot.name for slot in self._serving())
            raise ControlError(f"this Governor writes lanes {names} and rotates no other")
        _, missing = await self._there(asked)
        if missing:
            raise ControlError(f"{silent(missing)}; no lane was rotated, --lane names one that may be")
        told = await self._all(asked, "rotate", message, peer)
        return {"lanes": [lane for answer in told for lane in answer["lanes"]]}

    async def _register(self, message: Message, peer: Peer) -> Message:
        """Change the file in one worker, and have the others take it from there."""
        called = RollCall(self._serving())
        told, _ = await self._done_once(called, message, peer)
        there, missing = await called.called()
        taken = await asyncio.gather(*(_registered(slot) for slot in there))
        missing += [slot.name for slot, took in zip(there, taken, strict=True) if not took]
        return {**told, **_unanswered(missing)}

    async def _done_once(self, called: RollCall, message: Message, peer: Peer) -> tuple[Message, list[str]]:
        """An act that one worker does, the first that is there; the ledger brings it to the others.

        Behind its answer are the names of those that were asked before and gave none.
        """
        failed: dict[str, ControlError] = {}
        while (slot := await called.following()) is not None:
            try:
                return await _answer(slot, "agents", message, peer), list(failed)
            except ChannelError as problem:
                failed[slot.name] = _failed(slot, problem)
                # A halt is the same done twice. Of anything else nobody knows whether a worker that ended has done it.
                if message.get("act") not in ("halt", "halt all"):
                    break
        if failed:
            raise next(reversed(failed.values()))
        _, missing = await called.called()
        raise ControlError(f"{silent(missing)}; nothing was done")

    async def _of_all(self, message: Message, peer: Peer) -> tuple[list[Message], list[str]]:
        """What all that are there answer, and the names of the others."""
        slots, missing = await self._there(self._serving())
        return await self._all(slots, "agents", message, peer), missing

    @staticmethod
    async def _there(slots: Sequence[Slot]) -> tuple[list[Slot], list[str]]:
        there, missing = await RollCall(slots).called()
        if not there:
            raise ControlError(silent(missing))
        return there, missing

    def _serving(self) -> list[Slot]:
        serving = [slot for slot in self._slots if slot.stage is Stage.SERVING]
        if not serving:
            raise ControlError("no worker serves at the moment; they are being started again, ask again")
        return serving

    @staticmethod
    async def _all(slots: Sequence[Slot], verb: str, message: Message, peer: Peer) -> list[Message]:
        async def answer(slot: Slot) -> Message:
            try:
                return await _answer(slot, verb, message, peer)
            except ChannelError as problem:
                raise _failed(slot, problem) from problem

        return await asyncio.gather(*map(answer, slots))


async def _answer(slot: Slot, verb: str, message: Message, peer: Peer) -> Message:
    return await slot.ask(verb, ANSWER_SECONDS, message=message, uid=peer.uid)


async def _registered(slot: Slot) -> bool:
    """Whether the worker has looked at the file again."""
    try:
        await slot.ask("registered", SILENT_SECONDS)
    except (ChannelError, Refused):
        return False
    return True


def _failed(slot: Slot, problem: ChannelError) -> ControlError:
    return ControlError(f"worker {slot.name}: {problem}; what was asked may still be done")


def _unanswered(missing: Sequence[str]) -> Message:
    return {"unanswered": list(missing)} if missing else {}


async def _status_of(slot: Slot, message: Message, peer: Peer) -> Message | None:
    try:
        return await slot.ask("status", STATUS_SECONDS, message=message, uid=peer.uid)
    except GovernorError:
        return None


def _fleet(found: Sequence[Message]) -> list[Message]:
    """Every process that any worker has heard of, as it was heard of last."""
    rows: dict[str, Message] = {}
    for row in (row for answer in found for row in answer["fleet"]):
        if row["holder"] not in rows or row["seen"] > rows[row["holder"]]["seen"]:
            rows[row["holder"]] = row
    return [rows[holder] for holder in sorted(rows)]


def _hints(name: str, answer: Message | None) -> list[str]:
    if answer is None:
        return [f"worker {name} does not answer, or is being started or stopped"]
    return [f"{name}: {hint}" for hint in answer["hints"]]
