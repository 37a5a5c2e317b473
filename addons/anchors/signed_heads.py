"""The newest heads of lanes as they lie on disk."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from addons.anchors.note_file import NoteFile
from addons.anchors.protocol import AnchorError
from addons.audit_log import is_live
from kernel.errors import NoteError
from kernel.marks import CHECKPOINTS
from kernel.note import lane_name, opened, parse_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def resting_heads(lanes: Path) -> list[str]:
    """The last head of each lane that no process writes, where it has one that can be read."""
    heads = []
    for folder in sorted(lanes.iterdir()):
        if not is_live(folder):
            with suppress(AnchorError):
                heads += [newest_head(folder)]
    return heads


def newest_head(folder: Path) -> str:
    """The last signed note of a lane, which is not verified here; `AnchorError` where there is none."""
    path = folder / CHECKPOINTS
    for text in reversed(NoteFile(path).last()):
        with suppress(NoteError):
            origin = parse_checkpoint(opened(text)[0]).origin
            if origin == lane_name(origin.split("/")[1] if origin.count("/") == 2 else "", folder.name):
                return text
    raise AnchorError(f"{path}: it holds no signed head; governor audit verify says more")
