"""Opening an audit bundle: unpacked with care, and compared with what its manifest lists."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from addons import bundle_tar
from addons.audit_log import KEYS, AuditLog, AuditLogError, lines, open_regular
from addons.bundle import Bundle
from addons.bundle_tar import NotAMember
from kernel.errors import NoteError
from kernel.manifest import LISTING, MANIFEST, listing, split_manifest
from kernel.marks import MINIMUM
from kernel.transition import CLI

_SMALL_BYTES = 2**20
# What is left free on the disk that a bundle is unpacked to.
_SPARE_BYTES = 64 * 2**20
_OWN = frozenset((LISTING, MANIFEST))


@contextmanager
def opened(where: Path, progress: Callable[[int], object] = lambda _: None) -> Iterator[AuditLog]:
    """The log of a home, of an audit folder, or of a bundle (the tar, or the folder that it was unpacked to).

    `AuditLogError` where there is none. What is wrong with a bundle is told by its `damage`.
    """
    if not where.is_file():
        yield _in_folder(where, ()) if (where / MANIFEST).is_file() else AuditLog.at(where)
        return
    with tempfile.TemporaryDirectory(prefix="governor-bundle-") as folder:
        damage = _unpack(where, Path(folder), progress)
        yield _in_folder(Path(folder), damage)


def _unpack(where: Path, folder: Path, progress: Callable[[int], object]) -> tuple[str, ...]:
    """What kept the tar from being unpacked; nothing where all of it is in `folder`."""
    with open_regular(where) as file:
        if b"ustar" not in file.peek(bundle_tar.BLOCK)[:bundle_tar.BLOCK]:  # type: ignore[attr-defined]
            raise AuditLogError(f"{where}: neither a log's folder nor an audit bundle")
        size, free = os.fstat(file.fileno()).st_size, shutil.disk_usage(folder).free
        if size > free - _SPARE_BYTES:
            text = f"{where}: {size} bytes are unpacked to {folder.parent}, where {free} are free"
            raise AuditLogError(f"{text}; name another folder in TMPDIR")
        try:
            bundle_tar.extract(file, folder, progress)
        except NotAMember as error:
            return (f"{where.name}: {error}",)
    return ()


def _in_folder(folder: Path, damage: tuple[str, ...]) -> AuditLog:
    bundle = Bundle("", None, signed=False, damage=damage)
    try:
        text = _text(folder / MANIFEST)
        manifest, signed = split_manifest(text)
        damage += _compared(folder, manifest.listing_sha256, manifest.listing_bytes)
        bundle = Bundle(text, manifest, signed, damage, _key_lines(folder))
    except (NoteError, OSError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        bundle = Bundle("", None, signed=False, damage=(*damage, f"{MANIFEST}: {told}"))
    return AuditLog(folder / "audit", folder / MINIMUM, folder / "vault.db", bundle)


def _key_lines(folder: Path) -> tuple[bytes, ...]:
    try:
        with open_regular(folder / "audit" / "lanes" / CLI / KEYS) as file:
            return tuple(lines(file))
    except FileNotFoundError:
        return ()


def _text(path: Path) -> str:
    with open_regular(path) as file:
        return file.read(_SMALL_BYTES).decode(errors="replace")


def _compared(folder: Path, digest: str, size: int) -> tuple[str, ...]:
    """The first thing in which the files differ from the list that the manifest tells of."""
    try:
        with open_regular(folder / LISTING) as file:
            stated = file.read(size + 1)
    except OSError as error:
        return (f"{LISTING}: {error.strerror}",)
    if listing(stated) != (digest, size):
        return (f"{LISTING} is not the list that {MANIFEST} tells of",)
    theirs = iter(stated.splitlines(keepends=True))
    for line in _listed(folder):
        other = next(theirs, None)
        if line != other:
            return (_difference(line, other),)
    rest = next(theirs, None)
    return () if rest is None else (_difference(None, rest),)


def _difference(ours: bytes | None, stated: bytes | None) -> str:
    """What two lines at one place of the sorted list tell: a file was changed, added or taken out."""
    here, listed = (None if line is None else line[66:-1] for line in (ours, stated))
    if here == listed and here is not None:
        return f"{here.decode(errors='replace')} is not as it was put into the bundle"
    if here is None or (listed is not None and listed < here):
        return f"{(listed or b'').decode(errors='replace')} is missing from the bundle"
    return f"{here.decode(errors='replace')} was not put into the bundle when it was made"


def _listed(folder: Path) -> Iterator[bytes]:
    """What the list must say of the files that are there."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    for name in sorted((path.relative_to(folder).as_posix() for path in files), key=os.fsencode):
        if name in _OWN:
            continue
        try:
            with open_regular(folder / name) as file:
                digest = _digest(file)
        except OSError:
            digest = "-" * 64
        yield f"{digest}  {name}\n".encode(errors="replace")


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_SMALL_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
