"""Fairness of the log: the twenty-first refusal of a second is counted, not written."""

from __future__ import annotations

import json

from addons.refusal_rate import _REMEMBERED, PER_SECOND, RefusalRate
from kernel.verdict import Code


class Clock:
    now = 1000.25

    def __call__(self) -> float:
        return self.now


def fill(rate: RefusalRate, source: str) -> None:
    assert not any(rate.exceeded(source, Code.DEFAULT_DENY) for _ in range(PER_SECOND))


def test_refusals_beyond_the_rate_are_counted_by_code_until_they_are_drained() -> None:
    rate = RefusalRate(Clock())
    fill(rate, "coder-1")

    assert all(rate.exceeded("coder-1", code) for code in (Code.DEFAULT_DENY, Code.DEFAULT_DENY, Code.NEVER))
    drained = rate.drain()
    assert {source: (counted.start, dict(counted.counts)) for source, counted in drained.items()} == {
        "coder-1": (1000.25, {"DEFAULT_DENY": 2, "NEVER": 1})}
    assert rate.drain() == {}


def test_the_counts_can_be_written_into_the_log() -> None:
    rate = RefusalRate(Clock())
    fill(rate, "coder-1")
    rate.exceeded("coder-1", Code.NEVER)

    assert [type(code) for code in rate.drain()["coder-1"].counts] == [str]
    assert json.dumps({"NEVER": 1})


def test_a_new_second_is_a_new_allowance() -> None:
    clock = Clock()
    rate = RefusalRate(clock)
    fill(rate, "coder-1")
    assert rate.exceeded("coder-1", Code.DEFAULT_DENY)

    clock.now += 1

    fill(rate, "coder-1")


def test_one_agents_refusals_cost_no_other_agent_anything() -> None:
    rate = RefusalRate(Clock())
    fill(rate, "coder-1")
    assert rate.exceeded("coder-1", Code.DEFAULT_DENY)

    fill(rate, "coder-2")


def test_a_stage_has_turns_of_its_own_and_is_counted_with_the_rest() -> None:
    rate = RefusalRate(Clock())
    fill(rate, "coder-1")
    assert not any(rate.exceeded("coder-1", Code.DEFAULT_DENY, "dns") for _ in range(PER_SECOND))

    assert rate.exceeded("coder-1", Code.DEFAULT_DENY, "dns")
    assert rate.exceeded("coder-1", Code.NEVER)
    assert {source: dict(counted.counts) for source, counted in rate.drain().items()} == {
        "coder-1": {"DEFAULT_DENY": 1, "NEVER": 1}}


def test_as_many_sources_as_there_are_addresses_fill_no_memory() -> None:
    clock = Clock()
    rate = RefusalRate(clock)
    for number in range(_REMEMBERED + 10):
        clock.now += 0.01
        rate.exceeded(f"192.0.2.{number}", Code.DEFAULT_DENY)

    assert len(rate._seconds) <= _REMEMBERED
