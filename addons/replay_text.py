"""The answer of a replay: as one word, as JSON, and in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from addons.audit_text import escaped

if TYPE_CHECKING:
    from collections import Counter

    from addons.replaying import Reading
    from kernel.replay import Divergence, Replayed

_EXIT = {"equal": 0, "divergent": 1, "incomplete": 4, "partial": 3}
PRESUMED = "It presumes a log as it was written: governor audit verify proves that."


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
        "not_replayable": reasons(found.not_replayable), "matched": found.matched, "incomplete": reading.incomplete,
        "first_divergence": first and {"entry": first.entry, "field": first.field, "recorded": first.recorded,
                                       "computed": first.computed}}


def reasons(counts: Counter[str]) -> dict[str, int]:
    """The most frequent first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def headline(reading: Reading[Replayed], seconds: float) -> str:
    found = reading.found
    counts = f"{found.equal:,} of {found.decisions:,} decisions come out again as they are in the log"
    return f"{result(reading)}: {counts} ({seconds:.1f} s)"


def problems(reading: Reading[Replayed]) -> list[str]:
    """What is missing, and the first decision that differs, field by field."""
    found = reading.found
    said = [f"incomplete: {escaped(reading.incomplete)}"] if reading.incomplete else []
    return said + (_divergence(found.first_divergence, found.divergent) if found.first_divergence else [])


def reservations(reading: Reading[Replayed]) -> list[str]:
    """What could not be made again, and why."""
    return [f"not replayable: {count:,}, {escaped(reason)}"
            for reason, count in reasons(reading.found.not_replayable).items()]


def basis(reading: Reading[Replayed]) -> list[str]:
    """What the answer rests on."""
    found_again = "the rules were found again from the request itself, with what the vault holds"
    return [f"of {reading.found.matched:,} {found_again}", PRESUMED]


def _divergence(first: Divergence, count: int) -> list[str]:
    more = f" (the first of {count:,})" if count > 1 else ""
    said = [f"{escaped(first.entry)}: {first.field} is another than computed{more}"]
    for name, value in (("recorded", first.recorded), ("computed", first.computed)):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        said.append(f"  {name} {escaped(text)}")
    return said
