"""What `governor doctor --inside` says: the attempts as a table by family, or as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from addons.attempts.attempt import Attempt, Result, Seen
from addons.audit_text import escaped
from addons.verbs import standings
from addons.verbs.output import console, counted

type Taken = Sequence[tuple[Attempt, Seen]]

_STYLES = {Result.OPEN: "bold red", Result.CLOSED: "green", Result.NOT_POSSIBLE: "dim"}


def as_json(tier: str | None, taken: Taken) -> dict[str, Any]:
    """The document of --json. `silent`: closed as far as could be seen, for nothing came back."""
    counts = Counter(seen.result for _, seen in taken)
    return {
        "tier": tier,
        "attempts": [
            {"name": attempt.name, "family": attempt.family, "way": attempt.way, "expected": attempt.expected,
             "seen": seen.what, "silent": seen.silent, "result": seen.result}
            for attempt, seen in taken
        ],
        "open": counts[Result.OPEN],
        "closed": counts[Result.CLOSED],
        "not_possible": counts[Result.NOT_POSSIBLE],
    }


def tell(tier: str | None, taken: Taken, *, everything: bool) -> None:
    """The open ways, or all, family by family; then the sum."""
    shown = [(attempt, seen) for attempt, seen in taken if everything or seen.result is Result.OPEN]
    if shown:
        standings.tell_table(_table(shown))
        console().print()
    _tell_sum(tier, taken)


def _table(shown: Taken) -> Table:
    table = Table("family", "attempt", "way", "expected", "seen", box=None, pad_edge=False)
    before = ""
    for attempt, seen in shown:
        result = f"{seen.result}{', silent' if seen.silent else ''}"
        table.add_row(
            attempt.family if attempt.family != before else "", attempt.name, attempt.way, attempt.expected,
            Text.assemble((result, _STYLES[seen.result]), f": {escaped(seen.what)}"))
        before = attempt.family
    return table


def _tell_sum(tier: str | None, taken: Taken) -> None:
    counts = Counter(seen.result for _, seen in taken)
    silent = sum(seen.silent for _, seen in taken)
    families = len({attempt.family for attempt, _ in taken})
    where = f"tier {tier}" if tier else "where this process is"
    said = (f"{counts[Result.OPEN]} open, {counts[Result.CLOSED]} closed ({silent} of them by silence alone), "
            f"{counts[Result.NOT_POSSIBLE]} not possible here; {counted(len(taken), 'attempt')} of "
            f"{families} families, {where}")
    console().print(said, style="bold red" if counts[Result.OPEN] else "bold green")
    if tier == "env":
        console().print("tier env is advice, not enforcement: nothing holds a process that leaves the variables aside",
                        style="red")
