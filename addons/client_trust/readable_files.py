"""Files for a command to read that may run as another user."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from addons import durable
from addons.client_trust.certificates import content

if TYPE_CHECKING:
    from collections.abc import Mapping


def folder_at(path: Path) -> Path:
    """A folder that everybody can read, whatever the umask says."""
    with suppress(FileExistsError):
        path.mkdir()
    # In a home of Governor's own user that user could have put a link here, and root may be who follows it.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o755)
        durable.give(descriptor, path.parent)
    finally:
        os.close(descriptor)
    return path


def put(path: Path, written: bytes) -> Path:
    """A file that everybody can read. A client that reads meanwhile sees the old one or the new one."""
    durable.write_whole(path, written, 0o644, synced=False)
    return path


def copied(place: Path, copy: Path, replaced: Mapping[Path, Path] | None = None) -> Path:
    """The folder with its links kept as links, and with the files of `replaced` in place of its own."""
    folder_at(copy)
    instead = replaced or {}
    for entry in os.scandir(place):
        path, target = Path(entry.path), copy / entry.name
        if entry.is_symlink():
            os.symlink(os.readlink(path), target)
        elif entry.is_dir():
            copied(path, target, instead)
        else:
            put(target, content(instead.get(path, path)))
    return copy
