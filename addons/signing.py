"""Which CA this process signs under: the one in the home, also after it changed, with leaves that are never old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons.authority import KEY_FILE, LEAF_LIFE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# mitmproxy keeps a leaf for as long as it runs: begun anew each day, the oldest has six days of its seven left.
_STORE_SECONDS = LEAF_LIFE.total_seconds() / 7


class Signing:
    """`reread` has mitmproxy read the CA of `folder` and forget its leaves; connections that stand keep theirs."""

    def __init__(self, folder: Path, reread: Callable[[], object], now: float) -> None:
        self._file, self._reread = folder / KEY_FILE, reread
        self._seen, self._since = self._mark(), now

    def look(self, now: float) -> None:
        """Have the CA read again where another lies there, and once a day."""
        mark = self._mark()
        # mitmproxy would make a CA of its own where there is none. Without a file the one that was read goes on.
        if mark is not None and (mark != self._seen or now - self._since >= _STORE_SECONDS):
            self._seen, self._since = mark, now
            self._reread()

    def _mark(self) -> tuple[int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns
