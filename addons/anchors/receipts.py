"""`audit/receipts/anchors.jsonl`: what each anchor answered, a line each. They say where to ask, and prove nothing."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from addons import codec, durable
from addons.anchors.protocol import AnchorError, Receipt
from addons.audit_log import open_regular
from kernel.errors import KernelError
from kernel.trust import is_lane

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FILE = "anchors.jsonl"
_TAIL_BYTES = 256 * 1024
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

type Newest = dict[tuple[str, str, str], Receipt]
"""By kind, target and lane."""


class Receipts:
    """The receipts of a home, for several processes at once. Every method raises `AnchorError` where it fails."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def add(self, receipt: Receipt) -> None:
        """Keep a receipt, durable when this returns."""
        line = codec.encode({
            "kind": receipt.kind, "target": receipt.target, "lane": receipt.lane, "size": receipt.size,
            "root": receipt.root, "at": receipt.at, "proof": dict(receipt.proof),
        })
        try:
            durable.make_folder(self._path.parent)
            descriptor = os.open(self._path, _FLAGS, durable.PRIVATE_FILE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                size = os.fstat(descriptor).st_size
                # A line that a crash cut off is ended, and read as none.
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                durable.write_all(descriptor, (b"\n" if torn else b"") + line + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as fault:
            raise AnchorError(f"{self._path}: {fault.strerror or fault}") from fault

    def newest(self) -> Newest:
        """The newest receipt of each anchor for each lane, of the last ones that were written."""
        return {(each.kind, each.target, each.lane): each for each in _read(self._tail())}

    def _tail(self) -> list[bytes]:
        try:
            with open_regular(self._path) as file:
                start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
                file.seek(start)
                found = file.read(_TAIL_BYTES).split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as fault:
            raise AnchorError(f"{self._path}: {fault.strerror or fault}") from fault
        return found[1 if start else 0 :]


def _read(found: Iterable[bytes]) -> Iterator[Receipt]:
    for line in found:
        try:
            match codec.parse(line):
                case {"kind": str(kind), "target": str(target), "lane": str(lane), "size": int(size),
                      "root": str(root), "at": str(at), "proof": dict(proof)} if is_lane(lane):
                    said = {name: part for name, part in proof.items() if isinstance(part, str | int)}
                    yield Receipt(kind, target, lane, size, root, at, said)
        except KernelError:
            # Written by hand, or torn: whoever needs more asks the anchor itself.
            continue
