"""The chain: how an entry is hashed, what is signed, and how both stand in a line of the log."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from blake3 import blake3

from kernel.canonical import MAX_BYTES
from kernel.errors import ChainError

DOMAIN = b"governor/audit/entry/v1\0"
GENESIS_PREV = "0" * 64

_HEAD = b'{"e":'
_KID = b',"kid":"'
_SIG = b'","sig":"'
_END = b'"}\n'
_KID_BYTES = 8
_SIG_BYTES = 88
# A line ends in a part of fixed length, so that the entry is cut out by position and never searched for.
_TAIL_BYTES = len(_KID) + _KID_BYTES + len(_SIG) + _SIG_BYTES + len(_END)
MAX_LINE_BYTES = len(_HEAD) + MAX_BYTES + _TAIL_BYTES


def entry_hash(raw: bytes) -> bytes:
    """The 32 bytes that name a canonical entry; in hex they are the `prev` of the next one."""
    return blake3(DOMAIN + raw).digest()


def entry_hashes(raws: Iterable[bytes]) -> list[bytes]:
    """`entry_hash` of each; a call for each would cost the verifier a twentieth of its speed."""
    return [blake3(DOMAIN + raw).digest() for raw in raws]


def signed_bytes(hashed: bytes) -> bytes:
    """What the entry's Ed25519 signature is made over."""
    return DOMAIN + hashed


def line(raw: bytes, kid: str, signature: bytes) -> bytes:
    """One line of the log, LF included."""
    return b"".join((_HEAD, raw, _KID, kid.encode(), _SIG, base64.b64encode(signature), _END))


def split(text: bytes) -> tuple[bytes, str, bytes]:
    """The canonical entry, the key id and the signature of one line (LF included), or ChainError."""
    raw, kid, signature = split_text(text)
    return raw, kid.decode(), base64.b64decode(signature)


def split_text(text: bytes) -> tuple[bytes, bytes, bytes]:
    """As `split`, with key id and signature as they stand in the line."""
    tail = len(text) - _TAIL_BYTES
    if tail <= len(_HEAD):
        raise ChainError("not a line of the log: too short")
    if len(text) > MAX_LINE_BYTES:
        raise ChainError(f"not a line of the log: longer than {MAX_LINE_BYTES} bytes")
    kid_at = tail + len(_KID)
    sig_at = kid_at + _KID_BYTES + len(_SIG)
    if not (
        text.startswith(_HEAD)
        and text.startswith(_KID, tail)
        and text.startswith(_SIG, kid_at + _KID_BYTES)
        and text.endswith(_END)
    ):
        raise ChainError('not a line of the log: expected {"e":ENTRY,"kid":"...","sig":"..."}')
    kid, signature = text[kid_at : kid_at + _KID_BYTES], text[sig_at : -len(_END)]
    if kid.strip(b"0123456789abcdef"):
        raise ChainError("kid is not eight lower-case hex digits")
    _check_signature(signature)
    return text[len(_HEAD) : tail], kid, signature


def _check_signature(text: bytes) -> None:
    try:
        signature = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ChainError("sig is not base64") from None
    # Base64 of 64 bytes leaves four bits unused; left free, a line could be changed without a trace.
    if len(signature) != 64 or base64.b64encode(signature) != text:
        raise ChainError("sig is not canonical base64 of 64 bytes")
