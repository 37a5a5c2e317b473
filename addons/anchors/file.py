"""The anchor that is always to be had: a file of notes somewhere else, on another volume or another machine."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from addons.anchors.note_file import NoteFile
from addons.anchors.protocol import AnchorError, Receipt
from kernel.entry import timestamp
from kernel.note import stated_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class FileAnchor:
    """Notes added to the file at `path`. Whoever can write there can take them back: it is as far away as that file."""

    kind = "file"

    def __init__(self, path: Path, home: Path) -> None:
        """`AnchorError` for a path inside the home: what takes the log back takes such a file along."""
        self.target = os.fspath(path)
        if not path.is_absolute():
            raise AnchorError(f"{self.target}: write the whole path, from / on")
        folder = os.path.realpath(path.parent)
        if os.path.commonpath((folder, os.path.realpath(home))) == os.path.realpath(home):
            raise AnchorError(f"{self.target}: it lies in the home and would be lost or taken back with it; "
                              "name a file on another volume")
        self._file = NoteFile(path)

    def publish(self, lane: str, note: str) -> Receipt:
        head = stated_checkpoint(note)
        offset = self._file.append(note)
        return Receipt(self.kind, self.target, lane, head.size, head.root.hex(), timestamp(datetime.now(UTC)),
                       {"offset": offset})

    def notes(self) -> Iterator[str]:
        return self._file.notes()
