"""Taking attempts: each in a process of its own, several at once, none for longer than it may."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from addons.attempts.attempt import Attempt, Result, Seen, closed, not_here
from addons.attempts.surroundings import Surroundings

AT_ONCE = 24
"""Most of an attempt is waiting."""
EACH_SECONDS = 6.0
# An answer of at most so many bytes is written and read in one piece, whatever room the pipe has.
_MOST_BYTES = select.PIPE_BUF
# In JSON a sign has up to twelve.
_MOST_SIGNS = 330


@dataclass(slots=True)
class _Running:
    attempt: Attempt
    pid: int
    answer: int
    until: float


def run(attempts: Sequence[Attempt], here: Surroundings) -> list[tuple[Attempt, Seen]]:
    """Each attempt with what it saw, in the order given.

    Must be called where no other thread runs: an attempt changes namespaces, and may be killed by a filter.
    """
    waiting = list(reversed(attempts))
    running: list[_Running] = []
    seen: dict[str, Seen] = {}
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                running.append(_start(waiting.pop(), here))
            for each in _ended(running):
                running.remove(each)
                seen[each.attempt.name] = _outcome(each)
    finally:
        for each in running:
            _end(each)
    return [(attempt, seen[attempt.name]) for attempt in attempts]


def _start(attempt: Attempt, here: Surroundings) -> _Running:
    answer, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        _take(attempt, here, said)
    os.close(said)
    return _Running(attempt, pid, answer, time.monotonic() + EACH_SECONDS)


def _take(attempt: Attempt, here: Surroundings, said: int) -> NoReturn:
    """Inside the attempt's process: its answer goes into the pipe, and nothing of it goes anywhere else."""
    try:
        os.setpgid(0, 0)
        try:
            seen = attempt.take(here)
        except Exception as fault:  # noqa: BLE001
            seen = not_here(f"the attempt itself failed: {type(fault).__name__}: {fault}")
        os.write(said, json.dumps([seen.result, seen.what[:_MOST_SIGNS], seen.silent]).encode())
    finally:
        os._exit(0)


def _ended(running: Iterable[_Running]) -> list[_Running]:
    """Those that have said something, or may not take longer. Waits until there is one."""
    by_answer = {each.answer: each for each in running}
    next_end = min(each.until for each in by_answer.values())
    ready, _, _ = select.select(list(by_answer), [], [], max(0.0, next_end - time.monotonic()))
    now = time.monotonic()
    return [each for each in by_answer.values() if each.answer in ready or each.until <= now]


def _outcome(each: _Running) -> Seen:
    overdue = each.until <= time.monotonic()
    said = b"" if overdue and not select.select([each.answer], [], [], 0)[0] else os.read(each.answer, _MOST_BYTES)
    status = _end(each, kill=overdue or bool(said))
    if said:
        result, what, silent = json.loads(said)
        return Seen(Result(result), what, silent)
    if overdue:
        return not_here(f"it did not end within {EACH_SECONDS:g} s")
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS:
        return closed("a filter of system calls killed it")
    return not_here(f"its process ended without an answer (status {status})")


def _end(each: _Running, *, kill: bool = True) -> int:
    if kill:
        for end in (os.killpg, os.kill):
            with suppress(OSError):
                end(each.pid, signal.SIGKILL)
    os.close(each.answer)
    return os.waitpid(each.pid, 0)[1]
