"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from scripts.benchmark.measure import AXES, Samples

TITLES = {"bare": "bare mitmdump", "control": "control (bare again)", "addon": "mitmdump -s", "serve": "governor serve"}

Results = dict[str, dict[str, Samples]]


def as_json(results: Results) -> dict[str, dict[str, float]]:
    """`addon.AXIS` and `serve.AXIS`: requests per second (of events: delay) against bare mitmdump, beside what the
    control spread over."""
    measured = {}
    for name in ("addon", "serve"):
        for axis, samples in results.items():
            ratio, low, high = samples[name].spread()
            _, control_low, control_high = samples["control"].spread()
            measured[f"{name}.{axis}"] = {
                "ratio": round(ratio, 3), "low": round(low, 3), "high": round(high, 3),
                "control_low": round(control_low, 3), "control_high": round(control_high, 3),
            }
    return measured


def print_table(results: Results, memory: dict[str, float], setting: str) -> None:
    """One row for each proxy on each axis."""
    title = "requests per second, of event streams the delay, against bare mitmdump"
    table = Table("axis", "proxy", title=title, caption=setting)
    for title in ("ratio", "low", "high", "CPU ratio", "requests/s", "p50 ms", "p90 ms", "p99 ms", "MiB"):
        table.add_column(title, justify="right")
    for axis, samples in results.items():
        for name, kept in samples.items():
            table.add_row(AXES[axis], TITLES[name], *_ratios(kept), *_typical(kept), f"{memory[name]:.0f}",
                          end_section=name == "serve")
    Console(width=130).print(table)


def print_parts(parts: dict[str, str]) -> None:
    """One row for each part."""
    table = Table("part", title="single parts, one core")
    table.add_column("here", justify="right")
    for part, taken in parts.items():
        table.add_row(part, taken)
    Console(width=130).print(table)


def _ratios(samples: Samples) -> list[str]:
    if not samples.ratios:
        return ["1", "", "", "1"]
    cpu = sorted(samples.cpu_ratios)[len(samples.cpu_ratios) // 2]
    return [f"{figure:.2f}" for figure in (*samples.spread(), cpu)]


def _typical(samples: Samples) -> list[str]:
    latencies = [f"{samples.typical(name):.1f}" for name in ("p50_ms", "p90_ms", "p99_ms")]
    return [f"{samples.typical('requests_per_second'):.0f}", *latencies]
