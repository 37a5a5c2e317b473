"""A log as it lies on disk: found, read in bounded pieces, and verified."""

from __future__ import annotations

import fcntl
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from addons import pins
from addons.bundle import Bundle
from addons.errors import GovernorError
from addons.forked import Progress
from addons.segment import segment_names
from kernel.chain import MAX_LINE_BYTES
from kernel.errors import NoteError, TrustError
from kernel.marks import CHECKPOINTS, MINIMUM
from kernel.note import VerifierKey, parse_verifier_key
from kernel.trust import Minimum, TrustFile, log_id_of, parse_minimum_file, parse_trust_file
from kernel.walk import Segment, Source

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TRUST = "trust.json"
KEYS = "keys.jsonl"
"""In a bundle: the lines that brought the keys of a lane."""
LOADS = "loads.jsonl"
"""In a bundle: the lines of a lane that say what decides, from before the first segment that is there."""
_BUFFER_BYTES = 2**17
_SMALL_FILE_BYTES = 2**22


class AuditLogError(GovernorError):
    """A log that cannot be found or read, or a trusted key that is none: the question was wrong, not the answer."""


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Where a log lies. `minimum` and `vault` are beside the audit folder and may be absent.

    `bundle` is what says of it that it is a part of a log; None where it is one.
    """

    audit: Path
    minimum: Path
    vault: Path
    bundle: Bundle | None = None

    @classmethod
    def at(cls, folder: Path) -> AuditLog:
        """The log of a home, or of its audit folder; `AuditLogError` where there is none."""
        if (folder / "audit").is_dir():
            return cls(folder / "audit", folder / MINIMUM, folder / "vault.db")
        if folder.is_dir() and (folder.name == "audit" or (folder / "lanes").is_dir() or (folder / TRUST).is_file()):
            return cls(folder, folder.parent / MINIMUM, folder.parent / "vault.db")
        raise AuditLogError(f"{folder}: no audit log here (expected a Governor home, or its audit folder)")

    @property
    def policies(self) -> Path:
        """Where the policies are kept that judged."""
        return self.audit / "policies"

    @property
    def states(self) -> Path:
        """Where states of the kernel are kept, by the digests that entries name."""
        return self.audit / "state"

    def lanes(self) -> list[str]:
        """The names of the lanes, in order."""
        if self.bundle is not None and self.bundle.manifest is not None:
            return sorted(lane for lane in self.bundle.parts if (self.audit / "lanes" / lane).is_dir())
        lanes = self.audit / "lanes"
        return sorted(path.name for path in lanes.iterdir() if path.is_dir()) if lanes.is_dir() else []

    def sources(self, progress: Progress = lambda _: None) -> list[Source]:
        """Every lane, as far as its checkpoints are now. Take `known` before: a writer may be at work."""
        return [self.source(lane, progress) for lane in self.lanes()]

    def source(self, lane: str, progress: Progress = lambda _: None) -> Source:
        """A lane, as far as its checkpoints are now."""
        whole = _source(self.lane(lane), progress)
        part = self.bundle.parts.get(lane) if self.bundle else None
        if part is None or part.whole:
            return whole
        return replace(whole, first=part.first, key_lines=partial(lines_of, self.lane(lane) / KEYS), end=part.end)

    def lane(self, name: str) -> Path:
        """The folder of a lane."""
        return self.audit / "lanes" / name

    def known(self) -> tuple[TrustFile | None, Minimum | None, tuple[str, ...]]:
        """What trust.json and minimum.json say, None where absent, and what is wrong with them."""
        damage = []
        stated: TrustFile | None = None
        minimum: Minimum | None = None
        try:
            data = _small(self.audit / TRUST)
            stated = parse_trust_file(data) if data is not None else None
        except TrustError as error:
            damage.append(str(error))
        try:
            data = _small(self.minimum)
            minimum = parse_minimum_file(data) if data is not None else None
        except TrustError as error:
            damage.append(str(error))
        return stated, minimum, tuple(damage)

    def size_bytes(self) -> int:
        """How many bytes of segments there are to read."""
        return sum(path.lstat().st_size for path in (self.audit / "lanes").glob("*/*.jsonl"))


def pinned_key(named: VerifierKey) -> VerifierKey | None:
    """The root key that this user's configuration pins for the log of `named`; None without a pin."""
    try:
        return pin_of(log_id_of(named))
    except TrustError:
        return None


def pin_of(log_id: str) -> VerifierKey | None:
    """The root key that this user's configuration pins for a log; None without a pin."""
    path = pins.path(log_id)
    data = _small(path)
    try:
        return parse_verifier_key(data.decode(errors="replace").split("\n")[0]) if data is not None else None
    except NoteError as error:
        raise AuditLogError(f"{path}: {error}") from None


def trusted_key(text: str) -> VerifierKey:
    """The root key that `--trust` names: a verifier key, a file holding one, or a trust.json; else `AuditLogError`."""
    try:
        key = _key_in_file(Path(text)) if os.path.exists(text) else parse_verifier_key(text)
        log_id_of(key)
    except (NoteError, TrustError, OSError) as error:
        raise AuditLogError(f"--trust {text}: {error}") from None
    return key


def _key_in_file(path: Path) -> VerifierKey:
    data = _small(path) or b""
    if data.lstrip().startswith(b"{"):
        return parse_trust_file(data).root
    return parse_verifier_key(data.decode(errors="replace").strip().split("\n")[0])


@lru_cache(maxsize=64)
def _public_key(public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public)


def verify_signature(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature holds."""
    try:
        _public_key(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _source(folder: Path, progress: Progress) -> Source:
    checkpoints = folder / CHECKPOINTS
    # A writer signs a head after its lines are written. What it adds to the checkpoints from now on may be ahead of the
    # lines that are read here, so it is left out.
    size = _size(checkpoints)
    segments = partial(opened_segments, folder, segment_names, progress)
    return Source(folder.name, segments, partial(_checkpoints, checkpoints, size), is_live(folder))


def opened_segments(
    folder: Path, names: Callable[[Path], Sequence[str]], progress: Progress = lambda _: None
) -> Iterator[Segment]:
    """The segments of a lane that `names` tells, one after the other."""
    for name in names(folder):
        with open_regular(folder / name, progress) as file:
            yield name, lines(file)


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, LFs included; none where it is not there."""
    if path.exists():
        with open_regular(path) as file:
            yield from lines(file)


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


def _checkpoints(path: Path, size: int | None) -> Iterator[bytes]:
    if size is None:
        return
    with open_regular(path) as file:
        while size > 0 and (line := file.readline(min(size, MAX_LINE_BYTES))):
            size -= len(line)
            yield line


class _Watched(io.FileIO):
    """A file that tells how much of it was read."""

    def __init__(self, descriptor: int, progress: Progress) -> None:
        super().__init__(descriptor)
        self._progress = progress

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = super().readinto(buffer) or 0
        self._progress(count)
        return count


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of `file`, LFs included, in constant memory: what is too long for a line comes in pieces."""
    return iter(partial(file.readline, MAX_LINE_BYTES + 1), b"")


def open_regular(path: Path, progress: Progress = lambda _: None) -> BinaryIO:
    """`path` opened for reading; OSError unless it is a plain file (a FIFO in its place would never end)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "not a regular file", os.fspath(path))
    return io.BufferedReader(_Watched(descriptor, progress), _BUFFER_BYTES)


def _small(path: Path) -> bytes | None:
    try:
        with open_regular(path) as file:
            return file.read(_SMALL_FILE_BYTES)
    except FileNotFoundError:
        return None


def is_live(folder: Path) -> bool:
    """Whether a writer holds the lane's lock. Asked with a shared lock that is given back at once."""
    try:
        with open_regular(folder / "LOCK") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
