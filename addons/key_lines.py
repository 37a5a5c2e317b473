"""The lines of a lane that bring its keys, read from where they must stand: its beginning, and the ends of segments."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from addons.audit_log import lines, open_regular

_ROTATES = b'"type":"key_rotate"'
_OPENS = b'"type":"lane_open"'
_BEGINNINGS = (b'"type":"genesis"', _OPENS)
# Longer than a key_rotate can be.
_TAIL_BYTES = 4096


def key_lines(segments: Sequence[Path]) -> Iterator[bytes]:
    """genesis, lane_open, and the last line of each segment that ends in a key_rotate, as `certified` takes them.

    Nothing is checked but that a line is whole. `segments` are those of one lane from the first on.
    """
    for path in segments[:1]:
        with open_regular(path) as file:
            for line in islice(lines(file), len(_BEGINNINGS)):
                if line.endswith(b"\n") and any(kind in line for kind in _BEGINNINGS):
                    yield line
    for path in segments:
        line = _last_line(path)
        if _ROTATES in line:
            yield line


def _last_line(path: Path) -> bytes:
    """The last whole line of a file, where it is a short one."""
    with open_regular(path) as file:
        end = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, end - _TAIL_BYTES))
        whole, _, _ = file.read().rpartition(b"\n")
    before, found, last = whole.rpartition(b"\n")
    if not found and start:
        return b""
    return last + b"\n" if whole or before else b""
