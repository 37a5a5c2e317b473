"""Work divided over several processes, each a fork of this one, with word of how far they have come."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from addons.errors import GovernorError

type Progress = Callable[[int], object]
"""Called with the number of bytes that were read since the call before."""

_TOLD_EVERY = 2**20


class WorkFailed(GovernorError):
    """A part of the work could not be done: not for what it is about, but here and now."""


@dataclass(frozen=True, slots=True)
class _Failed:
    why: str


def each[P, R](parts: Sequence[P], work: Callable[[P, Progress], R], jobs: int, progress: Progress) -> list[R]:
    """What `work` makes of each part, in order, in up to `jobs` processes at a time; `WorkFailed` where one fails.

    In one process where this one has threads: a fork would have their locks and nobody who opens them.
    """
    if min(jobs, len(parts)) > 1 and threading.active_count() == 1:
        done = dict(_in_processes(parts, work, jobs, progress))
        return [done[number] for number in range(len(parts))]
    return [work(part, progress) for part in parts]


def _in_processes[P, R](
    parts: Sequence[P], work: Callable[[P, Progress], R], jobs: int, progress: Progress
) -> Iterator[tuple[int, R]]:
    # Forked: a fresh interpreter would run the command line again.
    context = multiprocessing.get_context("fork")
    waiting, running = list(enumerate(parts)), dict[Connection, tuple[int, BaseProcess]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            number, part = waiting.pop(0)
            ours, theirs = context.Pipe(duplex=False)
            process: BaseProcess = context.Process(target=_run, args=(part, work, theirs), daemon=True)
            process.start()
            theirs.close()
            running[ours] = number, process
        heard = wait(list(running))
        for ours, (number, process) in [each for each in running.items() if each[0] in heard]:
            told = _received(ours, number)
            if isinstance(told, int):
                progress(told)
            else:
                del running[ours]
                process.join()
                yield number, told


def _received(connection: Connection, number: int) -> Any:
    try:
        told = connection.recv()
    except EOFError:
        told = _Failed("its process was ended")
    if isinstance(told, _Failed):
        raise WorkFailed(f"part {number}: {told.why}")
    return told


def _run[P, R](part: P, work: Callable[[P, Progress], R], told: Connection) -> None:
    read = 0

    def progress(count: int) -> None:
        nonlocal read
        read += count
        if read >= _TOLD_EVERY:
            told.send(read)
            read = 0

    try:
        result: R | _Failed = work(part, progress)
    except Exception as fault:  # noqa: BLE001
        result = _Failed(f"{type(fault).__name__}: {fault}")
    told.send(read)
    told.send(result)
