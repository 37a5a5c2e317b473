"""What a ledger does, wherever it is kept: in this process, in a file of this host, in a server of many hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from addons.errors import GovernorError
from kernel.leases import Ask, Beat, Grant, Held, News, Overview, Purse, Roster, Settled, Total


class LedgerError(GovernorError):
    """The ledger does not answer, or not as one does. Nothing was granted; what was asked may have been done."""


class NotJoined(LedgerError):
    """This run has not joined, or another life of its holder has begun since. Nothing was done."""


class NewsUnreadable(LedgerError):
    """The ledger holds news that this version cannot take. No later ones are heard of, so nothing may pass."""


class Ledger(Protocol):
    """Used by one thread at a time. Each call is one transaction and blocks, as short as its kind can promise.

    `holder` is LOG/LANE. Every method may raise `LedgerError`.
    """

    def join(self, holder: str, run: str, said: Mapping[str, object]) -> Sequence[Held]:
        """Begin a life `run` of a holder; the leases of its former lives that are not settled, lost ones among them."""

    def acquire(self, holder: str, run: str, asks: Sequence[Ask], now_us: int) -> Sequence[Grant]:
        """Answer each ask, in order. `now_us` is the clock of the process. One that is sent again is granted once."""

    def settle(self, holder: str, settled: Sequence[Settled]) -> None:
        """End leases. One that is over already, or lost, is left as it is."""

    def beat(self, holder: str, run: str, seen: int, now_us: int, said: Mapping[str, object]) -> Beat:
        """The heartbeat. `seen` is the number of the newest news that the process has taken."""

    def tell(self, holder: str, news: News) -> News:
        """Publish news once: what has the same `kind`, `agent` and `origin` is the same. With its number and counts."""

    def repost(self, holder: str, totals: Sequence[Total], leases: Sequence[Held]) -> None:
        """Say what this holder's chain knows, after the ledger came back from an older state. Its leases count once."""

    def leave(self, holder: str) -> None:
        """End in order: what is still leased counts as spent."""

    def look(self, purses: Sequence[Purse] = ()) -> Roster:
        """Every process, how many news there are, and the balances of these purses: what a process may ask often."""

    def overview(self) -> Overview:
        """Everything, for people. It is much where many agents have drawn, and nobody who draws waits for it."""

    def rebuild(self, posts: Mapping[str, tuple[Sequence[Total], Sequence[Held]]]) -> None:
        """Begin anew from what the chains of all holders say. No process may be joined."""

    def close(self) -> None:
        """Let go of what is open; nothing is asked any more."""
