"""What a reading of a policy finds: coded, placed, in plain words, with a witness where one exists."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kernel.policy import Position


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Witness:
    """A request that shows a finding: it can be given to `governor policy explain` as it stands."""

    agent: str
    method: str
    url: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `code` is E..., W... or I...; kernel/README.md lists them all."""

    code: str
    severity: Severity
    position: Position
    message: str
    hint: str = ""
    rules: tuple[str, ...] = ()
    witness: Witness | None = None

    def __str__(self) -> str:
        said = f"{self.position}: {self.code} {self.message}"
        return f"{said} ({self.hint})" if self.hint else said
