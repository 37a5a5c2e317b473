"""The user of Governor's own that a Governor started by root becomes."""

from __future__ import annotations

import pwd
from contextlib import suppress

NAME = "governor"
# Debian gives these out on demand only, and systemd calls them neither its own nor anybody's.
_UIDS = range(61021, 61121)


def chosen() -> tuple[int, int]:
    """User and group: those of the system user of that name, else numbers that nobody has."""
    with suppress(KeyError):
        found = pwd.getpwnam(NAME)
        return found.pw_uid, found.pw_gid
    taken = {each.pw_uid for each in pwd.getpwall()}
    free = next(number for number in _UIDS if number not in taken)
    return free, free


def is_one(user: int) -> bool:
    """Whether this is such a user."""
    if user in _UIDS:
        return True
    with suppress(KeyError):
        return pwd.getpwuid(user).pw_name == NAME
    return False
