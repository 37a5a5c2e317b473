"""What a flow may still use of what counts while it lasts, bytes and seconds, and how it comes by more.

More is drawn before it is used, and used only once the entry that draws it is durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kernel.budget import Unit
from kernel.step import CHUNK_BYTES, CHUNK_SECONDS
from kernel.verdict import Verdict

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Sequence

    from kernel.state import Draw

MOST_AT_ONCE = 16 * CHUNK_BYTES

type Drawn = tuple[int, Future[None] | None]
"""How much was drawn, and what resolves once that is durable; None where it is."""


class More(Protocol):
    """Draws so much of a unit, if there is. With `at_once` that is durable on return."""

    def __call__(self, unit: Unit, wanted: int, *, at_once: bool) -> Drawn | Verdict: ...


class Allowance:
    """Of one flow."""

    def __init__(self, draws: Sequence[Draw], since: float, more: More) -> None:
        self._more = more
        self._bytes = _least(draws, Unit.BYTES)
        seconds = _least(draws, Unit.SECONDS)
        self._until = None if seconds is None else since + seconds
        self._asked = False
        self.over: Verdict | None = None

    def passing(self, used: int, size: int) -> int:
        """How many of `size` bytes may pass after `used`. With less than all of them, `over` says why."""
        if self._bytes is None:
            return size
        while used + size > self._bytes and self.over is None:
            self._draw(at_once=True)
        if used + size + CHUNK_BYTES // 2 > self._bytes and not self._asked and self.over is None:
            self._draw(at_once=False)
        return min(size, max(0, self._bytes - used))

    def _draw(self, *, at_once: bool) -> None:
        assert self._bytes is not None
        drawn = self._more(Unit.BYTES, min(max(self._bytes, CHUNK_BYTES), MOST_AT_ONCE), at_once=at_once)
        if isinstance(drawn, Verdict):
            # What is drawn already may still be used.
            self.over = drawn if at_once else None
            self._asked = True
            return
        amount, durable = drawn
        if durable is None:
            self._bytes += amount
        else:
            self._asked = True
            durable.add_done_callback(lambda done: self._durable(done, amount))

    def _durable(self, done: Future[None], amount: int) -> None:
        if not done.cancelled() and done.exception() is None:
            assert self._bytes is not None
            self._bytes += amount
            self._asked = False

    def lasting(self, now: float) -> Verdict | None:
        """Why the flow lasts no longer; None while it may. More time is drawn as it goes on."""
        while self._until is not None and now >= self._until and self.over is None:
            drawn = self._more(Unit.SECONDS, CHUNK_SECONDS, at_once=False)
            if isinstance(drawn, Verdict):
                self.over = drawn
            else:
                self._until += drawn[0]
        return self.over

    @property
    def until(self) -> float | None:
        """When `lasting` must be asked again."""
        return self._until


def _least(draws: Sequence[Draw], unit: Unit) -> int | None:
    return min((draw.amount for draw in draws if draw.unit == unit), default=None)
