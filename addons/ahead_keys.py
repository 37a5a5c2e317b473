"""Keys of lanes that are yet to begin, certified by the root beforehand, so that the root key can live elsewhere.

`keys/ahead/LANE.key` is a private key like any, `LANE.cert` the root's certificate of it: the verifier key and the
base64 signature, a line each. Without both it is nothing. The key goes when its lane takes it, the certificate once the
lane's first entry holds it. Whoever reads such a key can begin a lane in its name: it is as secret as the lane's own.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING

from addons import durable, keys
from addons.errors import StartCode, StartRefused
from addons.home import FIRST_SEGMENT
from addons.keys import SigningKey
from kernel import entry, note, trust
from kernel.errors import NoteError

if TYPE_CHECKING:
    from addons.home import Home


def certify(home: Home, lane: str) -> None:
    """Have a certified key ready for a lane that has not begun; one that it has taken already is certified as it is."""
    # A lane that begins meanwhile takes its key under the same lock.
    with durable.locked(home.paths.lock):
        if _has_begun(home, lane):
            return
        path, name = home.paths.lane_key(lane), note.lane_name(home.log_id, lane)
        taken = SigningKey.load(path, name) if os.path.lexists(path) else None
        if _is_certified(home, lane, taken or lying_ready(home, lane)):
            return
        durable.make_folder(home.paths.ahead)
        # One that was made without its certificate, and may be anybody's, is replaced.
        key = taken or SigningKey.create(home.paths.ahead_key(lane), name)
        durable.replace(home.paths.ahead_certificate(lane), f"{key.verifier_key}\n{certificate(home, key)}\n".encode())


def certificate(home: Home, key: SigningKey) -> str:
    """What the root key, at hand now, says of a lane's key: base64, as lane_open has it."""
    message = entry.certificate_bytes(home.log_id, _lane_of(key), key.verifier_key)
    return base64.b64encode(home.root_key().sign(message)).decode()


def lying_ready(home: Home, lane: str) -> SigningKey | None:
    """The key with which the lane can begin; None without one.

    `StartRefused` where the root did not certify it for this lane, or where the private key is another.
    """
    path, found = home.paths.ahead_key(lane), _read(home, lane)
    if found is None or not os.path.lexists(path):
        return None
    key = SigningKey.load(path, found[0].name)
    if key.public != found[0].public:
        raise _replaced(home, lane)
    return key


def demand(home: Home, lane: str) -> None:
    """`StartRefused` where the lane has not begun, and nobody is there to certify its key."""
    begins = not _has_begun(home, lane) and not os.path.lexists(home.paths.lane_key(lane))
    if begins and lying_ready(home, lane) is None:
        home.demand_root()


def take(home: Home, key: SigningKey) -> SigningKey:
    """Make a key that lies ready the key of its lane, whose file is there. Under the log's lock."""
    lane = _lane_of(key)
    os.rename(home.paths.ahead_key(lane), home.paths.lane_key(lane))
    durable.sync_folder(home.paths.keys)
    durable.sync_folder(home.paths.ahead)
    return key


def certificate_of(home: Home, key: SigningKey) -> str:
    """The certificate of the key with which a lane begins: made ahead, or by the root key that is at hand."""
    found = _read(home, _lane_of(key))
    return found[1] if found is not None and found[0].public == key.public else certificate(home, key)


def settle(home: Home, lane: str) -> None:
    """Clear away what the lane, which has begun, needs no more."""
    for path in (home.paths.ahead_key(lane), home.paths.ahead_certificate(lane)):
        if os.path.lexists(path):
            path.unlink()
            durable.sync_folder(home.paths.ahead)


def ready(home: Home) -> list[str]:
    """The lanes that have yet to begin and can without the root key."""
    names = sorted(path.stem for path in home.paths.ahead.glob("*.cert"))
    return [lane for lane in names if trust.is_lane(lane) and not _has_begun(home, lane)
            and (os.path.lexists(home.paths.ahead_key(lane)) or os.path.lexists(home.paths.lane_key(lane)))]


def _lane_of(key: SigningKey) -> str:
    return key.name.rpartition("/")[2]


def _is_certified(home: Home, lane: str, key: SigningKey | None) -> bool:
    found = _read(home, lane)
    return found is not None and key is not None and found[0].public == key.public


def _has_begun(home: Home, lane: str) -> bool:
    segment = home.paths.lane(lane) / FIRST_SEGMENT
    return segment.exists() and segment.stat().st_size > 0


def _read(home: Home, lane: str) -> tuple[note.VerifierKey, str] | None:
    """The key that the certificate names and the signature in base64, which holds."""
    path = home.paths.ahead_certificate(lane)
    if not os.path.lexists(path):
        return None
    named, _, encoded = keys.read_private(path).decode(errors="replace").rstrip("\n").partition("\n")
    try:
        key = note.parse_verifier_key(named)
        signature = base64.b64decode(encoded, validate=True)
    except (NoteError, binascii.Error, ValueError):
        raise _replaced(home, lane) from None
    message = entry.certificate_bytes(home.log_id, lane, str(key))
    if key.name != note.lane_name(home.log_id, lane) or not keys.verifies(home.root.public, signature, message):
        raise _replaced(home, lane)
    return key, encoded


def _replaced(home: Home, lane: str) -> StartRefused:
    key, of_root = home.paths.ahead_key(lane), home.paths.ahead_certificate(lane)
    text = f"{of_root} is not what the root key says of the key of lane {lane}: one of them was replaced"
    hint = f"find out by whom, remove {key} and {of_root}, and certify another: {home.certifying}"
    return StartRefused(StartCode.TAMPERED, f"{text}; {hint}")
