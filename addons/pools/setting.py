"""Which ledger a Governor keeps its budgets in: what `governor_pool` says, and what it may be told of it."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from addons.errors import StartCode, StartRefused

POOL_VARIABLE = "GOVERNOR_POOL"
_HIDDEN = "(secret)"
_FORMS = "write memory:, sqlite:PATH, redis://HOST, rediss://HOST or unix://SOCKET"


class Kind(StrEnum):
    """Where a ledger is: in the process, in a file of the host, in a server of many hosts."""

    MEMORY = "memory"
    SQLITE = "sqlite"
    REDIS = "redis"


class Pool(NamedTuple):
    """`place` is a file's path, a server's URL with its password, or nothing."""

    kind: Kind
    place: str = ""

    @property
    def url(self) -> str:
        """As `opening.open_ledger` reads it, with what nobody else is to."""
        return self.place if self.kind is Kind.REDIS else f"{self.kind}:{self.place}"

    def __str__(self) -> str:
        """As the option names it, without what nobody is to read."""
        return without_secrets(self.url)


def read(option: str) -> Pool | None:
    """The ledger that the option names, or else the environment; None without a word. Raises `StartRefused`.

    What stands on a command line can be read by everybody on the host, so a password is better kept in the other.
    """
    named, said = ("governor_pool", option) if option else (POOL_VARIABLE, os.environ.get(POOL_VARIABLE, ""))
    pool = _read(said) if said else None
    if said and pool is None:
        raise StartRefused(StartCode.OPTION_REFUSED, f"{named}={without_secrets(said)}: {_FORMS}")
    return pool


def pool_for(asked: Pool | None, home: Path, workers: int) -> Pool:
    """The ledger of a start: what was asked for, else the home's own for several workers, and where they had it before.

    Raises `StartRefused`.
    """
    own = home / "pool.db"
    if asked is None:
        return Pool(Kind.SQLITE, str(own)) if workers > 1 or own.exists() else Pool(Kind.MEMORY)
    if asked.kind is Kind.MEMORY and own.exists():
        text = f"governor_pool={asked} would forget what workers have drawn, which {own} knows"
        raise StartRefused(StartCode.OPTION_REFUSED, f"{text}; leave it out")
    if asked.kind is Kind.MEMORY and workers > 1:
        text = f"governor_pool={asked} would give each of {workers} workers budgets of its own"
        raise StartRefused(StartCode.OPTION_REFUSED, f"{text}; leave it out, or write sqlite:PATH or redis://HOST")
    return asked


def _read(option: str) -> Pool | None:
    match option.partition(":"):
        case "memory", ":", "":
            return Pool(Kind.MEMORY)
        case "sqlite", ":", place if place and not place.startswith("//"):
            return Pool(Kind.SQLITE, str(Path(place).expanduser().absolute()))
        case "redis" | "rediss", ":", _ if _split(option).hostname:
            return Pool(Kind.REDIS, option)
        case "unix", ":", _ if _split(option).path:
            return Pool(Kind.REDIS, option)
    return None


def without_secrets(option: str) -> str:
    """The option as it may be written down: a password, and what stands behind a `?`, are not told."""
    if not option.startswith(("redis:", "rediss:", "unix:")):
        return option if option.startswith(("memory:", "sqlite:")) else option.partition(":")[0]
    parts = _split(option)
    user, at, place = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    query = f"?{_HIDDEN}" if parts.query else ""
    return f"{parts.scheme}://{name}{f':{_HIDDEN}' if colon else ''}{at}{place}{parts.path}{query}"


def _split(option: str) -> SplitResult:
    try:
        parts = urlsplit(option)
        _ = parts.port
    except ValueError:
        return urlsplit("")
    return parts
