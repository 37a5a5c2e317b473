"""The private keys of a lane: one a segment, made before the one before it certifies it, and destroyed after its own.

The order is safe against a crash at any point: the next key is durable beside the old one before `key_rotate` names it,
and takes its place only when the segment that it signs has begun. Which of the two signs next, the log says.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

from addons import durable
from addons.errors import StartCode, StartRefused
from addons.keys import SigningKey
from kernel import entry, note

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from addons.home import Home


class LaneKeys:
    """The keys of one lane. `current` signs; `following`, where there is one, is to sign from the next segment on."""

    def __init__(self, home: Home, lane: str, current: SigningKey, following: SigningKey | None = None) -> None:
        self._log_id, self._lane = home.log_id, lane
        self._path, self._next = home.paths.lane_key(lane), home.paths.next_key(lane)
        self.current = current
        self.following = following

    def certify(self, reason: str, prev: str, seq: int) -> entry.Body:
        """Make the next key; the key_rotate entry of this place in the chain, by which the current one certifies it."""
        self.following = following = SigningKey.create(self._next, self.current.name)
        message = entry.possession_bytes(self._log_id, self._lane, following.verifier_key, prev, seq)
        return entry.key_rotate(following.verifier_key, base64.b64encode(following.sign(message)).decode(), reason)

    def turn(self) -> None:
        """Sign with the key that was certified from now on."""
        if self.following is not None:
            self.current, self.following = self.following, None

    def settle(self) -> None:
        """Destroy the key before: the segment of the current one is durable. Nothing where that was done before."""
        if not os.path.lexists(self._next):
            return
        before = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.rename(self._next, self._path)
            durable.sync_folder(self._path.parent)
            # It has no name any more. What of it a disk still holds is more than can be promised here.
            durable.write_all(before, bytes(os.fstat(before).st_size))
            os.fsync(before)
        finally:
            os.close(before)


def is_held(home: Home, lane: str, signer: note.VerifierKey) -> bool:
    """Whether one of the files holds the private half of a key."""
    paths = home.paths.lane_key(lane), home.paths.next_key(lane)
    return any(key.public == signer.public for _, key in _kept(*paths, note.lane_name(home.log_id, lane)))


def find(home: Home, lane: str, signer: note.VerifierKey) -> SigningKey:
    """The private half of the key that signs next, by the log; `StartRefused` where neither file holds it."""
    kept, name = home.paths.lane_key(lane), note.lane_name(home.log_id, lane)
    for path, key in _kept(kept, home.paths.next_key(lane), name):
        if key.public == signer.public:
            if path == kept:
                # What lies beside it was made for a rotation that never came into the log.
                home.paths.next_key(lane).unlink(missing_ok=True)
            return key
    text = f"{kept} is not the key {signer.kid} that signs lane {lane} by its log; restore the home from a backup"
    raise StartRefused(StartCode.TAMPERED, text)


def _kept(kept: Path, following: Path, name: str) -> Iterator[tuple[Path, SigningKey]]:
    yield kept, SigningKey.load(kept, name)
    if os.path.lexists(following):
        yield following, SigningKey.load(following, name)
