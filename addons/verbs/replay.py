"""What `audit replay` says: whether each decision comes out again as it was, or what another policy would change."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from addons import replay_text
from addons.audit_text import escaped
from addons.replay_text import PRESUMED, reasons
from addons.replaying import Reading
from kernel.hindsight import Changed, Changes, Kind
from kernel.replay import Replayed

_STYLES = {"equal": "green", "divergent": "red", "incomplete": "red", "partial": "yellow"}
_MOST_ROWS = 100


def tell_replay(out: Console, reading: Reading[Replayed], seconds: float) -> None:
    """The result, what it counts, and the first decision that differs, field by field."""
    out.print(replay_text.headline(reading, seconds), style=f"bold {_STYLES[replay_text.result(reading)]}")
    for style, lines in (("red", replay_text.problems(reading)), ("yellow", replay_text.reservations(reading)),
                         ("", replay_text.basis(reading))):
        for line in lines:
            out.print(f"  {line}", style=style)


def changes_json(reading: Reading[Changes]) -> dict[str, Any]:
    found = reading.found
    return {
        "decisions": found.decisions, "incomplete": reading.incomplete, "undecided": reasons(found.undecided),
        "changed": [
            {"host": kind.host, "rule_old": kind.rule_old, "rule_new": kind.rule_new, "from": kind.before,
             "to": kind.after, "count": changed.count, "example": changed.example}
            for kind, changed in _in_order(found)]}


def _in_order(found: Changes) -> list[tuple[Kind, Changed]]:
    """The most frequent changes first."""
    return sorted(found.changed.items(), key=lambda item: (-item[1].count, item[1].example))


def tell_changes(out: Console, reading: Reading[Changes], seconds: float) -> None:
    """How many verdicts change, and a row for each way in which they do."""
    found = reading.found
    total = sum(changed.count for changed in found.changed.values())
    style = "bold yellow" if total else "bold green"
    out.print(f"{total:,} of {found.decisions:,} verdicts would be others ({seconds:.1f} s)", style=style)
    if reading.incomplete:
        out.print(f"  incomplete: {escaped(reading.incomplete)}", style="red")
    if total:
        table = Table("count", "host", "verdict", "by rule", "for example", box=None, pad_edge=False)
        for kind, changed in _in_order(found)[:_MOST_ROWS]:
            rules = f"{kind.rule_old or '-'} -> {kind.rule_new or '-'}"
            table.add_row(f"{changed.count:,}", escaped(kind.host), f"{kind.before} -> {kind.after}", escaped(rules),
                          escaped(changed.example))
        out.print(table)
        if len(found.changed) > _MOST_ROWS:
            out.print(f"  and {len(found.changed) - _MOST_ROWS:,} more kinds: --json has them all")
    for reason, count in reasons(found.undecided).items():
        out.print(f"  undecided: {count:,}, {escaped(reason)}", style="yellow")
    out.print(f"  {PRESUMED}")
