"""The ledger that a URL names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from addons.pools.protocol import LedgerError

if TYPE_CHECKING:
    from addons.pools.protocol import Ledger


def sqlite_path(url: str | None) -> Path | None:
    """The file that a URL names, if it names one."""
    return Path(url.removeprefix("sqlite:")) if url is not None and url.startswith("sqlite:") else None


def open_ledger(url: str) -> Ledger:
    """`memory:`, `sqlite:PATH`, `redis://`, `rediss://` or `unix://`; `LedgerError` where there is none of that kind.

    One in Redis is connected when it is first asked. No error holds the user and password of a URL.
    """
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory" if not rest:
            from addons.pools.memory import MemoryLedger

            return MemoryLedger()
        case "sqlite" if rest:
            from addons.pools.in_file import FileLedger

            return FileLedger(Path(rest))
        case "redis" | "rediss" | "unix" if rest.startswith("//"):
            from addons.pools.in_redis import RedisLedger

            return RedisLedger(url)
        case _:
            known = "memory:, sqlite:PATH, redis://HOST:PORT, rediss://HOST:PORT or unix://PATH"
            raise LedgerError(f"{scheme[:20]!r} names no ledger; say {known}")
