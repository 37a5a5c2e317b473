"""`governor audit`: verify the log, and read it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from addons import audit_log
from addons.audit_log import AuditLog, AuditLogError
from addons.audit_text import Vault, as_text, escaped
from addons.audit_view import Filter, View
from addons.home import home_folder
from addons.verbs.output import console, print_json
from kernel.entry import timestamp
from kernel.report import Failure, Report, Result

FOLLOW_SECONDS = 0.25
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

_where = click.argument("where", metavar="[HOME]", required=False, type=click.Path(path_type=Path))
_home = click.option("--home", metavar="DIR", help="The home whose log is read. Before $GOVERNOR_HOME.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Moment(click.ParamType[datetime]):
    """A point in time: RFC 3339, or how long ago (`10m`, `2h`, `3d`)."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        text = str(value)
        if text[:-1].isdigit() and text[:-1].isascii() and text[-1] in _UNITS:
            try:
                return datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
            except OverflowError:
                self.fail(f"{text}: too long ago", param, ctx)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None or "T" not in text.upper():
            self.fail(f"{text}: expected RFC 3339 (2026-01-02T03:04:05Z) or how long ago (10m, 2h, 3d)", param, ctx)
        return moment


@click.group()
def audit() -> None:
    """Verify the signed log, and read it.

    HOME is a Governor home or the audit folder of one. A log can be verified anywhere, with nothing but the folder and
    the verifier key of its root, which `governor init` printed and pinned.
    """


@audit.command()
@_where
@_home
@click.option(
    "--trust", metavar="KEY", help="A verifier key, a file holding one, or a trust.json; else this user's pin."
)
@click.option("--every-signature", is_flag=True, help="Check each entry's signature, also below a checkpoint.")
@_json
def verify(where: Path | None, home: str | None, trust: str | None, every_signature: bool, as_json: bool) -> int:
    """Say whether the log is whole and as it was written.

    Exit status: 0 verified, 1 tampered, 3 nothing pins the root key, 4 incomplete, 5 rolled back, 2 no log there.
    """
    with _usage_errors():
        log = AuditLog.at(where or home_folder(home))
        trusted = audit_log.trusted_key(trust) if trust else None
        with _progress(log) as progress:
            report = audit_log.verify_log(log, trusted, every_signature=every_signature, progress=progress)
    if as_json:
        print_json(report.as_json())
    else:
        _tell(report)
    return report.result.exit_code


@audit.command()
@_where
@_home
@click.option("--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--agent", help="Only entries about this agent.")
@click.option("--verdict", help="Only decisions with this verdict: allow, ask, throttle, deny or halt.")
@click.option("--rule", help="Only decisions of this rule.")
@click.option("--host", help="Only decisions about this host, as the log names it.")
@click.option("--since", type=Moment(), help="Only entries from TIME on: RFC 3339, or 10m, 2h, 3d ago.")
@click.option("--until", type=Moment(), help="Only entries before TIME.")
@click.option("--json", "as_json", is_flag=True, help="Print the log's own lines, bytes unchanged.")
def show(
    where: Path | None,
    home: str | None,
    follow: bool,
    agent: str | None,
    verdict: str | None,
    rule: str | None,
    host: str | None,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> int:
    """Print the entries of all lanes, oldest first. It reads and does not verify."""
    first, end = (timestamp(moment) if moment else None for moment in (since, until))
    wanted = Filter(agent, verdict, rule, host, first, end)
    with _usage_errors():
        log = AuditLog.at(where or home_folder(home))
        view = View(log, wanted, complain=lambda text: click.echo(f"governor: {escaped(text)}", err=True))
        vault = Vault(log.vault)
        coloured = console().is_terminal and not console().no_color
        while True:
            for line, entry in view.fresh():
                if as_json:
                    sys.stdout.buffer.write(line)
                else:
                    click.echo(as_text(entry, vault, coloured=coloured))
            sys.stdout.flush()
            if not follow:
                return 1 if view.damaged else 0
            time.sleep(FOLLOW_SECONDS)


@contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except AuditLogError as error:
        raise click.UsageError(escaped(str(error))) from None
    except OSError as error:
        raise click.UsageError(escaped(f"{error.filename}: {error.strerror}")) from None


@contextmanager
def _progress(log: AuditLog) -> Iterator[audit_log.Progress]:
    screen = console(stderr=True)
    columns = (TextColumn("verifying"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task("verifying", total=log.size_bytes())
        yield lambda count: progress.advance(task, count)


def _tell(report: Report) -> None:
    said = console()
    style = "green" if report.result is Result.VERIFIED else "yellow" if report.result is Result.NOT_PINNED else "red"
    said.print(_headline(report), style=f"bold {style}")
    for lane in report.lanes:
        live = ", a writer is at work" if lane.live else ""
        said.print(f"  lane {escaped(lane.lane)}: {lane.entries:,} entries{live}, head {lane.head[:16]}")
    what = "every entry" if report.every_signature else "every checkpoint, and of the entries after the last one"
    said.print(f"  signatures checked: of {what}")
    for key in report.keys:
        said.print(f"  key {key.kid}: {escaped(key.first)} to {escaped(key.last)}")
    if report.torn_bytes:
        said.print(f"  the last line is unfinished ({report.torn_bytes} bytes): it went nowhere")
    tail = report.unanchored
    said.print(f"  not anchored: {tail.entries:,} entries over {tail.seconds:,} s rest on this host's keys alone")


def _headline(report: Report) -> str:
    if report.first_failure is not None:
        return f"{report.result}: {_place(report.first_failure)}{escaped(report.first_failure.reason)}"
    parts = ((report.entries, "entry", "entries"), (report.segments, "segment", "segments"))
    counts = ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in parts)
    if report.result is Result.NOT_PINNED:
        return f"{report.result}: {counts} hold together, but no pin and no --trust says whose log this is"
    return f"{report.result}: {counts}"


def _place(failure: Failure) -> str:
    parts = []
    if failure.lane is not None:
        parts.append(f"lane {failure.lane}" if failure.seq is None else f"entry {failure.lane}/{failure.seq}")
    if failure.segment is not None:
        parts.append(failure.segment)
    if failure.line is not None:
        parts.append(f"line {failure.line}, byte {failure.offset}")
    return escaped(", ".join(parts)) + ": " if parts else ""
