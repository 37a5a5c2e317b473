"""The ledger as the kernel has it, for whoever can keep tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Concatenate

from addons.pools.protocol import LedgerError, NewsUnreadable, NotJoined
from kernel import errors
from kernel.ledger import calls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kernel.leases import Ask, Beat, Grant, Held, News, Overview, Purse, Roster, Settled, Total
    from kernel.ledger.tables import Draft


class LedgerByTables(ABC):
    """A `Ledger`. Each call is one of the kernel's, and one transaction."""

    def join(self, holder: str, run: str, said: Mapping[str, object]) -> Sequence[Held]:
        return self._do(calls.join, holder, run, said)

    def acquire(self, holder: str, run: str, asks: Sequence[Ask], now_us: int) -> Sequence[Grant]:
        return self._do(calls.acquire, holder, run, asks, now_us)

    def settle(self, holder: str, settled: Sequence[Settled]) -> None:
        self._do(calls.settle, holder, settled)

    def beat(self, holder: str, run: str, seen: int, now_us: int, said: Mapping[str, object]) -> Beat:
        return self._do(calls.beat, holder, run, seen, said)

    def tell(self, holder: str, news: News) -> News:
        return self._do(calls.tell, news)

    def repost(self, holder: str, totals: Sequence[Total], leases: Sequence[Held]) -> None:
        self._do(calls.repost, holder, totals, leases)

    def leave(self, holder: str) -> None:
        self._do(calls.leave, holder)

    def look(self, purses: Sequence[Purse] = ()) -> Roster:
        return self._read(lambda draft: calls.look(draft, purses))

    def overview(self) -> Overview:
        return self._read(calls.overview)

    def rebuild(self, posts: Mapping[str, tuple[Sequence[Total], Sequence[Held]]]) -> None:
        self._do(calls.rebuild, posts)

    def _do[**P, T](self, call: Callable[Concatenate[Draft, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._transact(lambda draft: call(draft, *args, **kwargs))
        except errors.NotJoined as refused:
            raise NotJoined(str(refused)) from None
        except errors.NewsUnreadable as problem:
            raise NewsUnreadable(str(problem)) from None
        except errors.StillJoined as refused:
            raise LedgerError(str(refused)) from None

    @abstractmethod
    def _transact[T](self, call: Callable[[Draft], T]) -> T:
        """The answer of a call, once its changes are kept; all of them, or none where it raises."""

    @abstractmethod
    def _read[T](self, call: Callable[[Draft], T]) -> T:
        """The answer of a call that changes nothing, from the tables as they are at one moment. Nobody waits for it."""
