"""The tar of a bundle: ustar, plain files alone, every header as the name and the size of its file make it.

Nothing else is read either: no link, device, absolute path, other owner or time, so that every byte of such a file is
either content or follows from it.
"""

from __future__ import annotations

import re
import tarfile
from typing import TYPE_CHECKING, BinaryIO

from addons.errors import GovernorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * BLOCK)
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
# Shorter than a header's field for names, and within the depth of what a bundle holds.
_NAME = re.compile(rf"(?=.{{1,100}}\Z){_PART}(?:/{_PART}){{0,4}}")
_SIZE = slice(124, 135)
_CHUNK = 2**20


class NotAMember(GovernorError):
    """A part of a tar that no bundle has; says at which byte."""


def is_member_name(name: str) -> bool:
    """Whether a file of a bundle may have this name: relative, of letters, digits, `.`, `_` and `-`, none hidden."""
    return _NAME.fullmatch(name) is not None


def header(name: str, size: int) -> bytes:
    """The block before a member's content."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.USTAR_FORMAT)


def write(file: BinaryIO, name: str, size: int, chunks: Iterable[bytes]) -> None:
    """Append a member of `size` bytes."""
    file.write(header(name, size))
    file.writelines(chunks)
    file.write(bytes(-size % BLOCK))


def finish(file: BinaryIO) -> None:
    file.write(_END)


def extract(file: BinaryIO, folder: Path, progress: Callable[[int], object]) -> None:
    """Put every member into the empty `folder`, in constant memory; `NotAMember` at the first thing that is none."""
    place = 0
    while (head := file.read(BLOCK)) != _END[:BLOCK]:
        name, size = _read_header(head, place)
        with _created(folder / name, place) as member:
            for chunk in _content(file, size, place):
                member.write(chunk)
                progress(len(chunk))
        place += BLOCK + size + -size % BLOCK
    if head + file.read(BLOCK + 1) != _END:
        raise NotAMember(f"byte {place}: something follows the end of the archive")


def _created(path: Path, place: int) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise NotAMember(f"byte {place}: {path.name} is there twice") from None


def _read_header(head: bytes, place: int) -> tuple[str, int]:
    name = head.split(b"\0", 1)[0].decode("ascii", "replace")
    digits = head[_SIZE]
    size = int(digits, 8) if digits.strip(b"01234567") == b"" and len(digits) == 11 else -1
    if not is_member_name(name) or size < 0 or head != header(name, size):
        raise NotAMember(f"byte {place}: not the header of a file of a bundle")
    return name, size


def _content(file: BinaryIO, size: int, place: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise NotAMember(f"byte {place}: the archive ends within a file")
        left -= len(chunk)
        yield chunk
    if file.read(-size % BLOCK).strip(b"\0"):
        raise NotAMember(f"byte {place}: something stands behind the file, where zeros must be")
