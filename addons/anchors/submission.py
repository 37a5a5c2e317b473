"""The key by which a witness knows this log: beside the lane's own, which changes with every segment, one that stays.

It proves nothing to whoever verifies a log. It keeps strangers from having a witness cosign heads in this log's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons import durable
from addons.keys import SigningKey
from kernel import note

if TYPE_CHECKING:
    from addons.home import Home


def submission_key(home: Home, lane: str) -> SigningKey:
    """The home's submission key under the name of a lane, which is the origin of its checkpoints; made at first use.

    `StartRefused` where it is not private; `OSError` where it cannot be made.
    """
    path, name = home.paths.submission_key, note.lane_name(home.log_id, lane)
    with durable.locked(home.paths.lock):
        return SigningKey.load(path, name) if path.exists() else SigningKey.create(path, name)


def submitted(key: SigningKey, checkpoint: str) -> str:
    """The checkpoint note with the submission key's signature behind its own."""
    signed = key.sign_note(note.opened(checkpoint)[0])
    return checkpoint + signed.rpartition("\n\n")[2]
