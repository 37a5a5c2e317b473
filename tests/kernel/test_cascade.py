"""What follows from a halt: for whom, in which order, within the radius, and never from what followed itself."""

from __future__ import annotations

import random

import pytest

from kernel.cascade import entries_after, follows, radius
from tests.conftest import scaled
from tests.kernel.cascades import MICROS, NOW, cascade, distances, halt, roll

LINE = {"b": ["a"], "c": ["b"], "d": ["c"]}
EVERYBODY = "a b c d"


def acts(said, agents=EVERYBODY, origin="a", because=None, **standing):
    found = follows(said, roll(agents, **{"halted": origin, **standing}), origin, because or halt())
    return [(act.agent, str(act.do), "-".join(act.path), act.hop, act.degraded) for act in found]


def names(*arguments, **standing):
    return "".join(agent for agent, *_ in acts(*arguments, **standing))


@pytest.mark.parametrize(("said", "agents", "expected"), [
    pytest.param(cascade(LINE), EVERYBODY, [("b", "a-b", 1)], id="one step"),
    pytest.param(cascade(LINE, hops=2), EVERYBODY, [("b", "a-b", 1), ("c", "a-b-c", 2)], id="two steps"),
    pytest.param(cascade(LINE, hops=16), EVERYBODY,
                 [("b", "a-b", 1), ("c", "a-b-c", 2), ("d", "a-b-c-d", 3)], id="all"),
    pytest.param(cascade(LINE, hops=16), "a c d", [], id="nobody active stands between"),
    pytest.param(cascade({"z": ["a"], "b": ["a"], "y": ["b"]}, hops=2), "a b y z",
                 [("b", "a-b", 1), ("z", "a-z", 1), ("y", "a-b-y", 2)], id="by step, then by name"),
    pytest.param(cascade({"a": ["b"], "b": ["a"]}, hops=16), EVERYBODY, [("b", "a-b", 1)], id="a circle"),
    pytest.param(cascade({"g": ["g"]}, g=["a", "b", "c"]), EVERYBODY, [("b", "a-b", 1), ("c", "a-c", 1)], id="a group"),
    pytest.param(cascade({"d": ["b", "c"], "g": ["a"]}, hops=2, g=["b", "c"]), EVERYBODY,
                 [("b", "a-b", 1), ("c", "a-c", 1), ("d", "a-b-d", 2)], id="two ways, and the first by name is told"),
    pytest.param(cascade({"g": ["a"]}, g=["x*"]), "a x1 x2 y", [("x1", "a-x1", 1), ("x2", "a-x2", 1)], id="a pattern"),
    pytest.param(cascade({"c": ["b"]}), EVERYBODY, [], id="nobody needs it"),
])
def test_a_halt_goes_along_the_declared_edges_and_tells_its_way(said, agents, expected):
    assert [(agent, path, hop) for agent, _, path, hop, _ in acts(said, agents)] == expected


@pytest.mark.parametrize(("reason", "by", "expected"), [
    ("OVERRISK", "kernel", "b"), ("EXPLORATION_DRIFT", "kernel", "b"),
    ("EXHAUSTION", "kernel", ""), ("STAGNATION", "kernel", ""), ("PERSISTENCE_LIMIT", "kernel", ""),
    ("EXTERNAL", "kernel", ""), ("OPERATOR", "kernel", ""), ("CASCADE", "kernel", ""), ("OVERRISK", "ann", ""),
])
def test_only_what_an_agent_earned_itself_for_these_reasons_spreads(reason, by, expected):
    assert names(cascade(LINE), because=halt(reason, by)) == expected


@pytest.mark.parametrize(("do", "held", "expected"), [
    ("quarantine", {"b": "throttle"}, "b"), ("quarantine", {"b": "quarantine"}, "b"),
    ("halt", {"b": "quarantine"}, "b"), ("throttle", {"b": "quarantine"}, ""),
    ("observe", {"b": "throttle"}, ""), ("throttle", {"b": "throttle"}, "b"),
])
def test_an_agent_gets_what_is_at_least_as_severe_as_what_it_has(do, held, expected):
    assert names(cascade(LINE, do), held=held) == expected


def test_who_is_halted_is_left_alone_and_stands_in_nobody_s_way():
    assert names(cascade(LINE, "halt", hops=2), halted="a b", held={"b": "halt"}) == "c"


STAR = cascade({"g": ["a"]}, "quarantine", percent=30, g=["w*"])
TEN = "a w1 w2 w3 w4 w5 w6 w7 w8 w9"


@pytest.mark.parametrize(("said", "agents", "held", "expected"), [
    pytest.param(STAR, TEN, {}, "QQQtttttt", id="three of ten"),
    pytest.param(cascade({"g": ["a"]}, "halt", percent=30, g=["w*"]), TEN, {}, "HHHtttttt", id="halts, too"),
    pytest.param(cascade({"g": ["a"]}, "throttle", percent=1, g=["w*"]), TEN, {}, "TTTTTTTTT", id="slowing counts not"),
    pytest.param(cascade({"g": ["a"]}, "observe", percent=1, g=["w*"]), TEN, {}, "OOOOOOOOO", id="nor is looking"),
    pytest.param(cascade({"g": ["a"]}, percent=1, g=["w*"]), TEN, {}, "Qtttttttt", id="one always"),
    pytest.param(STAR, TEN, {"x": "quarantine", "y": "halt"}, "Qtttttttt", id="others count"),
    pytest.param(STAR, TEN, {"x": "throttle", "y": "observe"}, "QQQtttttt", id="but not who is slowed down"),
    pytest.param(STAR, TEN, {"w9": "quarantine"}, "QQttttttQ", id="who is held back already stays so"),
    pytest.param(STAR, TEN, {"x": "halt", "y": "halt", "z": "halt"}, "ttttttttt", id="no room"),
])
def test_no_more_are_held_back_than_the_radius_and_the_others_are_slowed_down(said, agents, held, expected):
    found = acts(said, agents, held=held)
    letters = {"quarantine": "Q", "halt": "H", "throttle": "T", "observe": "O"}

    assert "".join("t" if degraded else letters[do] for _, do, _, _, degraded in found) == expected


@pytest.mark.parametrize(("earned", "because", "expected"), [
    pytest.param({"a": 0, "b": 10}, halt(), "", id="two"),
    pytest.param({"a": 0, "b": 10, "c": 59}, halt(), "de", id="three"),
    pytest.param({"a": 0, "b": 10, "c": 60}, halt(), "", id="one of them too long ago"),
    pytest.param({"a": 0, "b": 10, "x": 20}, halt(), "", id="one of them of another group"),
    pytest.param({"a": 0, "b": 10, "c": 59}, halt("EXHAUSTION"), "de", id="for whatever reason"),
    pytest.param({"b": 10, "c": 59, "d": 1}, halt("OVERRISK", "ann"), "", id="at an operator's word"),
    pytest.param({"b": 10, "c": 59, "d": 1}, halt("CASCADE"), "", id="that spread itself"),
])
def test_several_halts_of_a_group_in_a_short_time_are_too_many_for_the_others(earned, because, expected):
    said = cascade({}, breaker=(3, 60, "quarantine"), g=["a", "b", "c", "d", "e"], h=["x", "y"])
    since = {agent: NOW - seconds * MICROS for agent, seconds in earned.items()}

    assert names(said, "a b c d e x y", because=because, halted=" ".join(earned), earned=since) == expected


def test_of_two_reasons_to_act_upon_an_agent_the_more_severe_is_done_once():
    for edge, breaker in (("throttle", "quarantine"), ("quarantine", "throttle")):
        said = cascade({"b": ["a"]}, edge, breaker=(1, 60, breaker), g=["a", "b"])

        assert acts(said, earned={"a": NOW}) == [("b", "quarantine", "a-b", 1, False)]


def test_an_entry_tells_cause_way_and_end():
    (body,) = entries_after(cascade(LINE, seconds=60), roll(EVERYBODY, "a"), "a", halt(), on_trial=False)

    assert body == {
        "type": "preventive", "agent": "b", "do": "quarantine", "until": "2027-01-15T08:01:00.000000Z", "origin": "a",
        "path": ["a", "b"], "hop": 1, "cause": "main/7", "by": "on-halt", "degraded": False}


def test_a_halt_has_no_end_and_on_trial_everything_is_only_written_down():
    said = cascade(LINE, "halt")
    trial = entries_after(said, roll(EVERYBODY, "a"), "a", halt(), on_trial=True)

    assert [each["until"] for each in entries_after(said, roll(EVERYBODY, "a"), "a", halt(), on_trial=False)] == [None]
    assert [(each["do"], each["degraded"]) for each in trial] == [("observe", False)]


AGENTS = [f"a{number:03}" for number in range(200)]


def swarm(seed):
    """Who needs each of 200 agents, in a random graph in which each has about four neighbours."""
    chance = random.Random(seed)
    edges = {agent: set() for agent in AGENTS}
    for _ in range(2 * len(AGENTS)):
        one, other = chance.sample(AGENTS, 2)
        edges[one].add(other)
        edges[other].add(one)
    return {agent: frozenset(others) for agent, others in edges.items()}


def needing(edges, **said):
    """The cascade in which whoever stands beside an agent needs it."""
    return cascade({agent: sorted(others) for agent, others in edges.items()}, "halt", **said)


@pytest.mark.parametrize(("hops", "percent"), [(1, 10), (2, 10), (16, 10), (16, 1)])
def test_a_halt_in_a_swarm_of_two_hundred_stays_within_hops_and_radius_on_every_seed(hops, percent):
    for seed in range(scaled(20)):
        edges = swarm(seed)
        said, origin = needing(edges, hops=hops, percent=percent), AGENTS[seed % len(AGENTS)]
        away = distances(edges, origin)
        found = follows(said, roll(" ".join(AGENTS), origin), origin, halt())

        assert sum(act.do.holds_back for act in found) <= radius(said, len(AGENTS)) == max(1, 2 * percent)
        assert {act.agent: act.hop for act in found} == {
            agent: steps for agent, steps in away.items() if 0 < steps <= hops}
        assert all(steps in edges[before] for act in found
                   for before, steps in zip(act.path, act.path[1:], strict=False))


def test_halts_one_after_the_other_in_a_swarm_stay_within_the_radius_together():
    chance = random.Random(1)
    edges = swarm(1)
    said, held, halted = needing(edges, hops=2, percent=10), {}, set()
    for origin in chance.sample(AGENTS, 30):
        halted.add(origin)
        standing = roll(" ".join(AGENTS), " ".join(halted), held=held)
        for act in follows(said, standing, origin, halt()):
            held[act.agent] = str(act.do)
            halted |= {act.agent} if act.do.holds_back else set()

    assert sum(do == "halt" for do in held.values()) == 20


def test_without_hops_and_radius_a_halt_would_take_the_swarm():
    """What the two bounds are for: the same halts, where neither holds."""
    taken = [sum(act.do.holds_back for act in follows(
        needing(swarm(seed), hops=16, percent=100), roll(" ".join(AGENTS), "a000"), "a000", halt()))
        for seed in range(scaled(3))]

    # In some of these swarms nobody needs the first.
    assert min(filter(None, taken)) > 150
