"""The keys of a lane: the first certified by the root, each later one by the one before it.

A key signs from its first entry up to the `key_rotate` that certifies the next, and nothing beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from kernel.canonical import Value
from kernel.chain import entry_hash, signed_bytes, split
from kernel.entry import certificate_bytes, possession_bytes
from kernel.errors import ChainError, NoteError
from kernel.note import VerifierKey, Verify, base64_bytes, lane_name
from kernel.opening import fields_of, key_in
from kernel.trust import log_id_of

type _Parse = Callable[[bytes], Value]

_NAME_PARTS = len(lane_name("", "").split("/"))


class KeyChain:
    """The keys of one lane as its entries bring them. Without `root` the first is taken as it comes."""

    __slots__ = ("_had", "_keys", "_lane", "_root", "_verify")

    def __init__(self, lane: str, root: VerifierKey | None, verify: Verify) -> None:
        self._lane, self._root, self._verify = lane, root, verify
        self._keys: list[tuple[int, VerifierKey]] = []
        self._had: set[bytes] = set()

    @property
    def current(self) -> VerifierKey | None:
        """The key that signs the next entry; None before lane_open."""
        return self._keys[-1][1] if self._keys else None

    @property
    def first_seq(self) -> int:
        """The first entry of the current key; -1 before lane_open."""
        return self._keys[-1][0] if self._keys else -1

    def begin(self, entry: Value) -> VerifierKey:
        """Take the key of lane_open, which it signs itself; `ChainError` where the root did not certify it."""
        if self._keys:
            raise ChainError("lane_open stands at the beginning of a lane, once")
        fields = fields_of(entry)
        key = _key(fields)
        if self._root is not None:
            log_id = self._named(key, self._root)
            if not self._verify(self._root.public, _signature(fields, "certificate"),
                                certificate_bytes(log_id, self._lane, str(key))):
                raise ChainError("the lane's key is not certified by the root key")
        self._take(_seq(fields), key)
        return key

    def rotate(self, entry: Value) -> VerifierKey:
        """Take the key of key_rotate, an entry that the current key signed; it signs from the next entry on."""
        fields = fields_of(entry)
        if not self._keys:
            raise ChainError("key_rotate stands before lane_open")
        key, seq = _key(fields), _seq(fields)
        if self._root is not None:
            self._named(key, self._root)
        log_id = key.name.split("/")[1]
        if not self._verify(key.public, _signature(fields, "proof"),
                            possession_bytes(log_id, self._lane, str(key), str(fields.get("prev")), seq)):
            raise ChainError("key_rotate brings a key whose holder did not sign: no proof of possession")
        if key.public in self._had:
            raise ChainError("key_rotate brings a key that this lane had before")
        self._take(seq + 1, key)
        return key

    def signer_of(self, seq: int) -> VerifierKey | None:
        """The key that signs entry `seq`; None before lane_open."""
        return next((key for first, key in reversed(self._keys) if first <= seq), None)

    def ranges(self, entries: int) -> Iterator[tuple[VerifierKey, int, int]]:
        """Each key with the first and the last of the entries that it signs, of a lane of that many entries."""
        ends = [*self._keys, (entries, self._keys[-1][1])] if self._keys else []
        for (first, key), (end, _) in pairwise(ends):
            if first < end:
                yield key, first, end - 1

    def _take(self, first: int, key: VerifierKey) -> None:
        self._keys.append((first, key))
        self._had.add(key.public)

    def _named(self, key: VerifierKey, root: VerifierKey) -> str:
        log_id = log_id_of(root)
        expected = lane_name(log_id, self._lane)
        if key.name != expected:
            raise ChainError(f"the lane's key is named {key.name}, expected {expected}")
        return log_id


def certified(lines: Iterable[bytes], lane: str, root: VerifierKey | None, verify: Verify, parse: _Parse,
              *, before: int | None = None) -> KeyChain:
    """The chain that the lane_open line and the key_rotate lines of a lane make (LFs included), standing alone.

    Each is checked as it is in its lane, but for what lies between them; else `ChainError` or `CanonicalError`. Those
    of entry `before` and later are left out.
    """
    keys, last = KeyChain(lane, root, verify), -1
    for line in lines:
        raw, kid, signature = split(line)
        entry = parse(raw)
        fields = fields_of(entry)
        kind, seq = fields.get("type"), _seq(fields)
        if before is not None and seq >= before:
            break
        if fields.get("lane") != lane or seq <= last:
            raise ChainError("the lines that bring keys are not those of one lane in their order")
        if kind == "genesis":
            last = seq
            continue
        signer = keys.begin(entry) if kind == "lane_open" else keys.current
        if signer is None or kind not in ("lane_open", "key_rotate"):
            raise ChainError("expected lane_open, then key_rotate")
        if kid != signer.kid or not verify(signer.public, signature, signed_bytes(entry_hash(raw))):
            raise ChainError(f"the signature of {kind} does not verify")
        if kind == "key_rotate":
            keys.rotate(entry)
        last = seq
    return keys


def _seq(fields: dict[str, Value]) -> int:
    seq = fields.get("seq")
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 0:
        raise ChainError("seq is not a number")
    return seq


def _key(fields: dict[str, Value]) -> VerifierKey:
    key = key_in(fields, "key")
    if len(key.name.split("/")) != _NAME_PARTS:
        raise ChainError(f"key: {key.name} is not the name of a lane's key")
    return key


def _signature(fields: dict[str, Value], name: str) -> bytes:
    try:
        return base64_bytes(str(fields.get(name)))
    except NoteError as error:
        raise ChainError(f"{name}: {error}") from None
