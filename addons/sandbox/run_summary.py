"""What a run came to, by its lane of the log: counted from entries each of which is proved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_COUNTED_STAGES = ("request", "message", "dns")
_MOST_SHOWN = 5


@dataclass(slots=True)
class RunSummary:
    """Requests by their verdict, refusals by host and why, money in micro-USD, and how much of the log holds."""

    verdicts: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    spent: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    entries: int = 0
    halted: str | None = None

    @property
    def denied(self) -> int:
        """How many requests were refused, for whatever reason."""
        return self.verdicts["denied"]

    def told(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "allowed": self.verdicts["allowed"], "denied": self.denied, "asked": self.verdicts["asked"],
            "would_deny": self.verdicts["would"], "faults": self.faults,
            "refused": [{"host": host, "why": why, "count": count}
                        for (host, why), count in self.refused.most_common()],
            "spent": dict(self.spent), "halted": self.halted, "entries": self.entries,
        }


def summed(entries: Iterable[Mapping[str, Any]]) -> RunSummary:
    """The summary of a lane's entries."""
    summary = RunSummary()
    for entry in entries:
        summary.entries += 1
        match entry["type"]:
            case "decision" if entry["stage"] in _COUNTED_STAGES:
                _count(summary, entry)
            case "fault":
                summary.faults += 1
            case "halt":
                summary.halted = str(entry.get("reason") or entry.get("code"))
    return summary


def _count(summary: RunSummary, entry: Mapping[str, Any]) -> None:
    passes = entry["code"] == "ALLOW"
    if passes:
        summary.verdicts["allowed"] += 1
    elif entry["verdict"] == "ask":
        summary.verdicts["asked"] += 1
    elif entry["mode"] == "observe":
        summary.verdicts["would"] += 1
    else:
        summary.verdicts["denied"] += 1
    if not passes:
        summary.refused[entry["in"].get("host") or "-", entry["rule"] or entry["code"]] += 1
    for draw in entry.get("draws", ()):
        summary.spent[draw["unit"]] += draw["amount"]


def lines(summary: RunSummary, tier: str, policy: str, run: str, seconds: float, packets: Mapping[str, int]) -> list[str]:
    """The summary for people."""
    count = summary.verdicts
    parts = [f"{count['allowed']} allowed", f"{summary.denied} denied"]
    parts += [f"{count['asked']} asked"] if count["asked"] else []
    parts += [f"{count['would']} would be denied"] if count["would"] else []
    parts.append(f"{summary.faults} fault{'' if summary.faults == 1 else 's'}")
    told = [f"governor: {', '.join(parts)} in {_duration(seconds)}     tier {tier}, policy {policy}"]
    shown = summary.refused.most_common(_MOST_SHOWN)
    if shown:
        more = len(summary.refused) - len(shown)
        listed = "   ".join(f"{number} {host} {why}" for (host, why), number in shown)
        told.append(f"  denied   {listed}{f'   and {more} more' if more > 0 else ''}")
    if packets:
        total = sum(packets.values())
        kinds = ", ".join(f"{number} {kind}" for kind, number in packets.items())
        told.append(f"  packets  {total} refused: {kinds}")
    if summary.spent["micro-usd"]:
        told.append(f"  spent    {summary.spent['micro-usd'] / 1_000_000:.2f} USD")
    if summary.halted:
        told.append(f"  halted   {summary.halted}: governor agents release lets it go on")
    told.append(f"  log      {summary.entries} entries verified   lane run-{run}")
    return told


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
