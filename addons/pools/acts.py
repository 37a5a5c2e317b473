"""What an operator does, done in every process that shares the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kernel import entry
from kernel.leases import Kind

if TYPE_CHECKING:
    from addons.book import Book
    from addons.pools.member import Member
    from kernel.bounds import Bounds
    from kernel.state import State

# In force here at once, whether or not the ledger answers: others hear of it when it does.
_AT_ONCE = {"agents halt": Kind.HALT, "agents quarantine": Kind.QUARANTINE}
# The ledger counts epochs and sessions, so that they are the same everywhere.
_COUNTED = {"agents release": Kind.RELEASE, "agents add": Kind.SESSION, "agents rotate": Kind.SESSION}


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

    async def act(self, act: str, agent: str | None, reason: str, operator: str, by: str, **more: Any) -> str:
        """Do it here and everywhere; the entry's name here, once it is durable.

        `LedgerError` where the ledger must count it and does not answer: then nothing is done.
        """
        if agent is not None and act in _COUNTED:
            fields = entry.operator(act, agent, reason, operator, by) | more
            return await self._member.publish(_COUNTED[act], agent, fields)
        name = await self._book.act(act, agent, reason, operator, by, **more)
        if agent is not None and act in _AT_ONCE:
            fields = entry.operator(act, agent, reason, operator, by) | more
            if act == "agents halt":
                fields["sources"] = list(self._book.sources(agent))
            self._member.tell(_AT_ONCE[act], agent, fields, name)
        return name
