"""What a run is asked to be."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from addons.sandbox.run_policy import RunPolicy
    from addons.sandbox.tiers import Tier


def _new_run() -> str:
    """A name that no other run has. Later ones come later in order."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(2)}"


@dataclass(frozen=True, slots=True)
class Asked:
    """The command, which agent it is, under what, and how it is held. `home` is Governor's."""

    command: tuple[str, ...]
    agent: str
    tier: Tier
    home: Path
    policy: RunPolicy
    environment: Mapping[str, str]
    run: str = field(default_factory=_new_run)

    @property
    def lane(self) -> str:
        """The lane of the log that the run has for itself."""
        return f"run-{self.run}"
