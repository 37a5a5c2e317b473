"""Receipts: an entry of the log with the proof that it is in the tree of a signed checkpoint, as C2SP's tlog-proof.

A receipt is verified without the log: with the verifier key of the root, and nothing else. `extra` carries what the
specification leaves to the application: the line itself, and the lines that certify the lane's keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernel.chain import entry_hash, signed_bytes, split
from kernel.errors import KernelError, ProofError
from kernel.evidence import (
    certified_keys,
    check_head,
    head_of,
    key_lines,
    line_of,
    origin_of,
    parse_extra,
    parse_parts,
    text_of,
    write_extra,
    write_parts,
)
from kernel.key_chain import KeyChain
from kernel.merkle import leaf_hash
from kernel.note import Checkpoint, VerifierKey, Verify
from kernel.opening import genesis_root
from kernel.proofs import Proof, included_root
from kernel.reading import GENESIS, KNOWN_V, LineReader, Parse
from kernel.stamps import Stamps

TITLE = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is claimed and how it is proved, nothing checked. Lines have their LFs; `note` is a signed checkpoint."""

    index: int
    line: bytes
    keys: tuple[bytes, ...]
    proof: Proof
    note: str


@dataclass(frozen=True, slots=True)
class Proved:
    """An entry that a receipt proves: its name, type, time and canonical bytes, its signer's key id, and the head."""

    lane: str
    seq: int
    kind: str
    ts: str
    raw: bytes
    kid: str
    head: Checkpoint


def write_receipt(receipt: Receipt) -> str:
    """The receipt as text."""
    extra = write_extra({"keys": [text_of(line) for line in receipt.keys], "line": text_of(receipt.line)})
    return write_parts(TITLE, {"extra": extra, "index": str(receipt.index)}, receipt.proof, (receipt.note,))


def parse_receipt(data: bytes) -> Receipt:
    """The receipt that these bytes are, or ProofError."""
    parts = parse_parts(data, TITLE, ("extra", "index"))
    extra = parse_extra(parts.fields["extra"], {"keys", "line"})
    index = parts.fields["index"]
    if not _INDEX.fullmatch(index):
        raise ProofError("the index is not a decimal number")
    return Receipt(int(index), line_of(extra["line"]), key_lines(extra["keys"]), parts.hashes, parts.notes)


def check_receipt(receipt: Receipt, root: VerifierKey | None, verify: Verify, parse: Parse) -> Proved:
    """What the receipt proves under the root key, or ProofError. Without a root its lane's first key is believed."""
    keys = certified_keys(receipt.keys, origin_of(head_of(receipt.note)).lane, root, verify, parse)
    return check_under(keys, receipt, root, verify, parse)


def check_under(keys: KeyChain, receipt: Receipt, root: VerifierKey | None, verify: Verify, parse: Parse) -> Proved:
    """As `check_receipt`, under the keys of the lane where they are certified already."""
    head = check_head(receipt.note, keys, verify)
    lane = origin_of(head).lane
    try:
        proved = _entry(receipt, lane, head, parse)
        _check_signature(receipt.line, proved, _signer(proved, keys, root, parse), verify)
    except ProofError:
        raise
    except KernelError as error:
        raise ProofError(f"the line: {error}") from None
    if included_root(receipt.index, head.size, leaf_hash(receipt.line[:-1]), receipt.proof) != head.root:
        raise ProofError(f"the line is not entry {receipt.index} of the {head.size} under the signed root")
    return proved


def _entry(receipt: Receipt, lane: str, head: Checkpoint, parse: Parse) -> Proved:
    raw, named, _, seq, ts, kind, v, kid, _ = LineReader(parse, lane.encode()).read(receipt.line)
    if v != KNOWN_V:
        raise ProofError("the line was written by a version that this one cannot read")
    if (named, seq) != (lane.encode(), b"%d" % receipt.index):
        raise ProofError(f"the line is not entry {lane}/{receipt.index}")
    if not Stamps().take(ts):
        raise ProofError("the line has no timestamp")
    return Proved(lane, receipt.index, kind.decode(), ts.decode(), raw, kid.decode(), head)


def _signer(proved: Proved, keys: KeyChain, root: VerifierKey | None, parse: Parse) -> VerifierKey:
    if proved.kind == GENESIS.decode() and proved.seq == 0:
        return genesis_root(parse(proved.raw), root)
    signer = keys.signer_of(proved.seq)
    if signer is None:
        raise ProofError("no line certifies the key that signed the entry")
    return signer


def _check_signature(line: bytes, proved: Proved, signer: VerifierKey, verify: Verify) -> None:
    raw, kid, signature = split(line)
    if kid != signer.kid or not verify(signer.public, signature, signed_bytes(entry_hash(raw))):
        raise ProofError(f"the signature of entry {proved.lane}/{proved.seq} does not verify")
