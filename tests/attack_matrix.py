"""The attack matrix: what an enemy can do to a log, and what `governor audit verify` makes of it.

    python -m tests.attack_matrix       # the table of README.md, "Trusting the log"

Each attack is met three times: with nothing but the audit folder and the pin, with minimum.json as it was before the
attack beside it, and with an anchor that holds the checkpoints of some time ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kernel.marks import Held
from kernel.trust import Minimum, minimum_file, trust_file
from tests.forgery import THIEF, cut_back, rewrite, sign_heads
from tests.logs import LOG_ID, Key, Lane, Log

VERIFIED, TAMPERED, NO_LOG, INCOMPLETE, ROLLED_BACK = 0, 1, 2, 4, 5
ANCHOR = "anchor of example.org"


@dataclass
class Scene:
    """A log with what others hold of it. `main` has three segments with a key each, `w0` recorded it when it opened.

    Of each lane, from its beginning: what the anchor knows, then what minimum.json knows as well, then a tail that
    only the host's keys sign.
    """

    main: Lane
    other: Lane
    anchored: dict[str, list[str]] = field(default_factory=dict)
    trust: bytes | None = None
    minimum: dict[str, str] = field(default_factory=dict)
    minimum_log_id: str = LOG_ID
    minimum_there: bool = True
    lanes: list[Lane] = field(default_factory=list)

    def log(self, *, minimum: bool) -> Log:
        """The log as it lies on disk, with minimum.json or without."""
        kept = minimum_file(Minimum(self.minimum_log_id, self.minimum)) if minimum and self.minimum_there else None
        return Log(self.lanes, self.trust, kept)

    def held(self) -> dict[str, list[Held]]:
        """The checkpoints of the anchor."""
        return {lane: [Held(note, ANCHOR, anchor=True) for note in notes] for lane, notes in self.anchored.items()}


def scene() -> Scene:
    """Nothing has happened yet."""
    main = Lane("main").open(first=True).traffic(3).checkpoint()
    other = Lane("w0").open(siblings=[main]).traffic(2).checkpoint()
    main.traffic(2).renew("size").traffic(2).checkpoint().traffic(1).renew("time").traffic(2).checkpoint()
    anchored = {lane.name: list(lane.notes) for lane in (main, other)}
    main.traffic(2).checkpoint()
    other.traffic(2).checkpoint()
    minimum = {lane.name: lane.notes[-1] for lane in (main, other)}
    main.traffic(2)
    other.traffic(1)
    return Scene(main, other, anchored, trust_file(main.root.verifier), minimum, lanes=[main, other])


def size_of(note: str) -> int:
    """How many entries a checkpoint speaks of."""
    return int(note.split("\n")[1])


# Anybody who can write the files


def edited(at: Scene) -> None:
    at.main.lines[5] = at.main.lines[5].replace(b'"status":200', b'"status":403')


def edited_tail(at: Scene) -> None:
    at.main.lines[-1] = at.main.lines[-1].replace(b'"status":200', b'"status":403')


def deleted(at: Scene) -> None:
    del at.main.lines[6]
    at.main.starts[1:] = [start - 1 for start in at.main.starts[1:]]


def swapped(at: Scene) -> None:
    at.main.lines[5], at.main.lines[6] = at.main.lines[6], at.main.lines[5]


def duplicated(at: Scene) -> None:
    at.main.lines.append(at.main.lines[-1])


def spaced(at: Scene) -> None:
    at.main.lines[6] = at.main.lines[6].replace(b'":', b'": ', 1)


def two_writers(at: Scene) -> None:
    """The same lane went on twice from one head, and the lines of both stand in one file."""
    twin = scene().main
    size = len(twin.lines)
    at.main.traffic(2)
    twin.add({"type": "fault", "where": "request", "error": "X", "code": "FAULT", "flow": None})
    twin.traffic(2)
    ours, theirs = at.main.lines[size:], twin.lines[size:]
    at.main.lines[size:] = [line for pair in zip(ours, theirs, strict=False) for line in pair]


def cut_below_head(at: Scene) -> None:
    del at.main.lines[-6:]


def cut_above_head(at: Scene) -> None:
    del at.main.lines[size_of(at.main.notes[-1]) :]


def torn(at: Scene) -> None:
    at.main.tail = at.main.lines.pop()[:200]


def cut_with_heads(at: Scene) -> None:
    """Back to the end of the second segment."""
    cut_back(at.main, at.main.starts[2])


def cut_above_anchor(at: Scene) -> None:
    cut_back(at.main, size_of(at.anchored["main"][-1]))


def cut_below_sibling(at: Scene) -> None:
    cut_back(at.main, 4)


def emptied(at: Scene) -> None:
    for lane in at.lanes:
        lane.lines, lane.notes, lane.starts = [], [], [0]


def first_segment_gone(at: Scene) -> None:
    _drop_segment(at.main, 0)


def segment_gone(at: Scene) -> None:
    _drop_segment(at.main, 1)


def last_segment_gone(at: Scene) -> None:
    del at.main.lines[at.main.starts.pop() :]


def _drop_segment(lane: Lane, number: int) -> None:
    """The segment is gone, and those behind it have moved up by one name."""
    first, end = lane.starts[number], lane.starts[number + 1]
    del lane.lines[first:end]
    lane.starts = [start if start <= first else start - (end - first) for start in lane.starts if start != end]


def old_copy(at: Scene) -> None:
    cut_back(at.main, 12)
    cut_back(at.other, size_of(at.other.notes[0]))


def old_home(at: Scene) -> None:
    """With the minimum.json of that time."""
    old_copy(at)
    at.minimum = {lane.name: lane.notes[-1] for lane in at.lanes}


def lane_gone(at: Scene) -> None:
    at.lanes = [at.main]


def recorded_lane_gone(at: Scene) -> None:
    at.lanes = [at.other]


def young_lane_gone(at: Scene) -> None:
    """It was opened after the newest head that the anchor has, and no other lane was opened since."""
    at.minimum["w1"] = Lane("w1").open(siblings=[at.main]).traffic(1).checkpoint().notes[0]


def all_lanes_gone(at: Scene) -> None:
    at.lanes, at.trust = [], None


def home_gone(at: Scene) -> None:
    """Nothing is there to verify: only whoever asks knows that there was a log."""
    at.lanes, at.trust, at.minimum_there = [], None, False


def foreign_chain(at: Scene) -> None:
    main = Lane("main", root=THIEF, seed="a thief's ").open(first=True).traffic(3).checkpoint()
    at.lanes = [main, Lane("w0", root=THIEF, seed="a thief's ").open(siblings=[main]).traffic(1).checkpoint()]
    at.trust, at.minimum_there = trust_file(THIEF.verifier), False


def rewritten_without_key(at: Scene) -> None:
    at.main.key = Key(at.main.key.verifier.name, "a thief's ")
    rewrite(at.main, 6, at.main.key)
    at.main.checkpoint()


def second_genesis_in_lane(at: Scene) -> None:
    at.other.lines[2:2] = at.main.lines[:1]


def minimum_gone(at: Scene) -> None:
    at.minimum_there = False


def minimum_lowered(at: Scene) -> None:
    """To heads of some time ago, and nothing else is changed."""
    at.minimum = {lane.name: lane.notes[0] for lane in at.lanes}


def minimum_of_another_log(at: Scene) -> None:
    at.minimum_log_id = "ffeeddccbbaa0099"


def minimum_of_another_lane(at: Scene) -> None:
    at.minimum["main"] = at.minimum["w0"]


def trust_gone(at: Scene) -> None:
    at.trust = None


def trust_changed(at: Scene) -> None:
    at.trust = trust_file(THIEF.verifier)


def heads_gone(at: Scene) -> None:
    for lane in at.lanes:
        lane.notes = []


def newest_head_gone(at: Scene) -> None:
    del at.main.notes[-1]


def heads_reordered(at: Scene) -> None:
    at.main.notes.reverse()


def heads_twice(at: Scene) -> None:
    at.main.notes = [note for note in at.main.notes for _ in range(2)]


def heads_of_another_lane(at: Scene) -> None:
    at.main.notes = list(at.other.notes)


def rotation_removed(at: Scene) -> None:
    last = at.main.starts[1] - 1
    del at.main.lines[last]
    at.main.starts[1:] = [start - 1 for start in at.main.starts[1:]]


def rotation_repeated(at: Scene) -> None:
    last = at.main.starts[1] - 1
    at.main.lines.insert(last, at.main.lines[last])
    at.main.starts[1:] = [start + 1 for start in at.main.starts[1:]]


def rotation_of_another_lane(at: Scene) -> None:
    other = Lane("w0").open(siblings=[]).renew()
    last = at.main.starts[1] - 1
    at.main.lines[last] = other.lines[other.starts[1] - 1]


def receipts_gone(at: Scene) -> None:
    """What anchors replied is kept beside the log, and nothing is proved by it: the anchor itself is asked."""


def _with_leases(at: Scene) -> None:
    """Two processes lease by turns, behind all heads that anybody keeps but the last."""
    at.main.lease(1)
    at.other.lease(2).checkpoint().lease(3)
    at.main.lease(4).checkpoint()


def lane_with_leases_gone(at: Scene) -> None:
    """A young one of a third process, which nothing but its leases tells of."""
    _with_leases(at)
    Lane("w1").open(siblings=[at.main]).lease(5)
    at.main.lease(6)


def tail_with_lease_gone(at: Scene) -> None:
    _with_leases(at)
    del at.other.lines[size_of(at.other.notes[-1]) :]


# Whoever holds keys


def lease_of_another_lane(at: Scene) -> None:
    """A process draws on what was leased to another."""
    _with_leases(at)
    at.main.lease(3)


def lease_rewritten(at: Scene) -> None:
    """Another entry in the place of a lease, so that what it drew on was not leased to it."""
    _with_leases(at)
    rewrite(at.other, len(at.other.lines) - 1, change=lambda body: body | {"act": "refused", "lease": None})


def older_segment_with_current_key(at: Scene) -> None:
    rewrite(at.main, at.main.starts[1] + 2, at.main.key)
    sign_heads(at.main, [len(at.main.lines)])


def anchored_with_current_key(at: Scene) -> None:
    rewrite(at.main, at.main.starts[2] + 1)
    sign_heads(at.main, [len(at.main.lines) - 1])


def above_anchor_with_current_key(at: Scene) -> None:
    """All of it behind the newest head that the anchor has, below the newest that minimum.json has."""
    rewrite(at.main, size_of(at.anchored["main"][-1]) + 1)
    sign_heads(at.main, [len(at.main.lines)])


def tail_with_current_key(at: Scene) -> None:
    rewrite(at.main, len(at.main.lines) - 2)
    sign_heads(at.main, [len(at.main.lines)])


def tail_cut_with_current_key(at: Scene) -> None:
    """The last entries are replaced by others."""
    cut_back(at.main, size_of(at.minimum["main"]))
    at.main.traffic(1).checkpoint()


def across_rotation_with_two_keys(at: Scene) -> None:
    """The key of the second segment and the current one were both stolen."""
    rewrite(at.main, at.main.starts[1] + 2)
    sign_heads(at.main, [len(at.main.lines)])


def across_rotation_with_old_key(at: Scene) -> None:
    """An old key that was copied before it was destroyed certifies a key of the thief's."""
    lane, stolen = at.main, at.main.keys[1]
    cut_back(lane, lane.starts[2] - 1)
    lane.key = Key(stolen.verifier.name, "a thief's ")
    lane.add(lane.rotation(lane.key), stolen)
    lane.rotate().traffic(6).checkpoint()


def below_sibling_with_every_key(at: Scene) -> None:
    """Every key of the lane, and none of the lane that recorded it."""
    rewrite(at.main, 3)
    sign_heads(at.main, [len(at.main.lines)])


def forked(at: Scene) -> None:
    """Two histories from one head on, each signed, each shown to one of two anchors; the first is the log here."""
    twin = scene().main
    for lane, word in ((at.main, "one"), (twin, "other")):
        rewrite(lane, lane.starts[2] + 1, change=lambda body, word=word: body | {"reason": word})  # type: ignore[misc]
        sign_heads(lane, [len(lane.lines)])
    at.anchored = {"main": [at.main.notes[-1], twin.notes[-1]]}


def second_genesis_with_root_key(at: Scene) -> None:
    """The root key makes a second log of the same name, with other lane keys."""
    main = Lane("main", seed="second ").open(first=True).traffic(20).checkpoint()
    at.lanes = [main, Lane("w0", seed="second ").open(siblings=[main]).traffic(5).checkpoint()]


def certificate_with_root_key(at: Scene) -> None:
    """The root key certifies another key for a lane, which is written anew with it, longer than before."""
    lane = Lane("w0", seed="second ").open(siblings=[at.main]).traffic(9).checkpoint()
    at.lanes = [at.main, lane]


@dataclass(frozen=True)
class Row:
    """An attack, and the exit status where only the folder and the pin are there, with minimum.json, with an anchor.

    `unseen` says why, where a status is 0.
    """

    attack: Callable[[Scene], None]
    told: str
    alone: int
    minimum: int
    anchor: int
    unseen: str = ""

    @property
    def name(self) -> str:
        return self.attack.__name__


TAIL = "the end of a log is known only by a head that was signed behind it and kept elsewhere"
HERE = "a head is on this host only until an anchor has it"
KEY = "who holds the key that signs now can sign another end, until a head of the first is kept elsewhere"
KEYS = "who holds every key from the change on can sign it all again; only a head that is kept elsewhere differs"
NOTHING_LOST = "nothing of the log is changed, and no proof needs it"
YOUNG = "nothing outside had heard of the lane yet"

BY_ANYBODY = (
    Row(edited, "edits an entry", 1, 1, 1),
    Row(edited_tail, "edits an entry behind the newest head", 1, 1, 1),
    Row(deleted, "deletes an entry", 1, 1, 1),
    Row(swapped, "swaps two entries", 1, 1, 1),
    Row(duplicated, "repeats an entry", 1, 1, 1),
    Row(spaced, "adds white space that changes no meaning", 1, 1, 1),
    Row(two_writers, "lets two processes write one lane", 1, 1, 1),
    Row(cut_below_head, "cuts the end off, below the newest head", 5, 5, 5),
    Row(cut_above_head, "cuts the end off, down to the newest head", 0, 0, 0, TAIL),
    Row(torn, "cuts within the last line", 0, 0, 0, TAIL),
    Row(cut_with_heads, "cuts the end off together with its heads", 0, 5, 5, TAIL),
    Row(cut_above_anchor, "cuts the end off with its heads, down to the anchored one", 0, 5, 0, HERE),
    Row(cut_below_sibling, "cuts the end off with its heads, below what another lane recorded", 5, 5, 5),
    Row(emptied, "empties every file", 4, 5, 5),
    Row(first_segment_gone, "removes the first segment", 1, 1, 1),
    Row(segment_gone, "removes a segment in the middle", 1, 1, 1),
    Row(last_segment_gone, "removes the last segment", 5, 5, 5),
    Row(old_copy, "puts an old copy of the audit folder back", 0, 5, 5, TAIL),
    Row(old_home, "puts an old copy of the whole home back", 0, 0, 5, TAIL),
    Row(lane_gone, "deletes a lane", 0, 4, 4, YOUNG),
    Row(recorded_lane_gone, "deletes a lane that another one recorded", 4, 4, 4),
    Row(young_lane_gone, "deletes a lane that is younger than the anchored heads", 0, 4, 0, YOUNG),
    Row(lane_with_leases_gone, "deletes a lane that nothing had heard of, with leases", 4, 4, 4),
    Row(tail_with_lease_gone, "cuts the end off, down to the newest head, with a lease", 4, 4, 4),
    Row(all_lanes_gone, "deletes every lane", 4, 4, 4),
    Row(home_gone, "deletes the home (`rm -r`)", 2, 2, 2),
    Row(foreign_chain, "puts another log in its place", 1, 1, 1),
    Row(rewritten_without_key, "writes a part anew, with keys of its own", 1, 1, 1),
    Row(second_genesis_in_lane, "adds a second genesis to a lane", 1, 1, 1),
    Row(rotation_removed, "removes a key_rotate", 1, 1, 1),
    Row(rotation_repeated, "repeats a key_rotate", 1, 1, 1),
    Row(rotation_of_another_lane, "takes a key_rotate from another lane", 1, 1, 1),
    Row(heads_gone, "deletes checkpoints.note", 0, 0, 0, NOTHING_LOST),
    Row(newest_head_gone, "removes the newest checkpoint", 0, 0, 0, NOTHING_LOST),
    Row(heads_twice, "repeats checkpoints", 0, 0, 0, NOTHING_LOST),
    Row(heads_reordered, "reorders checkpoints", 1, 1, 1),
    Row(heads_of_another_lane, "takes the checkpoints of another lane", 1, 1, 1),
    Row(minimum_gone, "deletes minimum.json", 0, 0, 0, NOTHING_LOST),
    Row(minimum_lowered, "lowers minimum.json", 0, 0, 0, NOTHING_LOST),
    Row(minimum_of_another_log, "takes the minimum.json of another log", 0, 1, 0, NOTHING_LOST),
    Row(minimum_of_another_lane, "takes a head of another lane in minimum.json", 0, 1, 0, NOTHING_LOST),
    Row(trust_gone, "deletes trust.json", 0, 0, 0, NOTHING_LOST),
    Row(trust_changed, "changes the root key in trust.json", 1, 1, 1),
    Row(receipts_gone, "deletes the receipts of anchors", 0, 0, 0, NOTHING_LOST),
)
BY_KEYS = (
    Row(older_segment_with_current_key, "rewrites an older segment with the current key", 1, 1, 1),
    Row(tail_with_current_key, "rewrites entries behind the newest head with the current key", 0, 0, 0, KEY),
    Row(tail_cut_with_current_key, "replaces the end by another with the current key", 0, 0, 0, KEY),
    Row(above_anchor_with_current_key, "rewrites entries behind the anchored head with the current key", 0, 1, 0, KEY),
    Row(lease_of_another_lane, "writes a lease of another lane into its own with the current key", 1, 1, 1),
    Row(lease_rewritten, "rewrites a lease behind the newest head with the current key", 4, 4, 4),
    Row(anchored_with_current_key, "rewrites anchored entries with the current key", 0, 1, 1, KEY),
    Row(across_rotation_with_two_keys, "rewrites across a rotation with the old and the current key", 0, 1, 1, KEYS),
    Row(across_rotation_with_old_key, "certifies a key of its own with an old key", 0, 1, 1, KEYS),
    Row(below_sibling_with_every_key, "rewrites with every key of a lane what another lane recorded", 1, 1, 1),
    Row(forked, "shows two anchors two histories, with the current key", 0, 1, 1, KEYS),
    Row(second_genesis_with_root_key, "makes a second log under the same root key", 0, 1, 1, KEYS),
    Row(certificate_with_root_key, "certifies another lane key with the root key and writes its lane", 0, 1, 1, KEYS),
)
ROWS = BY_ANYBODY + BY_KEYS


def table() -> str:
    """The matrix in Markdown, with the reasons below it."""
    reasons = list(dict.fromkeys(row.unseen for row in ROWS if row.unseen))
    told = (f"{number}. {reason[0].upper()}{reason[1:]}." for number, reason in enumerate(reasons, 1))
    parts = (_part("anybody who can write the files", BY_ANYBODY, reasons),
             _part("whoever holds keys", BY_KEYS, reasons), told)
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _part(who: str, rows: tuple[Row, ...], reasons: list[str]) -> Iterator[str]:
    yield f"| {who} | pin | and minimum.json | and anchor |"
    yield "|---|---|---|---|"
    for row in rows:
        cells = (f"0 ({reasons.index(row.unseen) + 1})" if status == VERIFIED else str(status)
                 for status in (row.alone, row.minimum, row.anchor))
        yield f"| {row.told} | {' | '.join(cells)} |"


if __name__ == "__main__":
    print(table(), end="")
