"""What the kernel's accounts cost: a whole step as the judge takes it, and the state of many agents in memory."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

from addons.policy_files import read_policy
from addons.time_zones import find
from kernel import entry
from kernel.bounds import Bounds
from kernel.budget import Budget, Effect, Every, RateLimit, Threshold, Unit
from kernel.contracts import broken
from kernel.measures import Rate
from kernel.policy import Policy, Position
from kernel.state import NO_CHANGE, State
from kernel.state_digest import Reads
from kernel.step import Asked, step
from kernel.transition import change
from kernel.verdict import Action, Code, Verdict
from scripts.benchmark.policies import RULES, policy

AGENTS, MANY_AGENTS, STEPS = 10_000, 100_000, 50_000
_START_US = 1_800_000_000_000_000
_ALLOWED = Verdict(Action.ALLOW, Code.ALLOW, "origin")
_AT = Position("policy.yaml", 1, 1)


def measure_accounts() -> dict[str, str]:
    """Each figure's name with what it was here, on one core and in this process."""
    bounds = Bounds(_policy())
    state = State()
    steps = sorted(_steps(bounds, state, AGENTS, STEPS))
    alone = sorted(_alone(bounds, state, AGENTS, STEPS))
    mib, rest = _memory_mib(bounds)
    return {
        f"kernel step, {RULES:,} rules with budgets, {AGENTS:,} agents, p50 and p99": _shares(alone),
        "the same with its entry, both hashes, its change and the contracts": _shares(steps),
        f"state of {MANY_AGENTS:,} agents, each with {rest} accounts": f"{mib:.0f} MiB",
    }


def _shares(ordered: list[float]) -> str:
    return f"{ordered[len(ordered) // 2]:.1f} and {ordered[len(ordered) * 99 // 100]:.1f} us"


def _policy() -> Policy:
    """The policy of the measurement with a budget of an agent's and all agents' day, a rate and a profile on top."""
    berlin = find("Europe/Berlin")
    assert berlin is not None
    when = (Threshold(80, Effect.TELL), Threshold(95, Effect.THROTTLE, Rate(6, 60)), Threshold(100, Effect.DENY))
    daily = {Unit.REQUESTS: 20_000, Unit.BYTES: 10**10}
    budgets = (
        Budget("daily", None, daily, {Unit.REQUESTS: 10**8}, Every.DAY, berlin, when, _AT),
    )
    rates = (RateLimit("rates-1", None, Rate(600, 60), None, 60, _AT),)
    read = read_policy([("policy.yaml", policy(["127.0.0.1"], [8080]).encode())])
    return replace(read.policy, budgets=budgets, rates=rates, profile="balanced")


def _steps(bounds: Bounds, state: State, agents: int, steps: int) -> Iterator[float]:
    """How many microseconds each step took. The flow of the agent's step before has ended by then."""
    for number in range(steps):
        agent, now_us = f"agent-{number % agents}", _START_US + number * 1_000
        again = number // agents
        place, request = f"s{again % 5}.example.org:443", f"{again % 12:016x}"
        asked = Asked(agent, _ALLOWED, place=place, request=request, body_bytes=100)
        name = f"main/{number}"
        began = time.thread_time_ns()
        _step(bounds, state, asked, name, now_us)
        yield (time.thread_time_ns() - began) / 1000
        outcome = entry.outcome("f", name, "completed", 200, 100, number)
        state.take(change(state, outcome, name, now_us + 500))


def _alone(bounds: Bounds, state: State, agents: int, steps: int) -> Iterator[float]:
    """The same of what is decided alone, after the others."""
    for number in range(steps):
        agent = f"agent-{number % agents}"
        bounded = bounds.of(agent)
        asked = Asked(agent, _ALLOWED, place=f"s{number % 5}.example.org:443", request=f"{number % 12:016x}")
        began = time.thread_time_ns()
        step(state, bounded, asked, _START_US + (steps + number) * 1_000)
        yield (time.thread_time_ns() - began) / 1000


def _step(bounds: Bounds, state: State, asked: Asked, name: str, now_us: int) -> None:
    """A decision as the book writes one: its draws, the hashes before and after, its change, the contracts."""
    agent, bounded = asked.agent, bounds.of(asked.agent)
    decided = step(state, bounded, asked, now_us)
    host, _, port = (asked.place or "").rpartition(":")
    facts: entry.Body = {"host": host, "port": int(port), "request": asked.request}
    verdict = decided.verdict
    fields = entry.decision("request", "f", agent, "proxy-auth", "0" * 64, facts, (), verdict.action, verdict.rule,
                            verdict.code, verdict.reason, "enforce")
    fields["draws"] = [entry.draw(each) for each in decided.draws]
    reads = Reads(agent, bounded.bounds, bounded.paces)
    fields["pre"] = reads.digest(state, NO_CHANGE, agent)
    made = change(state, fields, name, now_us)
    problem = broken(state, made, agent, bounded.bounds, passes=bool(made.opened))
    if problem is not None:
        raise AssertionError(problem)
    fields["post"] = reads.digest(state, made, agent)
    state.take(made)


def _memory_mib(bounds: Bounds) -> tuple[float, int]:
    """What a state takes in which each of many agents has asked and had its answer, and how many accounts each has."""
    for number in range(MANY_AGENTS):
        bounds.of(f"agent-{number}")
    gc.collect()
    tracemalloc.start()
    state = State()
    for _ in _steps(bounds, state, MANY_AGENTS, MANY_AGENTS):
        pass
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / 2**20, len(state.accounts) // MANY_AGENTS
