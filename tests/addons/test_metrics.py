"""The numbers: they count right, from every thread, with bounded labels, at a price a decision can pay."""

from __future__ import annotations

import sys
import threading
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from addons.metrics import AGENT_LABELS, BUDGET_LABELS, DECISION_BOUNDS, RULE_LABELS, Gauge, Histogram, Metrics, Side
from kernel.standings import Total
from kernel.verdict import Action, Code
from tests.conftest import scaled

FAMILIES = {
    "agent_decisions", "audit_anchor_age_seconds", "audit_anchor_overdue",
    "audit_commit_seconds", "audit_disk_free_bytes", "audit_entries", "audit_unanchored_entries",
    "budget_held", "budget_limit", "budget_spent", "build_info", "ca_expiry_timestamp_seconds", "decision_seconds",
    "decisions", "faults", "halted", "halts", "held_back", "mode_info", "open_streams",
    "policy_info", "policy_loaded_timestamp_seconds", "policy_reload_failures", "pool_up", "preventive_acts",
    "rate_limited", "ready", "refused_packets", "rule_hits",
    "steps", "tls_failures", "upstream_seconds",
}  # fmt: skip


@pytest.fixture
def metrics():
    return Metrics("1.2.3", "12.2.3")


def samples(metrics):
    families = text_string_to_metric_families(metrics.render()[0].decode())
    return {
        (sample.name.removeprefix("governor_"), *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_metric_of_the_contract_is_there_from_the_first_scrape_and_no_other(metrics):
    families = {family.name for family in text_string_to_metric_families(metrics.render()[0].decode())}

    assert families == {f"governor_{name}" for name in FAMILIES}


def test_what_halts_do_to_others_is_counted_and_how_many_they_hold_back_now(metrics):
    for do, degraded in (("quarantine", False), ("throttle", True), ("throttle", True)):
        metrics.preventive(do, degraded=degraded)
    metrics.read_held_back(lambda: {"throttle": 2})
    seen = samples(metrics)

    assert seen["preventive_acts_total", "no", "quarantine"] == 1
    assert seen["preventive_acts_total", "throttle", "yes"] == 2
    assert (seen["held_back", "throttle"], seen["held_back", "quarantine"]) == (2, 0)


def test_a_decision_is_counted_by_code_by_agent_and_by_rule(metrics):
    metrics.decision(Action.DENY, Code.RULE_DENY, "coder-1", "no-gists", 0.00003)
    metrics.decision("deny", "RULE_DENY", "coder-1", "no-gists", 0.3)
    metrics.decision(Action.DENY, Code.DEFAULT_DENY, "coder-1", None, 0.3)
    seen = samples(metrics)

    assert seen["decisions_total", "RULE_DENY", "deny"] == 2
    assert seen["agent_decisions_total", "coder-1", "deny"] == 3
    assert seen["rule_hits_total", "no-gists"] == 2
    assert seen["decision_seconds_bucket", "5e-05"] == 1
    assert seen["decision_seconds_bucket", "+Inf"] == seen["decision_seconds_count",] == 3


def test_a_flow_of_nobody_is_counted_under_a_name_that_no_agent_can_have(metrics):
    metrics.decision("deny", "IDENTITY_REQUIRED", "", None, 0.0)

    assert samples(metrics)["agent_decisions_total", "-", "deny"] == 1


@pytest.mark.parametrize(("limit", "position"), [(AGENT_LABELS, 2), (RULE_LABELS, 3)])
def test_labels_are_bounded_and_the_rest_is_other(metrics, limit, position):
    for number in range(limit + 50):
        arguments = ["deny", "RULE_DENY", "a", "r"]
        arguments[position] = f"name-{number}"
        metrics.decision(*arguments, 0.0)
    name = {2: "agent_decisions_total", 3: "rule_hits_total"}[position]
    mine = {key: value for key, value in samples(metrics).items() if key[0] == name}

    assert len(mine) == limit + 1
    assert sum(value for key, value in mine.items() if "other" in key) == 50
    assert sum(mine.values()) == limit + 50


def test_a_name_that_has_its_own_label_keeps_it(metrics):
    for name in ["first", *map(str, range(AGENT_LABELS + 1)), "first"]:
        metrics.decision("allow", "ALLOW", name, None, 0.0)

    assert samples(metrics)["agent_decisions_total", "allow", "first"] == 2


def test_the_other_counters_count(metrics):
    metrics.step()
    metrics.rate_limited()
    metrics.entry("decision")
    metrics.fault("request")
    metrics.tls_failure(Side.ORIGIN)
    metrics.reload_failed()
    metrics.commit(0.002)
    metrics.outcome(0.2)
    metrics.outcome(None)
    seen = samples(metrics)

    assert seen["steps_total",] == seen["rate_limited_total",] == seen["policy_reload_failures_total",] == 1
    assert seen["audit_entries_total", "decision"] == seen["faults_total", "request"] == 1
    assert (seen["tls_failures_total", "origin"], seen["tls_failures_total", "client"]) == (1, 0)
    assert seen["audit_commit_seconds_count",] == seen["upstream_seconds_count",] == 1


def test_what_alerts_look_at_stands_at_zero_before_the_first_time(metrics):
    seen = samples(metrics)

    assert seen["faults_total", "other"] == seen["policy_reload_failures_total",] == seen["rate_limited_total",] == 0
    assert seen["decisions_total", "ALLOW", "allow"] == seen["decisions_total", "DEFAULT_DENY", "deny"] == 0


def test_facts_are_labels_and_only_the_newest_policy_is_in_force(metrics):
    metrics.policy_loaded("aa" * 32, "enforce", 1.0)
    metrics.policy_loaded("bb" * 32, "observe", 1_800_000_000.25)
    seen = samples(metrics)

    assert seen["build_info", "1.2.3", "12.2.3"] == seen["policy_info", "bb" * 32] == seen["mode_info", "observe"] == 1
    assert ("policy_info", "aa" * 32) not in seen
    assert seen["policy_loaded_timestamp_seconds",] == 1_800_000_000.25


def test_gauges_are_read_at_each_scrape(metrics):
    values = iter([3, 4])
    metrics.read(Gauge.OPEN_STREAMS, lambda: next(values))

    assert [samples(metrics)["open_streams",] for _ in range(2)] == [3, 4]


def test_a_reading_that_fails_is_left_out_counted_and_costs_no_other(metrics):
    metrics.read(Gauge.READY, lambda: 1 / 0)
    metrics.read(Gauge.DISK_FREE, lambda: 7)
    seen = samples(metrics)

    assert ("ready",) not in seen
    assert seen["audit_disk_free_bytes",] == 7
    assert seen["faults_total", "metrics"] == 1


def test_a_halt_is_counted_by_why_from_zero_on(metrics):
    before = samples(metrics)["halts_total", "OVERRISK"]
    metrics.halt(Code.OVERRISK)

    assert (before, samples(metrics)["halts_total", "OVERRISK"]) == (0, 1)


def test_halts_and_budgets_are_read_at_each_scrape(metrics):
    halted, budgets = {"coder-1": "OPERATOR"}, [Total("daily", "requests", 10, 3, 2, 7)]
    metrics.read_standings(lambda: halted, lambda: budgets)
    before = samples(metrics)
    halted.clear()
    budgets[0] = budgets[0]._replace(spent=4)

    assert before["halted", "OPERATOR", "coder-1"] == 1
    assert [before[f"budget_{name}", "daily", "requests"] for name in ("limit", "spent", "held")] == [10, 3, 2]
    assert ("halted", "OPERATOR", "coder-1") not in samples(metrics)
    assert samples(metrics)["budget_spent", "daily", "requests"] == 4


def test_halts_and_budgets_without_number_have_no_labels_without_number(metrics):
    halted = {f"a{number}": "OVERRISK" for number in range(AGENT_LABELS + 7)}
    budgets = [Total(f"b{number}", "requests", 1, 0, 0, 0) for number in range(BUDGET_LABELS + 7)]
    metrics.read_standings(lambda: halted, lambda: budgets)
    seen = samples(metrics)

    assert (seen["halted", "OVERRISK", "other"], seen["halted", "OVERRISK", "a0"]) == (7, 1)
    assert len([key for key in seen if key[0] == "budget_limit"]) == BUDGET_LABELS


def test_standings_that_cannot_be_read_are_left_out_and_counted(metrics):
    metrics.read_standings(lambda: 1 / 0, list)
    seen = samples(metrics)

    assert seen["faults_total", "metrics"] == 1
    assert not [key for key in seen if key[0] == "halted"]


def test_names_cannot_break_the_exposition(metrics):
    nasty = 'a"} 1\n\\evil 2'
    metrics.decision("deny", "RULE_DENY", nasty, nasty, 0.0)

    assert samples(metrics)["rule_hits_total", nasty] == 1


def test_the_openmetrics_form_is_valid_too(metrics):
    metrics.policy_loaded("aa" * 32, "enforce", 1.0)
    metrics.decision("deny", "RULE_DENY", "coder-1", "no-gists", 0.00003)
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert len(list(parse_openmetrics(body.decode()))) == len(FAMILIES)


@settings(max_examples=scaled(50))
@given(st.lists(st.floats(0, 100)))
def test_a_bucket_holds_exactly_what_is_not_above_its_bound(values):
    histogram = Histogram("x", "", DECISION_BOUNDS)
    for value in values:
        histogram.observe(value)
    samples = histogram.family().samples
    buckets = {sample.labels["le"]: sample.value for sample in samples if "le" in sample.labels}

    for bound in DECISION_BOUNDS:
        assert buckets[str(bound)] == sum(value <= bound for value in values)
    assert buckets["+Inf"] == len(values)


@pytest.fixture
def restless_threads():
    """Threads that change places as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Restless(str):
    """A word in whose lookup another thread may come to its turn."""

    __slots__ = ()

    def __hash__(self):
        return hash(str(self))

    def __eq__(self, other):
        return str(self) == str(other)


def test_no_count_is_lost_between_threads_and_scrapes(metrics, restless_threads):
    def work():
        for _ in range(2000):
            metrics.decision("allow", Restless("ALLOW"), "a", "r", 0.001)
            metrics.fault("request")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        samples(metrics)
    for thread in threads:
        thread.join()
    seen = samples(metrics)

    assert seen["decisions_total", "ALLOW", "allow"] == seen["faults_total", "request"] == 8000
    assert seen["decision_seconds_count",] == seen["rule_hits_total", "r"] == 8000


def test_a_decision_costs_microseconds(metrics):
    """3 us is the aim and 1.6 us was measured; the limit leaves room for a machine that is shared."""
    best = min(_seconds_of_decisions(metrics, 2000) for _ in range(10)) / 2000

    assert best < 6e-6


def _seconds_of_decisions(metrics, count):
    started = perf_counter()
    for _ in range(count):
        metrics.decision(Action.DENY, Code.RULE_DENY, "coder-1", "no-gists", 0.00003)
    return perf_counter() - started
