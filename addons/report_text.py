"""The answer of a verification in words: one line that says it, and what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from addons.audit_text import escaped
from kernel.report import Failure, KeyRange, LaneReport, Report, Result
from kernel.transition import CLI

MOST_KEYS = 12

if TYPE_CHECKING:
    from collections.abc import Sequence

    from addons.bundle import Bundle, Signature
    from kernel.loss import Succession


def headline(report: Report) -> str:
    """The result, and what was read or what does not hold."""
    if report.first_failure is not None:
        return f"{report.result}: {_place(report.first_failure)}{escaped(report.first_failure.reason)}"
    parts = ((report.entries, "entry", "entries"), (len(report.lanes), "lane", "lanes"),
             (report.segments, "segment", "segments"), (report.checkpoints, "checkpoint", "checkpoints"))
    counts = ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in parts)
    if report.result is Result.NOT_PINNED:
        return f"{report.result}: {counts} hold together, but no pin and no --trust says whose log this is"
    return f"{report.result}: {counts}"


def as_json(report: Report, bundle: Bundle | None = None, signature: Signature | None = None) -> dict[str, Any]:
    """The answer of `audit verify --json`."""
    return report.as_json() | ({"bundle": _bundle_json(bundle, signature)} if bundle and signature else {})


def details(report: Report, bundle: Bundle | None = None, signature: Signature | None = None) -> list[str]:
    """What was covered and anchored, the lanes and their keys, what was checked, and what nothing of it proves."""
    said = _bundle_words(bundle, signature) if bundle and signature else []
    if report.covered is not None:
        said.append(f"covers {report.covered[0]} to {report.covered[1]}")
    said += _anchored_words(report)
    said += [_lane_words(lane) for lane in report.lanes]
    said += [f"key {key.kid}: {escaped(key.first)} to {escaped(key.last)}" for key in _shown(report.keys)]
    what = "every entry" if report.every_signature else "every checkpoint, and of the entries after the last one"
    said.append(f"signatures checked: of {what}")
    said += [loss_words(each) for each in report.losses]
    said += [f"unattested: {escaped(each.first)} to {escaped(each.last)}, as key {escaped(each.kid)} was in other hands"
             for each in report.unattested]
    if report.torn_bytes:
        said.append(f"the last line is unfinished ({report.torn_bytes} bytes): it went nowhere")
    if report.first_failure is None:
        said.append("not proved by this: that the clock was right; that nothing went past Governor")
    return said


def _shown(keys: Sequence[KeyRange]) -> Sequence[KeyRange]:
    """The first keys and the last one; --json has all of them."""
    return keys if len(keys) <= MOST_KEYS else (*keys[: MOST_KEYS - 1], keys[-1])


def _lane_words(lane: LaneReport) -> str:
    ended = "closed" if lane.closed else "a writer is at work" if lane.live else "ended without close"
    begun = f", from entry {lane.first:,} on" if lane.first else ""
    return f"lane {escaped(lane.lane)}: {lane.entries:,} entries{begun}, {ended}, head {lane.head[:16]}"


def _anchored_words(report: Report) -> list[str]:
    said = []
    for each in report.anchored:
        by = " and ".join(escaped(one) for one in each.by)
        said.append(f"anchored up to {escaped(each.lane)}/{each.entries - 1:,} of {each.ts} by {by}")
    tail = report.unanchored
    if tail.entries:
        entries = "entry" if tail.entries == 1 else "entries"
        said.append(f"on this host's word alone: {tail.entries:,} {entries} over {tail.seconds:,} s")
    return said


def loss_words(succession: Succession) -> str:
    """That a lane was given up, and what goes on."""
    loss = succession.loss
    entries = f"its first {loss.entries:,} entries hold" if loss.entries else "none of its entries is left that holds"
    said = f"lane {loss.lane} was given up ({loss.result}; {entries}): lane {succession.successor} goes on"
    return escaped(f"{said}. {loss.operator}: {loss.reason}")


def _bundle_json(bundle: Bundle, signature: Signature) -> dict[str, Any]:
    if bundle.manifest is None:
        return {"requested": None, "agent": None, "signed_by": None}
    asked = bundle.manifest.requested
    return {"requested": {"since": asked.start, "until": asked.end}, "agent": bundle.manifest.agent,
            "signed_by": signature.kid}


def _bundle_words(bundle: Bundle, signature: Signature) -> list[str]:
    if bundle.manifest is None:
        return []
    asked = bundle.manifest.requested
    said = f"bundle: asked for {escaped(asked.start or 'the beginning')} to {escaped(asked.end or 'the end')}"
    if signature.kid is None:
        return [said, "its manifest is not signed: what was put in rests on the word of whoever made it"]
    return [said, f"its manifest is signed by key {signature.kid} of lane {CLI}"]


def _place(failure: Failure) -> str:
    parts = []
    if failure.lane is not None:
        parts.append(f"lane {failure.lane}" if failure.seq is None else f"entry {failure.lane}/{failure.seq}")
    if failure.segment is not None:
        parts.append(failure.segment)
    if failure.line is not None:
        parts.append(f"line {failure.line}, byte {failure.offset}")
    return escaped(", ".join(parts)) + ": " if parts else ""
