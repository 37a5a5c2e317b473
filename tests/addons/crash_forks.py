"""Processes that write a lane and meet a fault at a certain disk operation. One interpreter, a fork for each.

Read from standard input, a line each: CONFIG HOME LANE FAULT AT. FAULT is `kill`, or the name of an errno that the
operation raises, with `+` behind it where all later ones do, too; a write is torn first. Told is a JSON object each.
"""

from __future__ import annotations

import errno
import faulthandler
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from addons import ballast, snapshots
from addons import lane as lane_module
from addons.errors import AuditUnavailable, StartRefused
from addons.home import Home, Paths
from tests.addons.logs import decision, open_lane

OPERATIONS = (
    "write", "fdatasync", "fsync", "rename", "open", "ftruncate", "posix_fallocate", "unlink", "mkdir", "stat")
ENTRIES = 12
# Far more than one takes. What hangs tells where each of its threads is, and is a failure.
HANGS_SECONDS = 30


class Disk:
    """Counts what is asked of the disk by any thread, and lets it fail."""

    def __init__(self, fault: str, at: int) -> None:
        self.fault, self.at, self.count = fault, at, 0
        # `next` is one step for all threads: no number is passed over.
        self._numbers = itertools.count(1)
        for name in OPERATIONS:
            setattr(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.count = number = next(self._numbers)
            if number == self.at:
                if name == "write":
                    original(arguments[0], arguments[1][: len(arguments[1]) // 2])
                self._fail()
            elif self.fault.endswith("+") and number > self.at > 0:
                self._fail()
            return original(*arguments, **named)

        return call

    def _fail(self) -> None:
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, self.fault.removesuffix("+"))
        raise OSError(number, os.strerror(number))


def write(folder: Path, name: str, acknowledge: Callable[[int], None]) -> None:
    """Entries, each acknowledged before the next, over several segments, with the state kept in between."""
    lane = open_lane(Home.open(folder), name, vault=False)
    # A state that cannot be kept is no reason to stop, and nothing was promised of it.
    with suppress(AuditUnavailable, OSError):
        for number in range(ENTRIES):
            acknowledge(lane.write_now("decision", decision(f"f{number}", "deny", "RULE_DENY")))
            if number % 5 == 2:
                lane.rotate("operator")
            elif number % 5 == 4:
                snapshots.Snapshots(Paths(folder), lane, lane.states).finish()
    lane.close("done")


def child(tell: TextIO, folder: Path, name: str, fault: str, at: int) -> None:
    def acknowledge(number: int) -> None:
        print(number, file=tell, flush=True)

    faulthandler.dump_traceback_later(HANGS_SECONDS, exit=True)
    disk, end = Disk(fault, at), "ended"
    try:
        write(folder, name, acknowledge)
    except StartRefused as refused:
        end = refused.code
    print("end", end, disk.count, file=tell, flush=True)


def forked(config: str, folder: str, lane: str, fault: str, at: str) -> dict[str, Any]:
    """What one process told. Each has a pipe of its own, so that what one left unsaid is taken for no other's word."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.environ["XDG_CONFIG_HOME"] = config
        try:
            with open(writing, "w", encoding="ascii") as tell:
                child(tell, Path(folder), lane, fault, int(at))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as told:
        # The last line of one that was killed may be half a line.
        *lines, _ = told.read().split("\n")
    _, status = os.waitpid(process, 0)
    acknowledged = [int(line) for line in lines if line.isdigit()]
    if status == 0:
        _, end, operations = lines[-1].split()
        return {"acknowledged": acknowledged, "end": end, "operations": int(operations)}
    return {"acknowledged": acknowledged, "end": "killed" if status == signal.SIGKILL else "failed", "operations": None}


def main() -> None:
    lane_module.CHECKPOINT_ENTRIES = 3
    ballast.BALLAST_BYTES = 64 * 1024
    for line in sys.stdin:
        print(json.dumps(forked(*line.rstrip("\n").split("\t"))), flush=True)


if __name__ == "__main__":
    main()
