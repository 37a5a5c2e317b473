"""An audit bundle as it was opened: what its manifest says, whether that is true, and who signed it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from addons import codec
from kernel.chain import entry_hash, signed_bytes, split
from kernel.errors import ChainError, KernelError, NoteError
from kernel.key_chain import certified
from kernel.manifest import MANIFEST, Manifest, Part, Period
from kernel.note import VerifierKey, Verify, open_note
from kernel.transition import CLI
from kernel.trust import log_id_of


@dataclass(frozen=True, slots=True)
class Signature:
    """Whose signature a manifest has, by the id of the key; and what is wrong with it."""

    kid: str | None
    damage: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bundle:
    """`text` and what it says; `manifest` is None where it is none. `damage` tells where the files are others.

    `key_lines` are the lines that brought the keys of the lane that signs.
    """

    text: str
    manifest: Manifest | None
    signed: bool
    damage: tuple[str, ...]
    key_lines: tuple[bytes, ...] = ()

    @property
    def parts(self) -> Mapping[str, Part]:
        """What of which lanes is there."""
        return self.manifest.lanes if self.manifest else {}

    @property
    def of_a_part(self) -> bool:
        """Whether something else than the whole log was asked for, so that lanes and the beginning may be absent."""
        return self.manifest is not None and self.manifest.requested != Period()

    def begins_later(self, lane: str) -> bool:
        """Whether the lane is not there from its first segment on."""
        return lane in self.parts and self.parts[lane].first > 0

    def signature(self, root: VerifierKey | None, verify: Verify) -> Signature:
        """Whether the newest key of lane `cli` made the signature: its first is certified by `root`."""
        if self.manifest is None or not self.signed:
            return Signature(None)
        try:
            if root is not None and log_id_of(root) != self.manifest.log_id:
                raise NoteError("it belongs to another log")
            signer = certified(self.key_lines, CLI, root, verify, codec.parse).current
            open_note(self.text, [signer] if signer else [], verify)
        except KernelError as error:
            return Signature(None, (f"{MANIFEST}: {error}",))
        return Signature(signer.kid if signer else None)


def standing_alone(lines: Iterable[bytes], lane: str, key_lines: Iterable[bytes], root: VerifierKey | None,
                   verify: Verify) -> None:
    """Nothing where each line is one that a key of the lane signed at its place, in order; else `KernelError`."""
    keys, last = certified(key_lines, lane, root, verify, codec.parse), -1
    for line in lines:
        raw, kid, signature = split(line)
        entry = codec.parse(raw)
        seq = entry.get("seq") if isinstance(entry, dict) and entry.get("lane") == lane else None
        if not isinstance(seq, int) or isinstance(seq, bool) or seq <= last:
            raise ChainError("the lines are not those of this lane in their order")
        signer, last = keys.signer_of(seq), seq
        if signer is None or kid != signer.kid or not verify(signer.public, signature, signed_bytes(entry_hash(raw))):
            raise ChainError(f"the signature of entry {lane}/{seq} does not verify")
