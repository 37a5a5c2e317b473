"""Pins: the root keys this user trusts, kept outside the homes they speak for.

A pin is a file named after the log id. Its first line is the verifier key, its second the home it was made for.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from addons import durable

_LOG_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Pin:
    """One trusted root key and the home that it was made with."""

    log_id: str
    verifier_key: str
    home: Path


def folder() -> Path:
    """Where this user's pins lie."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".config") / "governor" / "pins"


def path(log_id: str) -> Path:
    """The file of one log's pin."""
    return folder() / log_id


def write(pin: Pin) -> None:
    """Trust `pin` from now on; `OSError` when the folder cannot be written."""
    folder().mkdir(parents=True, exist_ok=True, mode=durable.PRIVATE_FOLDER)
    durable.replace(path(pin.log_id), f"{pin.verifier_key}\n{pin.home}\n".encode(errors="surrogateescape"))


def read(log_id: str) -> Pin | None:
    """The pin of one log, or None when there is none that can be read."""
    try:
        lines = path(log_id).read_bytes().decode(errors="surrogateescape").split("\n")
    except OSError:
        return None
    return Pin(log_id, lines[0], Path(lines[1])) if len(lines) > 1 and lines[1] else None


def everyone() -> tuple[Pin, ...]:
    """Every pin of this user."""
    try:
        names = sorted(os.listdir(folder()))
    except OSError:
        return ()
    pins = (read(name) for name in names if _LOG_ID.fullmatch(name))
    return tuple(pin for pin in pins if pin is not None)


def of_home(home: Path) -> tuple[Pin, ...]:
    """Every pin that was made for `home`."""
    return tuple(pin for pin in everyone() if pin.home == home)
