"""What the verbs that read a log share: which log, under which key, how wrong questions and long readings are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from addons import forked
from addons.audit_log import AuditLog, AuditLogError
from addons.audit_text import escaped
from addons.verbs.output import console

DRAW_SECONDS = 0.1
FOLLOW_SECONDS = 0.25
"""How long a verb that follows the log waits before it looks again."""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

where_argument = click.argument("where", metavar="[HOME]", required=False, type=click.Path(path_type=Path))
home_option = click.option("--home", metavar="DIR", help="The home whose log is read. Before $GOVERNOR_HOME.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
jobs_option = click.option("--jobs", type=click.IntRange(min=1), help="How many parts at once; else one for each core.")
trust_option = click.option(
    "--trust", metavar="KEY", help="A verifier key, a file holding one, or a trust.json; else this user's pin."
)


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


def filter_options[Verb: Callable[..., int]](verb: Verb) -> Verb:
    """Which entries a verb tells of: the fields of `audit_view.Filter`, its moments not yet as the log writes them."""
    for option in reversed((
        click.option("--agent", help="Only entries about this agent."),
        click.option("--verdict", help="Only decisions with this verdict: allow, ask, throttle, deny or halt."),
        click.option("--rule", help="Only decisions of this rule."),
        click.option("--host", help="Only decisions about this host, as the log names it."),
        click.option("--since", type=Moment(), help="Only entries from TIME on: RFC 3339, or 10m, 2h, 3d ago."),
        click.option("--until", type=Moment(), help="Only entries before TIME."),
    )):
        verb = option(verb)
    return verb


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
def reading_bar(log: AuditLog, doing: str) -> Iterator[forked.Progress]:
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
