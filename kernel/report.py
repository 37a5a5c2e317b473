"""What a verification found, and the exit code that says so."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from kernel.canonical import Value
from kernel.loss import Succession


class Result(StrEnum):
    """What can be said about a log."""

    VERIFIED = "verified"
    TAMPERED = "tampered"
    NOT_PINNED = "not_pinned"
    INCOMPLETE = "incomplete"
    ROLLED_BACK = "rolled_back"

    @property
    def exit_code(self) -> int:
        return _EXIT_CODES[self]

    @property
    def severity(self) -> int:
        """Of several results the one with the greatest severity is told."""
        return _SEVERITIES.index(self)


_EXIT_CODES = {
    Result.VERIFIED: 0,
    Result.TAMPERED: 1,
    Result.NOT_PINNED: 3,
    Result.INCOMPLETE: 4,
    Result.ROLLED_BACK: 5,
}
_SEVERITIES = (Result.VERIFIED, Result.NOT_PINNED, Result.INCOMPLETE, Result.ROLLED_BACK, Result.TAMPERED)


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that does not hold, and where. Lines count from 1, offsets are bytes; None where there is no place."""

    lane: str | None
    segment: str | None
    line: int | None
    offset: int | None
    seq: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class LaneReport:
    """A lane as far as it was verified. `head` and `root` are hex; `live` is True while a writer holds the lane.

    `entries` of it were there, of which `first` is the number of the first. `closed` where it ended in order.
    """

    lane: str
    entries: int
    head: str
    root: str
    live: bool
    first: int = 0
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Anchored:
    """Up to where anchors vouch for a lane: its first `entries` entries, the last of them of `ts`, by these anchors."""

    lane: str
    entries: int
    by: tuple[str, ...]
    ts: str | None


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The entries that a key signed, first and last as LANE/SEQ."""

    kid: str
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Unattested:
    """Entries, first and last as LANE/SEQ, that a key signed while it, or one before it, was in other hands."""

    lane: str
    kid: str
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Unanchored:
    """The part of the log that no anchor vouches for: how many entries, over how many seconds."""

    entries: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of a verification."""

    result: Result
    entries: int
    segments: int
    lanes: tuple[LaneReport, ...]
    keys: tuple[KeyRange, ...]
    every_signature: bool
    unanchored: Unanchored
    first_failure: Failure | None
    torn_bytes: int
    anchored: tuple[Anchored, ...] = ()
    covered: tuple[str, str] | None = None
    """The times of the first and the last entry."""
    losses: tuple[Succession, ...] = ()
    """Which lanes were given up, and which go on in their place."""
    unattested: tuple[Unattested, ...] = ()
    checkpoints: int = 0
    """How many signed heads of the log itself were confirmed."""

    @property
    def reservations(self) -> tuple[str, ...]:
        """What a reader may hold against an answer that is otherwise good."""
        said = [f"lane {lane.lane} ended without close" for lane in self.lanes if not lane.closed and not lane.live]
        said += [f"lane {lane.lane} begins with entry {lane.first}" for lane in self.lanes if lane.first]
        said += [f"{each.first} to {each.last} are unattested" for each in self.unattested]
        if self.torn_bytes:
            said.append(f"the last line is unfinished ({self.torn_bytes} bytes)")
        if self.unanchored.entries:
            said.append(f"not anchored: {self.unanchored.entries}")
        return tuple(said)

    def as_json(self) -> dict[str, Value]:
        """The fields of `governor audit verify --json`."""
        return {
            "result": self.result.value,
            "entries": self.entries,
            "segments": self.segments,
            "lanes": [asdict(lane) for lane in self.lanes],
            "keys": [{"kid": key.kid, "from": key.first, "to": key.last} for key in self.keys],
            "signatures": "every" if self.every_signature else "checkpoints",
            "unanchored": asdict(self.unanchored),
            "first_failure": asdict(self.first_failure) if self.first_failure else None,
            "torn_bytes": self.torn_bytes,
            "anchored": [{**asdict(each), "by": list(each.by)} for each in self.anchored],
            "covered": {"from": self.covered[0], "to": self.covered[1]} if self.covered else None,
            "checkpoints": self.checkpoints,
            "reservations": list(self.reservations),
            "losses": [_told(each) for each in self.losses],
            "unattested": [{"lane": each.lane, "kid": each.kid, "from": each.first, "to": each.last}
                           for each in self.unattested],
        }


def _told(succession: Succession) -> Value:
    loss = succession.loss
    return {"lane": loss.lane, "successor": succession.successor, "entries": loss.entries, "head": loss.head,
            "result": loss.result, "reason": loss.reason, "operator": loss.operator}
