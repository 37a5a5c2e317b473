"""The system as one process sees it: who is heard of, under which policy, and whether all agents are halted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.state import Halt, Switch
from kernel.system import (
    MOST_SEEN,
    SILENT_US,
    AllHalted,
    AllReleased,
    Beat,
    CameBack,
    FellSilent,
    HaltAll,
    Joined,
    Left,
    PoliciesAgree,
    PoliciesDiffer,
    ReleaseAll,
    Said,
    Seen,
    System,
    Tick,
    fold,
    said,
    step,
)

HALT = Halt("OPERATOR", 5, None, "ann", (), "main/0", "because")
NOW = 1_800_000_000_000_000
READY = Said("w0", "a" * 64, "1.0", ready=True)

holders = st.sampled_from(("l/w0", "l/w1", "m/w0"))
agents = st.sampled_from(("ann", "bob"))
moments = st.integers(0, 4 * SILENT_US)
tells = st.builds(Said, st.sampled_from(("w0", "w1")), st.sampled_from(("", "a", "b")), st.just("1"), st.booleans(),
                  st.integers(0, 3), st.just((8080,)), st.booleans(), st.integers(0, 3),
                  st.dictionaries(agents, moments, max_size=2))
events = st.one_of(
    st.builds(Beat, holders, st.sampled_from(("r1", "r2")), tells), st.builds(Left, holders), st.builds(Tick),
    st.builds(HaltAll, st.just(HALT)), st.builds(ReleaseAll, st.integers(0, 4)))
histories = st.lists(st.tuples(events, moments), max_size=25)
texts = st.text(max_size=5)
values = st.recursive(st.none() | st.booleans() | st.integers() | texts | st.floats(),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


def heard(holder="l/w0", run="r", at_us=NOW, **tells):
    return Beat(holder, run, READY._replace(**tells)), at_us


def test_who_is_heard_of_for_the_first_time_has_joined():
    system, acts = fold(System(), [heard(), heard(at_us=NOW + 9), heard(run="again", at_us=NOW + 20)])

    assert acts == (Joined("l/w0"), Joined("l/w0"))
    assert (system.processes["l/w0"].joined_us, system.processes["l/w0"].seen_us) == (NOW + 20, NOW + 20)


def test_who_is_not_heard_of_for_five_seconds_is_silent_and_not_ready_until_it_is_heard_of_again():
    system, acts = fold(System(), [heard(), (Tick(), NOW + SILENT_US)])
    assert (acts, system.processes["l/w0"].ready) == ((Joined("l/w0"),), True)

    system, acts = step(system, Tick(), NOW + SILENT_US + 1)
    assert (acts, system.processes["l/w0"].ready) == ((FellSilent("l/w0", NOW),), False)
    assert system.silent() == {"l/w0": NOW}
    assert step(system, Tick(), NOW + 2 * SILENT_US)[1] == ()

    system, acts = step(system, *heard(at_us=NOW + 2 * SILENT_US))
    assert (acts, system.processes["l/w0"].ready) == ((CameBack("l/w0"),), True)


def test_who_leaves_in_order_is_not_missed():
    system, acts = fold(System(), [heard(), (Left("l/w0"), NOW), (Tick(), NOW + 9 * SILENT_US)])

    assert (system.processes, acts) == ({}, (Joined("l/w0"),))


def test_what_comes_late_changes_nothing():
    system, _ = fold(System(), [heard(), heard(at_us=NOW - 1, run="older", ready=False)])

    assert system.processes["l/w0"].run == "r"


def test_it_is_told_when_processes_judge_by_different_policies_and_when_they_agree_again():
    system, acts = fold(System(), [heard(), heard("l/w1", policy="b")])
    assert acts[1:] == (Joined("l/w1"), PoliciesDiffer((("a" * 64, ("l/w0",)), ("b", ("l/w1",)))))
    assert step(system, *heard("l/w1", policy="b", at_us=NOW + 1))[1] == ()

    assert step(system, *heard("l/w1", at_us=NOW + 2))[1] == (PoliciesAgree("a" * 64),)


def test_the_policy_of_who_is_silent_is_in_force_nowhere():
    system, _ = fold(System(), [heard(), heard("l/w1", policy="b", at_us=NOW + 9 * SILENT_US)])

    assert step(system, Tick(), NOW + 9 * SILENT_US)[0].policies() == {"b": ("l/w1",)}


def test_the_halt_of_all_is_told_once_and_so_is_its_release():
    events = [(HaltAll(HALT), 1), (HaltAll(HALT._replace(entry="main/9")), 2), (ReleaseAll(1), 3), (ReleaseAll(1), 4)]
    system, acts = fold(System(), events)

    assert (acts, system.switch) == ((AllHalted(HALT), AllReleased(1)), Switch(1))


def test_an_agent_was_last_seen_where_that_was_latest():
    system, _ = fold(System(), [heard(seen={"ann": 5}), heard("l/w1", seen={"ann": 9, "bob": 2}),
                                heard(at_us=NOW + 1, seen={"ann": 7})])

    assert system.agents == {"ann": Seen(9, "l/w1"), "bob": Seen(2, "l/w1")}


@given(histories)
def test_a_halt_of_all_stays_within_its_epoch(history):
    system = System()
    for event, at_us in history:
        before = system.switch
        system, _ = step(system, event, at_us)

        assert system.switch.epoch >= before.epoch
        assert system.switch == before or before.halt is None or system.switch.epoch > before.epoch


@given(histories)
def test_who_is_silent_is_never_ready(history):
    system = System()
    for event, at_us in history:
        system, _ = step(system, event, at_us)
        if isinstance(event, Tick):
            late = [each for each in system.processes.values() if at_us - each.seen_us > SILENT_US]
            assert not any(each.ready for each in late)
        assert not any(each.ready for each in system.processes.values() if each.silent)


@given(histories)
def test_an_event_of_one_process_leaves_the_others_as_they_are(history):
    system = System()
    for event, at_us in history:
        after, _ = step(system, event, at_us)
        if isinstance(event, Beat | Left):
            others = system.processes.keys() | after.processes.keys() - {event.holder}
            assert all(after.processes.get(each) == system.processes.get(each)
                       for each in others if each != event.holder)
            assert after.switch == system.switch
        system = after


@given(histories)
def test_an_agent_is_never_seen_earlier_than_before(history):
    system = System()
    for event, at_us in history:
        after, _ = step(system, event, at_us)
        assert all(after.agents[agent].at_us >= seen.at_us for agent, seen in system.agents.items())
        system = after


@given(histories)
def test_the_same_events_make_the_same_system_and_the_same_acts_and_leave_what_was_before(history):
    system = System()
    for event, at_us in history:
        kept = replace(system, processes=dict(system.processes), agents=dict(system.agents))
        after, acts = step(system, event, at_us)
        assert step(system, event, at_us) == (after, acts)
        assert system == kept
        system = after
    assert fold(System(), history)[0] == system


@given(tells)
def test_what_a_process_tells_is_read_as_it_was_told(tells):
    assert said(tells.fields()) == tells


@given(st.dictionaries(st.sampled_from(list(Said._fields)) | texts, values))
def test_whatever_a_process_tells_is_read(fields):
    found = said(fields)

    assert [type(value) for value in found[:5]] == [str, str, str, bool, int]
    assert all(type(port) is int and 0 < port < 2**16 for port in found.ports)
    assert all(type(name) is str and type(at) is int for name, at in found.seen.items())


@pytest.mark.parametrize(("name", "value"), [
    ("policy", "x" * 999), ("open", 2**60), ("epoch", -4), ("lane", "y" * 201)])
def test_what_a_process_tells_stays_within_bounds(name, value):
    found = getattr(said({name: value}), name)

    assert len(found) == 200 if isinstance(found, str) else 0 <= found < 2**53


def test_of_many_agents_it_is_not_told_of_all():
    assert len(said({"seen": {f"a{n}": n for n in range(MOST_SEEN + 5)}}).seen) == MOST_SEEN
