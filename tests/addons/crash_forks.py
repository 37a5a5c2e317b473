"""Processes that write a lane and meet a fault at a certain disk operation. One interpreter, a fork for each.

Read from standard input, a line each: HOME LANE FAULT AT. FAULT is `kill` (a write is torn first), or the name of an
errno that the operation raises, with `+` behind it where all later ones do, too. Told are the numbers of the entries
that were acknowledged, then `end` with the number of operations there were.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from addons import lane as lane_module
from addons.errors import AuditUnavailable, StartRefused
from addons.home import Home, Paths
from addons.snapshots import Snapshots
from tests.addons.logs import decision, open_lane

OPERATIONS = ("write", "fdatasync", "fsync", "rename", "open", "ftruncate", "unlink", "mkdir", "stat")
ENTRIES = 12


class Disk:
    """Counts what is asked of the disk, and lets it fail."""

    def __init__(self, fault: str, at: int) -> None:
        self.fault, self.at, self.count = fault, at, 0
        for name in OPERATIONS:
            setattr(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self.at or (self.fault.endswith("+") and self.count > self.at > 0):
                self._fail(name, original, arguments)
            return original(*arguments, **named)

        return call

    def _fail(self, name: str, original: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if self.fault == "kill":
            if name == "write":
                original(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, self.fault.removesuffix("+"))
        raise OSError(number, os.strerror(number))


def write(folder: str, name: str) -> None:
    """Entries, each acknowledged before the next, over several segments, with the state kept in between."""
    lane = open_lane(Home.open(Path(folder)), name, vault=False)
    # A state that cannot be kept is no reason to stop, and nothing was promised of it.
    with suppress(AuditUnavailable, OSError):
        for number in range(ENTRIES):
            print(lane.write_now("decision", decision(f"f{number}", "deny", "RULE_DENY")), flush=True)
            if number % 5 == 2:
                lane.rotate("operator")
            elif number % 5 == 4:
                Snapshots(Paths(Path(folder)), lane, lane.states).finish()
    lane.close("done")



def child(folder: str, name: str, fault: str, at: int) -> int:
    # What hangs is no crash: it ends as one, and its test fails.
    signal.alarm(10)
    disk = Disk(fault, at)
    with suppress(StartRefused):
        write(folder, name)
    return disk.count


def main() -> None:
    lane_module.CHECKPOINT_ENTRIES = 3
    for line in sys.stdin:
        folder, name, fault, at = line.split("\t")
        sys.stdout.flush()
        process = os.fork()
        if not process:
            count = child(folder, name, fault, int(at))
            Path(f"{folder}.count").write_text(str(count))
            os._exit(0)
        _, status = os.waitpid(process, 0)
        # One that was killed may have left half a line.
        print(f"\nend {-1 if status else Path(f'{folder}.count').read_text()}", flush=True)


if __name__ == "__main__":
    main()
