"""The verification of a bundle about one agent: every receipt in it, each for itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from addons import codec
from addons.audit_log import AuditLog, open_regular, verify_signature
from addons.bundle_check import bundle_damage, root_of
from kernel.errors import ProofError
from kernel.evidence import MAX_TEXT_BYTES
from kernel.note import VerifierKey, lane_name
from kernel.receipt import Proved, check_receipt, parse_receipt
from kernel.report import Failure, Report, Result, Unanchored

FOLDER = "receipts"


def receipt_name(lane: str, seq: int) -> str:
    """The file of an entry's receipt. Padded, so that the order of names is that of entries."""
    return f"{FOLDER}/{lane}/{seq:016d}.tlog-proof"


def verify_receipts(log: AuditLog, log_id: str, trusted: VerifierKey | None) -> Report:
    """What can be said of a bundle about one agent of the log `log_id`; `trusted` as in `verifying.verify_log`."""
    root, pinned = root_of(log, trusted)
    checked = _Checked([_failure(None, each) for each in bundle_damage(log, root)])
    for path in sorted(_files(log.audit.parent / FOLDER)):
        name = path.relative_to(log.audit.parent).as_posix()
        try:
            proved = _proved(path, root, log_id)
            if name != receipt_name(proved.lane, proved.seq):
                raise ProofError(f"it proves {proved.lane}/{proved.seq}, which is not what its name says")
            checked.take(proved)
        except ProofError as error:
            checked.failures.append(_failure(name, str(error)))
    return checked.report(pinned=pinned)


@dataclass(slots=True)
class _Checked:
    """What was found so far."""

    failures: list[Failure]
    count: int = 0
    stamps: list[str] = field(default_factory=list)

    def take(self, proved: Proved) -> None:
        self.count += 1
        self.stamps = [min([proved.ts, *self.stamps]), max([proved.ts, *self.stamps])]

    def report(self, *, pinned: bool) -> Report:
        result = Result.VERIFIED if pinned else Result.NOT_PINNED
        if self.failures:
            result = Result.TAMPERED
        elif not self.count:
            result, self.failures = Result.INCOMPLETE, [_failure(None, "the bundle holds no receipts")]
        return Report(result, self.count, 0, (), (), every_signature=True, unanchored=Unanchored(0, 0),
                      first_failure=self.failures[0] if self.failures else None, torn_bytes=0,
                      covered=(self.stamps[0], self.stamps[1]) if self.stamps else None)


def _failure(file: str | None, reason: str) -> Failure:
    return Failure(None, file, None, None, None, reason)


def _files(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (Path(where) / name for name in names)


def _proved(path: Path, root: VerifierKey | None, log_id: str) -> Proved:
    try:
        with open_regular(path) as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise ProofError(error.strerror or str(error)) from None
    proved = check_receipt(parse_receipt(data), root, verify_signature, codec.parse)
    if proved.head.origin != lane_name(log_id, proved.lane):
        raise ProofError("it is a receipt of another log")
    return proved
