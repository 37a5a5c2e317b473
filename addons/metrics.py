"""What Governor counts, and how Prometheus reads it.

The counts are plain integers behind one lock: a prometheus_client counter takes a lock of its own for every
increment, and a decision would pay five. The families are built when somebody asks. Every label is bounded, so no
agent can make the numbers grow without end.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from enum import StrEnum
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from addons.sandbox.ruleset import KINDS
from kernel.contagion import Prevention
from kernel.verdict import Action, Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from kernel.standings import Total

type Counts = dict[str, Any]
"""What a process has counted, by the names of the families."""
type Readings = dict[str, Any]
"""What stands in a process at the moment of a scrape."""

NOT_STOPPING = "not_stopping"
"""The condition of readiness that fails from the moment a process is asked to stop."""
OTHER = "other"
_YES, _NO = "yes", "no"
# No agent can be registered under this name.
UNIDENTIFIED = "-"
PREFIX = "governor_"
AGENT_LABELS = 200
RULE_LABELS = 500
PLACE_LABELS = 64
BUDGET_LABELS = 200

DECISION_BOUNDS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0,
)  # fmt: skip
COMMIT_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
UPSTREAM_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

_DECISION_HELP = "Time to a verdict with the lookup of the name, without the log."
_ANCHOR_AGE_HELP = "For how long entries have waited that an anchor of this kind does not hold; 0 where none do."
_HELD_BACK_HELP = "Agents that are slowed down, or only read, because another one was halted."
_UPSTREAM_HELP = "Time an origin took to the head of its response."

_FIRST_DECISIONS = (
    (Action.ALLOW, Code.ALLOW),
    (Action.DENY, Code.DEFAULT_DENY),
    (Action.DENY, Code.RULE_DENY),
    (Action.DENY, Code.FAULT),
    (Action.DENY, Code.AUDIT_UNAVAILABLE),
    (Action.DENY, Code.CLOCK_JUMP),
    (Action.DENY, Code.CONTRACT_VIOLATION),
)


HALT_REASONS = (
    Code.EXHAUSTION, Code.OVERRISK, Code.EXPLORATION_DRIFT, Code.PERSISTENCE_LIMIT, Code.STAGNATION, Code.EXTERNAL,
    Code.OPERATOR, Code.CASCADE, Code.CONTRACT_VIOLATION,
)  # fmt: skip
_BUDGET_HELP = {
    "limit": "What a budget allows: all together, or each agent that drew on it added up.",
    "spent": "What of a budget is gone in its window.",
    "held": "What of a budget is held for flows that have not ended.",
}


class Side(StrEnum):
    """Between whom a TLS handshake failed: the client and Governor, or Governor and the origin."""

    CLIENT = "client"
    ORIGIN = "origin"


class Gauge(StrEnum):
    """A value that is read when Prometheus asks for it."""

    READY = "ready"
    OPEN_STREAMS = "open_streams"
    UNANCHORED = "audit_unanchored_entries"
    ANCHOR_OVERDUE = "audit_anchor_overdue"
    DISK_FREE = "audit_disk_free_bytes"
    CA_EXPIRY = "ca_expiry_timestamp_seconds"
    POOL_UP = "pool_up"


_GAUGE_HELP = {
    Gauge.READY: "1 when requests can be judged and logged, else 0.",
    Gauge.OPEN_STREAMS: "Flows that were let through and have not ended.",
    Gauge.UNANCHORED: "Log entries that no anchor covers yet.",
    Gauge.ANCHOR_OVERDUE: "1 while what anchors.yaml requires is not met, else 0.",
    Gauge.DISK_FREE: "Free bytes on the volume that holds the log.",
    Gauge.POOL_UP: "1 while the ledger of shared budgets answers, else 0.",
    Gauge.CA_EXPIRY: "When the certificate of the CA ends, as a Unix time.",
}


class Labels:
    """The first `limit` names are their own label; every later one is `other`."""

    __slots__ = ("_limit", "_names")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: set[str] = set()

    def label(self, name: str) -> str:
        names = self._names
        if name in names or name == OTHER:
            return name
        if len(names) >= self._limit:
            return OTHER
        names.add(name)
        return name


class Counter:
    """Counts by the values of their labels, of the first at most `most`. Not locked: `Metrics` holds the lock."""

    __slots__ = ("counts", "first", "labels", "most", "name", "text")

    def __init__(self, name: str, text: str, *labels: str, most: int = PLACE_LABELS) -> None:
        self.name, self.text, self.labels, self.most = name, text, labels, most
        self.first = Labels(most)
        self.counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
        if not labels:
            self.counts[()] = 0

    def copy(self) -> Counter:
        copy = Counter(self.name, self.text, *self.labels, most=self.most)
        copy.first = self.first
        copy.counts.update(self.counts)
        return copy

    def told(self) -> list[list[Any]]:
        """The counts as JSON has them: labels, then the count."""
        return [[*values, count] for values, count in self.counts.items()]

    def add(self, told: Sequence[Sequence[Any]]) -> None:
        """Add what another process counted."""
        for *values, count in told:
            if values:
                values[0] = self.first.label(values[0])
            self.counts[tuple(values)] += count

    def family(self) -> Metric:
        family = CounterMetricFamily(PREFIX + self.name, self.text, labels=self.labels)
        for values, count in self.counts.items():
            family.add_metric([str(value) for value in values], count)
        return family


class Histogram:
    """Observed seconds in fixed buckets. Not locked: `Metrics` holds the lock."""

    __slots__ = ("bounds", "counts", "name", "text", "total_seconds")

    def __init__(self, name: str, text: str, bounds: tuple[float, ...]) -> None:
        self.name, self.text, self.bounds = name, text, bounds
        self.counts, self.total_seconds = [0] * (len(bounds) + 1), 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_seconds += seconds

    def copy(self) -> Histogram:
        copy = Histogram(self.name, self.text, self.bounds)
        copy.counts, copy.total_seconds = self.counts[:], self.total_seconds
        return copy

    def told(self) -> list[Any]:
        """The counts of the buckets and the seconds, as JSON has them."""
        return [self.counts, self.total_seconds]

    def add(self, told: Sequence[Any]) -> None:
        """Add what another process observed in the same buckets."""
        counts, seconds = told
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, counts, strict=True)]
        self.total_seconds += seconds

    def family(self) -> Metric:
        edges = [*map(str, self.bounds), "+Inf"]
        buckets = list(zip(edges, accumulate(self.counts), strict=True))
        return HistogramMetricFamily(PREFIX + self.name, self.text, buckets=buckets, sum_value=self.total_seconds)


class Metrics(Collector):
    """Everything Governor counts. Every method may be called from every thread."""

    def __init__(self, version: str, mitmproxy: str) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._build = {"version": version, "mitmproxy": mitmproxy}
        self._decisions = Counter("decisions", "Verdicts by what and why.", "verdict", "code")
        self._agents = Counter("agent_decisions", "Verdicts by agent.", "agent", "verdict",
                               most=AGENT_LABELS)
        self._rules = Counter("rule_hits", "Verdicts that a rule decided.", "rule", most=RULE_LABELS)
        self._entries = Counter("audit_entries", "Entries of the log.", "type")
        self._faults = Counter("faults", "Faults; each one blocked what it met.", "where")
        self._tls_failures = Counter("tls_failures", "Failed TLS handshakes.", "side")
        self._steps = Counter("steps", "Steps of the kernel.")
        self._rate_limited = Counter("rate_limited", "Requests answered 429.")
        self._halts = Counter("halts", "Agents that were halted, by why.", "reason")
        self._preventive = Counter("preventive_acts", "What halts did to other agents.", "do", "degraded")
        self._packets = Counter("refused_packets", "Packets of sandboxed commands that led nowhere, by kind.", "kind")
        self._reload_failures = Counter("policy_reload_failures", "New policies that were refused.")
        self._decision_seconds = Histogram("decision_seconds", _DECISION_HELP, DECISION_BOUNDS)
        self._commit_seconds = Histogram("audit_commit_seconds", "Time of one group commit of the log.", COMMIT_BOUNDS)
        self._upstream_seconds = Histogram("upstream_seconds", _UPSTREAM_HELP, UPSTREAM_BOUNDS)
        self._families = tuple(family for family in vars(self).values() if isinstance(family, Counter | Histogram))
        self._policy: tuple[str, str, float] | None = None
        self._readings: dict[Gauge, Callable[[], float]] = {}
        self._halted: Callable[[], Mapping[str, str]] = dict
        self._held_back: Callable[[], Mapping[str, int]] = dict
        self._budgets: Callable[[], Sequence[Total]] = list
        self._anchor_ages: Callable[[], Mapping[str, float]] = dict
        self._others: Callable[[], Iterable[Counts]] = list
        self._start_at_zero()
        self.registry.register(self)

    def _start_at_zero(self) -> None:
        """increase() needs a first sample at zero: give one to what alerts look at."""
        self._decisions.counts.update(dict.fromkeys(_FIRST_DECISIONS, 0))
        self._faults.counts[OTHER,] = 0
        self._halts.counts.update({(reason,): 0 for reason in HALT_REASONS})
        self._preventive.counts[Prevention.THROTTLE, _YES] = 0
        self._tls_failures.counts.update({(side,): 0 for side in Side})
        self._packets.counts.update({(kind,): 0 for kind in KINDS})

    def decision(self, verdict: str, code: str, agent: str, rule: str | None, seconds: float) -> None:
        """Count one verdict on a request, message or DNS question, not on a CONNECT.

        `agent` is empty where nobody was identified; `seconds` is the time to the verdict.
        """
        with self._lock:
            self._decisions.counts[verdict, code] += 1
            self._agents.counts[self._agents.first.label(agent or UNIDENTIFIED), verdict] += 1
            if rule is not None:
                self._rules.counts[self._rules.first.label(rule),] += 1
            self._decision_seconds.observe(seconds)

    def step(self) -> None:
        """Count one step of the kernel, of any kind."""
        with self._lock:
            self._steps.counts[()] += 1

    def rate_limited(self) -> None:
        """Count one request that was answered 429."""
        with self._lock:
            self._rate_limited.counts[()] += 1

    def outcome(self, upstream_seconds: float | None) -> None:
        """Note how long an origin took from the request to the head of its response; None where there was none."""
        if upstream_seconds is not None:
            with self._lock:
                self._upstream_seconds.observe(upstream_seconds)

    def entry(self, kind: str) -> None:
        """Count one entry of the log by its type."""
        with self._lock:
            self._entries.counts[self._entries.first.label(kind),] += 1

    def commit(self, seconds: float) -> None:
        """Note how long one group commit took, from its first write to the end of its fdatasync."""
        with self._lock:
            self._commit_seconds.observe(seconds)

    def fault(self, where: str) -> None:
        """Count one fault; `where` is a fixed word such as a hook's name, never text from a flow."""
        with self._lock:
            self._faults.counts[self._faults.first.label(where),] += 1

    def halt(self, reason: str) -> None:
        """Count one agent that was halted; `reason` is the code of the halt."""
        with self._lock:
            self._halts.counts[reason,] += 1

    def preventive(self, do: str, *, degraded: bool) -> None:
        """Count one act that followed from another agent's halt; `degraded`: the blast radius did not allow more."""
        with self._lock:
            self._preventive.counts[do, _YES if degraded else _NO] += 1

    def tls_failure(self, side: Side) -> None:
        """Count one failed handshake."""
        with self._lock:
            self._tls_failures.counts[side,] += 1

    def refused_packets(self, counts: Mapping[str, int]) -> None:
        """Say how many packets of each kind were refused since the process began."""
        with self._lock:
            self._packets.counts.update({(kind,): count for kind, count in counts.items()})

    def policy_loaded(self, digest: str, mode: str, at: float) -> None:
        """Say which policy is in force since `at` (Unix time), and in which mode."""
        self._policy = (digest, mode, at)

    def reload_failed(self) -> None:
        """Count one new policy that was refused."""
        with self._lock:
            self._reload_failures.counts[()] += 1

    def read(self, gauge: Gauge, reading: Callable[[], float]) -> None:
        """Have `gauge` read by calling `reading` at every scrape, in the thread of the metrics server."""
        self._readings[gauge] = reading

    def read_standings(
        self, halted: Callable[[], Mapping[str, str]], budgets: Callable[[], Sequence[Total]]
    ) -> None:
        """Have halts (agent to reason, the first first) and budgets read at every scrape, in the server's thread."""
        self._halted, self._budgets = halted, budgets

    def read_held_back(self, held_back: Callable[[], Mapping[str, int]]) -> None:
        """Have it read at every scrape how many agents others' halts hold back, by how, in the server's thread."""
        self._held_back = held_back

    def read_anchors(self, ages: Callable[[], Mapping[str, float]]) -> None:
        """Have the ages of anchors (kind to seconds) read at every scrape, in the server's thread."""
        self._anchor_ages = ages

    def read_others(self, others: Callable[[], Iterable[Counts]]) -> None:
        """Have what other processes counted added at every scrape, in the thread of the metrics server."""
        self._others = others

    def counts(self) -> Counts:
        """Everything that was counted here, for another process to add."""
        with self._lock:
            return {family.name: family.told() for family in self._families}

    def absorb(self, counts: Counts) -> None:
        """Count what a process had counted that is gone."""
        with self._lock:
            for family in self._families:
                family.add(counts[family.name])

    def readings(self) -> Readings:
        """Everything that is read at a scrape, for another process to tell."""
        return {
            "gauges": {gauge: value for gauge in Gauge if (value := self._value(gauge)) is not None},
            "halted": dict(self._halted()), "budgets": [_told(each) for each in self._budgets()[:BUDGET_LABELS]],
            "held_back": dict(self._held_back()), "anchor_ages": dict(self._anchor_ages()), "policy": self._policy,
        }

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition in the format that `accept` (an Accept header) prefers, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Yield every family; called by the registry."""
        gauges = [*(self._gauge(gauge) for gauge in Gauge), *self._standings(), self._anchors()]
        with self._lock:
            # Copied here and built outside: a decision waits for this lock.
            copies = [family.copy() for family in self._families]
        for counts in self._others():
            for copy in copies:
                copy.add(counts[copy.name])
        yield from (copy.family() for copy in copies)
        yield from gauges
        yield from self._facts()

    def _gauge(self, gauge: Gauge) -> Metric:
        family = GaugeMetricFamily(PREFIX + gauge, _GAUGE_HELP[gauge])
        value = self._value(gauge)
        if value is not None:
            family.add_metric([], value)
        return family

    def _value(self, gauge: Gauge) -> float | None:
        reading = self._readings.get(gauge)
        try:
            return None if reading is None else float(reading())
        except Exception:  # noqa: BLE001
            # One reading that fails must not cost the others; its absence and the fault tell.
            self.fault("metrics")
            return None

    def _standings(self) -> list[Metric]:
        halted = GaugeMetricFamily(PREFIX + "halted", "Agents that are halted, by why.", labels=["agent", "reason"])
        budgets = {name: GaugeMetricFamily(f"{PREFIX}budget_{name}", text, labels=["budget", "unit"])
                   for name, text in _BUDGET_HELP.items()}
        try:
            for (agent, reason), count in _by_label(self._halted()).items():
                halted.add_metric([agent, reason], count)
            for each in self._budgets()[:BUDGET_LABELS]:
                for name, family in budgets.items():
                    family.add_metric([each.budget, each.unit], getattr(each, name))
        except Exception:  # noqa: BLE001
            self.fault("metrics")
        return [halted, self._prevented(), *budgets.values()]

    def _prevented(self) -> Metric:
        family = GaugeMetricFamily(PREFIX + "held_back", _HELD_BACK_HELP, labels=["do"])
        try:
            counts = self._held_back()
        except Exception:  # noqa: BLE001
            self.fault("metrics")
            return family
        for do in (Prevention.THROTTLE, Prevention.QUARANTINE):
            family.add_metric([do], counts.get(do, 0))
        return family

    def _anchors(self) -> Metric:
        family = GaugeMetricFamily(PREFIX + "audit_anchor_age_seconds", _ANCHOR_AGE_HELP, labels=["kind"])
        try:
            for kind, seconds in self._anchor_ages().items():
                family.add_metric([kind], seconds)
        except Exception:  # noqa: BLE001
            self.fault("metrics")
        return family

    def _facts(self) -> Iterator[Metric]:
        yield InfoMetricFamily(PREFIX + "build", "Which Governor on which mitmproxy.", value=self._build)
        policy = self._policy
        mode = InfoMetricFamily(PREFIX + "mode", "The mode in force.", labels=["mode"])
        digest = InfoMetricFamily(PREFIX + "policy", "The policy in force by its digest.", labels=["digest"])
        loaded = GaugeMetricFamily(PREFIX + "policy_loaded_timestamp_seconds", "Since when it is in force, Unix time.")
        if policy is not None:
            digest.add_metric([], {"digest": policy[0]})
            mode.add_metric([], {"mode": policy[1]})
            loaded.add_metric([], policy[2])
        yield from (mode, digest, loaded)


def _told(total: Total) -> list[Any]:
    """A total as JSON has it."""
    *numbers, agents = total
    return [*numbers, None if agents is None else list(agents)]


def _by_label(halted: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """How many agents stand behind each label; only the first two hundred that were halted have their own."""
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    for number, (agent, reason) in enumerate(halted.items()):
        counts[agent if number < AGENT_LABELS else OTHER, reason] += 1
    return counts
