"""The journal of a lane: entries in, durable signed lines out. One thread at a time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from addons import codec
from addons.segment import Segment, segment_name
from kernel import chain, entry, note
from kernel.errors import CanonicalError
from kernel.merkle import Tree, leaf_hash
from kernel.verdict import Code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from addons.keys import SigningKey
    from addons.lane_keys import LaneKeys

SALT_BYTES = 32
KEY_ROTATE = "key_rotate"

type Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that stands in the log as a commitment, with the salt that the commitment needs."""

    seq: int
    name: str
    salt: bytes
    value: str
    """Canonical, as it was hashed; of a `Veiled` value the array of what is kept in its place."""


@dataclass(frozen=True, slots=True)
class Veiled:
    """A value that is committed to and not kept. The vault has `instead`."""

    value: str
    instead: tuple[str, ...]


type Secrets = Mapping[str, str | Veiled]


class Draft:
    """An entry that was asked for: everything but its place in the chain. `waiter` learns when it is durable."""

    __slots__ = ("fields", "kind", "mono_ns", "refused", "secrets", "seq", "waiter")

    def __init__(self, seq: int, kind: str, fields: Fields, secrets: Secrets | None, waiter: Any,
                 at: Moment | None = None) -> None:
        self.seq, self.kind, self.fields, self.secrets, self.waiter = seq, kind, fields, secrets, waiter
        self.mono_ns = time.monotonic_ns() if at is None else at.mono_ns
        self.refused: CanonicalError | None = None


def drafts(bodies: Sequence[entry.Body], first: int) -> list[Draft]:
    """The bodies as drafts with the numbers from `first` on."""
    return [Draft(first + at, str(body["type"]), body, None, None) for at, body in enumerate(bodies)]


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment on the monotonic clock, and the microseconds since 1970 that an entry of it says."""

    mono_ns: int
    micros: int


class Clock:
    """Wall time at the start plus the monotonic clock: it never jumps while the process runs."""

    def __init__(self) -> None:
        self._offset_us = (time.time_ns() - time.monotonic_ns()) // 1000
        self._second, self._prefix = -1, ""

    def now(self) -> Moment:
        mono_ns = time.monotonic_ns()
        return Moment(mono_ns, self._offset_us + mono_ns // 1000)

    def timestamp(self, mono_us: int) -> str:
        """The moment at which the monotonic clock showed `mono_us`, as the log writes it."""
        second, micros = divmod(self._offset_us + mono_us, 1_000_000)
        if second != self._second:
            self._second, self._prefix = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{micros:06d}Z"


@dataclass(frozen=True, slots=True)
class Past:
    """What a lane's entries from before tell whoever goes on with it."""

    last_ts: str = ""
    """The time of the newest; "" where there is none."""
    policy: str | None = None
    """The digest of the policy in force at the end, as far as the last segment tells."""
    began_us: int | None = None
    """When the last segment began, in microseconds since 1970; None where it has no entry yet."""


class Journal:
    """A lane's log at its end: where the chain stands, and the tree over its lines. `past` is that of the opening."""

    def __init__(self, lane: str, keys: LaneKeys, segment: Segment, tree: Tree, prev: str, past: Past) -> None:
        self.lane, self.keys, self.segment, self.tree, self.past = lane, keys, segment, tree, past
        self.marks: Fields = {}
        """What stands in every entry besides."""
        self._prev = prev
        self._clock = Clock()
        self._ended = keys.following is not None
        self._began_us = self.now().micros if past.began_us is None else past.began_us

    @property
    def size(self) -> int:
        """How many entries are durable; the next one has this number."""
        return self.tree.size

    @property
    def head(self) -> str:
        """The hash of the last durable entry."""
        return self._prev

    def append(self, drafts: Sequence[Draft], key: SigningKey | None = None) -> list[Secret]:
        """Make the drafts durable, in their order, in one write; the secrets are for the vault.

        A draft that has no canonical form leaves a `fault` in its place and its error in `refused`.
        """
        key = key or self.keys.current
        kid, sign, prev = key.kid, key.sign, self._prev
        secrets: list[Secret] = []
        lines = []
        for draft in drafts:
            raw = self._encode(draft, prev, secrets)
            hashed = chain.entry_hash(raw)
            lines.append(chain.line(raw, kid, sign(chain.signed_bytes(hashed))))
            prev = hashed.hex()
        self.segment.append(b"".join(lines))
        self._prev, self._ended = prev, drafts[-1].kind == KEY_ROTATE
        self.tree.extend([leaf_hash(line[:-1]) for line in lines])
        return secrets

    @property
    def ended(self) -> bool:
        """Whether the last durable entry is a key_rotate: nothing may follow it in its segment."""
        return self._ended

    @property
    def age_seconds(self) -> int:
        """How long ago the segment began."""
        return (self.now().micros - self._began_us) // 1_000_000

    @property
    def beginning(self) -> entry.Body | None:
        """What must be the next entry: the `segment_open` of a later segment that has no entry yet. None elsewhere."""
        if self.segment.size or not self.segment.number:
            return None
        return entry.segment_open(self.segment.path.name, self.tree)

    def certify(self, reason: str) -> entry.Body:
        """The key_rotate that must be the very next entry: it ends the segment, and brings the key of the next one."""
        return self.keys.certify(reason, self._prev, self.size)

    def rotate(self) -> None:
        """Go on in the next segment, with its key. All that was appended is durable in those before it."""
        segment = Segment.create(self.segment.path.with_name(segment_name(self.segment.number + 1)))
        self.segment.close()
        self.segment = segment
        self._began_us = self.now().micros
        self.keys.turn()

    def checkpoint(self) -> str:
        """The signed note of the log's head."""
        key = self.keys.current
        return key.sign_note(note.checkpoint_body(key.name, self.tree.size, self.tree.root()))

    def now(self) -> Moment:
        """The present moment."""
        return self._clock.now()

    def timestamp(self, draft: Draft | None = None) -> str:
        """The moment of a draft, or the present one, as the log writes it."""
        return self._clock.timestamp((time.monotonic_ns() if draft is None else draft.mono_ns) // 1000)

    def _encode(self, draft: Draft, prev: str, secrets: list[Secret]) -> bytes:
        try:
            body = self._body(draft, draft.kind, draft.fields, prev)
            if draft.secrets:
                body["in"] = _committed(draft, body["in"], secrets)
            return codec.encode(body)
        except CanonicalError as refused:
            # The number is given out and others follow it: its place must hold an entry, or the chain has a gap.
            draft.refused = refused
            flow = draft.fields.get("flow")
            shown = flow if isinstance(flow, str) and flow.isascii() and len(flow) <= 64 else None
            fault = entry.fault("lane", type(refused).__name__, Code.FAULT, shown)
            return codec.encode(self._body(draft, "fault", fault, prev))

    def _body(self, draft: Draft, kind: str, fields: Fields, prev: str) -> dict[str, Any]:
        mono_us = draft.mono_ns // 1000
        return {
            **fields,
            **self.marks,
            "v": entry.VERSION,
            "type": kind,
            "seq": draft.seq,
            "prev": prev,
            "ts": self._clock.timestamp(mono_us),
            "mono_us": mono_us,
            "lane": self.lane,
        }


def _committed(draft: Draft, facts: Mapping[str, Any], secrets: list[Secret]) -> dict[str, Any]:
    """The facts with a commitment in the place of each secret."""
    assert draft.secrets is not None
    committed = dict(facts)
    for name, value in draft.secrets.items():
        salt = os.urandom(SALT_BYTES)
        canonical = codec.encode(value.value if isinstance(value, Veiled) else value)
        committed[f"{name}$c"] = entry.commitment(salt, name, canonical)
        kept = codec.encode(list(value.instead)) if isinstance(value, Veiled) else canonical
        secrets.append(Secret(draft.seq, name, salt, kept.decode()))
    return committed
