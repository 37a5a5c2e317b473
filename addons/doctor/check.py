"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, and what to do: a command or a sentence, empty where all is well."""

    name: str
    state: State
    message: str
    fix: str = ""

    @property
    def holds(self) -> bool:
        return self.state is not State.FAIL
