"""C2SP tlog-cosignature, version 1: what a witness signs of a checkpoint, with Ed25519 and the time at which it did."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from kernel.errors import NoteError
from kernel.note import DASH, Signer, Verify, key_id, named_key, opened, verifier_key

_COSIGNATURE = b"\4"
_TIME_BYTES = 8
_SIGNATURE_BYTES = 64
_MOST_SECONDS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """The key of a witness: the name under which it cosigns, and 32 bytes of Ed25519."""

    name: str
    public: bytes

    @property
    def kid(self) -> str:
        """The C2SP key id in hex."""
        return key_id(self.name, self.public, _COSIGNATURE).hex()

    def __str__(self) -> str:
        return verifier_key(self.name, self.public, _COSIGNATURE)


@dataclass(frozen=True, slots=True)
class Cosignature:
    """One that verified: at `seconds` since 1970 this head was the largest that the witness had seen of the log."""

    witness: WitnessKey
    seconds: int
    line: str
    """The signature line without its LF."""


def parse_witness_key(text: str) -> WitnessKey:
    """The key that a C2SP verifier key of type 0x04 names, or NoteError."""
    return WitnessKey(*named_key(text, _COSIGNATURE, "a witness cosigns with Ed25519, type 0x04"))


def cosign(body: str, witness: WitnessKey, seconds: int, signer: Signer) -> str:
    """The signature line, LF included, that `witness` adds to the checkpoint `body` at that time."""
    signature = signer(_message(body, seconds))
    stamped = bytes.fromhex(witness.kid) + seconds.to_bytes(_TIME_BYTES) + signature
    return f"{DASH}{witness.name} {base64.b64encode(stamped).decode()}\n"


def cosignatures(text: str, witnesses: Iterable[WitnessKey], verify: Verify) -> tuple[Cosignature, ...]:
    """Those of `witnesses` on a signed note, in its order; other signatures are ignored.

    `NoteError` where one of these witnesses has a cosignature on it that does not verify.
    """
    body, signatures = opened(text)
    known = {(witness.name, bytes.fromhex(witness.kid)): witness for witness in witnesses}
    found = []
    for name, signature in signatures:
        witness = known.get((name, signature[:4]))
        if witness is None:
            continue
        seconds, signed = int.from_bytes(signature[4 : 4 + _TIME_BYTES]), signature[4 + _TIME_BYTES :]
        if (len(signed) != _SIGNATURE_BYTES or seconds > _MOST_SECONDS
                or not verify(witness.public, signed, _message(body, seconds))):
            raise NoteError(f"the cosignature of {name} does not verify")
        line = f"{DASH}{name} {base64.b64encode(signature).decode()}"
        found.append(Cosignature(witness, seconds, line))
    return tuple(found)


def _message(body: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{body}".encode()
