"""The files of a policy as one: what its digest is the digest of, and what is kept beside the log.

One file is itself. Several are written one after the other, each after a line with its length, behind a first line that
no policy can have: YAML reserves `@`. So no file reads as several, and no several as one or as others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_FIRST = b"@governor-policy-files\n"
_LENGTH = re.compile(rb"@file ([1-9][0-9]{0,9}|0)\n")


def packed(contents: Sequence[bytes]) -> bytes:
    """The files as one, in the order in which they were given."""
    if len(contents) == 1:
        return contents[0]
    return _FIRST + b"".join(_framed(contents))


def _framed(contents: Iterable[bytes]) -> Iterable[bytes]:
    for content in contents:
        yield b"@file %d\n" % len(content)
        yield content
        yield b"\n"


def unpacked(content: bytes) -> list[bytes]:
    """The files that were packed; the content itself, where it is one file or not what `packed` makes."""
    if not content.startswith(_FIRST):
        return [content]
    found: list[bytes] = []
    place = len(_FIRST)
    while (frame := _LENGTH.match(content, place)) is not None:
        end = frame.end() + int(frame[1])
        found.append(content[frame.end() : end])
        place = end + 1
    return found if len(found) > 1 and packed(found) == content else [content]
