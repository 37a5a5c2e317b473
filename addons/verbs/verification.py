"""`governor audit verify`: whether a log is whole and as it was written, and what that rests on."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import click

from addons import audit_log, report_text
from addons.anchors.kept_heads import S3, keeper, witness
from addons.audit_log import AuditLog, AuditLogError
from addons.audit_text import escaped
from addons.bundle_check import bundle_signature
from addons.bundle_reading import opened
from addons.home import home_folder
from addons.verbs.asking import (
    Moment,
    home_option,
    jobs_option,
    json_option,
    reading_bar,
    trust_option,
    usage_errors,
)
from addons.verbs.output import console, print_json
from addons.verifying import Elsewhere, verify_log
from addons.witness_file import witnessed
from kernel.canonical import Value
from kernel.entry import timestamp
from kernel.manifest import Period
from kernel.report import Report, Result

QUALIFIED = 3


@click.command()
@click.argument("where", metavar="[HOME]", required=False)
@home_option
@trust_option
@click.option("--anchor", "anchors", metavar="FILE|s3://...", multiple=True,
              help="Heads that somebody else keeps: a file of notes, or a bucket. Can be given several times.")
@click.option("--witness", "witnesses", metavar="KEY", multiple=True,
              help="A C2SP witness key that you trust: what it cosigned, in audit/receipts, is an anchor.")
@click.option("--against", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="An export (governor audit export) that the log must agree with.")
@click.option("--since", type=Moment(), help="Only segments with entries from TIME on: RFC 3339, or 10m, 2h, 3d ago.")
@click.option("--until", type=Moment(), help="Only segments with entries before TIME.")
@click.option("--every-signature", is_flag=True, help="Check each entry's signature, also below a checkpoint.")
@click.option("--strict", is_flag=True, help="Exit 3 where the answer has any reservation.")
@jobs_option
@json_option
def verify(where: str | None, home: str | None, trust: str | None, anchors: tuple[str, ...],
           witnesses: tuple[str, ...], against: Path | None, since: datetime | None, until: datetime | None,
           every_signature: bool, strict: bool, jobs: int | None, as_json: bool) -> int:
    """Say whether the log is whole and as it was written.

    HOME is a Governor home, its audit folder, a bundle, or s3://BUCKET/PREFIX, where sealed segments were sent to.

    \b
    governor audit verify /var/lib/governor --trust 'governor/8f0c...+1f2e3d4c+AbCd...'
    governor audit verify november.tar --anchor /mnt/elsewhere/governor.notes
    governor audit verify s3://example-heads/governor --anchor s3://example-heads/governor

    A head that somebody else keeps (--anchor, --witness) tells of an end that was cut off or written anew by whoever
    holds this host and its keys; what is newer than all of them is named in the answer. --against holds the log to a
    copy that was exported, to a SIEM for example: every entry that the copy names must be there with the same hash.

    Reservations that --strict counts: no anchor or entries that none knows yet, a last line that is not whole, a lane
    without its end that nobody writes, a beginning that is not there, a bucket with less of a lane than is anchored.

    Exit status: 0 verified, 1 tampered, 3 nothing pins the root key, 4 incomplete, 5 rolled back, 2 no log there.
    """
    period = Period(*(timestamp(moment) if moment else None for moment in (since, until)))
    started = time.perf_counter()
    with usage_errors(), ExitStack() as stack:
        trusted = audit_log.trusted_key(trust) if trust else None
        log, fetched = stack.enter_context(_opened(where, home))
        keepers = [*map(keeper, anchors), *(witness(key, log.audit / "receipts") for key in witnesses)]
        copy = stack.enter_context(witnessed(against)) if against else {}
        elsewhere = replace(fetched, keepers=keepers, witnessed=copy)
        with reading_bar(log, "verifying") as progress:
            report = verify_log(log, trusted, every_signature=every_signature, elsewhere=elsewhere, period=period,
                                jobs=jobs or os.cpu_count() or 1, progress=progress)
        compared = sum(lane.count for lane in copy.values())
        signature = bundle_signature(log, trusted)
    if as_json:
        held_to: dict[str, Value] = {"against": {"file": str(against), "entries": compared}} if against else {}
        if fetched.unsealed:
            held_to["unsealed"] = {lane: {"entries": here, "anchored": anchored}
                                   for lane, (here, anchored) in fetched.unsealed.items()}
        if since or until:
            held_to["asked"] = {"since": period.start, "until": period.end}
        print_json(report_text.as_json(report, log.bundle, signature) | held_to)
    else:
        _tell(report, report_text.details(report, log.bundle, signature), time.perf_counter() - started)
        if since or until:
            console().print(f"  asked for {period.start or 'the beginning'} to {period.end or 'the end'}")
        if strict and report.reservations:
            console().print(f"  not strictly: {escaped('; '.join(report.reservations))}")
        if against:
            console().print(f"  held to the {compared:,} entries of {escaped(str(against))}")
        for lane, (here, anchored) in fetched.unsealed.items():
            console().print(f"  lane {escaped(lane)}: {here:,} entries were sent there, and {anchored:,} are anchored")
    qualified = strict and report.result is Result.VERIFIED and (report.reservations or fetched.unsealed)
    return QUALIFIED if qualified else report.result.exit_code


@contextmanager
def _opened(where: str | None, home: str | None) -> Iterator[tuple[AuditLog, Elsewhere]]:
    """The log that is asked about; one in a bucket is fetched first, with what is known of it by that."""
    if where is None or not where.startswith(S3):
        with opened(Path(where) if where else home_folder(home)) as log:
            yield log, Elsewhere()
        return
    from addons.anchors import fetching
    from addons.anchors.protocol import AnchorError

    with tempfile.TemporaryDirectory(prefix="governor-fetched-") as folder:
        try:
            fetched = fetching.fetch(where, Path(folder))
        except AnchorError as problem:
            raise AuditLogError(str(problem)) from None
        yield AuditLog.at(fetched.folder), Elsewhere(alarms=fetched.alarms, unsealed=fetched.unsealed)


def _tell(report: Report, details: list[str], seconds: float) -> None:
    said = console()
    style = "green" if report.result is Result.VERIFIED else "yellow" if report.result is Result.NOT_PINNED else "red"
    said.print(f"{report_text.headline(report)}      {seconds:.1f} s", style=f"bold {style}")
    for line in details:
        said.print(f"  {line}")
