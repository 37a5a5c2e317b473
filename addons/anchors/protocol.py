"""What every kind of anchor does: keep a signed head where this host cannot take it back, and give it out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from addons.errors import GovernorError
from kernel.entry import Body


class AnchorError(GovernorError):
    """An anchor did not take a head, or holds something else. Says which anchor, what, and what to do."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an anchor answered for one head: `root` in hex, `at` as the log writes timestamps, `proof` by kind."""

    kind: str
    target: str
    lane: str
    size: int
    root: str
    at: str
    proof: Mapping[str, str | int]


class Log(Protocol):
    """The lane of a running Governor, in which it is written down what became of its heads and segments."""

    @property
    def name(self) -> str: ...

    def record(self, kind: str, fields: Body) -> int: ...


class Anchor(Protocol):
    """One place. `kind` is file, s3 or witness; `target` is as configured, printable and without secrets."""

    @property
    def kind(self) -> str: ...

    @property
    def target(self) -> str: ...

    def publish(self, lane: str, note: str) -> Receipt:
        """Keep the checkpoint `note` of `lane` as it stands in checkpoints.note. Blocks within its own time-outs."""
        ...

    def notes(self) -> Iterator[str]:
        """Every signed checkpoint note of this log that the anchor holds."""
        ...
