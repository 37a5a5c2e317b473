"""Halts, expiries, releases and crashes in any order: what holds of what follows from halts, whatever happens."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kernel.budget import Counter, Effect
from kernel.cascade import is_earned, radius, roll_at
from kernel.contagion import Prevention
from kernel.folding import States
from kernel.standings import Condition, condition
from kernel.verdict import Code
from tests.conftest import scaled
from tests.kernel.accounting import ALLOWED, DENIED, MICROS, Kernel, policy
from tests.kernel.cascades import cascade, distances

NAMES = tuple("abcd")
AGENTS = st.sampled_from(NAMES)
edges = st.dictionaries(AGENTS, st.lists(AGENTS, min_size=1, max_size=3, unique=True), min_size=2)
breakers = st.none() | st.tuples(
    st.integers(2, 3), st.sampled_from((60, 600)), st.sampled_from(("throttle", "quarantine")))
cascades = st.builds(
    lambda depends, do, hops, seconds, percent, breaker: cascade(
        depends, do, hops, seconds, percent, breaker, **({"all": ["a", "b", "c"]} if breaker else {})),
    edges, st.sampled_from(("observe", "throttle", "quarantine", "halt")), st.integers(1, 3),
    st.sampled_from((30, 600)), st.sampled_from((1, 34, 100)), breakers)


class Spreading(RuleBasedStateMachine):
    """Agents that need one another."""

    @initialize(said=cascades)
    def begin(self, said):
        self.kernel = Kernel(replace(policy(counters=(Counter("risk", 6, Effect.HALT),)), cascade=said))
        self.said, self.done = said, set()
        for agent in NAMES:
            self.kernel.ask(agent, request=None)

    @rule(agent=AGENTS, risk=st.sampled_from((0, 0, 3, 6, 6)), method=st.sampled_from(("GET", "POST")))
    def ask(self, agent, risk, method):
        kernel, before = self.kernel, self.kernel.state.agent(agent)
        held, stood = before.preventive, condition(self.kernel.state, agent, self.kernel.now)
        number, roll = len(kernel.entries), roll_at(States(kernel.state), kernel.now)
        decided = kernel.ask(agent, DENIED if risk else ALLOWED, request=None, risk=risk, method=method)
        acts = [body for body, _ in kernel.entries[number + 1:]]
        halt = kernel.state.agent(agent).halt

        assert ("cause" in kernel.entries[number][0]) == (
            stood in (Condition.THROTTLED, Condition.QUARANTINED) or (
                before.halt is not None and before.halt.reason == Code.CASCADE))
        if stood is Condition.QUARANTINED and method == "POST" and not risk:
            assert decided.verdict.code is Code.QUARANTINED
        if not acts:
            return
        assert before.halt is None
        assert is_earned(halt)
        self.follows(agent, halt, acts, roll)
        assert held is None or kernel.state.agent(agent).preventive == held

    def follows(self, origin, halt, acts, before):
        """What holds of the acts of one halt."""
        assert [(act["hop"], act["agent"]) for act in acts] == sorted((act["hop"], act["agent"]) for act in acts)
        needed_by = {name: frozenset(other for other in NAMES if name in self.said.depends.get(other, ()))
                     for name in NAMES}
        away = distances(needed_by, origin)
        for act in acts:
            assert (halt.entry, act["agent"]) not in self.done
            self.done.add((halt.entry, act["agent"]))
            assert act["agent"] not in {origin, *before.halted}
            assert (act["origin"], act["path"][0], act["path"][-1]) == (origin, origin, act["agent"])
            assert len(act["path"]) == act["hop"] + 1
            if act["by"] == "on-halt":
                assert act["hop"] == away[act["agent"]] <= self.said.on_halt.hops
        most = max(radius(self.said, len(before.active | {origin})), self.held(before))
        assert self.held(roll_at(States(self.kernel.state), self.kernel.now)) <= most

    @staticmethod
    def held(roll):
        return sum(do.holds_back for do in roll.held.values())

    @rule(agent=AGENTS)
    def halt(self, agent):
        number = len(self.kernel.entries)
        self.kernel.act("halt", agent)

        assert len(self.kernel.entries) == number + 1

    @rule(agent=AGENTS)
    def release(self, agent):
        self.kernel.act("release", agent)

        assert condition(self.kernel.state, agent, self.kernel.now) is Condition.RUNNING

    @rule(seconds=st.sampled_from((1, 29, 31, 600, 3000)))
    def wait(self, seconds):
        self.kernel.wait(seconds)

    @rule()
    def crash(self):
        again = self.kernel.again()
        assert again == self.kernel.state
        self.kernel.state = again

    @invariant()
    def what_holds_an_agent_back_ends(self):
        for standing in self.kernel.state.agents.values():
            held = standing.preventive
            if held is None:
                continue
            if held.action is Prevention.HALT:
                assert standing.halt is not None
            else:
                assert 0 < held.until_us - held.since_us <= self.said.seconds * MICROS


Spreading.TestCase.settings = settings(max_examples=scaled(100), stateful_step_count=50, deadline=None)
TestSpreading = Spreading.TestCase
