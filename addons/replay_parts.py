"""The parts of a lane that can be replayed by themselves: from one kept state of the kernel to the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

from addons import audit_log, codec, kept_states
from addons.audit_log import AuditLog, open_regular
from addons.segment import segment_name, segment_names
from kernel import chain
from kernel.errors import CanonicalError, ChainError
from kernel.folding import States
from kernel.loss import Loss, loss_in
from kernel.replay import LOADS

_SNAPSHOT = "state_snapshot"
_KINDS = (*sorted(LOADS), _SNAPSHOT, "segment_open")

type Entry = dict[str, Any]


class Told(NamedTuple):
    """What an entry tells of the state that the entries below `at` make."""

    entry: str
    at: int
    digest: object


@dataclass(frozen=True, slots=True)
class Part:
    """The entries of a lane from `begin` to below `end`, which is None for the end of the lane.

    `segment` is the file that holds the first of them, `states` are what those before have made, `loads` are those that
    said which kernel and policy decide. `told` is what the lane tells of states within the part, by `at`. A part is
    `known` where it is the beginning of its lane or where the states before it are there.
    """

    lane: str
    begin: int = 0
    end: int | None = None
    segment: str = segment_name(0)
    states: States | None = None
    loads: Sequence[Entry] = ()
    told: Mapping[int, Sequence[Told]] = field(default_factory=dict)
    known: bool = True


def whole(log: AuditLog, lane: str) -> Part:
    """The lane from the first segment on that is there."""
    names = segment_names(log.audit / "lanes" / lane)
    if log.bundle is None or not log.bundle.begins_later(lane) or not names:
        first = names[0] if names else segment_name(0)
        loss = _loss(log, lane, first)
        states = None if loss is None else _kept(log.states, lane, [Told(f"{lane}/0", 0, loss.state)])
        return Part(lane, segment=first, states=states, known=loss is None or states is not None)
    begin = next((entry["seq"] for entry in _marked(log.audit / "lanes" / lane / names[0])
                  if entry.get("type") == "segment_open" and isinstance(entry.get("seq"), int)), 0)
    return Part(lane, begin, segment=names[0], known=False)


def _loss(log: AuditLog, lane: str, first: str) -> Loss | None:
    """The loss of the lane that this one succeeds, None where it succeeds none."""
    path = log.audit / "lanes" / lane / first
    opening = next((each for each in _marked(path) if each.get("type") == "lane_open"), {}) if path.exists() else {}
    with suppress(ChainError):
        return loss_in(opening, lane)
    return None


def parts_of(log: AuditLog, lane: str) -> list[Part]:
    """The lane in parts. One begins wherever the state is kept that the entries before have made."""
    folder = log.audit / "lanes" / lane
    loads, told, begins = _loads_before(folder), defaultdict[int, list[Told]](list), dict[str, int]()
    for name in segment_names(folder):
        for entry in _marked(folder / name):
            if entry.get("type") in LOADS:
                loads.append(entry)
            elif entry.get("type") == _SNAPSHOT and isinstance(entry.get("at"), int):
                told[entry["at"]].append(Told(f"{lane}/{entry.get('seq')}", entry["at"], entry.get("digest")))
            elif entry.get("type") == "segment_open" and isinstance(entry.get("seq"), int):
                begins[name] = entry["seq"]
    first = whole(log, lane)
    cuts = [(at, states) for at in sorted(told)
            if at >= first.begin and (states := _kept(log.states, lane, told[at])) is not None]
    beginnings = [(first.begin, first.segment, first.states), *((at, _segment(begins, at, first.segment), states)
                                                        for at, states in cuts)]
    ends = [at for at, _, _ in beginnings[1:]]
    return [
        Part(lane, begin, end, segment, states, [each for each in loads if _below(each, begin)],
             {at: said for at, said in told.items() if begin < at and (end is None or at <= end)},
             first.known or states is not None)
        for (begin, segment, states), end in zip(beginnings, [*ends, None], strict=True)]


def _loads_before(folder: Path) -> list[Entry]:
    path = folder / audit_log.LOADS
    return list(_marked(path)) if path.is_file() else []


def _below(entry: Entry, begin: int) -> bool:
    return isinstance(entry.get("seq"), int) and entry["seq"] < begin


def _segment(begins: Mapping[str, int], at: int, first: str) -> str:
    """The last segment that begins at this entry or before it."""
    return max((name for name, begin in begins.items() if begin <= at), default=first)


def _kept(folder: Path, lane: str, told: Sequence[Told]) -> States | None:
    """A state of which an entry tells, where its file is there as it was written."""
    for each in told:
        found = kept_states.kept(folder, each.digest)
        if found is not None and (found.lane, found.at) == (lane, each.at):
            return found.states
    return None


def _marked(path: Path) -> Iterator[Entry]:
    """The entries of a segment that say where a part may begin and what decides in it, in order."""
    for line in marked_lines(path, _KINDS):
        try:
            entry = codec.read(chain.split_text(line)[0])
        except (ChainError, CanonicalError):
            continue
        if isinstance(entry, dict):
            yield entry


def marked_lines(path: Path, kinds: Iterable[str]) -> Iterator[bytes]:
    """The whole lines of a segment whose entries are of these kinds, found by their bytes, in order."""
    with open_regular(path) as file:
        if not path.stat().st_size:
            return
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            for start in sorted({start for kind in kinds for start in _starts(content, f'"type":"{kind}"'.encode())}):
                yield content[start : content.find(b"\n", start) + 1]


def _starts(content: mmap, mark: bytes) -> Iterator[int]:
    """Where the lines begin that hold the mark."""
    at = -1
    while (at := content.find(mark, at + 1)) >= 0:
        yield content.rfind(b"\n", 0, at) + 1
