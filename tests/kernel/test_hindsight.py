"""What another policy would have said of a log's requests, with its own accounts drawn on in order."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.hindsight import NO_FACTS, URL_LENGTH, Hindsight
from kernel.recorded import FIELDS_DECIDE
from kernel.verdict import Code
from tests.conftest import scaled
from tests.replay_logs import POLICY, Recorder, judging

OURS = judging()
PLAIN = judging(budgets=False)


def judged(recorder, policy, *, vault=True, wanted=lambda _: True):
    hindsight = Hindsight(recorder.lane, policy, wanted)
    for each in recorder.entries:
        hindsight.take(each, recorder.values.get(each["seq"], {}) if vault else {})
    return hindsight.found


def told(found):
    return [(*kind, changed.count, changed.example) for kind, changed in found.changed.items()]


def without(rule):
    kept = (line for line in POLICY.splitlines(keepends=True) if f": {rule}," not in line)
    return judging("".join(kept), budgets=False)


def test_a_policy_that_says_the_same_changes_nothing_but_for_what_accounts_have_refused():
    recorder = Recorder(PLAIN).random(scaled(1000))

    found = judged(recorder, PLAIN)

    assert (found.changed, found.decisions > scaled(900)) == ({}, True)
    assert set(found.undecided) <= {NO_FACTS, URL_LENGTH}


def test_a_log_with_budgets_judged_by_its_own_policy_changes_nothing():
    recorder = Recorder(OURS).random(scaled(1000))

    assert told(judged(recorder, OURS)) == []


def test_what_passed_and_would_not_is_told_with_host_rules_and_an_example():
    recorder = Recorder(PLAIN)
    for _ in range(3):
        recorder.ask()
    recorder.ask(name="docs.example.com")

    assert told(judged(recorder, without("api"))) == [("api.example.com", "api", None, "allow", "deny", 3, "main/3")]


def test_what_was_refused_and_would_pass_is_told():
    recorder = Recorder(PLAIN)
    recorder.ask(where="/v1/secrets/a")

    assert told(judged(recorder, without("no-secrets"))) == [
        ("api.example.com", "no-secrets", "api", "deny", "allow", 1, "main/3")]


def test_budgets_begin_full_and_what_is_settled_is_given_back():
    few = judging(f"# few\n{POLICY}")
    bounds = few.bounds
    recorder = Recorder(PLAIN)
    for _ in range(70):
        recorder.ask(agent="a1")
        recorder.end(result="not_sent")
        recorder.wait(2)
    settled = judged(recorder, few)
    kept = Recorder(PLAIN)
    for _ in range(70):
        kept.ask(agent="a1")
        kept.end()
        kept.wait(2)

    assert bounds.of("a1").bounds[0].limit == 60
    assert settled.changed == {}
    assert [(kind.rule_new, kind.after, each.count) for kind, each in judged(kept, few).changed.items()] == [
        ("hour", "deny", 10)]


def test_what_an_operator_did_holds_under_any_policy():
    recorder = Recorder(PLAIN)
    recorder.act("agents halt", "a1")
    recorder.ask(agent="a1")

    assert judged(recorder, PLAIN).changed == {}
    assert recorder.entries[-1]["code"] == Code.AGENT_HALTED


def test_a_halt_of_the_old_policy_is_none_of_the_new_one():
    recorder = Recorder(PLAIN)
    recorder.ask(where="/v1/trap")
    recorder.ask()

    assert [(kind.before, kind.after) for kind in judged(recorder, without("trap")).changed] == [("halt", "allow")]


def test_refusals_from_outside_stay():
    recorder = Recorder(PLAIN)
    recorder.ask(outside=Code.NON_CANONICAL)

    found = judged(recorder, judging("rules: [{allow: all, to: api.example.com, methods: any}]", budgets=False))
    assert (found.decisions, found.changed, found.undecided) == (1, {}, {})


@pytest.mark.parametrize(("text", "vault", "reason"), [
    pytest.param("{allow: a, to: api.example.com, methods: any, paths: /v1/**}", False, NO_FACTS, id="no path"),
    pytest.param("{allow: a, to: api.example.com, methods: any}", False, None, id="no path is asked for"),
    pytest.param("{allow: a, to: api.example.com, methods: any, query: {q: x}}", True, FIELDS_DECIDE, id="a query"),
    pytest.param("{deny: a, to: api.example.com, form: {q: x}}", True, None, id="refused with any body"),
])
def test_what_the_log_does_not_hold_is_undecided_where_it_decides(text, vault, reason):
    recorder = Recorder(PLAIN)
    recorder.ask()

    found = judged(recorder, judging(f"rules: [{text}]", budgets=False), vault=vault)

    assert found.undecided == ({reason: 1} if reason else {})


def test_only_what_is_wanted_is_told_and_everything_draws():
    few = judging(f"# few\n{POLICY}")
    recorder = Recorder(PLAIN)
    for number in range(70):
        recorder.ask(agent="a1", where="/v1/x" if number < 65 else "/v1/late")
        recorder.wait(2)

    found = judged(recorder, few, wanted=lambda each: each["seq"] >= 68)

    assert (found.decisions, [each.count for each in found.changed.values()]) == (5, [5])


@given(st.data())
def test_whatever_a_log_holds_it_ends(data):
    recorder = Recorder(PLAIN, seed=4).random(20)
    entries = copy.deepcopy(recorder.entries)
    for _ in range(3):
        each = entries[data.draw(st.integers(0, len(entries) - 1))]
        key = data.draw(st.sampled_from(sorted(each) or ["x"]))
        each[key] = data.draw(st.none() | st.integers() | st.sampled_from(["", "x", [], {}]))
    hindsight = Hindsight("main", OURS)

    for each in entries:
        hindsight.take(each, {})
