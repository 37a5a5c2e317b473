"""How a process that starts comes to its ledger: which it is, that it is there, and that it knows the lanes before."""

from __future__ import annotations

import re
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from addons import build_info, codec
from addons.book import Book
from addons.errors import StartCode, StartRefused
from addons.lane import Lane
from addons.lineage import newest
from addons.pools.member import Member
from addons.pools.opening import open_ledger
from addons.pools.protocol import LedgerError
from addons.pools.setting import Kind
from kernel import chain, entry
from kernel.errors import KernelError
from kernel.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from addons.governed import Governed
    from addons.home import Home
    from addons.pools.setting import Pool

_LANES = re.compile(r"main|w[0-9]+", re.ASCII)
_OVER = "brought over"
_BEAT_SECONDS = {Kind.SQLITE: 1.0, Kind.REDIS: 0.1}
"""On one host what is told is poked for; from one host to another only a heartbeat brings it."""


def joined(pool: Pool, home: Home, lane: str, book: Book, say: Callable[[str], object],
           said: Mapping[str, object]) -> Member | None:
    """The process as a member of its ledger; None where it counts alone. Blocks; `StartRefused` without an answer."""
    if pool.kind is Kind.MEMORY:
        return None
    try:
        member = Member(open_ledger(pool.url), home.log_id, lane, book, say, _BEAT_SECONDS[pool.kind])
        try:
            member.begin(said)
        except BaseException:
            member.close()
            raise
    except LedgerError as problem:
        raise StartRefused(StartCode.OPTION_REFUSED, f"governor_pool={pool}: {problem}") from problem
    book.pool = member
    return member


def bring_over(pool: Pool, home: Home, served: Collection[str], say: Callable[[str], object]) -> None:
    """Bring to the ledger what lanes know that are not served any more: what was drawn, who is halted, what is leased.

    Each is ended in order then, and left alone until it is served again. Blocks; `StartRefused` where it fails.
    """
    if pool.kind is Kind.MEMORY:
        return
    for name in sorted(home.lanes()):
        lane = newest(home.paths, name, home.root)
        if _LANES.fullmatch(name) and lane not in served and not _is_over(home, lane):
            _bring(pool, home, lane, say)


def _bring(pool: Pool, home: Home, name: str, say: Callable[[str], object]) -> None:
    lane = Lane.open(home, name, kernel=build_info.kernel_identity(), vault=False, keeps_key=True)
    try:
        book = Book(lane, lane.states, _nobody_asks, lambda agent: ())
        book.begin(entry.config({"governor_pool": str(pool)}, {"governor": VERSION}))
        member = joined(pool, home, name, book, say, {})
        if member is not None:
            member.end()
    finally:
        lane.close(_OVER)


def _nobody_asks() -> Governed:
    raise AssertionError("no request is judged while a lane is brought over")


def _is_over(home: Home, lane: str) -> bool:
    """Whether nothing was written to the lane since it was brought over."""
    segments = sorted(home.paths.lane(lane).glob("*.jsonl"))
    if not segments:
        return True
    with suppress(KernelError), segments[-1].open("rb") as file:
        last = codec.parse(chain.split(deque(file, 1).pop())[0])
        return isinstance(last, dict) and (last.get("type"), last.get("reason")) == ("close", _OVER)
    return False
