"""What had to follow from a halt is found again by a replay, and what was changed of it is told."""

from __future__ import annotations

import copy

import pytest

from kernel.replay import NO_POLICY, Replay
from kernel.trial import Mode
from tests.conftest import scaled
from tests.kernel.test_replay import replayed
from tests.replay_logs import Recorder, judging

POLICY = """\
agents: {left: [a1, a2, a3], right: [b*], far: [c1]}
rules:
  - {allow: api, to: api.example.com, methods: any}
  - {deny: no-secrets, to: api.example.com, paths: /v1/secrets/**, risk: 5}
counters: {risk: {limit: 10, then: halt}}
cascade:
  depends: {right: [left], far: [right]}
  on-halt: {reasons: [OVERRISK], do: quarantine, hops: 2, for: 10m}
  blast-radius: 40%
  circuit-breaker: {halts: 2, within: 5m, do: throttle}
"""
OURS = judging(POLICY, budgets=False)
HALTING = judging(POLICY.replace("do: quarantine, hops: 2, for: 10m", "do: halt"), budgets=False)
TRIED = judging(f"mode: observe\nuntil: 2027-03-01T09:20:00Z\n{POLICY}", budgets=False)
MILDER = judging(POLICY.replace("do: quarantine", "do: throttle"), budgets=False)


def asking(recorder: Recorder, *agents: str, where: str = "/v1/x") -> None:
    for agent in agents:
        recorder.wait(1)
        recorder.ask(agent, where=where, method="POST")


def halting(recorder: Recorder, agent: str) -> None:
    asking(recorder, agent, agent, where="/v1/secrets/a")


def recorded(judged=OURS, **said) -> Recorder:
    """a1 earns a halt, which reaches b1, b2 and c1; then a2 does, and the breaker reaches a3."""
    recorder = Recorder(judged, **said)
    asking(recorder, "a1", "a2", "a3", "b1", "b2", "c1")
    halting(recorder, "a1")
    asking(recorder, "b1", "b2", "c1", "b1")
    halting(recorder, "a2")
    asking(recorder, "a3", "a3", "b1", "c1")
    recorder.connect("b1")
    return recorder


def acts(recorder):
    return [(each["agent"], each["do"], each["by"]) for each in recorder.entries if each["type"] == "preventive"]


def test_a_log_with_acts_is_as_it_should_be():
    recorder = recorded()

    assert acts(recorder) == [
        ("b1", "quarantine", "on-halt"), ("b2", "quarantine", "on-halt"), ("c1", "throttle", "on-halt"),
        ("a3", "throttle", "circuit-breaker"), ("b1", "quarantine", "on-halt"), ("b2", "quarantine", "on-halt"),
        ("c1", "throttle", "on-halt")]
    assert replayed(recorder).first_divergence is None


@pytest.mark.parametrize("judged", [OURS, HALTING, MILDER, TRIED])
def test_every_act_is_found_again_whatever_comes_between(judged):
    recorder = Recorder(judged, mode=Mode.OBSERVE if judged is TRIED else Mode.ENFORCE, seed=3)
    for number in range(12 * scaled(1)):
        recorder.random(5)
        asking(recorder, "a1", "b1", "b2", "c1", "a3")
        halting(recorder, f"{'ab'[number % 2]}{1 + number % 3}")
        if number % 5 == 4:
            recorder.crash()
            recorder.act("agents release", "a1")
        recorder.wait(90)

    found = replayed(recorder)
    assert found.first_divergence is None
    assert found.equal == found.decisions
    assert len(acts(recorder)) > 10 or judged is TRIED


def test_on_trial_what_would_be_done_is_written_down_alone():
    recorder = Recorder(judging(f"mode: observe\nuntil: 2027-03-01T09:20:00Z\n{POLICY}".replace(
        "rules:\n", "rules:\n  - {halt: trap, to: api.example.com, paths: /trap}\n"), budgets=False), mode=Mode.OBSERVE)
    asking(recorder, "a1", "a2", "a3")
    # A trial halts nobody but by a rule that says so: the breaker counts two of those.
    asking(recorder, "a1", "a2", where="/trap")
    asking(recorder, "a3", "a3")

    assert acts(recorder) == [("a3", "observe", "circuit-breaker")]
    assert replayed(recorder).first_divergence is None


def without(entries, number):
    """The log without its nth act."""
    kept = [each for each in entries if each["type"] != "preventive"]
    found = [each for each in entries if each["type"] == "preventive"]
    del found[number]
    return [each for each in entries if each in kept or each in found]


def changed(entries, number, **fields):
    made = copy.deepcopy(entries)
    [each for each in made if each["type"] == "preventive"][number].update(fields)
    return made


@pytest.mark.parametrize("fields", [
    {"agent": "a3"}, {"do": "throttle"}, {"do": "observe"}, {"until": "2027-03-01T10:00:00.000006Z"}, {"origin": "a2"},
    {"path": ["a1", "b1", "b2"]}, {"hop": 2}, {"cause": "main/2"}, {"by": "circuit-breaker"}, {"degraded": True},
])
def test_a_changed_act_is_told(fields):
    recorder = recorded()

    found = replayed(recorder, changed(recorder.entries, 0, **fields)).first_divergence

    assert found is not None
    assert (found.field, found.recorded | fields) == ("preventive", found.recorded)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 6])
def test_an_act_that_is_missing_is_told(number):
    recorder = recorded()

    found = replayed(recorder, without(recorder.entries, number)).first_divergence

    assert found is not None
    assert found.field == "preventive"


def test_an_act_that_follows_from_nothing_is_told():
    recorder = recorded()
    act = next(each for each in recorder.entries if each["type"] == "preventive")
    more = [*recorder.entries, act | {"seq": len(recorder.entries), "ts": recorder.entries[-1]["ts"]}]

    found = replayed(recorder, more).first_divergence

    assert found is not None
    assert (found.field, found.computed) == ("preventive", "none follows from a halt here")


def test_a_decision_that_tells_another_cause_or_none_is_told():
    recorder = recorded()
    number = next(n for n, each in enumerate(recorder.entries) if "cause" in each and each["type"] == "decision")
    for cause in (None, {**recorder.entries[number]["cause"], "hop": 2}):
        entries = copy.deepcopy(recorder.entries)
        entries[number]["cause"] = cause

        found = replayed(recorder, entries).first_divergence

        assert found is not None
        assert (found.entry, found.field) == (f"main/{number}", "cause")


def test_acts_of_another_process_are_taken_as_they_come():
    recorder = recorded()
    act = next(each for each in recorder.entries if each["type"] == "preventive")
    recorder.write({**{name: act[name] for name in ("type", "agent", "do", "origin", "path", "hop", "by", "degraded")},
                    "agent": "a3", "do": "quarantine", "cause": "w1/4", "until": "2027-03-01T09:10:00.000006Z"})
    asking(recorder, "a3")

    assert recorder.entries[-1]["code"] == "QUARANTINED"
    assert replayed(recorder).first_divergence is None


def test_acts_whose_policy_or_kernel_is_another_are_taken_as_they_are():
    recorder = recorded()

    assert replayed(recorder, known={}).first_divergence is None
    assert replayed(recorder, kernel="b1" * 32).first_divergence is None


def test_a_part_of_a_lane_that_begins_after_a_halt_takes_its_acts_as_they_are():
    recorder = recorded()
    first = next(n for n, each in enumerate(recorder.entries) if each["type"] == "preventive")
    replay = Replay("main", lambda digest: recorder.known.get(digest, NO_POLICY), "5a" * 32)
    replay.begin_after(recorder.entries[:first])
    for each in recorder.entries[first:first + 3]:
        replay.take(each)

    assert replay.found.first_divergence is None


def test_what_a_crash_left_unwritten_did_not_happen():
    recorder = Recorder(OURS)
    asking(recorder, "a1", "b1")
    halting(recorder, "a1")
    entries = [each for each in recorder.entries if each["type"] != "preventive"]
    recorder.entries = entries
    recorder.crash()
    asking(recorder, "b1")

    assert recorder.entries[-1]["code"] == "ALLOW"
    assert replayed(recorder).first_divergence is None
