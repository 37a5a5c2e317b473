"""The audited way back from a log that does not hold: a lane is given up, and another goes on in its place.

Nothing of the lost lane is touched, and nothing makes it whole again: the verifier goes on saying what is wrong with
it. What its verified part made of the state goes on (kernel/carrying.py).
"""

from __future__ import annotations

import base64
import os
import time
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from addons import build_info, durable, kept_states
from addons.anchors.asking import heads_of
from addons.audit_log import is_live
from addons.control import user_name
from addons.errors import GovernorError, StartCode, StartRefused
from addons.home import FIRST_SEGMENT, Home, Paths
from addons.lane_entries import LaneEntries
from addons.lineage import is_retired, newest, next_name, states_before
from addons.opening import open_successor, take
from addons.operator_acts import check_words, said_by
from addons.recovery import examine
from addons.verified_part import Part, newest_note, signed_beyond, verified_part
from kernel import entry, trust
from kernel.canonical import MAX_INTEGER
from kernel.carrying import bind, bind_all, carried
from kernel.errors import TrustError
from kernel.folding import States
from kernel.loss import KEY_COMPROMISED, Loss, Succession
from kernel.snapshot import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

WAY = "cli"
_MOST_FOUND = 500
# What a start refuses for that another lane helps against. Any other refusal is told as it is.
_RESULTS = {StartCode.TAMPERED: "tampered", StartCode.ROLLED_BACK: "rolled_back",
            StartCode.HOME_INCOMPLETE: "incomplete"}


type Root = Ed25519PrivateKey | None


class NothingLost(GovernorError):
    """The lane is whole: there is nothing to give up."""


def accept(folder: Path, lane: str, reason: str, claimed: str | None, root: Root = None) -> Succession:
    """Give up `lane`, or what goes on in its place by now; what goes on from here.

    `NothingLost` where a start would take that one; `StartRefused` where a lane of the home is written, or where
    another lane is no help. `root` is the root key where it does not lie in the home.
    """
    paths = Paths(folder)
    _check_asked(paths, lane, reason, claimed)
    refused = _without_damaged_minimum(paths)
    home = Home.open(folder, giving_up=lane)
    lost = newest(home.paths, lane, home.root)
    home = Home.open(folder, root, keep_root=False, giving_up=lost)
    refused = refused or _refusal(home, lost)
    if refused is None:
        text = f"a start takes lane {lost} of {paths.folder} as it is: nothing is lost, and nothing was done"
        raise NothingLost(text)
    if refused.code not in _RESULTS:
        raise refused
    part, successor = verified_part(home, lost), next_name(home.paths, lost, home.root)
    operator, by = said_by(user_name(os.getuid()), claimed, WAY)
    loss = Loss(lost, part.entries, part.head, _RESULTS[refused.code], reason, operator, by, _words(refused.text),
                _carry(home, lost, part, successor))
    open_successor(home, successor, build_info.kernel_identity(), loss)
    _name_others_in_minimum(home, lost)
    return Succession(successor, loss)


def distrust(folder: Path, lane: str, kid: str, entries: int, reason: str, claimed: str | None,
             root: Root = None) -> Succession:
    """Give up a lane whose newest key, `kid`, is in other hands, and was trusted for the first `entries` entries alone.

    What a thief may have written from there on counts no further than it binds. Of earlier keys it cannot be said:
    they were destroyed. `GovernorError` where there is no such lane, key or entry.
    """
    _check_asked(Paths(folder), lane, reason, claimed)
    home = Home.open(folder, root, keep_root=False)
    lost = newest(home.paths, lane, home.root)
    part = verified_part(home, lost, entries)
    ranges = list(verified_part(home, lost).keys.ranges(MAX_INTEGER))
    if not ranges or part.entries != entries or not entries:
        raise NothingLost(f"lane {lost} of {home.paths.folder} has no whole entry {entries - 1} to trust it up to")
    if ranges[-1][0].kid != kid or ranges[-1][1] > entries:
        raise NothingLost(f"{kid} is not the key that signs lane {lost} at entry {entries} and from there on")
    # Nobody is to write on in the lane between the state that is read of it and the lane that goes on from there.
    lock = take(home, lost)
    try:
        return _distrusted(home, part, lost, kid, reason, said_by(user_name(os.getuid()), claimed, WAY))
    finally:
        os.close(lock)


def _distrusted(home: Home, part: Part, lost: str, kid: str, reason: str, who: tuple[str, str]) -> Succession:
    (operator, by), entries = who, part.entries
    signer, successor = home.root_key(), next_name(home.paths, lost, home.root)
    loss = Loss(lost, entries, part.head, KEY_COMPROMISED, reason, operator, by, f"key {kid} is in other hands",
                _carry(home, lost, part, successor))
    statement = base64.b64encode(signer.sign(entry.compromise_bytes(home.log_id, lost, kid, entries, part.head)))
    said = entry.key_compromised(lost, kid, entries, part.head, reason, operator, by, statement.decode())
    open_successor(home, successor, build_info.kernel_identity(), loss, said)
    return Succession(successor, loss)


def _check_asked(paths: Paths, lane: str, reason: str, claimed: str | None) -> None:
    check_words(reason, claimed)
    if not trust.is_lane(lane):
        raise NothingLost(f"{lane} is not the name of a lane")
    for each in sorted(paths.lanes.iterdir()) if paths.lanes.is_dir() else ():
        if is_live(each):
            text = f"lane {each.name} of {paths.folder} is being written; stop that Governor first"
            raise StartRefused(StartCode.LANE_BUSY, text)


def _without_damaged_minimum(paths: Paths) -> StartRefused | None:
    """Move a minimum.json that says nothing of this log out of the way; what was wrong with it."""
    try:
        named = trust.parse_minimum_file(paths.minimum.read_bytes()).log_id
        if named == trust.parse_trust_file(paths.trust.read_bytes()).log_id:
            return None
        problem = "it belongs to another log"
    except FileNotFoundError:
        return None
    except TrustError as fault:
        problem = str(fault)
    os.rename(paths.minimum, paths.minimum.with_name(f"minimum.damaged-{time.time_ns()}.json"))
    durable.sync_folder(paths.folder)
    return StartRefused(StartCode.TAMPERED, f"{paths.minimum}: {problem}")


def _refusal(home: Home, lane: str) -> StartRefused | None:
    """Why a start would refuse the lane; None where it would not."""
    paths = home.paths
    if not os.path.lexists(paths.lane_key(lane)) and not (paths.lane(lane) / FIRST_SEGMENT).exists():
        if lane not in home.minimum():
            return None
        return StartRefused(StartCode.HOME_INCOMPLETE, f"{paths.folder} has lost the log and the key of lane {lane}")
    try:
        examine(home, lane, heads_of(home).notes.get(lane, ()))
    except StartRefused as refused:
        return refused
    return None


def _carry(home: Home, lost: str, part: Part, successor: str) -> str:
    """Keep the state with which the successor begins; its digest."""
    states = _folded(home, lost, part)
    for body in signed_beyond(home, lost, part):
        _bind(home, states, lost, body)
    durable.make_folder(home.paths.states)
    return kept_states.keep(home.paths.states, Snapshot(successor, 0, carried(states, time.time_ns() // 1000)))[0]


def _folded(home: Home, lane: str, part: Part) -> States:
    """The states that the verified part makes."""
    if not part.entries:
        return States()
    states = states_before(home.paths, lane, home.root)
    for each in islice(LaneEntries(home.paths.lane(lane), lane, home.root), part.entries):
        try:
            states.fold(each.body, f"{lane}/{each.seq}")
        except (LookupError, TypeError, ValueError, AttributeError) as fault:
            text = f"entry {lane}/{each.seq} was written by a later version; use that version"
            raise StartRefused(StartCode.VERSION, text) from fault
    return states


def _bind(home: Home, states: States, lane: str, body: dict[str, Any]) -> None:
    """Count what binds of an entry. One that cannot be read, or is a later version's, binds nobody."""
    with suppress(LookupError, TypeError, ValueError, AttributeError):
        if body["type"] == "state_snapshot":
            found = kept_states.kept(home.paths.states, body["digest"])
            if found is not None and found.lane == lane:
                bind_all(states.real, found.states.real)
        elif states.changed_by(body) is states.real:
            bind(states.real, body, f"{lane}/{body['seq']}")


def _words(text: str) -> str:
    """A refusal as an entry can hold it."""
    return text.encode(errors="replace").decode()[:_MOST_FOUND]


def _name_others_in_minimum(home: Home, lost: str) -> None:
    """Where minimum.json was lost: name the lanes that go on anew, by what their own folders hold."""
    for lane in home.lanes():
        if lane == lost or lane in home.minimum() or is_retired(home.paths, lane, home.root):
            continue
        checkpoint = newest_note(home, lane)
        if checkpoint is not None:
            home.raise_minimum(lane, checkpoint)
