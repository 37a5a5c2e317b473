"""A cosignature: the specification's form, and nothing but the witness's own word on this checkpoint at this time."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from addons.keys import verifies
from kernel import note
from kernel.cosignature import WitnessKey, cosign, cosignatures, parse_witness_key
from kernel.errors import NoteError

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WITNESS = WitnessKey("w.example.org", PRIVATE.public_key().public_bytes_raw())
LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
ORIGIN = "governor/0011223344556677/main"
BODY = note.checkpoint_body(ORIGIN, 7, bytes(32))
SIGNED = note.sign(BODY, ORIGIN, LOG.public_key().public_bytes_raw(), LOG.sign)
AT = 1679315147


def test_a_cosignature_is_what_the_specification_says():
    name, encoded = cosign(BODY, WITNESS, AT, PRIVATE.sign).removeprefix("— ").rstrip("\n").split(" ")
    stamped = base64.b64decode(encoded)

    assert name == "w.example.org"
    assert stamped[:4] == sha256(b"w.example.org\n\x04" + WITNESS.public).digest()[:4]
    assert int.from_bytes(stamped[4:12], "big") == AT
    PRIVATE.public_key().verify(stamped[12:], f"cosignature/v1\ntime {AT}\n{BODY}".encode())


def test_a_witness_key_is_read_as_it_is_written():
    assert parse_witness_key(str(WITNESS)) == WITNESS
    assert parse_witness_key(f" {WITNESS}\n").kid == WITNESS.kid


@pytest.mark.parametrize("text", [
    pytest.param(note.verifier_key("w.example.org", WITNESS.public), id="the key of a log"),
    pytest.param(str(WITNESS).replace("w.example", "x.example"), id="another name"),
    pytest.param(str(WITNESS)[:-4], id="cut short"),
    pytest.param("w.example.org", id="a name alone"),
    pytest.param("", id="nothing"),
])
def test_another_text_is_no_witness_key(text):
    with pytest.raises(NoteError):
        parse_witness_key(text)


def test_witness_and_time_are_found_among_other_signatures():
    stranger = WitnessKey("x.example.org", LOG.public_key().public_bytes_raw())
    text = SIGNED + cosign(BODY, stranger, 5, LOG.sign) + cosign(BODY, WITNESS, AT, PRIVATE.sign)

    assert [(each.witness, each.seconds) for each in cosignatures(text, [WITNESS], verifies)] == [(WITNESS, AT)]
    assert cosignatures(SIGNED, [WITNESS], verifies) == ()


@given(st.integers(0, 75), st.integers(0, 7))
def test_no_bit_of_a_cosignature_can_be_changed(at, bit):
    line = cosign(BODY, WITNESS, AT, PRIVATE.sign).split(" ")[2]
    stamped = bytearray(base64.b64decode(line))
    stamped[at] ^= 1 << bit
    text = f"{SIGNED}— {WITNESS.name} {base64.b64encode(stamped).decode()}\n"

    # Four bytes name the key: with another key id it is a stranger's line.
    if at < 4:
        assert cosignatures(text, [WITNESS], verifies) == ()
    else:
        with pytest.raises(NoteError):
            cosignatures(text, [WITNESS], verifies)


@pytest.mark.parametrize(("seconds", "taken"), [(2**63 - 1, True), (2**63, False)])
def test_a_time_is_one_that_the_specification_has(seconds, taken):
    text = SIGNED + cosign(BODY, WITNESS, seconds, PRIVATE.sign)

    if taken:
        assert cosignatures(text, [WITNESS], verifies)[0].seconds == seconds
    else:
        with pytest.raises(NoteError, match="does not verify"):
            cosignatures(text, [WITNESS], verifies)


def test_a_cosignature_of_another_checkpoint_is_refused():
    other = note.checkpoint_body(ORIGIN, 8, bytes(32))

    with pytest.raises(NoteError, match="does not verify"):
        cosignatures(SIGNED + cosign(other, WITNESS, AT, PRIVATE.sign), [WITNESS], verifies)


def test_a_cosignature_does_not_stand_in_for_the_signature_of_the_log():
    text = f"{BODY}\n{cosign(BODY, WITNESS, AT, PRIVATE.sign)}"

    with pytest.raises(NoteError, match="no signature of a known key"):
        note.open_note(text, [note.VerifierKey(WITNESS.name, WITNESS.public)], verifies)
