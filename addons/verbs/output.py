"""How the verbs speak: rich text for people, JSON for programs, a bar on a terminal while something takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from addons.audit_text import json_text


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup read, no line broken. rich itself honours NO_COLOR."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Write one JSON document to standard output, for `--json`."""
    sys.stdout.write(json_text(value) + "\n")


@contextmanager
def progress(doing: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error that the given function moves one step; nothing where no person looks on."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda: bar.advance(task)


def counted(number: int, what: str) -> str:
    """A number with its noun: `1 rule`, `2 rules`, and `0 never`, which has no plural."""
    return f"{number} {what}" if number == 1 or what in ("info", "never") else f"{number} {what}s"
