#!/usr/bin/env python3
"""Verify a Governor audit log: one file, the standard library, `cryptography` and `blake3`, no code of Governor's.

    verify_log.py AUDIT_FOLDER --trust KEY

KEY is the verifier key of the log's root (NAME+KEYID+BASE64), a file holding one, or a trust.json. Written from the
section "The log" of kernel/README.md, so that it can be compared with that page rather than with the product.

Exit status: 0 verified, 1 tampered, 2 wrong usage or no log, 3 no key to trust was given, 4 incomplete, 5 rolled back.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import heapq
import json
import os
import re
import stat
import sys
from datetime import datetime
from pathlib import Path

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ENTRY = b"governor/audit/entry/v1\0"
CERTIFICATE = b"governor/audit/lane/v1\0"
POSSESSION = b"governor/audit/rotate/v1\0"
COMPROMISED = b"governor/audit/compromised/v1\0"
ZEROS = "0" * 64
MAX_LINE = 2**20
MAX_RAW = MAX_LINE - 121
MAX_NOTE_LINES = 64
PENDING = 4096
MAX_DEPTH = 32
MAX_BLOCKS = 2**15
LINE = re.compile(rb'\{"e":(.*),"kid":"([0-9a-f]{8})","sig":"([A-Za-z0-9+/]{86}==)"\}\n', re.DOTALL)
STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
LANE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
COMMON = {"v": int, "type": str, "seq": int, "prev": str, "ts": str, "mono_us": int, "lane": str}
SEGMENT = re.compile(r"[0-9]{6}\.jsonl")
RESULTS = {1: "tampered", 3: "not_pinned", 4: "incomplete", 5: "rolled_back"}


class Problem(Exception):
    """Something that does not hold; `code` is the exit status that says so."""

    def __init__(self, reason, code=1):
        super().__init__(reason)
        self.code = code


def require(holds, reason):
    if not holds:
        raise Problem(reason)


def unbase64(text):
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem("not base64") from None
    require(base64.b64encode(data).decode() == text, "base64 with unused bits set")
    return data


# Canonical form


def read_canonical(raw):
    """The value of canonical bytes."""
    require(len(raw) <= MAX_RAW, "longer than an entry can be")

    def pairs(items):
        value = dict(items)
        require(len(value) == len(items), "a key occurs twice")
        require(all(key.isascii() for key in value), "a key is not ASCII")
        return value

    def no_number(text):
        raise Problem(f"{text[:20]} is not an integer")

    try:
        value = json.loads(raw, object_pairs_hook=pairs, parse_float=no_number, parse_constant=no_number)
        check_bounds(value, MAX_DEPTH)
        same = canonical(value) == raw
    except (ValueError, RecursionError):
        raise Problem("not JSON") from None
    require(same, "not in canonical form")
    return value


def check_bounds(value, depth):
    if isinstance(value, int):
        require(abs(value) < 2**53, "an integer beyond 2^53-1")
    if isinstance(value, dict | list):
        require(depth > 0, "nested too deep")
        for item in value.values() if isinstance(value, dict) else value:
            check_bounds(item, depth - 1)


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# Keys and signatures


class Key:
    """A verifier key: NAME+KEYID+base64(0x01 || public key)."""

    def __init__(self, text):
        name, _, rest = text.strip().partition("+")
        kid, _, encoded = rest.partition("+")
        data = unbase64(encoded)
        require(name and len(data) == 33 and data[0] == 1, "not an Ed25519 verifier key")
        self.text, self.name, self.kid = text.strip(), name, kid
        self.id = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
        require(self.id.hex() == kid, "the key id does not belong to the key")
        self.public = Ed25519PublicKey.from_public_bytes(data[1:])

    def signed(self, signature, message):
        try:
            self.public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def root_log_id(key):
    found = re.fullmatch(r"governor/([0-9a-f]{16})", key.name)
    require(found, f"{key.name} is not the name of a root key")
    return found[1]


def trusted_key(text):
    path = Path(text)
    if path.is_file():
        text = path.read_text().strip()
        if text.startswith("{"):
            text = json.loads(text)["root"]
    key = Key(text.split("\n")[0])
    root_log_id(key)
    return key


# Tree and checkpoints


class Tree:
    """RFC 6962, as the roots of the complete subtrees from the largest to the smallest."""

    def __init__(self):
        self.size, self.peaks = 0, []

    def append(self, line):
        node, size = hashlib.sha256(b"\0" + line).digest(), self.size
        while size % 2:
            node, size = hashlib.sha256(b"\1" + self.peaks.pop() + node).digest(), size // 2
        self.peaks.append(node)
        self.size += 1

    def root(self):
        *larger, root = self.peaks
        for peak in reversed(larger):
            root = hashlib.sha256(b"\1" + peak + root).digest()
        return root


class Checkpoint:
    """A signed note: origin, size and root, an empty line, signature lines."""

    def __init__(self, text):
        require(not re.search(r"[\x00-\x09\x0b-\x1f]", text), "a control character in a note")
        body, empty, signatures = text.rpartition("\n\n")
        require(empty and signatures.endswith("\n"), "not a signed note")
        self.body, self.signatures = body + "\n", signatures[:-1].split("\n")
        lines = body.split("\n")
        require(len(lines) == 3 and re.fullmatch(r"[1-9][0-9]{0,18}", lines[1]), "not a checkpoint")
        self.origin, self.size, self.root = lines[0], int(lines[1]), unbase64(lines[2])
        require(len(self.root) == 32, "not a checkpoint")

    def check(self, key, beyond=False):
        """The signature of the key in force; beyond the lane's end a later key may have made it."""
        require(self.origin == key.name, f"a checkpoint of {self.origin}, not of {key.name}")
        good = beyond
        for line in self.signatures:
            found = re.fullmatch(r"\u2014 ([!-*,-~]+) ([A-Za-z0-9+/=]+)", line)
            require(found, "a malformed signature line")
            data = unbase64(found[2])
            require(len(data) > 4, "a malformed signature line")
            if found[1] == key.name and data[:4] == key.id:
                require(key.signed(data[4:], self.body.encode()), "the signature of a checkpoint does not verify")
                good = True
        require(good, "a checkpoint without the signature of the key in force")


def read_checkpoints(path):
    """The notes of checkpoints.note in order. A note goes on as long as signature lines come."""
    note, size, whole = [], 0, True
    for data in lines_in(path) if there(path) else ():
        require(whole and len(data) <= MAX_LINE, "a line of checkpoints.note is longer than one of a note can be")
        line = data.decode(errors="replace")
        whole, signs = line.endswith("\n"), line.startswith("\u2014 ")
        if note and note[-1].startswith("\u2014 ") and not signs:
            yield (found := Checkpoint("".join(note)))
            require(found.size >= size, "the sizes of the checkpoints decrease")
            note, size = [], found.size
        if whole:
            note.append(line)
        elif signs and note and note[-1].startswith("\u2014 "):
            # Its signature lines were still being written.
            note = []
        require(len(note) <= MAX_NOTE_LINES, "checkpoints.note holds something else than checkpoints")
    if note and note[-1].startswith("\u2014 "):
        found = Checkpoint("".join(note))
        require(found.size >= size, "the sizes of the checkpoints decrease")
        yield found
    else:
        require(note[3:] in ([], ["\n"]), "checkpoints.note ends in something that is no checkpoint")


def there(path):
    return path.exists() or path.is_symlink()


def opened(path):
    """A file that is one: reading a pipe or a device might never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file", str(path))
    return open(descriptor, "rb")


def lines_in(path):
    with opened(path) as file:
        yield from iter(lambda: file.readline(MAX_LINE + 1), b"")


# Lanes


def lines_of(folder):
    """(segment, line number, offset, line) of every line; a line may lack its LF where a segment ends."""
    offset, line = None, b"\n"
    for number, path in enumerate(sorted(path for path in folder.iterdir() if SEGMENT.fullmatch(path.name))):
        require(path.name == f"{number:06d}.jsonl", f"segment {number:06d}.jsonl is missing")
        require(offset != 0, f"the segment before {path.name} holds no entries")
        require(line.endswith(b"\n"), f"the segment before {path.name} ends in a line without its line feed")
        offset = 0
        for count, line in enumerate(lines_in(path), 1):
            yield path.name, count, offset, line
            offset += len(line)


class Lane:
    """One lane, verified from its first line to its last."""

    def __init__(self, folder, root, every):
        self.name, self.folder, self.root, self.every = folder.name, folder, root, every
        self.tree, self.head, self.key, self.genesis = Tree(), ZEROS, None, False
        # `signer` made the last entry; `key` makes the next one, and differs from it behind a key_rotate.
        self.signer, self.former = None, set()
        self.unsigned, self.place = [], ""
        self.segment, self.loss = "000000.jsonl", None
        # (ledger, number) of each lease that was granted, with the number of its entry.
        self.leases, self.blocks, self.broken = {}, set(), False

    def verify(self, minimum, claims):
        try:
            self.walk(minimum, claims)
        except Problem:
            # A bad signature before it is the better answer: it names the entry that was changed.
            self.check_signatures()
            raise

    def walk(self, minimum, claims):
        require(LANE.fullmatch(self.name), "not the name of a lane")
        kept = [] if minimum is None else [Checkpoint(minimum)]
        notes = heapq.merge(read_checkpoints(self.folder / "checkpoints.note"), kept, key=lambda note: note.size)
        note = next(notes, None)
        for segment, count, offset, line in lines_of(self.folder):
            self.place = f"{segment} line {count}, byte {offset}, entry {self.name}/{self.tree.size}"
            if not line.endswith(b"\n") and len(line) <= MAX_LINE:
                continue  # unfinished: the last of its segment
            self.take(segment, line)
            for head in claims.get(self.tree.size, ()):
                require(head == self.head, f"another lane recorded another head after {self.tree.size} entries")
            while note is not None and note.size == self.tree.size:
                self.compare(note)
                note = next(notes, None)
            if len(self.unsigned) >= PENDING:
                self.check_signatures()
        self.place = ""
        self.check_signatures()
        self.end([] if note is None else [note, *notes], claims)

    def take(self, segment, line):
        found = LINE.fullmatch(line)
        require(found and len(line) <= MAX_LINE, "not a line of the log")
        raw, kid, signature = found[1], found[2].decode(), unbase64(found[3].decode())
        entry = read_canonical(raw)
        require(isinstance(entry, dict), "an entry is an object")
        for name, kind in COMMON.items():
            require(type(entry.get(name)) is kind, f"{name} is missing or of another type")
        require(entry["v"] == 1, "v is not 1")
        require(entry["lane"] == self.name, "an entry of another lane")
        require(entry["seq"] == self.tree.size, f"seq is {entry['seq']}")
        require(entry["prev"] == self.head, "prev is not the hash of the entry before")
        check_stamp(entry["ts"])
        begins, self.segment = segment != self.segment, segment
        require(begins == (entry["type"] == "segment_open"), "segment_open is missing or out of place")
        if begins:
            check_beginning(entry, segment, self.tree)
        hashed = blake3(ENTRY + raw).digest()
        require(begins or self.signer is self.key or self.signer is None, "key_rotate is not the last of its segment")
        self.check_signer(entry, kid, hashed, signature)
        self.take_lease(entry)
        self.tree.append(line[:-1])
        self.head = hashed.hex()

    def check_signer(self, entry, kid, hashed, signature):
        if entry["type"] == "genesis":
            require(self.tree.size == 0, "genesis stands inside a lane")
            signer, self.genesis = genesis_key(entry, self.root), True
        elif entry["type"] == "lane_open":
            require(self.key is None, "lane_open stands inside a lane")
            signer = self.signer = self.key = lane_key(entry, self.name, self.root)
            self.loss = entry.get("loss")
        else:
            require(self.key is not None, "the lane does not begin with lane_open")
            require(kid == self.key.kid, "signed by a key that was not certified for this entry")
            if entry["type"] == "key_compromised":
                check_compromise(entry, self.loss, self.tree.size, self.root)
            signer = self.signer = self.key
            if entry["type"] != "key_rotate":
                self.unsigned.append((self.place, hashed, signature))
                if self.every:
                    self.check_signatures()
                return
        require(kid == signer.kid and signer.signed(signature, ENTRY + hashed), "the signature does not verify")
        if entry["type"] == "key_rotate":
            if self.every:
                self.check_signatures()
            # Its own signature covers everything before it, by the chain.
            self.unsigned.clear()
            self.former.add(self.key.text)
            self.key = next_key(entry, self.name, self.key, self.former)

    def take_lease(self, entry):
        pool, number = entry.get("pool"), entry.get("lease")
        if entry["type"] != "lease" or entry.get("act") != "granted" or number is None:
            return
        good = type(number) is int and number > 0 and isinstance(pool, str) and len(pool) <= 64
        require(good, "a lease has the id of its ledger and a number from 1 on")
        require((pool, number) not in self.leases, f"lease {number} was granted before")
        self.leases[pool, number] = self.tree.size
        self.blocks.add((pool, number // 4096))
        require(len(self.blocks) <= most_blocks(len(self.leases)), "the numbers of leases leap")

    def check_signatures(self):
        unsigned, self.unsigned = self.unsigned, []
        for place, hashed, signature in unsigned:
            if not self.signer.signed(signature, ENTRY + hashed):
                self.place = place
                raise Problem("the signature does not verify")

    def compare(self, note):
        if self.signer is not None:
            note.check(self.signer)
        require(note.root == self.tree.root(), f"the tree of the first {note.size} lines has another root")
        self.unsigned.clear()

    def end(self, beyond, claims):
        for note in beyond:
            if self.key is not None:
                note.check(self.key, beyond=True)
        if beyond or any(entries > self.tree.size for entries in claims):
            raise Problem(f"the lane ends after {self.tree.size} entries, and more are known of", 5)
        if self.tree.size == 0:
            raise Problem("the lane holds no entries", 4)


def check_stamp(text):
    require(STAMP.fullmatch(text), "ts is not a timestamp")
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise Problem("ts is not a timestamp") from None


def check_beginning(entry, segment, tree):
    """segment_open tells the roots of the complete subtrees over the entries before it, smallest first."""
    roots = iter(reversed(tree.peaks))
    nodes = [next(roots).hex() if tree.size >> level & 1 else None for level in range(tree.size.bit_length())]
    same = entry.get("segment") == segment and entry.get("entries") == tree.size and entry.get("tree") == nodes
    require(same, "segment_open tells another tree than the entries before it make")


def genesis_key(entry, root):
    named = Key(str(entry.get("root")))
    log_id = root_log_id(named)
    require(entry.get("log_id") == log_id and entry.get("origin") == named.name, "genesis does not agree with itself")
    require(root is None or named.text == root.text, "genesis names another root key")
    return named


def lane_key(entry, lane, root):
    key = Key(str(entry.get("key")))
    siblings_of(entry)
    if root is None:
        return key
    log_id = root_log_id(root)
    require(key.name == f"governor/{log_id}/{lane}", "the lane's key has another name")
    message = CERTIFICATE + canonical({"key": key.text, "lane": lane, "log_id": log_id})
    require(root.signed(unbase64(str(entry.get("certificate"))), message), "the root did not certify the lane's key")
    return key


def next_key(entry, lane, current, former):
    """The key that a key_rotate brings: of the same name, new to the lane, its holder's signature under its place."""
    key = Key(str(entry.get("key")))
    require(key.name == current.name, "the next key has another name")
    require(key.text not in former, "a key that this lane had before")
    log_id = key.name.split("/")[1]
    fields = {"key": key.text, "lane": lane, "log_id": log_id, "prev": entry["prev"], "seq": entry["seq"]}
    proof = unbase64(str(entry.get("proof")))
    require(key.signed(proof, POSSESSION + canonical(fields)), "the holder of the next key did not sign")
    return key


def siblings_of(entry):
    siblings = entry.get("siblings")
    require(isinstance(siblings, list), "siblings is not a list")
    for sibling in siblings:
        good = isinstance(sibling, dict) and type(sibling.get("entries")) is int and sibling["entries"] >= 0
        good = good and isinstance(sibling.get("lane"), str) and LANE.fullmatch(sibling["lane"])
        good = good and re.fullmatch(r"[0-9a-f]{64}", str(sibling.get("head")))
        require(good, "siblings holds something else")
        require(sibling["entries"] > 0 or sibling["head"] == ZEROS, "siblings holds something else")
    recorded = {sibling["lane"]: (sibling["entries"], sibling["head"]) for sibling in siblings}
    require(len(recorded) == len(siblings), "siblings names a lane twice")
    if entry.get("loss") is not None:
        lane, entries, head = loss_of(entry)
        recorded[lane] = (entries, head)
    return recorded


def loss_of(entry):
    """What a lane that succeeds another says of it, in the form of a sibling's claim."""
    loss, text = entry["loss"], ("lane", "head", "result", "reason", "operator", "by", "found")
    good = isinstance(loss, dict) and loss.keys() == {*text, "entries", "state"}
    good = good and all(isinstance(loss[name], str) for name in text) and type(loss["entries"]) is int
    require(good, "loss is not what is known of a lane")
    require(LANE.fullmatch(loss["lane"]) and succeeds(entry["lane"], loss["lane"]), "loss names another lane")
    require(loss["entries"] >= 0 and re.fullmatch(r"[0-9a-f]{64}", loss["head"]), "loss has no head")
    require(loss["entries"] > 0 or loss["head"] == ZEROS, "loss has no head")
    require(loss["result"] in {"tampered", "rolled_back", "incomplete", "key_compromised"}, "loss of an unknown kind")
    require(loss["state"] is None or re.fullmatch(r"[0-9a-f]{64}", str(loss["state"])), "loss names no state")
    return loss["lane"], loss["entries"], loss["head"]


def check_compromise(entry, loss, place, root):
    """The second entry of a lane in the place of one whose key is in other hands: the root's word, of the same head."""
    said = {"lane": entry.get("of"), "entries": entry.get("entries"), "head": entry.get("head")}
    same = place == 1 and loss is not None and loss["result"] == "key_compromised"
    require(same and all(loss[name] == value for name, value in said.items()), "key_compromised is out of place")
    require(isinstance(entry.get("kid"), str), "key_compromised names no key")
    if root is not None:
        message = COMPROMISED + canonical(said | {"kid": entry["kid"], "log_id": root_log_id(root)})
        require(root.signed(unbase64(str(entry.get("statement"))), message), "key_compromised is not the root's word")


def succeeds(successor, lane):
    """main-1 goes on in the place of main, main-2 in that of main-1."""
    found = re.fullmatch(r"(.+)-([1-9][0-9]{0,8})", successor)
    return bool(found) and lane == (found[1] if found[2] == "1" else f"{found[1]}-{int(found[2]) - 1}")


# The whole log


def openings(folders):
    """The root key that genesis names, and what the lanes' openings recorded of each other, before any check.

    What was recorded: {lane: {entries: [head, ...]}}.
    """
    root, recorded = None, {}
    for folder in folders:
        try:
            for (_, _, _, line), _ in zip(lines_of(folder), range(2), strict=False):
                entry = read_canonical(LINE.fullmatch(line)[1])
                if entry["type"] == "genesis":
                    root = root or genesis_key(entry, None)
                elif entry["type"] == "lane_open":
                    for name, (entries, head) in siblings_of(entry).items():
                        recorded.setdefault(name, {}).setdefault(entries, []).append(head)
        except (Problem, TypeError, KeyError):
            continue  # told, with its place, when the lane is verified
    return root, recorded


def read_file(path, what):
    if not there(path):
        return None
    with opened(path) as file:
        data = file.read(MAX_LINE + 1)
    try:
        value = read_canonical(data.removesuffix(b"\n"))
    except Problem as problem:
        raise Problem(f"{what}: {problem}") from None
    require(isinstance(value, dict), f"{what}: not an object")
    return value


def verify(audit, trusted, every=False):
    """Every problem as (exit status, text), gravest first, and the number of entries."""
    problems, entries, beginnings = [], 0, []
    folders = sorted(path for path in audit.glob("lanes/*") if path.is_dir())
    named, recorded = openings(folders)
    stated, minimum = None, {}
    try:
        stated = trust_root(audit)
    except Problem as problem:
        problems.append((1, str(problem)))
    root = trusted or stated or named
    try:
        minimum = minimum_notes(audit.parent, root)
    except Problem as problem:
        problems.append((1, str(problem)))
    if stated is not None and root is not None and stated.text != root.text:
        problems.append((1, "trust.json names another root key"))
    lanes = [Lane(folder, root, every) for folder in folders]
    for lane in lanes:
        try:
            lane.verify(minimum.get(lane.name), recorded.get(lane.name, {}))
        except Problem as problem:
            lane.broken = True
            place = f"{lane.place}: " if lane.place else ""
            problems.append((problem.code, f"lane {lane.name}: {place}{problem}"))
        entries += lane.tree.size
        beginnings += [lane.name] if lane.genesis else []
    problems += missing(folders, recorded.keys() | minimum.keys(), beginnings)
    problems += lease_problems(lanes)
    return sorted(problems, key=lambda problem: (1, 5, 4).index(problem[0])), entries


def trust_root(audit):
    stated = read_file(audit / "trust.json", "trust.json")
    if stated is None:
        return None
    root = Key(str(stated.get("root")))
    require(stated.keys() == {"anchors", "log_id", "origin", "root"}, "trust.json: other fields than it has")
    agrees = stated["log_id"] == root_log_id(root) and stated["origin"] == root.name
    require(agrees and isinstance(stated["anchors"], list), "trust.json does not agree with itself")
    return root


def minimum_notes(home, root):
    stated = read_file(home / "minimum.json", "minimum.json")
    if stated is None:
        return {}
    require(stated.get("v") == 1 and isinstance(stated.get("lanes"), dict), "minimum.json: expected v 1 and lanes")
    require(root is None or stated.get("log_id") == root_log_id(root), "minimum.json belongs to another log")
    return {name: str(note) for name, note in stated["lanes"].items()}


def missing(folders, known, beginnings):
    if len(beginnings) > 1:
        yield 1, f"genesis stands in {' and '.join(beginnings)}"
    present = {folder.name for folder in folders}
    for name in sorted(known - present):
        yield 4, f"lane {name}: absent"
    if not beginnings:
        yield 4, "no lane begins with genesis"


def most_blocks(leases):
    return MAX_BLOCKS + leases // 8


def lease_problems(lanes):
    """Numbers in two lanes, and in none where every lane holds."""
    seen, blocks = {}, set()
    for lane in lanes:
        for pool, number in sorted(lane.leases.keys() & seen.keys())[:1]:
            entry = f"entry {lane.name}/{lane.leases[pool, number]}"
            yield 1, f"{entry}: lease {number} stands in lane {seen[pool, number]}, too"
        seen |= dict.fromkeys(lane.leases, lane.name)
        blocks |= lane.blocks
    if len(blocks) > most_blocks(sum(len(lane.leases) for lane in lanes)):
        yield 1, "the numbers of leases leap"
    if any(lane.broken for lane in lanes):
        return
    numbers = {number for _, number in seen}
    lacking = next((number for number in range(1, max(numbers, default=0)) if number not in numbers), None)
    if lacking is not None:
        yield 4, f"lease {lacking} stands in no lane"


def shown(text):
    return text.encode("unicode_escape").decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audit", metavar="AUDIT_FOLDER", type=Path)
    parser.add_argument("--trust", metavar="KEY")
    parser.add_argument("--every-signature", action="store_true")
    arguments = parser.parse_args()
    if not arguments.audit.is_dir():
        parser.error(f"{arguments.audit}: no such folder")
    try:
        trusted = trusted_key(arguments.trust) if arguments.trust else None
    except (Problem, OSError, ValueError, KeyError, TypeError) as problem:
        parser.error(f"--trust: {problem}")
    try:
        problems, entries = verify(arguments.audit.resolve(), trusted, arguments.every_signature)
    except OSError as error:
        parser.error(f"{shown(str(error.filename))}: {error.strerror}")
    if not problems and trusted is None:
        problems = [(3, "everything holds, but no --trust says whose log this is")]
    for code, reason in problems:
        print(f"{RESULTS[code]}: {shown(reason)}")
    if not problems:
        print(f"verified: {entries} entries")
    return problems[0][0] if problems else 0


if __name__ == "__main__":
    sys.exit(main())
