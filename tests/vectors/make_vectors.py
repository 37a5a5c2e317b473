"""Write the golden vectors: valid logs, a copy of one of them for each attack, and proofs about such logs.
What else of the attack matrix (tests/attack_matrix.py) needs no anchor stands with its minimum.json.

    python -m tests.vectors.make_vectors

Keys and dates are fixed, so the same files come out each time. `expected.json` says for each vector the exit status
and a part of the reason; a reason that is null is for a verifier to word. A vector is changed only together with the
format, and an old one never goes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from kernel import canonical, chain, entry
from kernel.consistency import write_consistency
from kernel.note import sign
from kernel.receipt import write_receipt
from tests import attack_matrix, logs, proofs
from tests.attack_matrix import ROWS, Scene, scene
from tests.forgery import THIEF, certified, cut_back, rewrite
from tests.logs import KERNEL, POOL, ROOT, Key, Lane, Log, two_lanes

FOLDER = Path(__file__).parent / "logs"
PROOFS = Path(__file__).parent / "proofs"
EDITED = 6


def valid(log: Log) -> None:
    """As it was written."""


def edited(log: Log) -> None:
    log.lanes[0].lines[EDITED] = log.lanes[0].lines[EDITED].replace(b'"bytes_up":31', b'"bytes_up":91')


def swapped(log: Log) -> None:
    lines = log.lanes[0].lines
    lines[5], lines[6] = lines[6], lines[5]


def duplicated(log: Log) -> None:
    log.lanes[0].lines.insert(EDITED, log.lanes[0].lines[EDITED])


def deleted(log: Log) -> None:
    del log.lanes[0].lines[EDITED]


def whitespace(log: Log) -> None:
    """A space that no JSON parser minds, in an entry that its own key signed as it stands."""
    raw = canonical.encode(_next(log.lanes[1]))
    log.lanes[1].add_raw(raw[:1] + b" " + raw[1:])


def duplicate_key(log: Log) -> None:
    """A verdict that reads allow or deny, depending on the parser; signed as it stands."""
    raw = canonical.encode(_next(log.lanes[1]) | {"verdict": "allow"})
    log.lanes[1].add_raw(raw[:-1] + b',"verdict":"deny"}')


def bad_signature(log: Log) -> None:
    raw, kid, signature = chain.split(log.lanes[0].lines[EDITED])
    log.lanes[0].lines[EDITED] = chain.line(raw, kid, signature[:-1] + bytes([signature[-1] ^ 1]))


def bad_signature_in_tail(log: Log) -> None:
    """After the last checkpoint, so that no tree tells."""
    raw, kid, signature = chain.split(log.lanes[1].lines[-1])
    log.lanes[1].lines[-1] = chain.line(raw, kid, bytes([signature[0] ^ 1]) + signature[1:])


def foreign_chain(log: Log) -> None:
    """Another log under another root key, whole in itself, in place of this one."""
    main = Lane("main", root=THIEF, seed="a thief's ").open(first=True).traffic(3).checkpoint()
    other = Lane("w0", root=THIEF, seed="a thief's ").open(siblings=[main]).traffic(1).checkpoint()
    log.lanes = [main, other]
    log.trust = None
    log.minimum = None


def uncertified_key(log: Log) -> None:
    """A lane that was opened with a key of the thief's, under the true root's name."""
    log.lanes[1] = Lane("w0", root=THIEF, seed="a thief's ").open(siblings=[log.lanes[0]]).traffic(2)
    log.minimum = None


def torn_tail(log: Log) -> None:
    """A crash in the middle of a write: no fault."""
    log.lanes[1].tail = log.lanes[0].lines[5][:200]


def torn_middle(log: Log) -> None:
    log.lanes[0].lines[EDITED] = log.lanes[0].lines[EDITED][:-1]


def below_checkpoint(log: Log) -> None:
    del log.lanes[0].lines[-3:]
    log.minimum = None


def below_minimum(log: Log) -> None:
    """Cut back together with the checkpoints: only minimum.json remembers."""
    del log.lanes[0].lines[10:]
    log.lanes[0].notes = log.lanes[0].notes[:1]


def below_sibling(log: Log) -> None:
    """Only what the other lane recorded when it opened remembers."""
    del log.lanes[0].lines[3:]
    log.lanes[0].notes = log.lanes[0].notes[:1]
    log.minimum = None


def forked(log: Log) -> None:
    """Written anew with the stolen lane key, checkpoints too: the other lane remembers another head."""
    log.lanes[0] = Lane("main").open(first=True).traffic(6).checkpoint()
    log.minimum = None


def empty(log: Log) -> None:
    for lane in log.lanes:
        lane.lines, lane.notes = [], []
    log.minimum = None


def no_lanes(log: Log) -> None:
    log.lanes = []
    log.minimum = None


def missing_lane(log: Log) -> None:
    del log.lanes[1]


def missing_first_lane(log: Log) -> None:
    del log.lanes[0]
    log.minimum = None


def forged_checkpoint(log: Log) -> None:
    """Right size, right root, signed by somebody else."""
    lane = Lane("main", root=THIEF, seed="a thief's ")
    lane.tree = log.lanes[0].tree
    log.lanes[0].notes[-1:] = lane.checkpoint().notes


def other_root(log: Log) -> None:
    """Signed by the lane's key, over another tree of the same size."""
    other = Lane("main")
    other.tree.extend([b"\0" * 32] * len(log.lanes[0].lines))
    log.lanes[0].notes[-1:] = other.checkpoint().notes
    log.minimum = None


def newer_version(log: Log) -> None:
    log.lanes[1].add_raw(canonical.encode(_next(log.lanes[1]) | {"v": 2}))


def unknown_type(log: Log) -> None:
    """What a later version may write: counted, no fault."""
    later: dict[str, canonical.Value] = {"type": "heartbeat", "wording": "fr\u00fch \u2028 \U0001f600"}
    log.lanes[1].add_raw(canonical.encode(_next(log.lanes[1]) | later))


def two_geneses(log: Log) -> None:
    log.lanes[1] = Lane("w0").open(first=True).traffic(1).checkpoint()
    log.minimum = None


def three_segments(log: Log) -> None:
    """As it was written, in three segments."""


def rotated_and_empty(log: Log) -> None:
    """A crash after the next segment was made: no fault."""
    log.lanes[0].starts.append(len(log.lanes[0].lines))


def rotated_and_torn(log: Log) -> None:
    """A crash while the first line of the next segment was written: no fault."""
    rotated_and_empty(log)
    log.lanes[0].tail = log.lanes[0].lines[-1][:200]


def torn_before_an_empty_segment(log: Log) -> None:
    """An unfinished line, and a segment behind it: it was not the last thing that was written."""
    log.lanes[0].lines[-1] = log.lanes[0].lines[-1][:-1]
    rotated_and_empty(log)


def missing_segment(log: Log) -> None:
    lane = log.lanes[0]
    del lane.lines[lane.starts[1] : lane.starts[2]]
    del lane.starts[2]


def emptied_segment(log: Log) -> None:
    """The lines of the second stand at the end of the first."""
    log.lanes[0].starts[1] = log.lanes[0].starts[2]


def joined_segments(log: Log) -> None:
    """Every line is there, and the beginning of the third stands inside the second."""
    del log.lanes[0].starts[2]


def divided_segment(log: Log) -> None:
    """Every line is there, and a segment begins with an ordinary one."""
    log.lanes[0].starts.insert(1, 4)


def other_tree(log: Log) -> None:
    """Signed by the lane's key, and what came before is told otherwise."""
    _rotate(log.lanes[1], {"tree": [None if node is None else "ab" * 32 for node in log.lanes[1].tree.complete]})


def other_count(log: Log) -> None:
    _rotate(log.lanes[1], {"entries": 3, "tree": ["ab" * 32, "cd" * 32]})


def other_segment(log: Log) -> None:
    _rotate(log.lanes[1], {"segment": "000002.jsonl"})


def _rotate(lane: Lane, wrong: dict[str, canonical.Value]) -> None:
    lane.starts.append(len(lane.lines))
    lane.add(entry.segment_open("000001.jsonl", lane.tree) | wrong)


def three_keys(log: Log) -> None:
    """As it was written: three segments, each with its own key."""


def rotated_without_segment(log: Log) -> None:
    """A crash between key_rotate and the segment that its key signs: no fault."""
    lane = log.lanes[0]
    lane.add(lane.rotation(Key(lane.key.verifier.name, "the fourth")))


def rewritten_with_current_key(log: Log) -> None:
    """The thief of the newest key writes an entry of the first segment anew, and the chain from there on."""
    lane = log.lanes[0]
    rewrite(lane, EDITED, lane.key)


def rotation_rewritten(log: Log) -> None:
    """The thief of the newest key has the first key certify a key of the thief's own."""
    lane = log.lanes[0]
    stolen, lane.key = lane.key, Key(lane.key.verifier.name, "a thief's ")
    cut_back(lane, lane.starts[1] - 1)
    lane.add(lane.rotation(lane.key), stolen)
    lane.rotate()
    lane.traffic(2).checkpoint()


def rotation_without_proof(log: Log) -> None:
    """The key of somebody else, who did not sign that it is to be this lane's."""
    lane = log.lanes[0]
    rotation = lane.rotation(Key(lane.key.verifier.name, "the fourth"))
    other = Key(lane.key.verifier.name, "somebody else's ")
    lane.add(rotation | {"key": str(other.verifier)})
    lane.key = other
    lane.rotate()


def rotation_not_signed(log: Log) -> None:
    """The thief of the second key writes the end of the first segment anew, with signatures that nobody made."""
    lane = log.lanes[0]
    stolen, former = lane.keys[1], lane.keys[0]
    cut_back(lane, lane.starts[1] - 2)
    forger = Key(former.verifier.name, "a thief's ")
    forger.verifier = former.verifier
    lane.key = forger
    lane.traffic(2)
    lane.add(lane.rotation(stolen))
    lane.key = stolen
    lane.rotate()
    lane.traffic(2).checkpoint()
    log.minimum = None


def rotation_to_another_name(log: Log) -> None:
    """A key that has the name of another lane's."""
    lane = log.lanes[0]
    following = Key(lane.key.verifier.name.replace("main", "w0"), "the fourth")
    lane.add(lane.rotation(following))
    lane.key = following
    lane.rotate()


def rotation_to_a_former_key(log: Log) -> None:
    lane = log.lanes[0]
    lane.add(lane.rotation(lane.keys[0]))
    lane.key = lane.keys[0]
    lane.rotate()


def former_key_goes_on(log: Log) -> None:
    """An entry of the newest segment that a former key signed."""
    log.lanes[0].key = log.lanes[0].keys[1]
    log.lanes[0].traffic(1)


def entry_after_rotation(log: Log) -> None:
    """One more line in a segment that key_rotate has ended, by the key that it brought."""
    lane = log.lanes[0]
    following = Key(lane.key.verifier.name, "the fourth")
    lane.add(lane.rotation(following))
    lane.key = following
    lane.traffic(1)


def checkpoint_of_former_key(log: Log) -> None:
    """The right size and root, signed with a key whose range has ended."""
    lane = log.lanes[0]
    lane.key = lane.keys[0]
    lane.checkpoint()


def cut_back_before_rotation(log: Log) -> None:
    """The end with its keys is gone; minimum.json has a head that one of them signed."""
    lane = log.lanes[0]
    log.raise_minimum()
    cut_back(lane, lane.starts[1] - 2)
    lane.notes = lane.notes[:1]


def second_signature(log: Log) -> None:
    """A good signature, and behind it one of the same key that does not hold."""
    key = log.lanes[0].key.verifier
    log.lanes[0].notes[-1] += sign("x\n", key.name, key.public, lambda _: bytes(64)).rpartition("\n\n")[2]


def second_paragraph(log: Log) -> None:
    """A checkpoint that says more than a checkpoint does, signed as it stands."""
    key = log.lanes[0].key
    body = log.lanes[0].notes[-1].rpartition("\n\n")[0] + "\n\nand more\n"
    log.lanes[0].notes[-1] = sign(body, key.verifier.name, key.verifier.public, key.sign)


def unfinished_signature(log: Log) -> None:
    """A crash while the second signature line of the newest checkpoint was written: no fault."""
    log.lanes[0].notes[-1] += "\u2014 witness.example.org AAAA"


def sibling_twice(log: Log) -> None:
    """A lane that recorded two heads of another one, of which one is right."""
    main = log.lanes[0]
    right, wrong = entry.sibling("main", 1, _head(main, 0)), entry.sibling("main", 1, "ab" * 32)
    _recorded(log, [wrong, right])


def sibling_without_number(log: Log) -> None:
    """`true` where the number of entries belongs, and the head that would be right for 1."""
    _recorded(log, [entry.sibling("main", True, _head(log.lanes[0], 0))])


def _recorded(log: Log, siblings: list[dict[str, canonical.Value]]) -> None:
    lane = Lane("w0")
    lane.add(entry.lane_open(str(lane.key.verifier), certified(lane, lane.key), KERNEL, siblings))
    log.lanes[1] = lane.checkpoint()
    log.minimum = None


def _head(lane: Lane, seq: int) -> str:
    return chain.entry_hash(chain.split(lane.lines[seq])[0]).hex()


def certificate_respelled(log: Log) -> None:
    """The root's certificate with an unused bit of its base64 set."""
    lane = Lane("w0")
    certificate = certified(lane, lane.key)
    other = f"{certificate[:-3]}{chr(ord(certificate[-3]) + 1)}=="
    lane.add(entry.lane_open(str(lane.key.verifier), other, KERNEL, []))
    log.lanes[1] = lane.checkpoint()
    log.minimum = None


def hour_24(log: Log) -> None:
    """A time that some libraries read as the next day's first."""
    log.lanes[1].add_raw(canonical.encode(_next(log.lanes[1]) | {"ts": "2026-01-02T24:00:00.000000Z"}))


def leased(log: Log) -> None:
    """As it was written: two processes that leased by turns from one ledger."""


def leased_from_two_ledgers(log: Log) -> None:
    """The second went on from an older state: what was given again is another lease."""
    log.lanes[0].lease(5, 7, pool="another ledger")
    log.lanes[1].lease(6, pool="another ledger")


def lease_in_two_lanes(log: Log) -> None:
    """A number of the other lane, by the key that signs this one."""
    log.lanes[1].lease(4)


def lease_twice_in_a_lane(log: Log) -> None:
    log.lanes[1].lease(3)


def lease_in_no_lane(log: Log) -> None:
    log.lanes[1].lease(7)


def first_lease_in_no_lane(log: Log) -> None:
    log.lanes = [Lane("main").open(first=True).lease(2).checkpoint()]
    log.minimum = None


def lane_with_leases_gone(log: Log) -> None:
    """No other one recorded it, and nothing beside the log knows of it."""
    del log.lanes[1]
    log.minimum = None


def tail_with_a_lease_gone(log: Log) -> None:
    """Cut back to the newest head that anybody has."""
    log.lanes[0].traffic(1).lease(6)
    log.lanes[1].lease(7)
    del log.lanes[0].lines[-2:]


def lease_without_a_number(log: Log) -> None:
    log.lanes[1].lease(0)


def lease_of_no_ledger(log: Log) -> None:
    log.lanes[1].lease(6, pool="p" * 65)


def lease_number_that_is_true(log: Log) -> None:
    log.lanes[1].lease(True)


def leases_without_numbers(log: Log) -> None:
    """What never goes back has none, and what is no grant may have any."""
    for act, number in (("granted", None), ("refused", None), ("settled", 99), ("lost", 98), ("lent", 0)):
        log.lanes[1].add(entry.lease(act, POOL, number, ("slow", "rate", ""), 0, 1, 0))


VECTORS: dict[Callable[[Log], None], tuple[int, str | None]] = {
    valid: (0, None),
    torn_tail: (0, None),
    unknown_type: (0, None),
    edited: (1, "signature"),
    swapped: (1, "seq"),
    duplicated: (1, "seq"),
    deleted: (1, "seq"),
    whitespace: (1, "canonical"),
    duplicate_key: (1, None),
    bad_signature: (1, "signature"),
    bad_signature_in_tail: (1, "signature"),
    foreign_chain: (1, "another root key"),
    uncertified_key: (1, "certif"),
    torn_middle: (1, None),
    forked: (1, "another head"),
    forged_checkpoint: (1, "checkpoint"),
    other_root: (1, "another root"),
    newer_version: (1, "v is"),
    two_geneses: (1, "genesis"),
    empty: (4, "no entries"),
    no_lanes: (4, None),
    missing_lane: (4, "absent"),
    missing_first_lane: (4, "absent"),
    below_checkpoint: (5, "ends after"),
    below_minimum: (5, "ends after"),
    below_sibling: (5, "ends after"),
    other_tree: (1, "segment_open"),
    other_count: (1, "segment_open"),
    other_segment: (1, "segment_open"),
    second_signature: (1, "signature"),
    second_paragraph: (1, "checkpoint"),
    unfinished_signature: (0, None),
    sibling_twice: (1, "twice"),
    sibling_without_number: (1, "siblings holds"),
    certificate_respelled: (1, "base64"),
    hour_24: (1, "timestamp"),
}
OF_SEGMENTS: dict[Callable[[Log], None], tuple[int, str | None]] = {
    three_segments: (0, None),
    rotated_and_empty: (0, None),
    rotated_and_torn: (0, None),
    missing_segment: (1, None),
    emptied_segment: (1, None),
    joined_segments: (1, "segment_open"),
    divided_segment: (1, "segment_open"),
    torn_before_an_empty_segment: (1, "line feed"),
}


OF_KEYS: dict[Callable[[Log], None], tuple[int, str | None]] = {
    three_keys: (0, None),
    rotated_without_segment: (0, None),
    rewritten_with_current_key: (1, "not certified for this entry"),
    rotation_rewritten: (1, None),
    rotation_without_proof: (1, "did not sign"),
    rotation_not_signed: (1, "signature"),
    rotation_to_another_name: (1, "name"),
    rotation_to_a_former_key: (1, "had before"),
    former_key_goes_on: (1, "not certified for this entry"),
    entry_after_rotation: (1, "key_rotate is"),
    checkpoint_of_former_key: (1, "checkpoint"),
    cut_back_before_rotation: (5, "ends after"),
}


OF_LEASES: dict[Callable[[Log], None], tuple[int, str | None]] = {
    leased: (0, None),
    leased_from_two_ledgers: (0, None),
    leases_without_numbers: (0, None),
    lease_in_two_lanes: (1, "lease 4 stands in lane main, too"),
    lease_twice_in_a_lane: (1, "granted before"),
    lease_without_a_number: (1, "number from 1"),
    lease_of_no_ledger: (1, "id of its ledger"),
    lease_number_that_is_true: (1, "number from 1"),
    lease_in_no_lane: (4, "stands in no lane"),
    first_lease_in_no_lane: (4, "stands in no lane"),
    lane_with_leases_gone: (4, "stands in no lane"),
    tail_with_a_lease_gone: (4, "stands in no lane"),
}


OF_MATRIX: dict[Callable[[Scene], None], tuple[int, str | None]] = {
    row.attack: (row.minimum, None)
    for row in ROWS
    if row.attack in (
        attack_matrix.two_writers,
        attack_matrix.first_segment_gone,
        attack_matrix.last_segment_gone,
        attack_matrix.old_copy,
        attack_matrix.second_genesis_in_lane,
        attack_matrix.rotation_removed,
        attack_matrix.rotation_repeated,
        attack_matrix.rotation_of_another_lane,
        attack_matrix.heads_gone,
        attack_matrix.heads_twice,
        attack_matrix.heads_reordered,
        attack_matrix.minimum_of_another_log,
        attack_matrix.minimum_of_another_lane,
        attack_matrix.trust_changed,
        attack_matrix.anchored_with_current_key,
        attack_matrix.across_rotation_with_two_keys,
        attack_matrix.across_rotation_with_old_key,
        attack_matrix.second_genesis_with_root_key,
        attack_matrix.certificate_with_root_key,
    )
}


def _next(lane: Lane) -> dict[str, canonical.Value]:
    """The common fields of the next entry."""
    last = canonical.parse(chain.split(lane.lines[-1])[0])
    assert isinstance(last, dict)
    kept = {name: last[name] for name in ("v", "type", "ts", "mono_us", "lane")}
    return kept | {"seq": lane.tree.size, "prev": lane.head}


def make(folder: Path) -> None:
    """Write every vector below `folder`, which must not be there."""
    expected = {}
    made = {two_lanes: VECTORS, logs.three_segments: OF_SEGMENTS, logs.three_keys: OF_KEYS, logs.leased: OF_LEASES}
    for base, attacks in made.items():
        for attack, (status, reason) in attacks.items():
            log = base()
            attack(log)
            log.write(folder / attack.__name__)
            expected[attack.__name__] = {"exit": status, "reason": reason}
    for attacked, (status, reason) in OF_MATRIX.items():
        at = scene()
        attacked(at)
        at.log(minimum=True).write(folder / attacked.__name__)
        expected[attacked.__name__] = {"exit": status, "reason": reason}
    (folder / "root.key").write_text(f"{ROOT.verifier}\n")
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


def make_proofs(folder: Path) -> None:
    """Write proofs of each kind below `folder`, which must not be there."""
    folder.mkdir()
    main, keys = two_lanes().lanes[0], proofs.renewed().lanes[0]
    receipts = {
        "genesis": proofs.receipt(main, 0, main.notes[-1]),
        "decision": proofs.receipt(main, 5, main.notes[-1]),
        "later_key": proofs.receipt(keys, keys.tree.size - 1, keys.notes[-1]),
        "cosigned": proofs.receipt(keys, 4, proofs.cosigned(keys.notes[-1], Key("w.example.org"))),
    }
    for name, made in receipts.items():
        (folder / f"{name}.tlog-proof").write_text(write_receipt(made))
    grown = proofs.consistency(keys, keys.notes[0], keys.notes[-1])
    (folder / "across_keys.consistency").write_text(write_consistency(grown))
    (folder / "root.key").write_text(f"{ROOT.verifier}\n")


if __name__ == "__main__":
    for folder in (FOLDER, PROOFS):
        shutil.rmtree(folder, ignore_errors=True)
    make(FOLDER)
    make_proofs(PROOFS)
