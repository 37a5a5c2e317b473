"""How far an export has come, kept in a file: per lane the last entry that is out of Governor's hands."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from addons import codec, durable
from addons.audit_log import AuditLogError
from addons.chained_lines import Place
from kernel.canonical import Value
from kernel.errors import CanonicalError
from kernel.trust import is_lane

_VERSION = 1
_HASH = re.compile(r"[0-9a-f]{64}")
_SEGMENT = re.compile(r"[0-9]{6}\.jsonl")


class Cursor:
    """A cursor file that this process alone moves. `places` is where it stood when it was opened."""

    def __init__(self, path: Path, form: str) -> None:
        self._path, self._form = path, form
        self.places = self._read()

    @classmethod
    @contextmanager
    def held(cls, path: Path, form: str) -> Iterator[Cursor]:
        """The cursor at `path`, of an export in `form`. `AuditLogError` where another export holds it."""
        # The file itself is replaced at each move, and a lock on it would go with it.
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, durable.PRIVATE_FILE)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                problem = "another export uses this cursor; give this one its own --cursor"
                raise AuditLogError(f"{path}: {problem}") from None
            yield cls(path, form)
        finally:
            os.close(lock)

    def move(self, places: Mapping[str, Place]) -> None:
        """Stand at `places`; durable when this returns."""
        lanes: Value = {lane: asdict(place) for lane, place in places.items()}
        durable.replace(self._path, codec.encode({"v": _VERSION, "format": self._form, "lanes": lanes}) + b"\n")

    def _read(self) -> dict[str, Place]:
        try:
            stated = codec.read(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except CanonicalError as error:
            raise self._unreadable(str(error)) from None
        if not isinstance(stated, dict) or stated.get("v") != _VERSION or not isinstance(stated.get("lanes"), dict):
            raise self._unreadable("expected v 1, format and lanes")
        if stated.get("format") != self._form:
            raise AuditLogError(f"{self._path}: the cursor of an export as {stated.get('format')}, not {self._form}")
        return {lane: self._place(lane, place) for lane, place in stated["lanes"].items()}  # type: ignore[union-attr]

    def _place(self, lane: str, stated: Value) -> Place:
        match stated:
            case {"seq": int(seq), "hash": str(hashed), "segment": str(segment), "offset": int(offset)} if (
                is_lane(lane)
                and type(seq) is type(offset) is int
                and min(seq, offset) >= 0
                and _HASH.fullmatch(hashed)
                and _SEGMENT.fullmatch(segment)
            ):
                return Place(seq, hashed, segment, offset)
        raise self._unreadable(f"lane {lane}: expected seq, hash, segment and offset")

    def _unreadable(self, problem: str) -> AuditLogError:
        return AuditLogError(f"{self._path}: not a cursor ({problem}); without the file an export begins anew")
