"""Which CA this process signs under: that of one folder, also after it changed, with leaves that are never old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons import authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

# mitmproxy keeps a leaf for as long as it runs: begun anew each day, the oldest has six days of its seven left.
_STORE_SECONDS = authority.LEAF_LIFE.total_seconds() / 7


class Signing:
    """`reread` has mitmproxy read the CA of `folder` and forget its leaves; connections that stand keep theirs."""

    def __init__(self, folder: Path, reread: Callable[[], object], now: float) -> None:
        self._folder, self._reread = folder, reread
        self._seen, self._since = self._mark(), now

    def renew(self, now: datetime) -> None:
        """Do what is due to the CA, for whoever signs under it. It waits for the disk: call it in a thread."""
        authority.ensure(self._folder, now)

    def look(self, now: float) -> None:
        """Have the CA read again where another lies there, and once a day."""
        mark = self._mark()
        # mitmproxy would make a CA of its own where there is none. Without a file the one that was read goes on.
        if mark is not None and (mark != self._seen or now - self._since >= _STORE_SECONDS):
            self._seen, self._since = mark, now
            self._reread()

    def _mark(self) -> tuple[int, int] | None:
        try:
            status = (self._folder / authority.KEY_FILE).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns
