"""Two workers against one with everything on, one that leases what it draws against one that counts alone, and one
against another one as the control. A budget of all agents and one of each bind every request.

Load and origin share the machine with the proxies. Where that leaves no core of its own to the second worker, what the
proxies answer for each second of their CPU time says what it would do with one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from scripts.benchmark.contenders import Contender, start_governor, stop
from scripts.benchmark.measure import AXES, Bench, Samples, spread
from scripts.benchmark.policies import policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.benchmark.origin import Origin

MEASURED = ("plain_keepalive", "tls_keepalive")
# Connections fall to workers by chance: of sixteen, one worker often has eleven.
CONNECTIONS = 64
_TITLES = {"one": "one worker", "control": "control", "pooled": "one, with a ledger", "two": "two workers"}
_BUDGET = """\
budgets:
  - {budget: bench, each: {requests: 1G, bytes: 100GB}, together: {requests: 2G}, every: day, when-used: {100%: deny}}
"""

Results = dict[str, dict[str, Samples]]


def measure_workers(folder: Path, origin: Origin, bench: Bench, tell: Callable[[str], None]) -> Results:
    """What was measured on each axis. Nothing is pinned: two workers are to have two cores."""
    rules = policy(origin.addresses, (origin.http_port, origin.https_port)) + _BUDGET
    ledger = ("--set", f"governor_pool=sqlite:{folder / 'ledger.db'}")
    started: list[Contender] = []
    try:
        for name, options in (("one", ()), ("control", ()), ("pooled", ledger), ("two", ("--workers", "2"))):
            started.append(start_governor(folder, origin, name, rules, *options))
        return {axis: bench.axis(axis, started, tell) for axis in MEASURED}
    finally:
        stop(started)


def as_json(results: Results) -> dict[str, dict[str, float]]:
    """`workers.AXIS`: requests per second, and per CPU-second, against one worker: of two, one with a ledger, one."""
    return {f"workers.{axis}": _figures(samples) for axis, samples in results.items()}


def _figures(samples: dict[str, Samples]) -> dict[str, float]:
    told: dict[str, float] = {"machine_busy": round(samples["two"].typical("machine_busy"), 3)}
    for prefix, kept in (("", samples["two"]), ("pooled_", samples["pooled"]), ("control_", samples["control"])):
        for name, ratios in (("ratio", kept.ratios), ("cpu_ratio", _per_cpu_second(kept))):
            middle, low, high = spread(ratios)
            told |= {f"{prefix}{name}": round(middle, 3), f"{prefix}{name}_low": round(low, 3),
                     f"{prefix}{name}_high": round(high, 3)}
    return told


def print_table(results: Results, setting: str) -> None:
    """One row for each contender on each axis."""
    table = Table("axis", "proxy", title="against one worker", caption=setting)
    for title in ("requests/s", "low", "high", "per CPU-second", "low", "high", "requests/s here", "machine busy"):
        table.add_column(title, justify="right")
    for axis, samples in results.items():
        for name, kept in samples.items():
            here = f"{kept.typical('requests_per_second'):.0f}", f"{kept.typical('machine_busy'):.0%}"
            table.add_row(AXES[axis], _TITLES[name], *_ratios(kept), *here, end_section=name == "two")
    Console(width=130).print(table)


def _ratios(kept: Samples) -> list[str]:
    if not kept.ratios:
        return ["1", "", "", "1", "", ""]
    return [f"{figure:.2f}" for each in (kept.ratios, _per_cpu_second(kept)) for figure in spread(each)]


def _per_cpu_second(kept: Samples) -> list[float]:
    return [1 / ratio for ratio in kept.cpu_ratios]
