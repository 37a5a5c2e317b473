"""Runs the measurement and prints a table, or the JSON that `--json` promises."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from scripts.benchmark import report, workers
from scripts.benchmark.accounts import measure_accounts
from scripts.benchmark.checks import measure_checks
from scripts.benchmark.contenders import (
    ROOT,
    Contender,
    NotStarted,
    pin,
    start_contenders,
    start_governor,
    start_streaming,
    stop,
)
from scripts.benchmark.halts import POLICY, measure_halts
from scripts.benchmark.measure import AXES, Bench, Plan, SliceFailed
from scripts.benchmark.origin import NoOrigin, Origin, start_origin
from scripts.benchmark.parts import measure_parts

FULL = Plan(rounds=6, seconds=1.5, warm_seconds=0.3, connections=16)
QUICK = Plan(rounds=3, seconds=0.5, warm_seconds=0.1, connections=16)
QUICK_AXES = ("plain_keepalive", "tls_keepalive")
QUICK_SECONDS = 44.0
EPILOG = f"""\
Axes: {"; ".join(AXES.values())}. A table of all of them also tells what single parts take: look-up,
decision, load, verify, replay, check, diff, accounts, halts. scripts/benchmark/README.md says how it is measured."""


def main() -> int:
    """0 measured, 1 a proxy or a slice failed, 2 usage."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, epilog=EPILOG)
    parser.add_argument("--quick", action="store_true", help="the two keep-alive axes alone, in under 50 seconds")
    parser.add_argument("--workers", action="store_true", help="two workers against one instead, on those axes")
    parser.add_argument("--json", action="store_true", help="print the ratios and the control's as JSON")
    options = parser.parse_args()
    if platform.system() != "Linux":
        print("scripts/bench reads /proc and so needs Linux", file=sys.stderr)
        return 2
    # Not the usual temporary folder: where that is memory, making an entry durable would cost nothing.
    with tempfile.TemporaryDirectory(prefix="governor-bench-", dir="/var/tmp") as folder:
        try:
            if options.workers:
                return _measure_workers(Path(folder), quick=options.quick, as_json=options.json)
            return _measure(Path(folder), quick=options.quick, as_json=options.json)
        except (NoOrigin, NotStarted, SliceFailed) as problem:
            print(f"scripts/bench: {problem}", file=sys.stderr)
            return 1


def _measure(folder: Path, *, quick: bool, as_json: bool) -> int:
    plan, axes = (QUICK, QUICK_AXES) if quick else (FULL, tuple(AXES))
    began = time.monotonic()
    _tell("starting nginx and four proxies")
    origin, client = start_origin(folder), _start_client()
    contenders: list[Contender] = []
    streaming: list[Contender] = []
    try:
        contenders = start_contenders(folder, origin)
        streaming = [] if quick else start_streaming(folder, origin)
        pinned = _pin([*contenders, *streaming], origin, client)
        bench = Bench(client, origin, plan)
        results = {}
        for number, axis in enumerate(axes):
            budget = (QUICK_SECONDS - (time.monotonic() - began)) / (len(axes) - number) if quick else None
            compared = [*streaming, *contenders[2:]] if axis in ("events", "models") else contenders
            results[axis] = bench.axis(axis, compared, _tell, budget)
        memory = {contender.name: contender.memory_mib() for contender in contenders}
    finally:
        stop([*contenders, *streaming])
        client.terminate()
        origin.process.terminate()
    if as_json:
        print(json.dumps(report.as_json(results), indent=2))
        return 0
    report.print_table(results, memory, _setting(folder, plan, pinned=pinned))
    if not quick:
        parts = measure_parts(folder / "policy.yaml", folder / "addon")
        halts = _measure_halts(folder, origin)
        report.print_parts({**parts, **measure_checks(), **measure_accounts(), **halts})
    return 0


def _measure_workers(folder: Path, *, quick: bool, as_json: bool) -> int:
    plan = replace(QUICK if quick else FULL, connections=workers.CONNECTIONS)
    _tell("starting nginx and four Governors, one with two workers")
    origin, client = start_origin(folder), _start_client()
    try:
        results = workers.measure_workers(folder, origin, Bench(client, origin, plan), _tell)
    finally:
        client.terminate()
        origin.process.terminate()
    if as_json:
        print(json.dumps(workers.as_json(results), indent=2))
    else:
        workers.print_table(results, _setting(folder, plan, pinned=None))
    return 0


def _start_client() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "scripts.benchmark.client"], cwd=ROOT, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _measure_halts(folder: Path, origin: Origin) -> dict[str, str]:
    contender = start_governor(folder, origin, "halts", POLICY)
    try:
        return asyncio.run(measure_halts(contender, folder / "halts"))
    finally:
        stop([contender])


def _pin(contenders: list[Contender], origin: Origin, client: subprocess.Popen[str]) -> bool:
    """Proxies on one CPU, load and origin on another; False where there is only one."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        return False
    for contender in contenders:
        pin(contender.process.pid, cpus[0])
    for pid in (origin.process.pid, client.pid):
        pin(pid, cpus[1])
    return True


def _setting(folder: Path, plan: Plan, *, pinned: bool | None) -> str:
    disk = subprocess.check_output(["stat", "-f", "-c", "%T", str(folder)], text=True).strip()
    where = {True: "proxies on one CPU, load and origin on another", False: "one CPU for everything",
             None: f"{os.cpu_count()} CPUs for everything"}[pinned]
    return (f"{plan.rounds} rounds of slices of {plan.seconds:g} s or more, {plan.connections} connections, {where}, "
            f"log on {disk}, Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f}")


def _tell(text: str) -> None:
    print(f"scripts/bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
