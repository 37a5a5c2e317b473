"""Two checkpoints are proved to be of one growing tree, with the root's key alone; nothing else passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import canonical, entry, note
from kernel.consistency import Consistency, Grown, check_consistency, parse_consistency, write_consistency
from kernel.errors import ProofError
from kernel.evidence import head_of
from kernel.note import VerifierKey
from tests.conftest import scaled
from tests.logs import LOG_ID, ROOT, Key, Lane, two_lanes, verify_signature
from tests.proofs import consistency, cosigned, renewed

WITNESS = Key("w.example.org")


def checked(proof: Consistency | bytes, root: VerifierKey | None = ROOT.verifier) -> Grown:
    data = proof if isinstance(proof, bytes) else write_consistency(proof).encode()
    return check_consistency(parse_consistency(data), root, verify_signature, canonical.parse)


@pytest.mark.parametrize(("old", "new"), [(0, 1), (0, 2), (1, 2), (0, 0), (2, 2)])
def test_any_two_checkpoints_of_a_lane_are_proved_across_its_keys(old: int, new: int) -> None:
    lane = renewed().lanes[0]

    grown = checked(consistency(lane, lane.notes[old], lane.notes[new]))

    assert grown == Grown("main", head_of(lane.notes[old]), head_of(lane.notes[new]))


def test_text_and_proof_are_one_and_keep_what_witnesses_signed() -> None:
    lane = renewed().lanes[0]
    made = consistency(lane, cosigned(lane.notes[0], WITNESS), cosigned(lane.notes[2], WITNESS))

    text = write_consistency(made)

    assert parse_consistency(text.encode()) == made
    assert checked(made).new == head_of(lane.notes[2])


def test_without_a_root_key_the_rest_is_still_checked() -> None:
    lane = renewed().lanes[0]
    made = consistency(lane, lane.notes[0], lane.notes[2])

    assert checked(made, None).lane == "main"
    with pytest.raises(ProofError):
        checked(replace(made, proof=made.proof[::-1]), None)


def test_without_a_root_key_two_origins_are_still_not_one_tree() -> None:
    lane = Lane("w0")
    own, lane.key = lane.key, Key(note.lane_name(LOG_ID, "w1"))
    lane.open().checkpoint().add(lane.rotation(own))
    lane.key = own
    lane.rotate().checkpoint()

    with pytest.raises(ProofError, match="two lanes"):
        checked(consistency(lane, *lane.notes), None)


def test_every_bit_of_a_proof_counts() -> None:
    lane = renewed().lanes[0]
    data = write_consistency(consistency(lane, lane.notes[0], lane.notes[2])).encode()
    for bit in range(0, len(data) * 8, 1 if scaled(1) > 1 else 61):
        with pytest.raises(ProofError):
            checked(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])


def test_a_fork_has_no_proof() -> None:
    """The lane written anew with its own keys: what was signed before is no beginning of it."""
    lane, fork = renewed().lanes[0], Lane("main").open(first=True)
    fork.add(entry.fault("request", "ValueError", "FAULT", None))
    fork.traffic(9).checkpoint()
    made = consistency(fork, lane.notes[0], fork.notes[0])

    with pytest.raises(ProofError, match="does not lead to"):
        checked(made)


def _swapped(made: Consistency) -> Consistency:
    return replace(made, old=made.new, new=made.old)


def _one_note(made: Consistency) -> Consistency:
    return replace(made, new="")


def _three_notes(made: Consistency) -> Consistency:
    return replace(made, new=made.new + made.new)


def _old_by_the_new_key(made: Consistency) -> Consistency:
    lane, head = renewed().lanes[0], head_of(made.old)
    body = note.checkpoint_body(head.origin, head.size, head.root)
    return replace(made, old=note.sign(body, lane.key.verifier.name, lane.key.verifier.public, lane.key.sign))


def _other_lane(made: Consistency) -> Consistency:
    return replace(made, old=two_lanes().lanes[1].notes[0])


def _fewer_keys(made: Consistency) -> Consistency:
    return replace(made, keys=made.keys[:-1])


@pytest.mark.parametrize("change", [_swapped, _one_note, _three_notes, _old_by_the_new_key, _other_lane, _fewer_keys])
def test_a_proof_of_parts_that_do_not_belong_together_is_refused(change: Callable[[Consistency], Consistency]) -> None:
    lane = renewed().lanes[0]

    with pytest.raises(ProofError):
        checked(change(consistency(lane, lane.notes[0], lane.notes[2])))


@given(st.binary(max_size=200), st.integers(0, 3000), st.integers(0, 200))
def test_whatever_is_in_a_proof_the_answer_is_a_proof_error_or_what_it_was(patch: bytes, at: int, cut: int) -> None:
    lane = two_lanes().lanes[0]
    data = write_consistency(consistency(lane, *lane.notes)).encode()

    try:
        grown = checked(data[:at] + patch + data[at + cut :], None)
    except ProofError:
        return

    assert (grown.old, grown.new) == (head_of(lane.notes[0]), head_of(lane.notes[1]))
