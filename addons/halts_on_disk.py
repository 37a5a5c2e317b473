"""Who is halted, read from the log while no Governor runs. What is left of budgets only a running one knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from addons.audit_log import AuditLogError, lines, open_regular
from addons.errors import StartRefused
from addons.lineage import is_retired, lineage, states_before
from addons.rebuilding import parsed
from addons.segment import segment_names
from kernel import chain
from kernel.errors import KernelError, TrustError
from kernel.state import Change, State
from kernel.transition import CLI, act_number, change, micros
from kernel.trust import parse_trust_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from addons.home import Paths
    from kernel.note import VerifierKey

# A part of a line can look like this only where it is what it says: within a string the quotes would be escaped.
_TELLING = (
    b'"type":"operator"', b'"type":"halt"', b'"type":"preventive"', b'"type":"clock"', b'"verdict":"halt"',
)


def state_on_disk(paths: Paths) -> State:
    """Who is halted or quarantined, as the next start will find it; `AuditLogError` where the log cannot be read.

    It is read and not verified: that is done by the start, and by `governor audit verify`.
    """
    state = State()
    try:
        root = parse_trust_file(paths.trust.read_bytes()).root
        verbs = lineage(paths, CLI, root)
        others = {path.name for path in paths.lanes.iterdir() if path.is_dir()} - {lane for lane, _ in verbs}
        for lane in sorted(lane for lane in others if not is_retired(paths, lane, root)):
            _begin_with(state, paths, lane, root)
            for seq, body in _telling(paths.lane(lane)):
                state.take(change(state, body, f"{lane}/{seq}", micros(body["ts"])))
        for lane, loss in verbs:
            for seq, body in _telling(paths.lane(lane)) if paths.lane(lane).is_dir() else ():
                name = f"{lane}/{seq}"
                if (loss is None or seq < loss.entries) and (act_number(name) or 0) > state.taken_over:
                    state.take(change(state, body, name, micros(body["ts"])))
    except OSError as error:
        raise AuditLogError(f"{error.filename or paths.audit}: {error.strerror or error}") from error
    except (StartRefused, TrustError) as refused:
        raise AuditLogError(refused.text if isinstance(refused, StartRefused) else str(refused)) from refused
    return state


def _begin_with(state: State, paths: Paths, lane: str, root: VerifierKey) -> None:
    """Go on from what a lane has of the one that it succeeds."""
    of = states_before(paths, lane, root).real
    state.take(Change(of.agents, clock_ok=None if of.clock_ok else False, broken=of.broken, taken_over=of.taken_over,
                      switch=of.switch))


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
