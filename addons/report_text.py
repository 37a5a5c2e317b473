"""The answer of a verification in words: one line that says it, and what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from addons.audit_text import escaped
from kernel.report import Failure, Report, Result
from kernel.transition import CLI

if TYPE_CHECKING:
    from addons.bundle import Bundle, Signature
    from kernel.loss import Succession


def headline(report: Report) -> str:
    """The result, and what was read or what does not hold."""
    if report.first_failure is not None:
        return f"{report.result}: {_place(report.first_failure)}{escaped(report.first_failure.reason)}"
    parts = ((report.entries, "entry", "entries"), (report.segments, "segment", "segments"))
    counts = ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in parts)
    if report.result is Result.NOT_PINNED:
        return f"{report.result}: {counts} hold together, but no pin and no --trust says whose log this is"
    return f"{report.result}: {counts}"


def as_json(report: Report, bundle: Bundle | None = None, signature: Signature | None = None) -> dict[str, Any]:
    """The answer of `audit verify --json`."""
    return report.as_json() | ({"bundle": _bundle_json(bundle, signature)} if bundle and signature else {})


def details(report: Report, bundle: Bundle | None = None, signature: Signature | None = None) -> list[str]:
    """The lanes, the signatures that were checked, the keys, and what rests on this host's word."""
    said = _bundle_words(bundle, signature) if bundle and signature else []
    if report.covered is not None:
        said.append(f"covers {report.covered[0]} to {report.covered[1]}")
    for lane in report.lanes:
        live = ", a writer is at work" if lane.live else ""
        said.append(f"lane {escaped(lane.lane)}: {lane.entries:,} entries{live}, head {lane.head[:16]}")
    what = "every entry" if report.every_signature else "every checkpoint, and of the entries after the last one"
    said.append(f"signatures checked: of {what}")
    said += [f"key {key.kid}: {escaped(key.first)} to {escaped(key.last)}" for key in report.keys]
    said += [loss_words(each) for each in report.losses]
    said += [f"unattested: {escaped(each.first)} to {escaped(each.last)}, as key {escaped(each.kid)} was in other hands"
             for each in report.unattested]
    if report.torn_bytes:
        said.append(f"the last line is unfinished ({report.torn_bytes} bytes): it went nowhere")
    tail = report.unanchored
    said.append(f"not anchored: {tail.entries:,} entries over {tail.seconds:,} s rest on this host's keys alone")
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
