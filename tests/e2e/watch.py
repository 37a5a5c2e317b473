"""What a process holds: memory, descriptors, tasks."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

MIB = 1024 * 1024


class Held:
    """The resident memory and the open descriptors of one process."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    @property
    def resident(self) -> int:
        """Bytes of resident memory now."""
        return self._status("VmRSS")

    @property
    def descriptors(self) -> list[str]:
        """What its open descriptors are: paths, and sockets and pipes by their kind."""
        found = []
        for descriptor in (self._folder / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                opened = re.sub(r":\[\d+\]", "", os.readlink(descriptor))
                # A log goes on in its next segment.
                found.append(re.sub(r"/[0-9]{6}\.jsonl$", "/NNNNNN.jsonl", opened))
        return sorted(found)

    def forget_peak(self) -> int:
        """Have `peak` begin anew; the bytes resident now."""
        (self._folder / "clear_refs").write_text("5")
        return self.resident

    @property
    def peak(self) -> int:
        """The most bytes that were resident at once since `forget_peak`."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", (self._folder / "status").read_text())
        assert found is not None
        return int(found[1]) * 1024
