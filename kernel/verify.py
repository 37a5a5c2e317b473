"""The verifier: one stream over every lane of a log, in constant memory.

kernel/README.md, section "The log", says what a log is held to; this is the same in code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice

from kernel.canonical import Value
from kernel.chain import split
from kernel.errors import KernelError, TrustError
from kernel.leases_together import lease_problems
from kernel.loss import Compromise, Succession, compromise_in, loss_in
from kernel.marks import MINIMUM, Broken, Held, Sighted
from kernel.note import VerifierKey, Verify
from kernel.opening import Claim, claims, genesis_root
from kernel.parts import joined
from kernel.reading import Parse
from kernel.report import Failure, Report, Result, Unanchored, Unattested
from kernel.trust import Minimum, TrustFile, is_lane, log_id_of
from kernel.walk import Found, Rules, Source, Walk
from kernel.witnessed import Witnessed

_OPENING_LINES = 2


@dataclass(frozen=True, slots=True)
class Anchors:
    """What is known of a log beside its lanes. `trusted` comes from outside (pin or --trust), None without one.

    `damage` says what is wrong with trust.json and minimum.json where they are there and cannot be read. `held` are
    the checkpoints of each lane that are kept elsewhere, `silent` says who was asked for such and has none of this log,
    `witnessed` is what a copy of the log holds of its entries. Of a log that is a `part` of one, lanes may be absent.
    """

    trusted: VerifierKey | None = None
    stated: TrustFile | None = None
    minimum: Minimum | None = None
    damage: tuple[str, ...] = ()
    held: Mapping[str, Sequence[Held | Sighted]] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    witnessed: Mapping[str, Witnessed] = field(default_factory=dict)
    part: bool = False


type Run = Callable[[Sequence[Walk]], Sequence[Found]]
"""Runs walks, in any order or at the same time; what they found comes in the order of the walks."""


def one_by_one(walks: Sequence[Walk]) -> list[Found]:
    return [walk.run() for walk in walks]


def verify(
    sources: Sequence[Source],
    anchors: Anchors,
    verify_signature: Verify,
    parse: Parse,
    *,
    every_signature: bool = False,
    run: Run = one_by_one,
) -> Report:
    """Check a whole log. Total: whatever the lanes hold, a report comes back."""
    openings = {source.lane: _opening(source, parse) for source in sources}
    root = anchors.trusted or _named(anchors.stated, openings.values())
    rules = Rules(root, verify_signature, parse, every_signature)
    recorded = defaultdict[str, list[Claim]](list)
    for opening in openings.values():
        for lane, claim in opening.claims.items():
            recorded[lane].append(claim)
    ordered = sorted(sources, key=lambda source: source.lane)

    def walk(source: Source) -> Walk:
        claims = recorded.get(source.lane, ())
        return Walk(source, rules, _held(anchors, source.lane), claims, anchors.witnessed.get(source.lane))

    results = iter(run([walk(part) for source in ordered for part in source.parts or (source,)]))
    found = []
    for source in ordered:
        parts = [next(results) for _ in source.parts or (source,)]
        found.append((joined(parts) or walk(source).run()) if source.parts else parts[0])
    notes = anchors.minimum.notes if anchors.minimum else {}
    known = {lane: copy.by for lane, copy in anchors.witnessed.items()}
    known |= {lane: heads[0].by for lane, heads in anchors.held.items()}
    known |= dict.fromkeys([*notes, *recorded], "the log")
    problems = [*_trust_problems(anchors, root), *_lane_problems(found, known, part=anchors.part),
                *lease_problems(found, ordered, parse, part=anchors.part)]
    report = _report(found, problems, pinned=anchors.trusted is not None, every_signature=every_signature)
    losses = tuple(opening.loss for _, opening in sorted(openings.items()) if opening.loss is not None)
    unattested = _unattested(found, [opening.compromise for _, opening in sorted(openings.items())])
    return replace(report, losses=losses, unattested=tuple(unattested))


def _held(anchors: Anchors, lane: str) -> list[Held | Sighted]:
    note = anchors.minimum.notes.get(lane) if anchors.minimum else None
    return [*([] if note is None else [Held(note, MINIMUM)]), *anchors.held.get(lane, ())]


@dataclass(frozen=True, slots=True)
class _Opening:
    """What the first lines of a lane say, before anything of it is checked."""

    root: VerifierKey | None
    claims: dict[str, Claim]
    loss: Succession | None
    compromise: Compromise | None = None


def _opening(source: Source, parse: Parse) -> _Opening:
    root, recorded, succession, compromise = None, dict[str, Claim](), None, None
    # What cannot be read here is told by the walk, with its place.
    with suppress(KernelError):
        for entry in _first_entries(source, parse):
            if isinstance(entry, dict) and entry.get("type") == "genesis":
                root = genesis_root(entry, None)
            elif isinstance(entry, dict) and entry.get("type") == "lane_open":
                recorded = claims(entry, source.lane)
                loss = loss_in(entry, source.lane)
                succession = Succession(source.lane, loss) if loss is not None else None
            elif isinstance(entry, dict) and entry.get("type") == "key_compromised":
                compromise = compromise_in(entry, None, _unasked)
    return _Opening(root, recorded, succession, compromise)


def _unasked(_public: bytes, _signature: bytes, _message: bytes) -> bool:
    """For what the walk over the lane asks."""
    return True


def _unattested(found: Sequence[Found], said: Iterable[Compromise | None]) -> Iterator[Unattested]:
    """The entries from the one on at which a key was in other hands, by the keys that signed them.

    Also those of later keys: whoever had that one could certify the next.
    """
    for each in filter(None, said):
        for key in (key for lane in found if lane.lane.lane == each.lane for key in lane.keys):
            first, last = (int(name.rpartition("/")[2]) for name in (key.first, key.last))
            if last >= each.entries:
                yield Unattested(each.lane, key.kid, f"{each.lane}/{max(first, each.entries)}", key.last)


def _first_entries(source: Source, parse: Parse) -> Iterator[Value]:
    if source.first:
        yield from (parse(split(line)[0]) for line in islice(source.key_lines(), _OPENING_LINES))
        return
    for _, lines in source.segments():
        yield from (parse(split(line)[0]) for line in islice(lines, _OPENING_LINES))
        return


def named_root(stated: TrustFile | None, sources: Iterable[Source], parse: Parse) -> VerifierKey | None:
    """The root key that a log names itself, in trust.json or else in genesis. It says which pin to look for."""
    return _named(stated, (_opening(source, parse) for source in sources))


def _named(stated: TrustFile | None, openings: Iterable[_Opening]) -> VerifierKey | None:
    if stated is not None:
        return stated.root
    return next((opening.root for opening in openings if opening.root is not None), None)


def _trust_problems(anchors: Anchors, root: VerifierKey | None) -> Iterator[Broken]:
    yield from (_problem(Result.TAMPERED, damage) for damage in anchors.damage)
    yield from (_problem(Result.INCOMPLETE, f"{by} holds no head of this log") for by in anchors.silent)
    if root is None:
        return
    try:
        log_id = log_id_of(root)
    except TrustError as error:
        yield _problem(Result.TAMPERED, str(error))
        return
    if anchors.stated is not None and anchors.stated.root != root:
        yield _problem(Result.TAMPERED, "trust.json names another root key than the trusted one", "trust.json")
    if anchors.minimum is not None and anchors.minimum.log_id != log_id:
        yield _problem(Result.TAMPERED, f"{MINIMUM} belongs to another log", MINIMUM)


def _lane_problems(found: Sequence[Found], known: Mapping[str, str], *, part: bool) -> Iterator[Broken]:
    present = {lane.lane.lane for lane in found}
    yield from (lane.broken for lane in found if lane.broken is not None)
    for name in sorted(present):
        if not is_lane(name):
            yield _problem(Result.TAMPERED, "not the name of a lane", lane=name)
    beginnings = [lane.lane.lane for lane in found if lane.has_genesis]
    if len(beginnings) > 1:
        yield _problem(Result.TAMPERED, f"genesis stands in {' and '.join(beginnings)}", lane=beginnings[1])
    for name in [] if part else sorted(known.keys() - present):
        yield _problem(Result.INCOMPLETE, f"{known[name]} knows of this lane, and it is absent", lane=name)
    if not found:
        yield _problem(Result.INCOMPLETE, "the log holds no entries")
    elif not beginnings and not part and not any(lane.begin.size for lane in found):
        yield _problem(Result.INCOMPLETE, "no lane begins with genesis")


def _problem(result: Result, reason: str, file: str | None = None, lane: str | None = None) -> Broken:
    return Broken(result, Failure(lane, file, None, None, None, reason))


def _report(found: Sequence[Found], problems: Sequence[Broken], *, pinned: bool, every_signature: bool) -> Report:
    # The first of the gravest: max keeps the first of equals.
    gravest = max(problems, key=lambda problem: problem.result.severity, default=None)
    result = gravest.result if gravest else Result.VERIFIED if pinned else Result.NOT_PINNED
    entries = sum(lane.lane.entries for lane in found)
    anchored = tuple(lane.anchored for lane in found if lane.anchored is not None)
    return Report(
        result=result,
        entries=entries,
        segments=sum(lane.segments for lane in found),
        lanes=tuple(lane.lane for lane in found),
        keys=tuple(key for lane in found for key in lane.keys),
        every_signature=every_signature,
        unanchored=_unanchored(found),
        first_failure=gravest.failure if gravest else None,
        torn_bytes=sum(lane.torn_bytes for lane in found),
        anchored=anchored,
        covered=_covered(found),
        checkpoints=sum(lane.checkpoints for lane in found),
    )


def _unanchored(found: Sequence[Found]) -> Unanchored:
    """What rests on the host's word alone, and the time from the last entry that an anchor knows to the last of all."""
    entries, since = 0, list[str]()
    for lane in found:
        vouched = lane.anchored.entries if lane.anchored else 0
        beyond = lane.end.size - max(vouched, lane.begin.size)
        entries += beyond
        stamp = lane.anchored.ts if lane.anchored else lane.first_ts
        if beyond and stamp:
            since.append(stamp)
    covered = _covered(found)
    return Unanchored(entries, _seconds(min(since), covered[1]) if since and covered else 0)


def _covered(found: Sequence[Found]) -> tuple[str, str] | None:
    first = min((lane.first_ts for lane in found if lane.first_ts), default=None)
    last = max((lane.last_ts for lane in found if lane.last_ts), default=None)
    return None if first is None or last is None else (first, last)


def _seconds(first: str, last: str) -> int:
    return int((datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds())
