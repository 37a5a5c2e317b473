"""What the supervisor answers on the control socket: the workers' answers as one, and acts that hold in all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from addons.agents_file import Act
from addons.control import ControlError
from addons.errors import GovernorError
from addons.workers import merged_rows
from addons.workers.channel import ChannelError, Refused
from addons.workers.slot import Slot, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from addons.control import Handler, Message, Peer
    from addons.workers.common_policy import CommonPolicy

ANSWER_SECONDS = 100.0
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
                told = await self._all(self._serving(), "agents", message, peer)
                return {"agents": merged_rows.merged([answer["agents"] for answer in told]),
                        "system": max((answer["system"] for answer in told), key=lambda each: bool(each["halted"]))}
            case "show":
                told = await self._all(self._serving(), "agents", message, peer)
                return {"agent": merged_rows.one([answer["agent"] for answer in told])}
            case Act.ADD | Act.ROTATE | Act.REMOVE as act:
                return await self._register(act, message, peer)
            case "takeover":
                told = await self._all(self._serving(), "agents", message, peer)
                return {"entries": [entry for answer in told for entry in answer["entries"]]}
        return await self._done_once(self._serving(), message, peer)

    async def clock(self, message: Message, peer: Peer) -> Message:
        """Where it has no effect in some workers, what it had in the others is told."""
        slots = self._serving()
        told = await asyncio.gather(*(_answer(slot, "clock", message, peer) for slot in slots), return_exceptions=True)
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
        told = await self._all(asked, "rotate", message, peer)
        return {"lanes": [lane for answer in told for lane in answer["lanes"]]}

    async def _register(self, act: Act, message: Message, peer: Peer) -> Message:
        """Change the file in one worker, and have the others take it from there."""
        first, *others = self._serving()
        (told,) = await self._all([first], "agents", message, peer)
        await asyncio.gather(*(slot.ask("registered", ANSWER_SECONDS) for slot in others))
        return told

    async def _done_once(self, slots: Sequence[Slot], message: Message, peer: Peer) -> Message:
        """An act that one worker does; the ledger brings it to the others."""
        slot, *others = slots
        try:
            return await _answer(slot, "agents", message, peer)
        except ChannelError as problem:
            # A halt is the same done twice. Of anything else nobody knows whether a worker that has ended has done it.
            if others and message.get("act") in ("halt", "halt all"):
                return await self._done_once(others, message, peer)
            raise ControlError(f"worker {slot.name}: {problem}") from problem

    def _serving(self) -> list[Slot]:
        serving = [slot for slot in self._slots if slot.stage is Stage.SERVING]
        if not serving:
            raise ControlError("no worker serves at the moment; they are being started again, ask again")
        return serving

    @staticmethod
    async def _all(slots: Sequence[Slot], verb: str, message: Message, peer: Peer) -> list[Message]:
        return await asyncio.gather(*(_answer(slot, verb, message, peer) for slot in slots))


async def _answer(slot: Slot, verb: str, message: Message, peer: Peer) -> Message:
    return await slot.ask(verb, ANSWER_SECONDS, message=message, uid=peer.uid)


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
