"""Who is halted, read from the log while no Governor runs. What is left of budgets only a running one knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from addons.audit_log import AuditLogError, lines, open_regular
from addons.rebuilding import parsed
from addons.segment import segment_names
from kernel import chain
from kernel.errors import KernelError
from kernel.state import State
from kernel.transition import CLI, change, micros

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from addons.home import Paths

# A part of a line can look like this only where it is what it says: within a string the quotes would be escaped.
_TELLING = (b'"type":"operator"', b'"type":"halt"', b'"type":"clock"', b'"verdict":"halt"')


def state_on_disk(paths: Paths) -> State:
    """Who is halted or quarantined, as the next start will find it; `AuditLogError` where the log cannot be read.

    It is read and not verified: that is done by the start, and by `governor audit verify`.
    """
    state = State()
    try:
        lanes = sorted(path.name for path in paths.lanes.iterdir() if path.is_dir() and path.name != CLI)
        for lane in lanes:
            for seq, body in _telling(paths.lane(lane)):
                state.take(change(state, body, f"{lane}/{seq}", micros(body["ts"])))
        for seq, body in _telling(paths.lane(CLI)) if paths.lane(CLI).is_dir() else ():
            if seq > state.taken_over:
                state.take(change(state, body, f"{CLI}/{seq}", micros(body["ts"])))
    except OSError as error:
        raise AuditLogError(f"{error.filename or paths.audit}: {error.strerror or error}") from error
    return state


def _telling(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries of a lane that say how an agent stands. An unfinished last line is none."""
    for name in segment_names(folder):
        with open_regular(folder / name) as file:
            for line in lines(file):
                if not line.endswith(b"\n") or not any(sign in line for sign in _TELLING):
                    continue
                try:
                    body = parsed(chain.split(line)[0])
                except KernelError as fault:
                    raise AuditLogError(f"{folder / name}: {fault}; governor audit verify says more") from fault
                yield body["seq"], body
