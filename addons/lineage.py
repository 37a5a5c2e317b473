"""Which lane goes on in the place of which: after an accepted loss `main-1` in that of `main`, then `main-2`.

Said by the lane_open of the one that goes on, under a key that the root certified. A lane that was given up is written
no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons import codec, kept_states, keys
from addons.errors import StartCode, StartRefused
from addons.segment import segment_name
from kernel import chain
from kernel.errors import KernelError
from kernel.folding import States
from kernel.key_chain import certified
from kernel.loss import Loss, loss_in

if TYPE_CHECKING:
    from pathlib import Path

    from addons.home import Paths
    from kernel.note import VerifierKey

_TELLS = b'"loss":{'
_OPENS = b'"type":"lane_open"'


def newest(paths: Paths, lane: str, root: VerifierKey) -> str:
    """The lane that is written in the place of `lane`: it itself, or what goes on at the end of its successors."""
    while (following := successor(paths, lane, root)) is not None:
        lane = following
    return lane


def lineage(paths: Paths, lane: str, root: VerifierKey) -> list[tuple[str, Loss | None]]:
    """The lane and its successors, each with the loss by which it was given up; the newest has none."""
    found: list[tuple[str, Loss | None]] = []
    while (following := successor(paths, lane, root)) is not None:
        found.append((lane, loss_of(paths, following, root)))
        lane = following
    return [*found, (lane, None)]


def successor(paths: Paths, lane: str, root: VerifierKey) -> str | None:
    """The lane that goes on in the place of `lane`; None while that one goes on itself. `StartRefused` on damage."""
    name = next_name(paths, lane, root)
    if not _first_line(paths, name):
        return None
    loss = loss_of(paths, name, root)
    if loss is None:
        text = f"{_first_segment(paths, name)} does not say that lane {name} goes on in the place of {lane}"
        raise StartRefused(StartCode.TAMPERED, f"{text}; governor audit verify says more, a backup helps")
    return name


def next_name(paths: Paths, lane: str, root: VerifierKey) -> str:
    """The name of the lane that goes on, or would go on, in the place of `lane`."""
    if _tells_loss(_first_line(paths, lane)) and loss_of(paths, lane, root) is not None:
        base, _, number = lane.rpartition("-")
        return f"{base}-{int(number) + 1}"
    return f"{lane}-1"


def is_retired(paths: Paths, lane: str, root: VerifierKey) -> bool:
    """Whether another lane goes on in the place of this one, which may be gone."""
    return successor(paths, lane, root) is not None


def loss_of(paths: Paths, lane: str, root: VerifierKey) -> Loss | None:
    """The loss that the lane_open of a lane tells, None where it tells none; `StartRefused` where it does not hold."""
    line = _first_line(paths, lane)
    if _OPENS not in line:
        return None
    try:
        certified([line], lane, root, keys.verifies, codec.parse)
        return loss_in(codec.parse(chain.split(line)[0]), lane)
    except KernelError as fault:
        text = f"{_first_segment(paths, lane)}: {fault}; governor audit verify says more, a backup helps"
        raise StartRefused(StartCode.TAMPERED, text) from fault


def states_before(paths: Paths, lane: str, root: VerifierKey) -> States:
    """The states with which a lane began: those of the one that it succeeds. `StartRefused` where they are gone.

    Without them nobody knows who is halted and what is spent.
    """
    loss = loss_of(paths, lane, root)
    if loss is None or loss.state is None:
        return States()
    found = kept_states.kept(paths.states, loss.state)
    if found is None or (found.lane, found.at) != (lane, 0):
        text = f"{paths.state(loss.state)} is not the state with which lane {lane} began; restore it from a backup"
        raise StartRefused(StartCode.HOME_INCOMPLETE, text)
    return found.states


def _first_segment(paths: Paths, lane: str) -> Path:
    return paths.lane(lane) / segment_name(0)


def _first_line(paths: Paths, lane: str) -> bytes:
    """The first line of a lane; nothing where it is not finished, or not there."""
    try:
        with _first_segment(paths, lane).open("rb") as file:
            line = file.readline(chain.MAX_LINE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    return line if line.endswith(b"\n") else b""


def _tells_loss(line: bytes) -> bool:
    return _OPENS in line and _TELLS in line
