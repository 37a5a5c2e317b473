"""Swarms in simulated time: whatever the network does, no budget is overspent, and halts and epochs come everywhere."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import repeat

import pytest

from kernel.contagion import Prevention
from kernel.leases import LEASE_SECONDS
from kernel.verdict import Code
from tests.conftest import SCALE, scaled
from tests.swarm.afterwards import Report
from tests.swarm.network import Weather
from tests.swarm.plans import Plan, calm
from tests.swarm.swarm import simulated
from tests.swarm.virtual_time import run

LARGE = Plan(agents=10_000, proxies=100, teams=400, seconds=32.0, requests=1.25, acts=8, risky=2)
STORM = Plan(weather=Weather(lost=0.1, twice=0.1, late=0.05), cuts=1.0)
swarm = cache(simulated)


@pytest.mark.parametrize("plan", [
    pytest.param(Plan(), id="quarantine"), pytest.param(Plan(do=Prevention.HALT), id="halt"),
    pytest.param(STORM, id="storm"),
])
@pytest.mark.parametrize("seed", range(scaled(5)))
def test_what_a_swarm_is_promised_holds_on_every_seed(seed: int, plan: Plan) -> None:
    assert swarm(seed, plan).draws > 100


def test_swarms_see_all_that_they_are_held_against() -> None:
    found = [swarm(seed, plan) for seed in range(5) for plan in (Plan(), STORM)]

    codes = sum((each.codes for each in found), Counter[str]())
    assert {Code.ALLOW, Code.BUDGET_EXHAUSTED, Code.POOL_UNREACHABLE, Code.RATE_LIMITED, Code.AGENT_HALTED,
            Code.QUARANTINED, Code.OVERRISK} <= codes.keys()
    assert all(sum(getattr(each, name) for each in found) for name in (
        "spread", "held_back", "throttled", "stranded", "latest_pass", "slowest_halt"))


def test_the_same_seed_gives_the_same_swarm() -> None:
    assert simulated(7, Plan()) == simulated(7, Plan())


def test_time_passes_as_fast_as_nothing_happens() -> None:
    async def wait() -> float:
        await asyncio.sleep(LEASE_SECONDS * 1000)
        return asyncio.get_running_loop().time()

    assert run(wait()) == pytest.approx(LEASE_SECONDS * 1000)


def test_a_draw_costs_as_much_with_ten_proxies_as_with_a_hundred(capsys: pytest.CaptureFixture[str]) -> None:
    found = {proxies: simulated(1, calm(proxies)) for proxies in (10, 30, 100)}

    with capsys.disabled():
        _print(found)
    few, many = found[10], found[100]
    # Purses grow with the agents, and chunks are shares of them: so nothing of this depends on how many proxies there
    # are, but for how requests happen to fall. A tenth more is chance, ten times as much would be a protocol's cost.
    assert many.calls_per_draw < 1.25 * few.calls_per_draw
    assert many.entries_per_draw < 1.25 * few.entries_per_draw
    assert many.beats_per_proxy < 1.25 * few.beats_per_proxy


def _print(found: dict[int, Report]) -> None:
    print("\nproxies  draws  ledger calls a draw  entries a draw  beats of a proxy a second")
    for proxies, each in found.items():
        print(f"{proxies:7} {each.draws:6} {each.calls_per_draw:20.3f} {each.entries_per_draw:15.3f} "
              f"{each.beats_per_proxy:26.2f}")


@pytest.mark.skipif(SCALE < 10, reason="hundreds of large swarms run under scripts/test --all")
def test_ten_thousand_agents_and_a_hundred_proxies_on_a_hundred_seeds() -> None:
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(simulated, range(100), repeat(LARGE)))

    assert min(each.draws for each in found) > 5_000
    assert max(each.slowest_halt for each in found) < 1.5
