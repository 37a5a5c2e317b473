"""The switch of all agents: what is halted passes nothing, of nobody, until an operator releases all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import entry
from kernel.carrying import bind, bind_all, carried
from kernel.contracts import broken
from kernel.errors import SnapshotError
from kernel.folding import States
from kernel.snapshot import Snapshot, decode, encode
from kernel.standings import all_halted, own
from kernel.state import GOING, NO_CHANGE, Change, Halt, State, Switch
from kernel.transition import POOL, change, written
from kernel.verdict import Action, Code
from tests.kernel.accounting import DENIED, START, Kernel, budget, digest, policy

HALT = Halt("OPERATOR", START, None, "ann", (), "main/0", "because")
OTHER = Halt("OPERATOR", START + 9, None, "bob", (), "main/9", "another")


def on_all(kernel, act, **more):
    return kernel.log(entry.operator(f"agents {act} all", None, "because", "ann", "control") | more, "")


@pytest.fixture
def kernel():
    return Kernel(policy(budget({"requests": 9})))


@pytest.mark.parametrize("agent", ["coder", "anonymous", "nobody knew of"])
def test_while_all_are_halted_everybody_is_refused_for_that(kernel, agent):
    on_all(kernel, "halt")
    verdict = kernel.ask(agent).verdict

    assert (verdict.action, verdict.code, verdict.rule) == (Action.HALT, Code.AGENT_HALTED, None)
    assert verdict.reason == "all agents are halted"


def test_what_is_refused_for_it_takes_nothing_and_counts_against_nobody(kernel):
    on_all(kernel, "halt")

    assert kernel.ask(verdict=DENIED, risk=20).draws == ()
    assert (kernel.state.agents, kernel.state.accounts, kernel.state.open) == ({}, {}, {})


def test_the_release_of_all_ends_that_halt_and_no_other(kernel):
    kernel.act("halt", "coder")
    on_all(kernel, "halt")
    on_all(kernel, "release")

    assert kernel.ask("coder").verdict.reason == "halted: OPERATOR"
    assert kernel.ask("other").verdict.code is Code.ALLOW
    assert kernel.state.switch == Switch(1)


def test_the_release_of_one_leaves_all_halted(kernel):
    kernel.act("halt", "coder")
    on_all(kernel, "halt")
    kernel.act("release", "coder")

    assert kernel.ask("coder").verdict.reason == "all agents are halted"


def test_a_second_halt_keeps_the_first_reason(kernel):
    first = on_all(kernel, "halt")
    kernel.wait(9)
    on_all(kernel, "halt", reason="another")

    assert (kernel.state.switch.halt.entry, kernel.state.switch.halt.since_us) == (first, START)


def test_a_release_begins_the_epoch_that_a_ledger_counts_and_never_an_earlier_one(kernel):
    for epoch, after in ((7, 7), (None, 8), (3, 9)):
        on_all(kernel, "halt")
        on_all(kernel, "release", **({} if epoch is None else {"epoch": epoch}))
        assert kernel.state.switch == Switch(after)


@given(st.lists(st.sampled_from(["halt", "release", "ask", "agents add", "wait"]), max_size=12))
def test_a_halt_of_all_stays_within_its_epoch_whatever_else_comes(acts):
    kernel = Kernel(policy(budget({"requests": 9})))
    for act in acts:
        before = kernel.state.switch
        if act in ("halt", "release"):
            on_all(kernel, act)
        elif act == "ask":
            passes = kernel.ask().verdict.lets_through
            assert not (passes and before.halt)
        elif act == "wait":
            kernel.wait(10**6)
        else:
            kernel.act("rotate")
        after = kernel.state.switch

        assert after.epoch >= before.epoch
        assert after.epoch > before.epoch or before.halt is None or after.halt == before.halt


@pytest.mark.parametrize(("before", "after", "agent"), [
    pytest.param(Switch(0, HALT), Switch(0), "", id="lifted within its epoch"),
    pytest.param(Switch(0, HALT), Switch(0, OTHER), "", id="another in its place"),
    pytest.param(Switch(2), Switch(1), "", id="an earlier epoch"),
    pytest.param(GOING, Switch(0, HALT), "coder", id="by a step of an agent"),
    pytest.param(Switch(0, HALT), Switch(1), "coder", id="lifted by a step of an agent"),
])
def test_what_may_not_become_of_the_switch_breaks_a_contract(before, after, agent):
    assert broken(State(switch=before), Change(switch=after), agent) is not None


def test_what_passes_while_all_are_halted_breaks_a_contract():
    assert broken(State(switch=Switch(0, HALT)), NO_CHANGE, "coder", passes=True) is not None
    assert broken(State(switch=Switch(1)), NO_CHANGE, "coder", passes=True) is None


@pytest.mark.parametrize("pooled", [False, True])
def test_the_digest_tells_of_the_switch(kernel, pooled):
    if pooled:
        kernel.log(entry.config({POOL: "sqlite:/pool.db"}, {}), "")
    bounded = kernel.bounds.of("coder")

    def told():
        return digest(kernel.state, NO_CHANGE, "coder", bounded.bounds, bounded.paces)

    digests = [told()]
    for act in ("halt", "release", "halt"):
        on_all(kernel, act)
        digests.append(told())

    assert digests[0] == entry.EMPTY_SET
    assert len(set(digests)) == 4


def test_a_snapshot_has_a_word_for_it_only_where_all_were_ever_halted(kernel):
    plain = encode(Snapshot("main", 0, States(kernel.state)))
    on_all(kernel, "halt")
    halted = encode(Snapshot("main", 1, States(kernel.state)))

    assert b"system" not in plain
    assert json.loads(halted.splitlines()[1])["system"][0] == 0
    assert decode(halted).states.real.switch == kernel.state.switch
    assert b"system" not in halted.splitlines()[2]


@pytest.mark.parametrize("written_so", [
    b'"system":[0,null]', b'"system":[1]', b'"system":1', b'"system":[1,[]]', b'"system":["1",null]', b'"system":null',
])
def test_a_switch_that_is_not_written_as_it_is_written_is_not_read(kernel, written_so):
    raw = encode(Snapshot("main", 0, States(kernel.state)))

    with pytest.raises(SnapshotError):
        decode(raw.replace(b'"state":"real"', b'"state":"real",' + written_so, 1))


def signed(act, at_us=START):
    return entry.operator(f"agents {act} all", None, "because", "ann", "control") | {"ts": written(at_us)}


def test_a_halt_of_all_behind_the_part_that_verifies_holds_and_a_release_there_does_not():
    state = State()
    bind(state, signed("halt"), "main/5")
    bind(state, signed("release"), "main/6")

    assert state.switch.halt.entry == "main/5"


def test_a_halt_of_all_in_a_state_that_a_signed_entry_names_holds():
    state = State(switch=Switch(3))
    bind_all(state, State(switch=Switch(1, HALT)))

    assert state.switch == Switch(3, HALT)


def test_what_goes_on_from_a_lost_lane_is_halted_as_it_was():
    assert carried(States(State(switch=Switch(2, HALT))), START).real.switch == Switch(2, HALT)


def test_an_agent_is_told_that_it_is_halted(kernel):
    bounded = kernel.bounds.of("coder")
    assert own(kernel.state, bounded, "coder", START).reason is None
    on_all(kernel, "halt")

    assert own(kernel.state, bounded, "coder", START).reason == Code.OPERATOR
    assert all_halted(kernel.state) == {"*": Code.OPERATOR}


def test_a_trial_of_a_policy_is_no_way_round_it():
    """What a trial lets pass is counted in a state of its own; an operator's act changes the real one alone."""
    states = States()
    states.fold(signed("halt") | {"seq": 0}, "main/0")

    assert (states.real.switch.halt is not None, states.shadow.switch) == (True, GOING)


def test_the_epoch_of_a_change_is_that_of_its_entry():
    body = signed("release") | {"epoch": 5, "heard": 9}
    made = change(State(), body, "main/3", START)

    assert (made.switch, made.heard) == (Switch(5), 9)
