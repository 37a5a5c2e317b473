"""What an operator does, done in every process that shares the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from addons.pools.news import COUNTED, KINDS
from kernel import entry
from kernel.leases import Kind
from kernel.transition import act_number

if TYPE_CHECKING:
    from addons.book import Book
    from addons.pools.member import Member
    from kernel.bounds import Bounds
    from kernel.policy import Identity
    from kernel.state import State


class SharedActs:
    """The acts of a process with others beside it (`agents_control.Acts`)."""

    def __init__(self, book: Book, member: Member) -> None:
        self._book, self._member = book, member

    @property
    def state(self) -> State:
        return self._book.state

    @property
    def bounds(self) -> Bounds:
        return self._book.bounds

    @property
    def identity(self) -> Identity:
        return self._book.identity

    async def act(self, act: str, agent: str | None, reason: str, operator: str, by: str, **more: Any) -> str:
        """Do it here and everywhere; the entry's name here, once it is durable.

        `LedgerError` where the ledger must count it and does not answer: then nothing is done.
        """
        kind, fields = KINDS.get(act), entry.operator(act, agent, reason, operator, by) | more
        if kind is not None and (kind in COUNTED or act_number(by) is not None):
            return await self._member.publish(kind, agent or "", fields)
        name = await self._book.act(act, agent, reason, operator, by, **more)
        if kind is not None:
            # In force here at once, whether or not the ledger answers; others hear of it when it does.
            said = {"sources": list(self._book.sources(agent))} if kind is Kind.HALT and agent is not None else {}
            self._member.tell(kind, agent or "", fields | said, name)
        return name
