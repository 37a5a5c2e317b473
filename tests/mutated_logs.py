"""Damaged logs without number: bytes, lines, files and notes changed at random, and entries that keys signed anew.

Everything follows from one seed, so that a log that shows something can be made again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from random import Random
from typing import Any

from kernel import canonical, chain, entry, note
from kernel.canonical import Value
from kernel.errors import KernelError
from kernel.trust import Minimum, minimum_file, trust_file
from tests.attack_matrix import scene
from tests.forgery import THIEF, cut_back, entry_of, rewrite, sign_heads
from tests.logs import LOG_ID, POOL, Key, Lane, Log, leased, three_keys, three_segments, two_lanes

type Files = dict[str, bytes]


def _scene() -> Log:
    return scene().log(minimum=True)


BASES: dict[str, Callable[[], Log]] = {
    "two lanes": two_lanes, "three segments": three_segments, "three keys": three_keys, "a scene": _scene,
    "leases": leased}


@lru_cache
def _base(name: str) -> Log:
    return BASES[name]()


def mutated(base: str, number: int) -> Files:
    """The files of a log with one to three things wrong, or none that a verifier may mind. The same each time."""
    rng = Random(f"{base} {number}")
    log = copy.deepcopy(_base(base))
    count = rng.choice((1, 1, 1, 2, 3))
    signed = rng.randrange(count + 1)
    for _ in range(signed):
        # What an earlier one left may be beyond another; a log that is damaged half-way will do as well.
        with suppress(KernelError, LookupError, StopIteration, ValueError, AssertionError):
            rng.choice(OF_LOGS)(rng, log)
    files = log.files()
    for _ in range(count - signed):
        rng.choice(OF_FILES)(rng, files)
    return files


def damage(rng: Random, lane: Lane, first: int) -> None:
    """One thing wrong with the lines of a lane from line `first` on, signed or not; what came before is left."""
    at = rng.randrange(first, len(lane.lines))
    match rng.randrange(7):
        case 0:
            del lane.lines[at:]
        case 1:
            lane.lines.insert(at, lane.lines[rng.randrange(len(lane.lines))])
        case 2:
            line = lane.lines[at]
            flipped = rng.randrange(len(line) - 1)
            lane.lines[at] = line[:flipped] + bytes([line[flipped] ^ 1]) + line[flipped + 1 :]
        case 3:
            raw, key = _changed(rng, lane.lines[at]), rng.choice((*lane.keys, lane.root, THIEF))
            lane.lines[at] = key.line(raw)
        case 4:
            lane.lines[at:] = [line[: rng.choice((-1, 40))] for line in lane.lines[at : at + 1]]
        case 5:
            lane.notes = rng.choice((lane.notes[:-1], lane.notes[::-1], [*lane.notes, *lane.notes[-1:]]))
        case 6:
            with suppress(KernelError, LookupError, StopIteration, ValueError):
                rewrite(lane, at, rng.choice((None, *lane.keys)), lambda body: _other_field(rng, body))
                sign_heads(lane, [len(lane.lines)])
    lane.starts = [start for start in lane.starts if start <= len(lane.lines)]


# By whoever holds keys, and by whoever can move lines and notes


def _lane(rng: Random, log: Log) -> Lane:
    return rng.choice(log.lanes)


def _key(rng: Random, log: Log, lane: Lane) -> Key:
    others = [key for other in log.lanes for key in other.keys]
    return rng.choice([*lane.keys, *others, lane.root, THIEF, Key(lane.key.verifier.name, "another ")])


def _sign_entry(rng: Random, log: Log) -> None:
    """One entry changed and signed, by the key that had signed it or by another; what follows is left."""
    lane = _lane(rng, log)
    if not lane.lines:
        return
    at = rng.randrange(len(lane.lines))
    raw = _changed(rng, lane.lines[at])
    lane.lines[at] = _key(rng, log, lane).line(raw)


def _rewrite(rng: Random, log: Log) -> None:
    """One entry changed and all behind it signed anew, with heads or without."""
    lane = _lane(rng, log)
    if not lane.lines:
        return
    at, notes = rng.randrange(len(lane.lines)), list(lane.notes)
    key = None if rng.random() < 0.7 else _key(rng, log, lane)
    rewrite(lane, at, key, lambda body: _other_field(rng, body))
    match rng.randrange(3):
        case 0:
            sign_heads(lane, sorted(rng.sample(range(1, len(lane.lines) + 1), min(2, len(lane.lines)))))
        case 1:
            lane.notes = notes


def _append(rng: Random, log: Log) -> None:
    """One more entry, by the current key or by another."""
    lane = _lane(rng, log)
    last = entry_of(lane.lines[-1]) if lane.lines and not lane.tail else {}
    _follow(lane)
    body = last | {"seq": lane.tree.size, "prev": lane.head}
    kind = rng.choice(("genesis", "lane_open", "segment_open", "key_rotate", "heartbeat", "decision", "close"))
    signer = lane.key if rng.random() < 0.6 else _key(rng, log, lane)
    match kind:
        case "key_rotate":
            body |= lane.rotation(_key(rng, log, lane))
        case "segment_open" if lane.tree.size:
            lane.starts.append(len(lane.lines))
            body |= entry.segment_open(f"{len(lane.starts) - 1:06d}.jsonl", lane.tree)
        case "genesis" | "lane_open" if len(lane.lines) > 1:
            body |= {name: value for name, value in entry_of(lane.lines[kind == "lane_open"]).items()
                     if name not in ("seq", "prev", "lane")}
        case _:
            body |= {"type": kind}
    lane.add_raw(canonical.encode(_other_field(rng, body) if rng.random() < 0.3 else body), signer)
    if rng.random() < 0.3:
        lane.checkpoint()


def _follow(lane: Lane) -> None:
    """Let the lane stand behind the lines that it has, whatever became of them."""
    lines, notes, starts = list(lane.lines), list(lane.notes), list(lane.starts)
    try:
        cut_back(lane, len(lines))
    except KernelError:
        lane.lines = lines
    lane.notes, lane.starts = notes, starts


def _other_opening(rng: Random, log: Log) -> None:
    """A lane_open, key_rotate or segment_open with one thing wrong, and all behind it signed by the right keys."""
    lane = _lane(rng, log)
    openings = [at for at, line in enumerate(lane.lines)
                if any(kind in line for kind in (b'"lane_open"', b'"key_rotate"', b'"segment_open"', b'"genesis"'))]
    if not openings:
        return
    rewrite(lane, rng.choice(openings), None, lambda body: _other_opening_field(rng, body))
    if rng.random() < 0.5:
        sign_heads(lane, [len(lane.lines)])


def _other_opening_field(rng: Random, body: dict[str, Value]) -> dict[str, Value]:
    own = [name for name in ("key", "certificate", "siblings", "segment", "entries", "tree", "root", "log_id", "origin",
                             "proof", "reason", "kernel") if name in body]
    name = rng.choice(own)
    return body | {name: _other_value(rng, body[name])}


def _leases(rng: Random, log: Log) -> None:
    """Leases with numbers that nobody had, that somebody has, or that are none."""
    lane = _lane(rng, log)
    _follow(lane)
    for _ in range(rng.randrange(1, 4)):
        lane.lease(rng.choice((*range(9), 4095, 4096, 2**53 - 1)), pool=rng.choice((POOL, POOL, "another", "p" * 65)))
        if rng.random() < 0.3:
            rewrite(lane, len(lane.lines) - 1, None, lambda body: _other_field(rng, body))
    if rng.random() < 0.5:
        lane.checkpoint()


def _lines(rng: Random, log: Log) -> None:
    """Lines of one lane moved, repeated, lost or taken from another."""
    lane = _lane(rng, log)
    if len(lane.lines) < 2:
        return
    at, to = (rng.randrange(len(lane.lines)) for _ in range(2))
    match rng.randrange(6):
        case 0:
            del lane.lines[at]
        case 1:
            lane.lines.insert(to, lane.lines[at])
        case 2:
            lane.lines[at], lane.lines[to] = lane.lines[to], lane.lines[at]
        case 3:
            other = _lane(rng, log)
            if other.lines:
                lane.lines[at] = rng.choice(other.lines)
        case 4:
            lane.lines[at] = lane.lines[at][: rng.choice((-1, 0, 40))]
        case 5:
            del lane.lines[at:]
    lane.starts = [start for start in lane.starts if start <= len(lane.lines)]


def _segments(rng: Random, log: Log) -> None:
    """Another border between segments, one more, or one less."""
    lane = _lane(rng, log)
    match rng.randrange(4):
        case 0 if len(lane.starts) > 1:
            del lane.starts[rng.randrange(1, len(lane.starts))]
        case 1:
            lane.starts = sorted([*lane.starts, rng.randrange(len(lane.lines) + 1)])
        case 2:
            lane.starts.append(len(lane.lines))
        case 3:
            lane.tail = rng.choice((b"{", b'{"e":', bytes(200), lane.lines[-1][:-1] if lane.lines else b"x"))


def _notes(rng: Random, log: Log) -> None:
    """Checkpoints lost, repeated, reordered, taken from another lane, signed anew or signed twice."""
    lane = _lane(rng, log)
    other = _lane(rng, log)
    at = rng.randrange(len(lane.notes)) if lane.notes else 0
    match rng.randrange(9):
        case 0 if lane.notes:
            del lane.notes[at]
        case 1 if lane.notes:
            lane.notes.insert(at, lane.notes[at])
        case 2:
            rng.shuffle(lane.notes)
        case 3:
            lane.notes += other.notes[:1]
        case 4 if lane.lines:
            lane.notes.append(_signed(rng, lane, _key(rng, log, lane), rng.randrange(1, len(lane.lines) + 3)))
        case 5 if lane.notes:
            lane.notes[at] += _signature_line(rng, log, lane, lane.notes[at])
        case 6 if lane.notes:
            body, _, signatures = lane.notes[at].rpartition("\n\n")
            lane.notes[at] = f"{body}\n\n{_signature_line(rng, log, lane, lane.notes[at])}{signatures}"
        case 7 if lane.notes:
            lane.notes[at] = _extended(rng, log, lane, lane.notes[at])
        case 8 if lane.notes:
            lane.notes[-1] = lane.notes[-1][: rng.randrange(len(lane.notes[-1]))]


def _signed(rng: Random, lane: Lane, key: Key, size: int) -> str:
    root = rng.choice((lane.tree.root(), bytes(32), b"short"))
    body = note.checkpoint_body(key.verifier.name, size, root)
    return note.sign(body, key.verifier.name, key.verifier.public, key.sign)


def _signature_line(rng: Random, log: Log, lane: Lane, text: str) -> str:
    """One more signature line: right, by another key, or one that does not hold."""
    body = text.rpartition("\n\n")[0] + "\n"
    key = _key(rng, log, lane)
    signer = key.sign if rng.random() < 0.5 else lambda _: bytes(rng.choice((0, 63, 64, 65)))
    line = note.sign(body, key.verifier.name, key.verifier.public, signer).rpartition("\n\n")[2]
    return rng.choice((line, line, line.replace(" ", "  ", 1), line[:-2] + "\n", line[:-1]))


def _extended(rng: Random, log: Log, lane: Lane, text: str) -> str:
    """Another body, signed as it stands."""
    body = text.rpartition("\n\n")[0] + "\n"
    origin, size, root = body.split("\n")[:3]
    other = rng.choice((
        f"{body}more\n", f"{body}\nmore\n", f"\n{body}", f"{origin}\n0{size}\n{root}\n", f"{origin}\n{size}\n{root}=\n",
        f"{origin}\n-{size}\n{root}\n", f"{origin} \n{size}\n{root}\n", f"{origin}\n0\n{root}\n",
        f"{origin}\n{2**63}\n{root}\n", f"{origin}\n{size}\n{root}\r\n", body))
    key = lane.key if rng.random() < 0.7 else _key(rng, log, lane)
    return note.sign(other, key.verifier.name, key.verifier.public, key.sign)


def _beside(rng: Random, log: Log) -> None:
    """minimum.json and trust.json: lost, of another log, with other notes."""
    notes = {lane.name: rng.choice(lane.notes) for lane in log.lanes if lane.notes}
    lane = _lane(rng, log)
    match rng.randrange(8):
        case 0:
            log.minimum = None
        case 1:
            log.trust = rng.choice((None, trust_file(THIEF.verifier), b"{}\n", b"", (log.trust or b"") + b"\n"))
        case 2:
            log.minimum = minimum_file(Minimum("ffeeddccbbaa0099", notes))
        case 3:
            log.minimum = minimum_file(Minimum(LOG_ID, notes | {rng.choice(("w7", "W", "", "main")): "no note\n"}))
        case 4 if lane.lines:
            signed = _signed(rng, lane, _key(rng, log, lane), rng.randrange(1, len(lane.lines) + 3))
            log.minimum = minimum_file(Minimum(LOG_ID, notes | {lane.name: signed}))
        case 5 if notes:
            name, text = rng.choice(list(notes.items()))
            extended = rng.choice((_extended(rng, log, lane, text), text + _signature_line(rng, log, lane, text)))
            log.minimum = minimum_file(Minimum(LOG_ID, notes | {name: extended}))
        case 6:
            value: dict[str, Any] = {"lanes": notes, "log_id": LOG_ID, "v": 1}
            wrong = rng.choice((
                {"v": 2}, {"v": True}, {"lanes": []}, {"log_id": 7}, {"more": None}, {"lanes": {"main": None}}))
            log.minimum = canonical.encode(value | wrong) + b"\n"
        case 7:
            del log.lanes[rng.randrange(len(log.lanes))]


OF_LOGS = (_sign_entry, _rewrite, _rewrite, _append, _append, _other_opening, _other_opening, _leases, _lines,
           _segments, _notes, _notes, _beside)

_SPELLINGS = (
    (b":443,", b":0443,"), (b":443,", b":443.0,"), (b":443,", b":1e2,"), (b":443,", b":-0,"), (b'":', b'": '),
    (b"request", b"r\\u0065quest"), (b"request", b"\\ud800"), (b"request", b"\xff"),
    (b"request", b"\xc3\xa9\xe2\x80\xa8"),
    (b"null", b"NaN"), (b"[]", b"[" * 33 + b"]" * 33), (b"[]", b"[" * 2000 + b"]" * 2000), (b"{", b'{"\xc3\xa9":1,'),
    (b"200", b"9007199254740992"), (b"200", b"9" * 5000), (b'"v":1', b'"v":1,"v":1'), (b'"v":1', b'"v":true'),
    (b'Z"', b'+00:00"'), (b"T03:", b"T24:"), (b"T03:", b"T3:"), (b"2026-01-02", b"2026-02-30"), (b"2026", b"0000"),
    (b":05.", b":60."), (b"T03:04:05.", b"T24:00:00."), (b'"', b'"\\u0000'), (b"main", b"w0"))


def _changed(rng: Random, line: bytes) -> bytes:
    """The entry of a line, or what is left of it, with another value or in another spelling."""
    try:
        raw, _, _ = chain.split(line)
        body = canonical.parse(raw)
    except KernelError:
        return b"{}"
    if rng.random() < 0.4:
        old, new = rng.choice(_SPELLINGS)
        return raw.replace(old, new, 1)
    if not isinstance(body, dict) or rng.random() < 0.05:
        return canonical.encode(rng.choice((None, [], 7, "text", {})))
    return canonical.encode(_other_field(rng, body))


def _other_field(rng: Random, body: dict[str, Value]) -> dict[str, Value]:
    name = rng.choice(list(body))
    if rng.random() < 0.1:
        return {key: value for key, value in body.items() if key != name}
    return body | {name: _other_value(rng, body[name])}


def _other_value(rng: Random, value: Value) -> Value:
    match value:
        case str() if rng.random() < 0.5:
            at = rng.randrange(len(value) + 1)
            return rng.choice((value + "=", " " + value, value.upper(), value[:at] + "A" + value[at + 1 :], value[:-1],
                               value + "\n", _other_bits(value)))
        case int() if type(value) is int and rng.random() < 0.5:
            return value + rng.choice((1, -1, 2**40))
        case list() if value and rng.random() < 0.7:
            at = rng.randrange(len(value))
            return rng.choice((value[:at], value * 2, [*value[:at], _other_value(rng, value[at]), *value[at + 1 :]]))
        case dict() if value and rng.random() < 0.7:
            return _other_field(rng, value)
    return rng.choice((None, True, 0, 1, -1, 2**53 - 1, "", "0" * 64, "main", "w0", [], {}, [None], "\x1b[2J\u202e"))


def _other_bits(text: str) -> str:
    """Base64 with an unused bit set, where it is base64."""
    at = len(text.rstrip("=")) - 1
    return text[:at] + chr(ord(text[at]) + 1) + text[at + 1 :] if text.endswith("=") and at >= 0 else text


# By whoever can write files


def _name(rng: Random, files: Files, ending: str = "") -> str | None:
    names = sorted(name for name in files if name.endswith(ending))
    return rng.choice(names) if names else None


def _bytes(rng: Random, files: Files) -> None:
    name = _name(rng, files)
    if name is None or not files[name]:
        return
    data = files[name]
    at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    special = rng.choice((b'"', b"\\", b"\n", b"\r", b"\0", b"\xff", b" ", b"{", b"\xe2\x80\x94 ", b"0", b"\n\n",
                          b"\x85"))
    files[name] = rng.choice((
        data[:at] + bytes([(data[at % len(data)] ^ 1 << rng.randrange(8))]) + data[at + 1 :],
        data[:at] + special + data[at + 1 :],
        data[:at] + special + data[at:],
        data[:at] + data[at + 1 :],
        data[:at],
        data[:at] + data[end:],
        data[:end] + data[at:],
        data[:at] + bytes(end - at) + data[end:],
        data + special,
        special + data,
        data + data,
    ))


def _whole_files(rng: Random, files: Files) -> None:
    name, other = _name(rng, files), _name(rng, files)
    if name is None or other is None:
        return
    match rng.randrange(7):
        case 0:
            del files[name]
        case 1:
            files[name], files[other] = files[other], files[name]
        case 2:
            files[name] = files[other]
        case 3:
            files[name] = b""
        case 4:
            folder = name.rpartition("/")[0]
            files[f"{folder}/{rng.choice(('000000', '000001', '000003', '1000000', '00001'))}.jsonl"] = files[name]
        case 5:
            lane = rng.choice(("W0", "w1", "main", "a" * 65, "-", "w0"))
            files[f"audit/lanes/{lane}/{name.rpartition('/')[2]}"] = files[name]
        case 6:
            files[name] += rng.choice((bytes(2**20 - 1), bytes(2**20), bytes(2**20 + 1), bytes(2**20 + 2), b"\n" * 70))


def _renamed(rng: Random, files: Files) -> None:
    """A lane under the name of another."""
    lanes = sorted({name.split("/")[2] for name in files if name.startswith("audit/lanes/")})
    if not lanes:
        return
    old, new = rng.choice(lanes), rng.choice((*lanes, "w5", "W0"))
    for name in sorted(files):
        if name.startswith(f"audit/lanes/{old}/"):
            data = files.pop(name)
            files[f"audit/lanes/{new}/{name.rpartition('/')[2]}"] = data


def _note_bytes(rng: Random, files: Files) -> None:
    name = _name(rng, files, "checkpoints.note")
    if name is None:
        return
    lines = files[name].splitlines(keepends=True)
    at = rng.randrange(len(lines) + 1)
    new = rng.choice((b"\n", b"\xe2\x80\x94 x AAAA\n", b"\xe2\x80\x94 governor/x AAAAAAA=\n",
                      b"x" * (2**20 + 5) + b"\n", b"\xe2\x80\x94 ", b"\xe2", *lines[:4]))
    files[name] = b"".join([*lines[:at], new, *lines[at + rng.randrange(2) :]])


OF_FILES = (_bytes, _bytes, _bytes, _bytes, _whole_files, _renamed, _note_bytes, _note_bytes)
