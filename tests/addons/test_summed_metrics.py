"""The numbers of several workers as one: nothing counts twice, no count goes down, a gauge keeps its meaning."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from addons.metrics import AGENT_LABELS, Gauge, Metrics
from addons.workers import merged_rows
from addons.workers.channel import ChannelError
from addons.workers.slot import Slot, Stage
from addons.workers.summed import SummedMetrics
from kernel.standings import Balance, Condition, Total, overall
from tests.kernel.accounting import Kernel, budget, policy


class Worker(Slot):
    """A worker without a process, which answers with the numbers of `metrics`."""

    def __init__(self, name: str) -> None:
        super().__init__(name, [])
        self.metrics, self.stage, self.silent = Metrics("1", "2"), Stage.SERVING, False

    async def ask(self, word: str, seconds: float, **fields: Any) -> dict[str, Any]:
        if self.silent:
            raise ChannelError("no answer")
        told = {"counts": self.metrics.counts(), "checks": {"lane": True, "gate": True}}
        return told | {"readings": self.metrics.readings()} if fields["readings"] else told


@pytest.fixture
async def summed():
    return SummedMetrics("1", "2", (Worker("w0"), Worker("w1")), asyncio.get_running_loop())


async def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    text = (await asyncio.to_thread(metrics.render))[0].decode()
    return {(sample.name.removeprefix("governor_"), *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


async def test_counts_are_added_up_with_the_supervisors_own(summed):
    for worker in summed._slots:
        worker.metrics.decision("deny", "RULE_DENY", "coder-1", "no-gists", 0.003)
        worker.metrics.commit(0.001)
        worker.metrics.fault("lane")
    summed.fault("control")
    summed.reload_failed()
    seen = await samples(summed)

    assert seen["decisions_total", "RULE_DENY", "deny"] == seen["rule_hits_total", "no-gists"] == 2
    assert seen["agent_decisions_total", "coder-1", "deny"] == 2
    assert seen["decision_seconds_count",] == seen["decision_seconds_bucket", "0.005"] == 2
    assert seen["decision_seconds_sum",] == pytest.approx(0.006)
    assert (seen["faults_total", "lane"], seen["faults_total", "control"]) == (2, 1)
    assert seen["policy_reload_failures_total",] == 1


async def test_once_it_is_asked_to_stop_it_is_not_ready_whatever_its_workers_say(summed):
    before = await asyncio.to_thread(summed.ready)
    summed.stopping = True

    assert (all(before.values()), before["not_stopping"]) == (True, True)
    assert [name for name, holds in (await asyncio.to_thread(summed.ready)).items() if not holds] == ["not_stopping"]
    assert (await samples(summed))["ready",] == 0


async def test_no_count_goes_down_when_a_worker_is_silent_crashes_or_comes_back(summed):
    one, other = summed._slots
    one.metrics.decision("allow", "ALLOW", "a", "r", 0.1)
    other.metrics.decision("allow", "ALLOW", "a", "r", 0.1)
    counted = [(await samples(summed))["decisions_total", "ALLOW", "allow"]]
    one.silent = True
    counted.append((await samples(summed))["decisions_total", "ALLOW", "allow"])
    summed.absorb(one.counted)
    one.counted, one.stage = None, Stage.DOWN
    counted.append((await samples(summed))["decisions_total", "ALLOW", "allow"])
    one.metrics, one.silent, one.stage = Metrics("1", "2"), False, Stage.SERVING
    one.metrics.decision("allow", "ALLOW", "a", "r", 0.1)
    counted.append((await samples(summed))["decisions_total", "ALLOW", "allow"])

    assert counted == [2, 2, 2, 3]


async def test_labels_stay_bounded_over_all_workers(summed):
    for number, worker in enumerate(summed._slots):
        for agent in range(AGENT_LABELS):
            worker.metrics.decision("allow", "ALLOW", f"agent-{number}-{agent}", None, 0.1)
    seen = {key: value for key, value in (await samples(summed)).items() if key[0] == "agent_decisions_total"}

    assert len(seen) == AGENT_LABELS + 1
    assert sum(seen.values()) == 2 * AGENT_LABELS


async def test_each_gauge_is_put_together_by_what_it_means(summed):
    for number, worker in enumerate(summed._slots):
        worker.metrics.read(Gauge.OPEN_STREAMS, lambda: 2)
        worker.metrics.read(Gauge.UNANCHORED, lambda: 5)
        worker.metrics.read(Gauge.ANCHOR_OVERDUE, lambda number=number: number)
        worker.metrics.read_anchors(lambda number=number: {"file": 3.0 + number})
        worker.metrics.read_standings(
            lambda number=number: {"coder-1": "OPERATOR", f"own-{number}": "OVERRISK"},
            lambda: [Total("daily", "requests", 10, 3, 1, 7)])
        worker.metrics.policy_loaded("ab" * 32, "enforce", 100.0 + number)
    seen = await samples(summed)

    assert (seen["open_streams",], seen["audit_unanchored_entries",], seen["audit_anchor_overdue",]) == (4, 10, 1)
    assert seen["audit_anchor_age_seconds", "file"] == 4.0
    assert [seen[f"budget_{name}", "daily", "requests"] for name in ("limit", "spent", "held")] == [10, 6, 2]
    assert {key[1:]: value for key, value in seen.items() if key[0] == "halted"} == {
        ("OPERATOR", "coder-1"): 1, ("OVERRISK", "own-0"): 1, ("OVERRISK", "own-1"): 1}
    assert (seen["ready",], seen["policy_loaded_timestamp_seconds",]) == (1, 101.0)
    assert seen["policy_info", "ab" * 32] == 1


async def test_whoever_draws_in_several_workers_has_one_limit(summed):
    for worker, agents in zip(summed._slots, (("a", "b"), ("b", "c")), strict=True):
        kernel = Kernel(policy(budget({"requests": 3})))
        for agent in agents:
            kernel.ask(agent=agent)
        worker.metrics.read_standings(
            dict, lambda kernel=kernel: overall(kernel.state, kernel.bounds.amounts(), kernel.now))
    seen = await samples(summed)

    assert [seen[f"budget_{name}", "b", "requests"] for name in ("limit", "spent", "held")] == [9, 0, 4]


async def test_between_scrapes_workers_are_asked_for_their_counts_alone(summed):
    for worker in summed._slots:
        worker.metrics.read_standings(dict, lambda: pytest.fail("budgets were added up"))
        worker.metrics.fault("lane")
    await summed.look()
    await asyncio.to_thread(summed.ready)

    assert [slot.counted["faults"] for slot in summed._slots] == [[["other", 0], ["lane", 1]]] * 2


async def test_a_worker_without_an_answer_is_not_ready_and_is_named(summed):
    summed._slots[1].silent = True
    ready = await asyncio.to_thread(summed.ready)

    assert ready == {"lane": True, "gate": True, "not_stopping": True, "w0": True, "w1": False}
    assert (await samples(summed))["ready",] == 0


async def test_healthy_is_a_supervisor_whose_loop_turns(summed):
    asked = asyncio.create_task(asyncio.to_thread(summed.turns))

    assert await asked is True
    told: list[bool] = []
    asking = threading.Thread(target=lambda: told.append(summed.turns()))
    asking.start()
    # As whatever blocks it would.
    asking.join()
    assert told == [False]


def row(**fields: Any) -> dict[str, Any]:
    told = {"id": "coder-1", "state": "running", "reason": None, "since": None, "by": None, "until": None,
            "budgets": [], "risk": None, "last_seen": None}
    return told | fields


def test_the_strictest_state_and_the_newest_sight_are_told_of_an_agent():
    halted = row(state="halted", reason="OPERATOR", since="2026-01-02", by="ann", last_seen="2026-01-01", risk=3)
    (one,) = merged_rows.merged([[row(last_seen="2026-01-03", risk=4)], [halted]])

    assert (one["state"], one["reason"], one["by"]) == ("halted", "OPERATOR", "ann")
    assert (one["last_seen"], one["risk"]) == ("2026-01-03", 7)


@pytest.mark.parametrize(("mild", "strict"), [*pairwise(Condition)])
def test_of_any_two_states_the_stricter_is_told(mild, strict):
    for rows in ([row(state=mild), row(state=strict)], [row(state=strict), row(state=mild)]):
        assert merged_rows.one(rows)["state"] == strict


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=5))
def test_draws_of_all_workers_on_a_budget_add_up(draws):
    rows = [row(budgets=[Balance("daily", "usd", 1000, spent, held, 3, each=True)._asdict() | {"remaining": 0}])
            for spent, held in draws]
    (budget,) = merged_rows.one(rows)["budgets"]

    assert (budget["limit"], budget["spent"], budget["held"]) == (
        1000, sum(spent for spent, _ in draws), sum(held for _, held in draws))
    assert budget["remaining"] == 1000 - budget["spent"] - budget["held"]


def test_what_was_drawn_in_an_older_window_counts_no_more():
    old, new = Balance("daily", "usd", 10, 9, 0, 3, each=True), Balance("daily", "usd", 10, 1, 0, 4, each=True)
    before, after = (Total(each.budget, each.unit, each.limit, each.spent, each.held, each.window, frozenset({name}))
                     for name, each in (("a", old), ("b", new)))

    assert old.with_other(new) == new.with_other(old) == new
    assert before.with_other(after) == after.with_other(before) == after


def test_every_agent_that_any_worker_knows_has_one_row():
    told = merged_rows.merged([[row(id="b"), row(id="a")], [row(id="c"), row(id="a")]])

    assert [each["id"] for each in told] == ["a", "b", "c"]
