"""`governor audit export`: the log for a SIEM."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, nullcontext
from datetime import datetime
from pathlib import Path

import click

from addons.audit_log import AuditLog
from addons.audit_text import escaped
from addons.audit_view import Filter
from addons.chained_lines import LaneBroken
from addons.export_cursor import Cursor
from addons.export_output import AppendedFile, Output, Stream
from addons.exporting import FORMATS, Export
from addons.home import home_folder
from addons.verbs.asking import (
    FOLLOW_SECONDS,
    filter_options,
    home_option,
    reading_bar,
    usage_errors,
    where_argument,
)
from kernel.entry import timestamp

_STANDARD_OUTPUT = 1


@click.command()
@where_argument
@home_option
@click.option("--format", "form", type=click.Choice(tuple(FORMATS)), default="jsonl", show_default=True,
              help="jsonl: the entries themselves. ocsf: events of the Open Cybersecurity Schema Framework 1.8.0.")
@click.option("--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--cursor", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Remember here how far the export came, and go on from there. "
                   "With --follow: export-FORMAT.cursor in the home, where nothing else is said.")
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Add to this file instead of standard output.")
@filter_options
def export(where: Path | None, home: str | None, form: str, follow: bool, cursor: Path | None, output: Path | None,
           agent: str | None, verdict: str | None, rule: str | None, host: str | None, since: datetime | None,
           until: datetime | None) -> int:
    """Write the log out for a SIEM, one entry a line, each with its lane, number and hash.

    The hashes make the copy a witness: `governor audit verify --against FILE` says whether the log still is what was
    exported. Entries are held to the chain while they are read; signatures are for `governor audit verify`. Values
    behind commitments stay in the vault.

    With a cursor every entry goes out at least once, whatever is killed and when: the cursor moves when the lines are
    on disk, or read from the pipe. After a crash some lines come again, with the same hash. Where the log is not what
    the cursor has seen, nothing is exported.

    \b
    governor audit export --since 1d > day.jsonl
    governor audit export --follow --format ocsf --output /var/log/governor.ocsf.jsonl
    governor audit export --follow --cursor siem.cursor | shipper

    Exit status: 0 exported, or nobody reads any more; 1 the chain breaks, or the output cannot be written; 4 a lane is
    gone; 5 the log is shorter than what was exported; 2 wrong usage.
    """
    first, end = (timestamp(moment) if moment else None for moment in (since, until))
    wanted = Filter(agent, verdict, rule, host, first, end)
    with ExitStack() as opened:
        with usage_errors():
            log = AuditLog.at(where or home_folder(home))
            if follow and cursor is None:
                cursor = log.minimum.parent / f"export-{form}.cursor"
            held = opened.enter_context(Cursor.held(cursor, form)) if cursor else None
            to: Output = opened.enter_context(AppendedFile.opened(output)) if output else Stream(_STANDARD_OUTPUT)
        unseen = follow or (output is None and os.isatty(_STANDARD_OUTPUT))
        bar = nullcontext(_unseen) if unseen else reading_bar(log, "exporting")
        try:
            with bar as progress:
                running = Export(log, form, wanted, to, held, progress)
                running.run()
                while follow:
                    time.sleep(FOLLOW_SECONDS)
                    running.run()
        except BrokenPipeError:
            return 0
        except LaneBroken as broken:
            return _stopped(str(broken), broken.result.exit_code)
        except OSError as error:
            return _stopped(f"{error.filename or output or 'standard output'}: {error.strerror}", 1)
    return 0


def _stopped(why: str, status: int) -> int:
    click.echo(f"governor: the export stopped: {escaped(why)}", err=True)
    return status


def _unseen(_count: int) -> None:
    """Progress that nobody looks at."""
