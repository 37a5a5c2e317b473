"""What several workers tell of agents, as one row for each: the strictest state, and all draws added up."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kernel.standings import Balance, Condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from addons.agent_rows import Row

_STRICTEST = tuple(reversed(Condition))


def merged(told: Iterable[Sequence[Row]]) -> list[Row]:
    """One row for each agent that any worker knows."""
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for rows in told:
        for row in rows:
            found[row["id"]].append(row)
    return [one(found[name]) for name in sorted(found)]


def one(rows: Sequence[Row]) -> Row:
    """The row of an agent, of what each worker tells of it."""
    # Of several that tell of one state, the one that it has been in for longest.
    first = min(rows, key=lambda row: (_STRICTEST.index(row["state"]), row["since"] or ""))
    row = dict(first)
    row["last_seen"] = max(filter(None, (each["last_seen"] for each in rows)), default=None)
    row["risk"] = _sum(each["risk"] for each in rows)
    for name in ("budgets", "counters"):
        if name in row:
            row[name] = _added(told for each in rows for told in each[name])
    if "open" in row:
        row["open"] = sum(each["open"] for each in rows)
    return row


def _sum(points: Iterable[int | None]) -> int | None:
    known = [each for each in points if each is not None]
    return sum(known) if known else None


def _added(told: Iterable[Row]) -> list[Row]:
    found: dict[tuple[str, str, bool], Balance] = {}
    for each in told:
        other = Balance(**{name: value for name, value in each.items() if name != "remaining"})
        key = other.budget, other.unit, other.each
        found[key] = other if key not in found else found[key].with_other(other)
    return [each._asdict() | {"remaining": each.remaining} for each in found.values()]
