"""The manifest of an audit bundle: which part of a log it holds, for which question, and the list of its files.

    governor/LOG_ID/bundle
    {"agent":...,"covered":...,"lanes":...,"requested":...}
    SHA256 SIZE SHA256SUMS

The second line is canonical JSON, the third tells of the file that lists all others. Signed, it is a C2SP note by a key
of lane `cli`. Unsigned, a last line `unsigned SHA256` has the digest of the three: that tells of an accident, and what
was put in rests on the word of whoever handed it over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from kernel.canonical import Value, encode, parse
from kernel.errors import CanonicalError, NoteError
from kernel.note import MAX_NOTE_CHARACTERS
from kernel.trust import is_lane, is_log_id

MANIFEST = "MANIFEST.note"
LISTING = "SHA256SUMS"
_LISTED = re.compile(r"([0-9a-f]{64}) (0|[1-9][0-9]{0,18}) " + LISTING)
_UNSIGNED = "unsigned "
_BODY_LINES = 3
_FIRST = re.compile(r"governor/([^/]*)/bundle")


@dataclass(frozen=True, slots=True)
class Part:
    """What of a lane is there: its segments from number `first` on; `end` entries were before what is left out after
    them, None where they go to the end.
    """

    first: int = 0
    end: int | None = None

    @property
    def whole(self) -> bool:
        return self.first == 0 and self.end is None


@dataclass(frozen=True, slots=True)
class Period:
    """Two timestamps as the log writes them; None where open."""

    start: str | None = None
    end: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself. `lanes` are those of which it has segments; `agent` where it is about one alone."""

    log_id: str
    listing_sha256: str
    listing_bytes: int
    requested: Period = field(default_factory=Period)
    covered: Period = field(default_factory=Period)
    agent: str | None = None
    lanes: Mapping[str, Part] = field(default_factory=dict)

    def body(self) -> str:
        """The text, ready to be signed."""
        said: Value = {
            "agent": self.agent,
            "covered": {"from": self.covered.start, "to": self.covered.end},
            "lanes": {lane: {"end": part.end, "first": part.first} for lane, part in self.lanes.items()},
            "requested": {"since": self.requested.start, "until": self.requested.end},
        }
        return (f"governor/{self.log_id}/bundle\n{encode(said).decode()}\n"
                f"{self.listing_sha256} {self.listing_bytes} {LISTING}\n")

    def unsigned(self) -> str:
        """The whole text where nobody signs it."""
        body = self.body()
        return f"{body}{_UNSIGNED}{sha256(body.encode()).hexdigest()}\n"


def listing(content: bytes) -> tuple[str, int]:
    """The digest and the length of the list of files, as a manifest tells them."""
    return sha256(content).hexdigest(), len(content)


def split_manifest(text: str) -> tuple[Manifest, bool]:
    """What a manifest says, and whether there are signatures to check; `NoteError` where it is none.

    The signatures are not looked at: the body of a signed one is what `kernel.note.open_note` returns.
    """
    if len(text) > MAX_NOTE_CHARACTERS:
        raise NoteError("not a manifest: too long")
    body, signed, _ = text.partition("\n\n")
    lines = body.split("\n")
    if len(lines) != _BODY_LINES + (0 if signed else 2):
        raise NoteError("not a manifest: expected three lines, and signatures or a line that says `unsigned`")
    origin, listed = _FIRST.fullmatch(lines[0]), _LISTED.fullmatch(lines[2])
    if origin is None or not is_log_id(origin[1]) or listed is None:
        raise NoteError(f"not a manifest: expected governor/LOG_ID/bundle, and the digest of {LISTING}")
    try:
        said = parse(lines[1].encode())
    except (CanonicalError, UnicodeEncodeError) as error:
        raise NoteError(f"not a manifest: {error}") from None
    manifest = _said(said, origin[1], listed[1], int(listed[2]))
    if not signed and text != manifest.unsigned():
        raise NoteError("not a manifest: the digest in its last line is that of other lines")
    return manifest, bool(signed)


def _said(said: Value, log_id: str, digest: str, size: int) -> Manifest:
    match said:
        case {"agent": str() | None as agent, "covered": {"from": start, "to": end}, "lanes": dict(lanes),
              "requested": {"since": since, "until": until}}:
            manifest = Manifest(log_id, digest, size, _period(since, until), _period(start, end), agent,
                                {lane: _part(lane, part) for lane, part in lanes.items()})
            if encode(said) == manifest.body().split("\n")[1].encode():
                _check_asked(manifest)
                return manifest
    raise NoteError("not a manifest: expected agent, covered, lanes and requested")


def _check_asked(manifest: Manifest) -> None:
    """Nothing where of each lane that is there only that is left out which was not asked for; else `NoteError`."""
    asked = manifest.requested
    for lane, part in manifest.lanes.items():
        if (part.first and asked.start is None) or (part.end is not None and asked.end is None):
            raise NoteError(f"not a manifest: of lane {lane} a part is left out that was asked for")


def _period(start: Value, end: Value) -> Period:
    if not isinstance(start, str | None) or not isinstance(end, str | None):
        raise NoteError("not a manifest: a period is between two timestamps")
    return Period(start, end)


def _part(lane: str, said: Value) -> Part:
    match said:
        case {"end": int() | None as end, "first": int(first)} if (
            is_lane(lane) and 0 <= first < 10**6 and (end is None or end > 0)
            and not isinstance(first, bool) and not isinstance(end, bool)
        ):
            return Part(first, end)
    raise NoteError("not a manifest: lanes holds something other than lane, first and end")
