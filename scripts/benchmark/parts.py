"""What single parts cost: the policy's load, the index, the decision, verifying and replaying the run's log."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from random import Random

from addons.audit_log import AuditLog
from addons.audit_view import Filter
from addons.policy_files import load_policy
from addons.replaying import replayed
from addons.verifying import verify_log
from kernel import normal
from kernel.decide import address_stage, name_stage
from kernel.facts import Agent, RequestFacts
from kernel.match import Index
from scripts.benchmark.policies import RULES

CALLS = 50_000
GLOBAL_ADDRESS = ip_address("93.184.216.34")


def measure_parts(policy: Path, home: Path) -> dict[str, str]:
    """Each part's name with what it took here, on one core and in this process."""
    began = time.perf_counter()
    index = Index(load_policy([policy]).policy)
    loaded = time.perf_counter() - began
    requests = _requests(Random(7))
    first, lookups = (_microseconds(index.by_name, requests) for _ in range(2))
    decisions = _microseconds(lambda facts: _decide(index, facts), requests)
    began = time.perf_counter()
    report = verify_log(AuditLog.at(home), None)
    rate = report.entries / (time.perf_counter() - began)
    began = time.perf_counter()
    replay = replayed(AuditLog.at(home), Filter(), 1).found
    pace = replay.decisions / (time.perf_counter() - began)
    return {
        f"load and index {RULES:,} rules": f"{loaded:.2f} s",
        "lookup of a host never seen, p50 and p99": f"{_share(first, 50):.1f} and {_share(first, 99):.1f} us",
        "lookup of a host seen before, p50 and p99": f"{_share(lookups, 50):.1f} and {_share(lookups, 99):.1f} us",
        "whole decision, p50 and p99": f"{_share(decisions, 50):.1f} and {_share(decisions, 99):.1f} us",
        f"verify this run's log ({report.entries:,} entries, {report.result})": f"{rate:,.0f} entries/s",
        f"replay it ({replay.equal:,} of {replay.decisions:,} decisions equal)": f"{pace:,.0f} decisions/s",
    }


def _decide(index: Index, facts: RequestFacts) -> None:
    if name_stage(index, facts) is None:
        address_stage(index, facts, (GLOBAL_ADDRESS,), frozenset())


def _requests(chance: Random) -> list[RequestFacts]:
    """Requests to hosts of the policy and beside them, as a mixed day would have them."""
    return [_request(chance) for _ in range(CALLS)]


def _request(chance: Random) -> RequestFacts:
    number = chance.randrange(1, RULES)
    below = chance.choice(("", "", "www.", "a.b."))
    host = normal.host(f"{below}s{number}.team{number % chance.choice((97, 97, 96))}.example.org")
    path = normal.path(chance.choice(("/", "/status", f"/v1/team{number % 97}/items/{number}", "/v2/other")))
    agent = Agent(f"agent-{number % 97}-1", "proxy-auth")
    return RequestFacts(agent, chance.choice(("GET", "POST")), "https", host, 443, path)


def _microseconds(call: Callable[[RequestFacts], object], requests: list[RequestFacts]) -> list[float]:
    taken = []
    for facts in requests:
        began = time.perf_counter_ns()
        call(facts)
        taken.append((time.perf_counter_ns() - began) / 1000)
    return sorted(taken)


def _share(ordered: list[float], percent: int) -> float:
    return ordered[len(ordered) * percent // 100]
