"""One rule for every start: `kernel` and `addons` come from one folder."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import addons
import kernel
from addons.errors import StartCode, StartRefused


def check_origin() -> None:
    """Raise `StartRefused` when another distribution's `kernel` or `addons` was imported in place of Governor's."""
    ours, theirs = _folder(addons), _folder(kernel)
    if ours != theirs:
        raise StartRefused(StartCode.VERSION, f"addons comes from {ours} and kernel from {theirs}; "
                           "another distribution uses one of these names: give Governor an environment of its own")


def _folder(package: ModuleType) -> Path | None:
    return Path(package.__file__).resolve().parents[1] if package.__file__ else None
