"""Logs with fixed keys and dates, built with the kernel's own functions, in memory."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kernel import canonical, chain, entry, merkle, note
from kernel.canonical import Value
from kernel.trust import Minimum, TrustFile, minimum_file, parse_trust_file, trust_file
from kernel.verify import Anchors
from kernel.walk import Source

LOG_ID = "00112233445566ff"
START = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
KERNEL = entry.kernel_identity("1.0.0", "5a" * 32)
POLICY = "c0" * 32
POOL = "5ec0ffee5ec0ffee"


class Key:
    """A signing key that depends on nothing but its seed."""

    def __init__(self, name: str, seed: str = "") -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(sha256(f"{seed}{name}".encode()).digest())
        self.verifier = note.VerifierKey(name, self._private.public_key().public_bytes_raw())
        self.sign = self._private.sign

    def line(self, raw: bytes) -> bytes:
        """The line of the log that holds this entry, signed."""
        return chain.line(raw, self.verifier.kid, self.sign(chain.signed_bytes(chain.entry_hash(raw))))


ROOT = Key(note.root_name(LOG_ID))


def verify_signature(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass
class Lane:
    """A lane that is being written. Files are values here: `lines` and `notes` can be changed at will."""

    name: str
    root: Key = ROOT
    seed: str = ""
    lines: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tail: bytes = b""
    starts: list[int] = field(default_factory=lambda: [0])
    """The number of the first line of each segment."""

    def __post_init__(self) -> None:
        self.log_id = self.root.verifier.name.removeprefix("governor/")
        self.key = Key(note.lane_name(self.log_id, self.name), self.seed)
        self.keys = [self.key]
        self.tree = merkle.Tree()
        self.head = chain.GENESIS_PREV

    def add(self, body: dict[str, Value], key: Key | None = None) -> str:
        """Write one entry and return its name."""
        seq = self.tree.size
        moment = entry.timestamp(START + timedelta(milliseconds=37 * seq))
        value = entry.common(str(body["type"]), seq, self.head, moment, 1_000_000 + 37_000 * seq, self.name) | body
        return self.add_raw(canonical.encode(value), key)

    def add_raw(self, raw: bytes, key: Key | None = None) -> str:
        line = (key or self.key).line(raw)
        self.lines.append(line)
        self.tree.append(merkle.leaf_hash(line[:-1]))
        self.head = chain.entry_hash(raw).hex()
        return f"{self.name}/{self.tree.size - 1}"

    def open(self, *, first: bool = False, siblings: Iterable[Lane] = ()) -> Lane:
        root = self.root.verifier
        if first:
            self.add(entry.genesis(self.log_id, root.name, str(root), entry.timestamp(START), "1.0.0"), self.root)
        key = str(self.key.verifier)
        certificate = self.root.sign(entry.certificate_bytes(self.log_id, self.name, key))
        recorded = [entry.sibling(other.name, other.tree.size, other.head) for other in siblings]
        self.add(entry.lane_open(key, base64.b64encode(certificate).decode(), KERNEL, recorded))
        return self

    def lease(self, *numbers: int, pool: str = POOL) -> Lane:
        """Leases of a budget as they are granted by a ledger."""
        for number in numbers:
            self.add(entry.lease("granted", pool, number, ("team", "requests", ""), 81920, 64, 128))
        return self

    def rotate(self) -> Lane:
        self.starts.append(len(self.lines))
        self.add(entry.segment_open(f"{len(self.starts) - 1:06d}.jsonl", self.tree))
        return self

    def renew(self, reason: str = "size") -> Lane:
        """End the segment with the next key, and begin one that it signs."""
        following = Key(self.key.verifier.name, f"{self.seed}{len(self.starts)}")
        self.add(self.rotation(following, reason))
        self.keys.append(following)
        self.key = following
        return self.rotate()

    def rotation(self, following: Key, reason: str = "size") -> dict[str, Value]:
        key = str(following.verifier)
        proof = following.sign(entry.possession_bytes(self.log_id, self.name, key, self.head, self.tree.size))
        return entry.key_rotate(key, base64.b64encode(proof).decode(), reason)

    def segments(self) -> list[tuple[str, list[bytes]]]:
        """Each segment's name and lines."""
        ends = [*self.starts[1:], len(self.lines)]
        return [(f"{number:06d}.jsonl", self.lines[start:end])
                for number, (start, end) in enumerate(zip(self.starts, ends, strict=True))]

    def checkpoint(self) -> Lane:
        name, public = self.key.verifier.name, self.key.verifier.public
        body = note.checkpoint_body(name, self.tree.size, self.tree.root())
        self.notes.append(note.sign(body, name, public, self.key.sign))
        return self

    def traffic(self, flows: int) -> Lane:
        """Decisions and outcomes as they come from real requests."""
        for number in range(flows):
            flow = f"0193b6c1-5a5a-7bbb-8ccc-{self.tree.size:012x}"
            decided = self.add(decision(flow, number))
            if number % 4 != 3:
                self.add(entry.outcome(flow, decided, "completed", 200, 312 + number, 20480 + number))
        return self


def decision(flow: str, number: int = 0, verdict: str = "") -> dict[str, Value]:
    allowed = verdict == "allow" if verdict else number % 4 != 3
    salt = sha256(flow.encode()).digest()
    path = entry.commitment(salt, "path", canonical.encode(f"/repos/acme/{number}"))
    facts = entry.request_facts("GET", "https", "api.example.org", 443, path, "192.0.2.7", 0, "application/json")
    rule, code = ("read-our-repos", "ALLOW") if allowed else (None, "DEFAULT_DENY")
    return entry.decision(
        stage="request",
        flow=flow,
        agent="coder-1" if number % 2 else "claude-2",
        by="proxy-auth",
        policy=POLICY,
        facts=facts,
        groups=["read-our-repos"] if allowed else [],
        verdict="allow" if allowed else "deny",
        rule=rule,
        code=code,
        reason="rule read-our-repos allows GET" if allowed else "no rule allows this",
        mode="enforce",
    )


@dataclass
class Log:
    """A whole log: its lanes, and what lies beside them (None: absent)."""

    lanes: list[Lane]
    trust: bytes | None = field(default_factory=lambda: trust_file(ROOT.verifier))
    minimum: bytes | None = None

    def files(self) -> dict[str, bytes]:
        """Path below the home, and content."""
        files = {}
        for lane in self.lanes:
            for name, lines in lane.segments():
                files[f"audit/lanes/{lane.name}/{name}"] = b"".join(lines)
            files[f"audit/lanes/{lane.name}/{name}"] += lane.tail
            files[f"audit/lanes/{lane.name}/checkpoints.note"] = "".join(lane.notes).encode()
        if self.trust is not None:
            files["audit/trust.json"] = self.trust
        if self.minimum is not None:
            files["minimum.json"] = self.minimum
        return files

    def write(self, home: Path) -> Path:
        (home / "audit" / "lanes").mkdir(parents=True)
        for name, data in self.files().items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(data)
        return home

    def raise_minimum(self) -> Log:
        notes = {lane.name: lane.notes[-1] for lane in self.lanes if lane.notes}
        self.minimum = minimum_file(Minimum(LOG_ID, notes))
        return self


def two_lanes() -> Log:
    """A valid log: lane main from genesis to close, lane w0 opened in the middle of it and still open."""
    main = Lane("main").open(first=True)
    main.add(entry.policy_load(POLICY, ["default.yaml"], "enforce", KERNEL))
    main.checkpoint().traffic(3)
    other = Lane("w0").open(siblings=[main]).traffic(2).checkpoint().traffic(1)
    main.traffic(2).add(entry.fault("request", "ValueError", "FAULT", None))
    main.add(entry.close("stopped"))
    main.checkpoint()
    return Log([main, other]).raise_minimum()


def three_segments() -> Log:
    """A valid log whose lane has three segments; heads are signed within the second, and at the end."""
    main = Lane("main").open(first=True).traffic(3).rotate().traffic(2).checkpoint().traffic(1).rotate().traffic(2)
    main.add(entry.state_snapshot(main.tree.size - 1, "d5" * 32, 4096, 2, 3))
    return Log([main.checkpoint()]).raise_minimum()


def three_keys() -> Log:
    """A valid log whose lane has three segments with a key each; heads are signed in the first and the second."""
    main = Lane("main").open(first=True).traffic(3).checkpoint().traffic(2).renew("size")
    main.traffic(2).checkpoint().traffic(1).renew("time").traffic(2)
    return Log([main]).raise_minimum()


def leased() -> Log:
    """A valid log of two processes that have leased by turns from one ledger, and settled one lease."""
    main = Lane("main").open(first=True).traffic(2)
    other = Lane("w0").open(siblings=[main]).lease(2).traffic(2).lease(3).checkpoint()
    main.lease(1).traffic(1).lease(4).traffic(1)
    main.add(entry.lease("settled", POOL, 1, ("team", "requests", ""), 81920, 60, 128))
    main.add(entry.lease("refused", POOL, None, ("team", "requests", ""), 81920, 0, 1000))
    main.checkpoint()
    other.lease(5).traffic(1).checkpoint()
    return Log([main, other]).raise_minimum()


def source(lane: Lane) -> Source:
    def segments() -> list[tuple[str, list[bytes]]]:
        *earlier, (name, lines) = lane.segments()
        return [*earlier, (name, [*lines, lane.tail] if lane.tail else lines)]

    notes = "".join(lane.notes).encode().splitlines(keepends=True)
    return Source(lane.name, segments, lambda: notes)


def stated(trust: bytes | None) -> TrustFile | None:
    return None if trust is None else parse_trust_file(trust)


PINNED = Anchors(trusted=ROOT.verifier)
