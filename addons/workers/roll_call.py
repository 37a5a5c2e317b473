"""Who of the workers is there: all are asked at once, so that one that stands still holds nobody up for long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from addons.workers.slot import SILENT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from addons.workers.slot import Slot


class RollCall:
    """One call of these workers, which begins at once."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        loop = asyncio.get_running_loop()
        self._asked = {slot: loop.create_task(slot.is_there()) for slot in slots}
        self._left = dict(self._asked)

    async def following(self) -> Slot | None:
        """The next that answers, as soon as it does; None once no other has in time."""
        while self._left:
            await asyncio.wait(self._left.values(), return_when=asyncio.FIRST_COMPLETED)
            slot = next(slot for slot, asked in self._left.items() if asked.done())
            if self._left.pop(slot).result():
                return slot
        return None

    async def called(self) -> tuple[list[Slot], list[str]]:
        """All that answer, and the names of those that have not in time."""
        there = await asyncio.gather(*self._asked.values())
        heard = dict(zip(self._asked, there, strict=True))
        return [slot for slot in heard if heard[slot]], [slot.name for slot in heard if not heard[slot]]


def silent(names: Sequence[str]) -> str:
    """That these workers have not answered, in words."""
    return f"worker{'s' if len(names) > 1 else ''} {', '.join(names)} did not answer within {SILENT_SECONDS:g} s"
