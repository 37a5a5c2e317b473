"""What still holds of a lane that does not hold as a whole, and what lies behind that and is signed all the same."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from addons import keys
from addons.audit_log import lines, open_regular
from addons.errors import StartRefused
from addons.keys import SigningKey
from addons.lane_entries import LaneEntries
from addons.rebuilding import parsed
from addons.segment import segment_names
from kernel import chain, note
from kernel.canonical import MAX_INTEGER
from kernel.errors import CanonicalError, ChainError, NoteError
from kernel.marks import CHECKPOINTS
from kernel.merkle import Tree, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from addons.home import Home
    from kernel.key_chain import KeyChain
    from kernel.note import VerifierKey


@dataclass(frozen=True, slots=True)
class Part:
    """The first `entries` of a lane, the last of them with the hash `head`, and the keys that they bring."""

    entries: int
    head: str
    keys: KeyChain


def verified_part(home: Home, lane: str, most: int = MAX_INTEGER) -> Part:
    """How far the lane holds, entry by entry, as far as its first `most` ones.

    Where it contradicts a head that its own key signed, that is as far as the last head that it agrees with: whoever
    rewrote it had the key.
    """
    reading, notes, tree = LaneEntries(home.paths.lane(lane), lane, home.root), _notes(home, lane), Tree()
    held = agreed = (0, chain.GENESIS_PREV)
    if not home.paths.lane(lane).is_dir():
        return Part(*held, reading.keys)
    with suppress(ChainError):
        for each in islice(reading, most):
            tree.append(leaf_hash(each.line[:-1]))
            roots = _signed_roots(notes.get(tree.size, ()), reading.keys.signer_of(each.seq))
            if roots - {tree.root()}:
                return Part(*agreed, reading.keys)
            held = (tree.size, each.head)
            agreed = held if roots else agreed
    return Part(*held, reading.keys)


def signed_beyond(home: Home, lane: str, part: Part) -> Iterator[dict[str, Any]]:
    """The entries behind the verified part that a key of the lane signed. What lay between them is not known."""
    known, folder, count = _public_keys(home, lane, part.keys), home.paths.lane(lane), 0
    for name in segment_names(folder) if folder.is_dir() else ():
        with suppress(OSError), open_regular(folder / name) as file:
            for line in lines(file):
                count += 1
                body = _signed(line, known) if count > part.entries else None
                if body is not None and body.get("lane") == lane:
                    yield body


def newest_note(home: Home, lane: str) -> str | None:
    """The newest of the lane's own checkpoints that its key signed; None where there is none."""
    of = verified_part(home, lane).keys
    signed = [(size, text) for size, texts in _notes(home, lane).items() for text in texts
              if size and _signed_roots([text], of.signer_of(size - 1))]
    return max(signed)[1] if signed else None


def _notes(home: Home, lane: str) -> Mapping[int, list[str]]:
    """The checkpoints of the lane by their sizes, in its own folder and in minimum.json, as far as they can be read."""
    found, texts = defaultdict[int, list[str]](list), [home.minimum().get(lane, "")]
    with suppress(NoteError, OSError), open_regular(home.paths.lane(lane) / CHECKPOINTS) as file:
        texts.extend(placed.text for placed in note.split_notes(lines(file)))
    for text in texts:
        with suppress(NoteError):
            found[note.parse_checkpoint(text.partition("\n\n")[0] + "\n").size].append(text)
    return found


def _signed_roots(texts: Iterable[str], key: VerifierKey | None) -> set[bytes]:
    roots = set()
    for text in texts:
        with suppress(NoteError):
            roots.add(note.parse_checkpoint(note.open_note(text, [] if key is None else [key], keys.verifies)).root)
    return roots


def _public_keys(home: Home, lane: str, brought: KeyChain) -> dict[str, bytes]:
    """The keys that the verified part brings, and those that lie in the home for the lane."""
    found, name = {key.kid: key.public for key, _, _ in brought.ranges(MAX_INTEGER)}, note.lane_name(home.log_id, lane)
    for path in (home.paths.lane_key(lane), home.paths.next_key(lane)):
        with suppress(StartRefused):
            own = SigningKey.load(path, name)
            found[own.kid] = own.public
    return found


def _signed(line: bytes, known: Mapping[str, bytes]) -> dict[str, Any] | None:
    try:
        raw, kid, signature = chain.split(line)
        public = known.get(kid)
        signed = public is not None and keys.verifies(public, signature, chain.signed_bytes(chain.entry_hash(raw)))
        return parsed(raw) if signed else None
    except (ChainError, CanonicalError):
        return None
