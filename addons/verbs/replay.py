"""What `audit replay` says: whether each decision comes out again as it was, or what another policy would change."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from addons.audit_text import escaped
from addons.replaying import Reading
from kernel.hindsight import Changed, Changes, Kind
from kernel.replay import Divergence, Replayed

_EXIT = {"equal": 0, "divergent": 1, "incomplete": 4, "partial": 3}
_STYLES = {"equal": "green", "divergent": "red", "incomplete": "red", "partial": "yellow"}
_PRESUMED = "It presumes a log as it was written: governor audit verify proves that."
_MOST_ROWS = 100


def result(reading: Reading[Replayed]) -> str:
    """The answer in one word."""
    found = reading.found
    if found.divergent:
        return "divergent"
    if reading.incomplete:
        return "incomplete"
    return "partial" if found.not_replayable else "equal"


def exit_code(reading: Reading[Replayed]) -> int:
    return _EXIT[result(reading)]


def replay_json(reading: Reading[Replayed]) -> dict[str, Any]:
    found, first = reading.found, reading.found.first_divergence
    return {
        "result": result(reading), "decisions": found.decisions, "equal": found.equal, "divergent": found.divergent,
        "not_replayable": _reasons(found.not_replayable), "matched": found.matched, "incomplete": reading.incomplete,
        "first_divergence": first and {"entry": first.entry, "field": first.field, "recorded": first.recorded,
                                       "computed": first.computed}}


def _reasons(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def tell_replay(out: Console, reading: Reading[Replayed], seconds: float) -> None:
    """The result, what it counts, and the first decision that differs, field by field."""
    found, said = reading.found, result(reading)
    counts = f"{found.equal:,} of {found.decisions:,} decisions come out again as they are in the log"
    out.print(f"{said}: {counts} ({seconds:.1f} s)", style=f"bold {_STYLES[said]}")
    if reading.incomplete:
        out.print(f"  incomplete: {escaped(reading.incomplete)}", style="red")
    if found.first_divergence is not None:
        _tell_divergence(out, found.first_divergence, found.divergent)
    for reason, count in _reasons(found.not_replayable).items():
        out.print(f"  not replayable: {count:,}, {escaped(reason)}", style="yellow")
    out.print(f"  of {found.matched:,} the rules were found again from the request itself, with what the vault holds")
    out.print(f"  {_PRESUMED}")


def _tell_divergence(out: Console, first: Divergence, count: int) -> None:
    more = f" (the first of {count:,})" if count > 1 else ""
    out.print(f"  {escaped(first.entry)}: {first.field} is another than computed{more}")
    for name, value in (("recorded", first.recorded), ("computed", first.computed)):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        out.print(f"    {name} {escaped(text)}")


def changes_json(reading: Reading[Changes]) -> dict[str, Any]:
    found = reading.found
    return {
        "decisions": found.decisions, "incomplete": reading.incomplete, "undecided": _reasons(found.undecided),
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
    for reason, count in _reasons(found.undecided).items():
        out.print(f"  undecided: {count:,}, {escaped(reason)}", style="yellow")
    out.print(f"  {_PRESUMED}")
