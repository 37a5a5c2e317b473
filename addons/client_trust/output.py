"""Files for a command to read that may run as another user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def folder_at(path: Path) -> Path:
    """A folder that everybody can read, whatever the umask says."""
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
    return path


def put(path: Path, content: bytes) -> Path:
    """A file that everybody can read. A client that reads meanwhile sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.chmod(0o644)
    return draft.replace(path)
