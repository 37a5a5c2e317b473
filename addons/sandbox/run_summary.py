"""What a run came to, by its lane of the log: counted from entries each of which is proved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from addons.home import Home, Paths
from addons.lane_entries import LaneEntries
from kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from addons.sandbox.asked import Asked
    from addons.sandbox.running import Ended

_COUNTED_STAGES = ("request", "message", "dns")
_MOST_SHOWN = 5


@dataclass(slots=True)
class RunSummary:
    """Requests by their verdict, refusals by host and why, and how much of the log holds. A name that was refused
    counts as one refusal, however often it was asked for.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: int = 0
    entries: int = 0
    halted: str | None = None

    @property
    def denied(self) -> int:
        """How many requests were refused, for whatever reason."""
        return self.verdicts["denied"]

    def add(self, entry: Mapping[str, Any]) -> None:
        """Count one more entry."""
        self.entries += 1
        match entry["type"]:
            case "decision" if entry["stage"] in _COUNTED_STAGES:
                self._count(entry)
            case "fault":
                self.faults += 1
            case "halt":
                self.halted = str(entry.get("reason") or entry.get("code"))

    def _count(self, entry: Mapping[str, Any]) -> None:
        passes = entry["code"] == "ALLOW"
        place = entry["in"].get("host") or "-", entry["rule"] or entry["code"]
        if entry["stage"] == "dns" and (passes or place in self.refused):
            # A client asks for a name twice, once for each kind of address, and again; and what it asks is no request.
            return
        if passes:
            self.verdicts["allowed"] += 1
        elif entry["verdict"] == "ask":
            self.verdicts["asked"] += 1
        elif entry["mode"] == "observe":
            self.verdicts["would"] += 1
        else:
            self.verdicts["denied"] += 1
        if not passes:
            self.refused[place] += 1


def of_lane(home: Path, lane: str) -> tuple[RunSummary, str | None]:
    """The summary of a lane, as far as it holds, and what is wrong with it where something is."""
    root = Home.open(home).root
    summary = RunSummary()
    try:
        for entry in LaneEntries(Paths(home).lane(lane), lane, root):
            summary.add(entry.body)
    except KernelError as fault:
        return summary, f"lane {lane} does not verify: {fault}"
    return summary, None


def told(summary: RunSummary, asked: Asked, ended: Ended) -> dict[str, Any]:
    """As `--json` prints it."""
    count = summary.verdicts
    return {
        "run": asked.run, "lane": asked.lane, "status": ended.status, "tier": asked.tier, "agent": asked.agent,
        "policy": ended.policy, "seconds": round(ended.seconds, 3), "refused_packets": ended.packets,
        "allowed": count["allowed"], "denied": summary.denied, "asked": count["asked"], "would_deny": count["would"],
        "faults": summary.faults,
        "refused": [{"host": host, "why": why, "count": times} for (host, why), times in summary.refused.most_common()],
        "halted": summary.halted, "entries": summary.entries,
    }


def lines(summary: RunSummary, asked: Asked, ended: Ended) -> list[str]:
    """The summary for people."""
    count, policy = summary.verdicts, f"{asked.policy.name}@{ended.policy[:4]}"
    parts = [f"{count['allowed']} allowed", f"{summary.denied} denied"]
    parts += [f"{count['asked']} asked"] if count["asked"] else []
    parts += [f"{count['would']} would be denied"] if count["would"] else []
    parts.append(f"{summary.faults} fault{'' if summary.faults == 1 else 's'}")
    said = [f"governor: {', '.join(parts)} in {_duration(ended.seconds)}     tier {asked.tier}, policy {policy}"]
    shown = summary.refused.most_common(_MOST_SHOWN)
    if shown:
        more = len(summary.refused) - len(shown)
        listed = "   ".join(f"{times} {host} {why}" for (host, why), times in shown)
        said.append(f"  denied   {listed}{f'   and {more} more' if more > 0 else ''}")
    if ended.packets:
        kinds = ", ".join(f"{number} {kind}" for kind, number in ended.packets.items())
        said.append(f"  packets  {sum(ended.packets.values())} refused: {kinds}")
    if summary.halted:
        said.append(f"  halted   {summary.halted}: governor agents release lets it go on")
    said += [f"  trust    {each}" for each in ended.untrusting]
    said.append(f"  log      {summary.entries} entries verified   lane {asked.lane}")
    return said


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
