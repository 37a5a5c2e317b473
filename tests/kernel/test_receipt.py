"""A receipt proves its entry with the root's key alone, to our code and to anybody's; nothing else passes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from kernel import canonical, chain, entry, evidence, note
from kernel.errors import ProofError
from kernel.evidence import MAX_TEXT_BYTES, head_of
from kernel.note import VerifierKey
from kernel.receipt import Proved, Receipt, check_receipt, parse_receipt, write_receipt
from tests.conftest import scaled
from tests.logs import ROOT, START, Key, Lane, three_segments, two_lanes, verify_signature
from tests.proofs import cosigned, key_lines, receipt, renewed

WITNESS = Key("w.example.org")
THIEF = Key(ROOT.verifier.name, "a thief's ")
LOGS = {"two lanes": two_lanes, "three segments": three_segments, "three keys": renewed}


def checked(data: bytes | str | Receipt, root: VerifierKey | None = ROOT.verifier) -> Proved:
    """What the receipt proves, after a way through its text."""
    text = write_receipt(data) if isinstance(data, Receipt) else data
    return check_receipt(parse_receipt(text.encode() if isinstance(text, str) else text), root, verify_signature,
                         canonical.parse)


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_every_entry_has_a_receipt_under_every_checkpoint_that_covers_it(log) -> None:
    for lane in log().lanes:
        for signed in lane.notes:
            for index in range(head_of(signed).size):
                proved = checked(receipt(lane, index, signed))

                assert (proved.lane, proved.seq, proved.head) == (lane.name, index, head_of(signed))
                assert proved.raw == chain.split(lane.lines[index])[0]


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_a_reader_that_knows_the_formats_alone_takes_the_receipts_and_sees_the_root_of_trust(log) -> None:
    for lane in log().lanes:
        for index in range(head_of(lane.notes[-1]).size):
            text = write_receipt(receipt(lane, index, cosigned(lane.notes[-1], WITNESS)))

            assert read_by_somebody_else(text, str(ROOT.verifier)) == f"{lane.name}/{index}"
            with pytest.raises(Exception):  # noqa: B017, PT011
                read_by_somebody_else(text, str(THIEF.verifier))


def test_text_and_receipt_are_one() -> None:
    lane = two_lanes().lanes[0]
    made = receipt(lane, 4, cosigned(lane.notes[-1], WITNESS))

    text = write_receipt(made)

    assert parse_receipt(text.encode()) == made
    assert text.startswith("c2sp.org/tlog-proof@v1\nextra ")
    assert text.endswith(f"\n\n{made.note}")


def test_the_signatures_of_witnesses_are_kept_and_the_unknown_ignored() -> None:
    lane = two_lanes().lanes[0]

    proved = checked(receipt(lane, 4, cosigned(lane.notes[-1], WITNESS)))

    assert proved.head == head_of(lane.notes[-1])


def test_a_receipt_needs_a_signature_of_the_lanes_own_key() -> None:
    lane = two_lanes().lanes[0]
    body = lane.notes[-1].partition("\n\n")[0] + "\n"
    alone = note.sign(body, WITNESS.verifier.name, WITNESS.verifier.public, WITNESS.sign)

    with pytest.raises(ProofError, match="no signature of a known key"):
        checked(receipt(lane, 4, alone))


def test_a_head_of_another_log_is_none_of_this_one_though_the_lanes_own_key_signed_it() -> None:
    lane = two_lanes().lanes[0]
    head = head_of(lane.notes[-1])
    body = note.checkpoint_body(note.lane_name("ffeeddccbbaa0099", "main"), head.size, head.root)
    foreign = note.sign(body, lane.key.verifier.name, lane.key.verifier.public, lane.key.sign)

    with pytest.raises(ProofError, match="a checkpoint of governor/ffeeddccbbaa0099/main"):
        checked(receipt(lane, 4, foreign))


def test_without_a_root_key_the_rest_is_still_checked() -> None:
    lane = renewed().lanes[0]
    made = receipt(lane, 9, lane.notes[-1])

    assert checked(made, None).seq == 9
    with pytest.raises(ProofError):
        checked(replace(made, index=8), None)


def test_every_bit_of_a_receipt_counts() -> None:
    lane = renewed().lanes[0]
    data = write_receipt(receipt(lane, 9, lane.notes[-1])).encode()
    # Spread over the whole text; a prime step comes by every bit of a byte.
    for bit in range(0, len(data) * 8, 1 if scaled(1) > 1 else 61):
        with pytest.raises(ProofError):
            checked(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])


def test_no_part_of_a_receipt_is_a_receipt() -> None:
    lane = two_lanes().lanes[1]
    data = write_receipt(receipt(lane, 1, lane.notes[-1])).encode()

    for end in range(len(data)):
        with pytest.raises(ProofError):
            checked(data[:end])


@given(st.binary(max_size=200), st.integers(0, 4000), st.integers(0, 200))
def test_whatever_is_in_a_receipt_the_answer_is_a_proof_error_or_a_proof(patch: bytes, at: int, cut: int) -> None:
    lane = two_lanes().lanes[1]
    data = write_receipt(receipt(lane, 1, lane.notes[-1])).encode()
    changed = data[:at] + patch + data[at + cut :]

    try:
        proved = checked(changed, None)
    except ProofError:
        return

    assert (proved.lane, proved.seq) == ("w0", 1)


def _other_entry(made: Receipt, lane: Lane) -> Receipt:
    return replace(made, line=lane.lines[made.index + 1])


def _without_keys(made: Receipt, lane: Lane) -> Receipt:
    return replace(made, keys=())


def _without_last_key(made: Receipt, lane: Lane) -> Receipt:
    return replace(made, keys=made.keys[:-1])


def _keys_in_another_order(made: Receipt, lane: Lane) -> Receipt:
    return replace(made, keys=(made.keys[1], made.keys[0], *made.keys[2:]))


def _a_key_left_out(made: Receipt, lane: Lane) -> Receipt:
    return replace(made, keys=(made.keys[0], *made.keys[2:]))


def _another_index(made: Receipt, lane: Lane) -> Receipt:
    return replace(made, index=made.index + 1)


def _proof_in_another_order(made: Receipt, lane: Lane) -> Receipt:
    return replace(made, proof=made.proof[::-1])


def _another_head(made: Receipt, lane: Lane) -> Receipt:
    return replace(made, note=lane.notes[0])


def _head_by_an_old_key(made: Receipt, lane: Lane) -> Receipt:
    """The key of the first segment, kept by a thief, signs what it likes about later entries."""
    old, head = lane.keys[0], head_of(made.note)
    body = note.checkpoint_body(head.origin, head.size, head.root)
    return replace(made, note=note.sign(body, old.verifier.name, old.verifier.public, old.sign))


def _two_notes(made: Receipt, lane: Lane) -> Receipt:
    return replace(made, note=made.note + made.note)


def _two_lines_in_one(made: Receipt, lane: Lane) -> Receipt:
    return replace(made, line=made.line + made.line)


@pytest.mark.parametrize("change", [
    _other_entry, _without_keys, _without_last_key, _keys_in_another_order, _a_key_left_out, _another_index,
    _proof_in_another_order, _another_head, _head_by_an_old_key, _two_notes, _two_lines_in_one,
])
def test_a_receipt_of_parts_that_do_not_belong_together_is_refused(change: Callable[[Receipt, Lane], Receipt]) -> None:
    lane = renewed().lanes[0]

    with pytest.raises(ProofError):
        checked(change(receipt(lane, 9, lane.notes[-1]), lane))


def test_a_receipt_of_another_log_or_lane_is_refused() -> None:
    stranger = Lane("main", root=THIEF, seed="a thief's ").open(first=True).traffic(3).checkpoint()
    mine, other = two_lanes().lanes
    made = receipt(mine, 3, mine.notes[-1])

    with pytest.raises(ProofError, match="not certified by the root key"):
        checked(receipt(stranger, 3, stranger.notes[-1]))
    with pytest.raises(ProofError):
        checked(replace(made, keys=key_lines(other, len(other.lines))))


class _Pretender(Key):
    """Signs under the name and key id of another key."""

    def __init__(self, other: Key) -> None:
        super().__init__(other.verifier.name, "a thief's ")
        self.verifier = other.verifier


@pytest.mark.parametrize("signer", [lambda lane: THIEF, lambda lane: ROOT, lambda lane: _Pretender(lane.key)])
def test_an_entry_that_its_own_key_did_not_sign_is_refused_though_the_tree_holds_it(signer) -> None:
    lane = Lane("w0").open()
    lane.add(entry.close("stopped"), key=signer(lane))
    lane.checkpoint()

    with pytest.raises(ProofError, match="the signature of entry w0/1 does not verify"):
        checked(receipt(lane, 1, lane.notes[-1]))


@pytest.mark.parametrize(("field", "value"), [
    ("seq", 7), ("lane", "w1"), ("v", 2), ("ts", "yesterday"), ("type", None)])
def test_an_entry_that_says_what_it_is_not_is_refused_though_its_key_signed_it(field, value) -> None:
    lane = Lane("w0").open()
    common = entry.common("close", 1, lane.head, entry.timestamp(START), 1, "w0")
    lane.add_raw(canonical.encode(common | entry.close("stopped") | {field: value}))
    lane.checkpoint()

    with pytest.raises(ProofError, match="the line"):
        checked(receipt(lane, 1, lane.notes[-1]))


def test_a_genesis_is_signed_by_the_root_and_names_it() -> None:
    lane = Lane("main", root=THIEF, seed="a thief's ").open(first=True).checkpoint()
    mine = two_lanes().lanes[0]

    assert checked(receipt(mine, 0, mine.notes[-1])).kind == "genesis"
    with pytest.raises(ProofError):
        checked(receipt(lane, 0, lane.notes[-1]))


@pytest.mark.parametrize("change", [
    pytest.param(lambda text: text.replace("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"), id="a later version"),
    pytest.param(lambda text: text.replace("index 4", "index 04"), id="a leading zero"),
    pytest.param(lambda text: text.replace("index 4", "index -4"), id="a sign"),
    pytest.param(lambda text: text.replace("index 4\n", ""), id="no index"),
    pytest.param(lambda text: text.replace("index 4\n", "index 4\nindex 4\n"), id="two indices"),
    pytest.param(lambda text: text.replace("index 4\n", f"index 4\n{'A' * 43}=\n"), id="one hash more"),
    pytest.param(lambda text: text.replace("index 4\n", "index 4\n" + f"{'A' * 43}=\n" * 200), id="200 hashes more"),
    pytest.param(lambda text: text.replace("index 4\n", "index 4\nAAAA\n"), id="a short hash"),
    pytest.param(lambda text: text.replace("\n", "\r\n"), id="other ends of lines"),
    pytest.param(lambda text: text.partition("extra ")[0] + text[text.index("index 4"):], id="no extra"),
    pytest.param(lambda text: text + "\n", id="an empty line more"),
    pytest.param(lambda text: " " + text, id="a space before"),
    pytest.param(lambda text: text + "x" * MAX_TEXT_BYTES, id="endless"),
    pytest.param(lambda text: "", id="nothing"),
])
def test_only_the_one_form_is_a_receipt(change: Callable[[str], str]) -> None:
    lane = two_lanes().lanes[0]
    text = write_receipt(receipt(lane, 4, lane.notes[-1]))

    with pytest.raises(ProofError):
        checked(change(text))


@pytest.mark.parametrize("extra", [
    b"", b"[]", b"{}", b'{"keys":[],"line":1}', b'{"keys":{},"line":""}', b'{"keys":[1],"line":""}',
    b'{"keys":[],"line":"","more":1}', b'{"keys":[], "line":""}', b'{"keys":["a\\nb"],"line":""}', b"[" * 100_000,
    b'{"keys":["{}"],"line":""}', b"\xff", b'{"keys":[],"line":"\\ud800"}',
])
def test_whatever_stands_in_extra_is_refused_with_a_proof_error(extra: bytes) -> None:
    lane = two_lanes().lanes[0]
    before, _, rest = write_receipt(receipt(lane, 4, lane.notes[-1])).partition("extra ")
    text = f"{before}extra {base64.b64encode(extra).decode()}\n{rest.partition('\n')[2]}"

    with pytest.raises(ProofError):
        checked(text)


@pytest.mark.parametrize("most_bytes", [100, 2500])
def test_no_receipt_is_written_that_nobody_would_read(most_bytes, monkeypatch) -> None:
    lane = two_lanes().lanes[0]
    monkeypatch.setattr(evidence, "MAX_TEXT_BYTES", most_bytes)

    with pytest.raises(ProofError):
        write_receipt(receipt(lane, 5, lane.notes[-1]))


def test_the_longest_line_has_a_receipt_too() -> None:
    lane = Lane("w0").open()
    lane.add(entry.fault("request", "", "FAULT", None))
    missing = chain.MAX_LINE_BYTES - len(lane.lines[-1])
    lane.add(entry.fault("request", '"' * (missing // 2 - 10), "FAULT", None))
    lane.checkpoint()

    assert len(lane.lines[-1]) > chain.MAX_LINE_BYTES - 40
    assert checked(receipt(lane, 2, lane.notes[-1])).seq == 2


def read_by_somebody_else(text: str, trusted: str) -> str:
    """LANE/SEQ of what a receipt proves, by the formats that kernel/README.md and C2SP describe; no code of ours."""
    head, signed = text.split("\n\n", 1)
    title, extra, index, *hashes = head.split("\n")
    assert title == "c2sp.org/tlog-proof@v1"
    stated = json.loads(base64.b64decode(extra.removeprefix("extra ")))
    seq = int(index.removeprefix("index "))
    origin, size, root, _, *signatures = signed.split("\n")[:-1]
    lane = origin.split("/")[2]
    names = {"root": (trusted.split("+", 2)[0], _public(trusted))}
    keys = [(0, names["root"])]
    for line in stated["keys"]:
        opened = json.loads(line)["e"]
        key = (opened["key"].split("+", 2)[0], _public(opened["key"]))
        claim = {"key": opened["key"], "lane": lane, "log_id": origin.split("/")[1]}
        if opened["type"] == "lane_open":
            _verify(names["root"], base64.b64decode(opened["certificate"]), b"governor/audit/lane/v1\0" + _json(claim))
            keys.append((opened["seq"], key))
            _verify_line(line, key)
        else:
            _verify_line(line, keys[-1][1])
            claim |= {"prev": opened["prev"], "seq": opened["seq"]}
            _verify(key, base64.b64decode(opened["proof"]), b"governor/audit/rotate/v1\0" + _json(claim))
            keys.append((opened["seq"] + 1, key))
    signer = _in_force(keys, int(size) - 1)
    (signature,) = (base64.b64decode(line.split(" ")[2]) for line in signatures if f"— {origin} " in line)
    assert signature[:4] == _key_id(*signer)
    _verify(signer, signature[4:], f"{origin}\n{size}\n{root}\n".encode())
    line = stated["line"]
    _verify_line(line, _in_force(keys, seq))
    named = json.loads(line)["e"]
    assert (named["lane"], named["seq"]) == (lane, seq)
    leaf = hashlib.sha256(b"\0" + line.encode()).digest()
    assert _root(seq, int(size), leaf, [base64.b64decode(each) for each in hashes]) == base64.b64decode(root)
    return f"{lane}/{seq}"


def _root(index: int, size: int, leaf: bytes, siblings: list[bytes]) -> bytes:
    """RFC 6962, section 2.1.1, from the root downwards."""
    if size == 1:
        assert not siblings
        return leaf
    k = 1 << (size - 1).bit_length() - 1
    if index < k:
        pair = _root(index, k, leaf, siblings[:-1]) + siblings[-1]
    else:
        pair = siblings[-1] + _root(index - k, size - k, leaf, siblings[:-1])
    return hashlib.sha256(b"\1" + pair).digest()


def _in_force(keys: list[tuple[int, tuple[str, bytes]]], seq: int) -> tuple[str, bytes]:
    return [key for first, key in keys if first <= seq][-1]


def _verify_line(line: str, key: tuple[str, bytes]) -> None:
    raw = line.encode()[len('{"e":') : -115]
    parsed = json.loads(line)
    assert parsed["kid"] == _key_id(*key).hex()
    hashed = blake3(b"governor/audit/entry/v1\0" + raw).digest()
    _verify(key, base64.b64decode(parsed["sig"]), b"governor/audit/entry/v1\0" + hashed)


def _verify(key: tuple[str, bytes], signature: bytes, message: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(key[1]).verify(signature, message)


def _public(text: str) -> bytes:
    return base64.b64decode(text.split("+", 2)[2])[1:]


def _key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n\1" + public).digest()[:4]


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
