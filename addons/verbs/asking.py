"""What the verbs that read a log share: which log, under which key, how wrong questions and long readings are told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from addons import audit_log
from addons.audit_log import AuditLog, AuditLogError
from addons.audit_text import escaped
from addons.verbs.output import console

DRAW_SECONDS = 0.1

where_argument = click.argument("where", metavar="[HOME]", required=False, type=click.Path(path_type=Path))
home_option = click.option("--home", metavar="DIR", help="The home whose log is read. Before $GOVERNOR_HOME.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
trust_option = click.option(
    "--trust", metavar="KEY", help="A verifier key, a file holding one, or a trust.json; else this user's pin."
)


@contextmanager
def usage_errors() -> Iterator[None]:
    """A log or file that cannot be read is a wrong question: exit status 2."""
    try:
        yield
    except AuditLogError as error:
        raise click.UsageError(escaped(str(error))) from None
    except OSError as error:
        raise click.UsageError(escaped(f"{error.filename}: {error.strerror}")) from None


@contextmanager
def reading_bar(log: AuditLog, doing: str) -> Iterator[audit_log.Progress]:
    """A bar on standard error over the bytes of a log; nothing where no person looks on."""
    screen = console(stderr=True)
    columns = (TextColumn(doing), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    # Drawn where it moves, by no thread of its own: a replay forks.
    bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal, auto_refresh=False)
    drawn_at = 0.0

    def move(count: int) -> None:
        nonlocal drawn_at
        bar.advance(task, count)
        if time.monotonic() - drawn_at > DRAW_SECONDS:
            drawn_at = time.monotonic()
            bar.refresh()

    with bar:
        task = bar.add_task(doing, total=log.size_bytes())
        yield move
