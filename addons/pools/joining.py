"""How a process that starts comes to its ledger: which it is, and that it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons.errors import StartCode, StartRefused
from addons.pools.member import Member
from addons.pools.opening import open_ledger
from addons.pools.protocol import LedgerError
from addons.pools.setting import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from addons.book import Book
    from addons.home import Home
    from addons.pools.setting import Pool

_BEAT_SECONDS = {Kind.SQLITE: 1.0, Kind.REDIS: 0.1}
"""On one host what is told is poked for; from one host to another only a heartbeat brings it."""


def joined(pool: Pool, home: Home, lane: str, book: Book, say: Callable[[str], object],
           said: Mapping[str, object]) -> Member | None:
    """The process as a member of its ledger; None where it counts alone. Blocks; `StartRefused` without an answer."""
    if pool.kind is Kind.MEMORY:
        return None
    try:
        ledger = open_ledger(pool.url)
        member = Member(ledger, home.log_id, lane, book, say, _BEAT_SECONDS[pool.kind])
        member.begin(said)
    except LedgerError as problem:
        raise StartRefused(StartCode.OPTION_REFUSED, f"governor_pool={pool}: {problem}") from problem
    book.pool = member
    return member
