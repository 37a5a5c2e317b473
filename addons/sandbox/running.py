"""One run of a command: what holds it, its Governor and its trust, from the first to the last of them.

Three processes stand beside the command: this one, which has the caller's terminal and waits; the one of the network
(`network.py`), whose child becomes the command; and Governor (`run_host.py`), in the caller's network. Whoever of them
is killed, the command is left without a way out, and without the first two it is killed itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from addons.client_trust.laid import lay_out, lay_variables
from addons.sandbox.advised import Advised, advised
from addons.sandbox.asked import Asked
from addons.sandbox.held import Held, RunFailed, held
from addons.sandbox.own_governor import OwnGovernor, own_governor
from addons.sandbox.run_folder import run_folder
from addons.sandbox.tiers import Tier

_COUNT_SECONDS = 1.0
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT)
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_OF_A_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT})


@dataclass(slots=True)
class Ended:
    """How a run ended. `status` is the command's, or 128 and the number of the signal that ended it."""

    status: int = 0
    policy: str = ""
    """The digest of the policy with which it began."""
    seconds: float = 0.0
    packets: dict[str, int] = field(default_factory=dict)
    untrusting: tuple[str, ...] = ()
    """What will not trust the CA although it is on this machine, in words."""
    governor_ended: bool = False
    """Governor ended before the command did, which had no way out from then on."""


async def run(asked: Asked) -> Ended:
    """Run the command to its end, and take away all that was made for it. Raises `RunFailed` before its start."""
    ended = Ended()
    async with AsyncExitStack() as made:
        made.enter_context(_ended_in_order())
        folder = made.enter_context(run_folder())
        command: Held | Advised
        if asked.tier is Tier.ENV:
            command = await made.enter_async_context(advised(asked))
        else:
            command = await made.enter_async_context(held(asked))
        governor = await made.enter_async_context(own_governor(asked, command, folder))
        ended.policy = governor.told["policy"]
        lay = lay_variables if asked.tier is Tier.ENV else lay_out
        laid = lay(folder / "trust", governor.told["certificate"].encode(), asked.environment, Path.home())
        ended.untrusting = laid.missing
        began = time.monotonic()
        with _forwarding(command) as begun:
            await command.start(asked, folder, laid)
            begun()
            ended.status = await _to_its_end(command, governor)
        ended.seconds = time.monotonic() - began
        ended.packets = dict(command.refused)
        ended.governor_ended = governor.ended.done()
    return ended


async def _to_its_end(command: Held | Advised, governor: OwnGovernor) -> int:
    while True:
        done, _ = await asyncio.wait([command.ended], timeout=_COUNT_SECONDS)
        governor.channel.tell("refused_packets", counts=command.refused)
        if done:
            return command.ended.result()
        command.count()


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Whoever ends this process before the command has begun ends its start, and what was made for it is taken away."""
    loop, start = asyncio.get_running_loop(), asyncio.current_task()
    assert start is not None
    heard = _heard(_ENDING)

    def end() -> None:
        _leave_alone(heard)
        start.cancel()

    for each in heard:
        loop.add_signal_handler(each, end)
    try:
        yield
    except asyncio.CancelledError as signalled:
        raise RunFailed("it was ended before the command began") from signalled
    finally:
        for each in heard:
            loop.remove_signal_handler(each)


@contextmanager
def _forwarding(command: Held | Advised) -> Iterator[Callable[[], None]]:
    """Signals that this process gets go to the command, but for those that the terminal has sent to both. They wait
    until what is given here is called: the command may speak before it is known here that it has begun.
    """
    loop = asyncio.get_running_loop()
    waiting: list[signal.Signals] | None = []

    def forward(number: signal.Signals) -> None:
        if number in _OF_A_TERMINAL and _in_foreground():
            return
        if waiting is None:
            command.signal(number)
        else:
            waiting.append(number)

    def begun() -> None:
        nonlocal waiting
        early, waiting = waiting or [], None
        for each in early:
            command.signal(each)

    heard = _heard(_FORWARDED)
    for each in heard:
        loop.add_signal_handler(each, forward, each)
    try:
        yield begun
    finally:
        _leave_alone(heard)


def _leave_alone(numbers: Sequence[signal.Signals]) -> None:
    """Hear these signals no more: what was made is taken away now, to the end."""
    for each in numbers:
        asyncio.get_running_loop().add_signal_handler(each, lambda: None)


def _heard(numbers: Sequence[signal.Signals]) -> list[signal.Signals]:
    """Those that the caller has not had ignored, as `nohup` does."""
    return [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN]


def _in_foreground() -> bool:
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False
