"""Files that hold what the entries of a lane had made of the kernel's state, each under the digest of its content."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from blake3 import blake3

from addons import durable
from addons.audit_log import open_regular
from kernel import snapshot
from kernel.errors import SnapshotError

if TYPE_CHECKING:
    from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}")


def keep(folder: Path, state: snapshot.Snapshot) -> tuple[str, int]:
    """Put a state into the folder, durably; its digest in hex, and how many bytes it has."""
    raw = snapshot.encode(state)
    digest = blake3(raw).hexdigest()
    durable.replace(file_of(folder, digest), raw)
    return digest, len(raw)


def kept(folder: Path, digest: object) -> snapshot.Snapshot | None:
    """The state that an entry names by its digest, where its file is there as it was written."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return None
    try:
        with open_regular(file_of(folder, digest)) as file:
            raw = file.read()
        return snapshot.decode(raw) if blake3(raw).hexdigest() == digest else None
    except (OSError, SnapshotError):
        return None


def file_of(folder: Path, digest: str) -> Path:
    """Where the folder has the state with this digest."""
    return folder / f"{digest}.json"
