"""How the processes of a home keep their accounts: one of them in its memory, or all in one ledger."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from addons import durable
from addons.errors import StartCode, StartRefused
from addons.pools.setting import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from addons.home import Paths
    from addons.pools.setting import Pool


@contextlib.contextmanager
def counting(paths: Paths, pool: Pool) -> Iterator[None]:
    """Keep accounts of the home in this ledger. Raises `StartRefused` while others keep them elsewhere."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(paths.counting, flags, durable.PRIVATE_FILE)
    try:
        if not _locked(descriptor, fcntl.LOCK_EX):
            if pool.kind is Kind.MEMORY:
                raise _elsewhere(paths, os.pread(descriptor, 4096, 0).decode(errors="replace"), pool)
            _share(descriptor, paths, pool)
        elif pool.kind is not Kind.MEMORY:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(pool).encode(), 0)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        else:
            os.ftruncate(descriptor, 0)
        yield
    finally:
        os.close(descriptor)


def _share(descriptor: int, paths: Paths, pool: Pool) -> None:
    if not _locked(descriptor, fcntl.LOCK_SH):
        text = f"the Governor that serves from {paths.folder} keeps its budgets in its memory, where nobody shares them"
        hint = f"start it with --set governor_pool=sqlite:{paths.folder / 'pool.db'}, or use another home"
        raise StartRefused(StartCode.LANE_BUSY, f"{text}; {hint}")
    named = os.pread(descriptor, 4096, 0).decode(errors="replace")
    if named != str(pool):
        raise _elsewhere(paths, named, pool)


def _elsewhere(paths: Paths, named: str, pool: Pool) -> StartRefused:
    text = f"the budgets of {paths.folder} are kept in {named} by who runs now, and not in {pool}"
    return StartRefused(StartCode.LANE_BUSY, f"{text}; name the same one by $GOVERNOR_POOL, or use another home")


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
