"""What of a bundle is wrong beside its log: its list of files, its signature, the lines that stand alone."""

from __future__ import annotations

from addons import codec
from addons.audit_log import KEYS, LOADS, AuditLog, lines_of, pinned_key, verify_signature
from addons.bundle import Signature, standing_alone
from kernel.errors import KernelError
from kernel.note import VerifierKey
from kernel.verify import named_root


def bundle_damage(log: AuditLog, root: VerifierKey | None) -> tuple[str, ...]:
    """Where the files of a bundle are not those that it says, and its signed lines not those of `root`'s log."""
    if log.bundle is None:
        return ()
    damage = log.bundle.damage + log.bundle.signature(root, verify_signature).damage
    for lane in log.lanes():
        folder = log.lane(lane)
        try:
            standing_alone(lines_of(folder / LOADS), lane, lines_of(folder / KEYS), root, verify_signature)
        except KernelError as error:
            damage += (f"lanes/{lane}/{LOADS}: {error}",)
    return damage


def bundle_signature(log: AuditLog, trusted: VerifierKey | None) -> Signature | None:
    """Whose signature the manifest of a bundle has, by the key under which its log is verified; None of no bundle."""
    if log.bundle is None:
        return None
    return log.bundle.signature(root_of(log, trusted)[0], verify_signature)


def root_of(log: AuditLog, trusted: VerifierKey | None) -> tuple[VerifierKey | None, bool]:
    """The root key: the trusted one, else this user's pin, else what the log names; and whether it is from outside."""
    named = trusted or named_root(log.known()[0], log.sources(), codec.parse)
    outside = trusted or (pinned_key(named) if named else None)
    return outside or named, outside is not None
