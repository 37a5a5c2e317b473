"""Whether a command can be executed, asked before anything is made for it, and told as env(1) and shells tell it."""

from __future__ import annotations

import os
from dataclasses import dataclass

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


@dataclass(frozen=True, slots=True)
class Unstartable:
    """Why it cannot, and the status that says so."""

    status: int
    text: str


def unstartable(name: str, path: str) -> Unstartable | None:
    """What keeps a command from being executed; None where nothing does. `path` is the caller's PATH."""
    if "/" in name:
        return _not_at(name)
    # An empty part is the working directory.
    places = [os.path.join(folder or ".", name) for folder in path.split(os.pathsep) if name]
    found = [place for place in places if os.path.lexists(place)]
    if not found:
        return Unstartable(_NOT_FOUND, f"{name}: command not found")
    problems = [_not_at(place) for place in found]
    return None if None in problems else problems[0]


def _not_at(place: str) -> Unstartable | None:
    if os.path.isdir(place):
        return Unstartable(_NOT_EXECUTABLE, f"{place}: a folder")
    if not os.path.exists(place):
        return Unstartable(_NOT_FOUND, f"{place}: no such file")
    if not os.access(place, os.X_OK):
        return Unstartable(_NOT_EXECUTABLE, f"{place}: not executable")
    return None
