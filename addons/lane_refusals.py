"""Why a lane is not gone on with: damage, an older log, something that is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons.errors import StartCode, StartRefused

if TYPE_CHECKING:
    from pathlib import Path

    from addons.home import Home


def tampered(path: Path, problem: str) -> StartRefused:
    """Damage: nothing may be added to this log."""
    return StartRefused(StartCode.TAMPERED, f"{path}: {problem}; governor audit verify says more, a backup helps")


def rolled_back(path: Path, entries: int, least: int) -> StartRefused:
    """An older or shorter log than the one that was written."""
    text = f"{path} holds {entries} entries, and {least} were signed as written; restore the newest log"
    return StartRefused(StartCode.ROLLED_BACK, text)


def lost(home: Home, problem: str) -> StartRefused:
    """Something that a log cannot be without is not there."""
    return StartRefused(StartCode.HOME_INCOMPLETE, f"{home.paths.folder} {problem}; restore it from a backup")
