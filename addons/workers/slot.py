"""One worker as its supervisor sees it, through all its lives: a process, the channel to it, what it has counted."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addons.workers.channel import Channel, ChannelError, Refused
from kernel.leases import CUT_OFF_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from addons.control import Message
    from addons.metrics import Counts
    from addons.workers.post import Post

# -P: the folder in which Governor was started is none to import from. Ours comes first, as in `launcher.py`: other
# distributions called `kernel` exist.
_WORK = "import sys; sys.path.insert(0, sys.argv.pop(1)); from addons.serve import work; sys.exit(work())"
_ROOT = Path(__file__).resolve().parents[2]


SILENT_SECONDS = float(CUT_OFF_SECONDS)
"""After so long without an answer a worker counts as one that stands still. One that has not heard of the ledger for as
long lets nothing pass when it goes on: so a halt that another has done meanwhile holds there, too."""


class Stage(Enum):
    """How far a worker has come."""

    DOWN = auto()
    STARTING = auto()
    OPENED = auto()
    """Its lane is open."""
    SERVING = auto()
    """Its ports are."""


class Slot:
    """A worker's place. `counted` is the newest that its present life has told of its counts."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.name, self.stage = name, Stage.DOWN
        self.has_turn = False
        self.counted: Counts | None = None
        self._command = [sys.executable, "-P", "-c", _WORK, os.fspath(_ROOT), *arguments]
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None

    async def live(self, post: Callable[[int], Post], meet: Callable[[Channel], None]) -> int:
        """One life, from its start to its exit status, which is below 0 after a signal. `meet` prepares the channel.

        Raises `OSError` where no process can be made.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            # Before there is a process, so that there is none that could not be left alone.
            self._channel = await Channel.over(ours)
            meet(self._channel)
            self.stage = Stage.STARTING
            hearing = asyncio.create_task(self._channel.run())
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, env=os.environ | post(theirs.fileno()).environment(), stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # A terminal's signals go to the supervisor alone.
                    process_group=0)
                theirs.close()
                return await self._process.wait()
            finally:
                self.leave()
                await hearing
                self.stage, self._process = Stage.DOWN, None

    @property
    def lives(self) -> bool:
        return self._process is not None

    async def ask(self, word: str, seconds: float, **fields: Any) -> Message:
        """The worker's answer. Raises `ChannelError` where none comes, `Refused` where it says no."""
        if self._channel is None or not self.lives:
            raise ChannelError("it does not run")
        return await self._channel.ask(word, seconds, **fields)

    async def is_there(self) -> bool:
        """Whether the worker answers at all, within `SILENT_SECONDS`."""
        try:
            await self.ask("here", SILENT_SECONDS)
        except (ChannelError, Refused):
            return False
        return True

    def tell(self, word: str, **fields: Any) -> None:
        """Say something to the worker, if it is there to hear it."""
        if self._channel is not None:
            self._channel.tell(word, **fields)

    def leave(self) -> None:
        """Leave the worker alone, upon which it ends in order and at once."""
        if self._channel is not None:
            self._channel.close()

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended with {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
