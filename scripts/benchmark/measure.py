"""Interleaved slices: each is judged against the bare slices right before and after it."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.benchmark.contenders import Contender, machine_seconds
from scripts.benchmark.origin import Origin

AXES = {
    "plain_keepalive": "plain, keep-alive",
    "tls_keepalive": "TLS, keep-alive",
    "plain_new": "plain, new connections",
    "tls_new": "TLS, new connections",
    "h2": "HTTP/2",
    "events": "event stream",
    "models": "answer of a model",
}
# What is compared on each axis: requests per second, or of an event stream the usual delay of an event.
_FIGURES = {"events": "p50_ms", "models": "p50_ms"}


class SliceFailed(Exception):
    """A slice in which a request was not answered by the origin."""


@dataclass
class Samples:
    """What was measured of one contender on one axis. Ratios are to the bare slices around each slice."""

    ratios: list[float] = field(default_factory=list)
    cpu_ratios: list[float] = field(default_factory=list)
    slices: list[dict[str, Any]] = field(default_factory=list)

    def spread(self) -> tuple[float, float, float]:
        """Median, low and high of the ratios."""
        return spread(self.ratios)

    def typical(self, name: str) -> float:
        return float(statistics.median(one[name] for one in self.slices))


def spread(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Median, low and high: the quartiles, or the extremes of fewer than eight."""
    ordered = sorted(ratios)
    if len(ordered) < 8:
        return statistics.median(ordered), ordered[0], ordered[-1]
    low, middle, high = statistics.quantiles(ordered, n=4)
    return middle, low, high


@dataclass(frozen=True)
class Plan:
    """How much is measured on each axis."""

    rounds: int
    seconds: float
    warm_seconds: float
    connections: int


class Bench:
    """The load generator's process and what it is pointed at."""

    def __init__(self, client: subprocess.Popen[str], origin: Origin, plan: Plan) -> None:
        self._client, self._origin, self._plan = client, origin, plan
        self._seconds = plan.seconds

    def axis(self, axis: str, contenders: list[Contender], tell: Callable[[str], None],
             budget_seconds: float | None = None) -> dict[str, Samples]:
        """All samples of one axis; with a budget, in slices as long as that allows. Raises `SliceFailed`."""
        bare, others = contenders[0], contenders[1:]
        samples = {contender.name: Samples() for contender in contenders}
        self._seconds, began = self._plan.seconds, time.monotonic()
        before = self._slice(axis, bare)
        if budget_seconds is not None:
            self._fill(budget_seconds, time.monotonic() - began, self._plan.rounds * len(others) * 2)
        for number in range(self._plan.rounds):
            tell(f"{AXES[axis]}: round {number + 1} of {self._plan.rounds}")
            for contender in _alternating(others, number):
                one, after = self._slice(axis, contender), self._slice(axis, bare)
                kept = samples[contender.name]
                kept.ratios.append(_ratio(_FIGURES.get(axis, "requests_per_second"), one, before, after))
                kept.cpu_ratios.append(_ratio("cpu_ms", one, before, after))
                kept.slices.append(one)
                samples[bare.name].slices.append(after)
                before = after
        return samples

    def _fill(self, budget_seconds: float, first_seconds: float, slices: int) -> None:
        """Make the slices to come as long as the budget allows after a first one, which shows what connecting takes."""
        each = (budget_seconds - first_seconds) / slices
        self._seconds = max(self._plan.seconds, each - (first_seconds - self._plan.seconds))

    def _origin_port(self, axis: str) -> int:
        if axis in _FIGURES:
            return self._origin.events_port
        return self._origin.http_port if axis.startswith("plain") else self._origin.https_port

    def _slice(self, axis: str, contender: Contender) -> dict[str, Any]:
        job = {
            "axis": axis, "proxy_port": contender.port, "connections": self._plan.connections,
            "origin_port": self._origin_port(axis),
            "warm_seconds": self._plan.warm_seconds, "seconds": self._seconds,
        }
        assert self._client.stdin
        assert self._client.stdout
        busy, machine = contender.busy_seconds(), machine_seconds()
        self._client.stdin.write(json.dumps(job) + "\n")
        self._client.stdin.flush()
        measured: dict[str, Any] = json.loads(self._client.stdout.readline() or '{"error": "the load generator ended"}')
        if "error" in measured:
            raise SliceFailed(f"{AXES[axis]} through {contender.name}: {measured['error']}")
        used, passed = (after - before for before, after in zip(machine, machine_seconds(), strict=True))
        return {**measured, "cpu_ms": (contender.busy_seconds() - busy) * 1000 / measured["requests"],
                "machine_busy": used / passed}


def _ratio(figure: str, one: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> float:
    return float(one[figure] / ((before[figure] + after[figure]) / 2 or 1))


def _alternating(contenders: list[Contender], number: int) -> Iterator[Contender]:
    return iter(contenders if number % 2 == 0 else contenders[::-1])
