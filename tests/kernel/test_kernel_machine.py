"""The whole kernel against a reference that was written apart from it, in any order of events, with crashes."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from addons.time_zones import ZONES
from kernel import entry
from kernel.bounds import COUNTER, Bounds
from kernel.budget import Budget, Counter, Effect, Every, RateLimit, Threshold, Unit
from kernel.measures import Rate
from kernel.policy import Policy, Position
from kernel.profiles import PROFILES
from kernel.state import NO_CHANGE, TOGETHER
from kernel.step import more
from kernel.transition import MOST_REQUESTS
from kernel.verdict import Action, Code, Verdict
from tests.conftest import scaled
from tests.kernel.accounting import ALLOWED, DENIED, MICROS, Kernel, digest
from tests.kernel.reference_accounts import ALL, MIB, Amount, Reference, Said

MOST = {"requests": (1, 6), "bytes": (1, 5 * MIB), "seconds": (20, 200), "risk": (1, 12), "new-hosts": (1, 3)}
COUNTED = {"risk": "risk", "exploration": "new-hosts", "steps": "requests"}
ZONE_NAMES = ("UTC", "Europe/Berlin", "America/Havana")
AGENTS = st.sampled_from(("ann", "bob", "eve"))
REQUESTS = st.sampled_from((None, "r1", "r2"))
# Clocks go forward in Berlin an hour later, and back a week before in Havana.
STARTS = (1_774_742_400, 1_793_503_800)
_AT = Position("policy.yaml", 1, 1)

amounts = st.dictionaries(st.sampled_from(list(MOST)), st.none(), max_size=2).flatmap(
    lambda units: st.fixed_dictionaries({unit: st.integers(*MOST[unit]) for unit in units}))
rates = st.builds(Rate, st.integers(1, 5), st.sampled_from((1, 60, 3600)))
effects = st.sampled_from(list(Effect))
thresholds = st.dictionaries(st.sampled_from((1, 50, 80, 100)), st.tuples(effects, rates), max_size=3)
budgets = st.tuples(amounts, amounts, st.sampled_from(list(Every)), st.sampled_from(ZONE_NAMES), thresholds)
limits = st.tuples(st.none() | rates, st.none() | rates, st.none() | st.integers(1, 4))
sessions = st.dictionaries(st.sampled_from(list(COUNTED)), st.tuples(st.integers(1, 12), effects), max_size=2)
repeats = st.dictionaries(
    st.sampled_from(("persistence", "stagnation")), st.tuples(st.integers(1, 4), st.sampled_from((60, 3600)), effects))
policies = st.tuples(st.lists(budgets, max_size=2), st.lists(limits, max_size=1), sessions, repeats,
                     st.sampled_from((None, "balanced")))


def governing(said) -> Policy:
    """The policy as the kernel has it."""
    listed, paced, counted, rows, profile = said
    made = tuple(
        Budget(f"b{number}", None, *({Unit(u): most for u, most in said.items()} for said in (each, both)),
               every, ZONES.find(zone),
               tuple(Threshold(p, effect, rate if effect is Effect.THROTTLE else None)
                     for p, (effect, rate) in sorted(when.items())), _AT)
        for number, (each, both, every, zone, when) in enumerate(listed))
    limited = tuple(RateLimit(f"rates-{number}", None, each, both, burst, _AT)
                    for number, (each, both, burst) in enumerate(paced))
    counters = (*(Counter(name, limit, effect) for name, (limit, effect) in counted.items()),
                *(Counter(name, limit, effect, within) for name, (limit, within, effect) in rows.items()))
    return Policy("0" * 64, ("policy.yaml",), (), budgets=made, rates=limited, profile=profile, counters=counters)


def referred(said) -> Said:
    """The same as the reference has it."""
    listed, paced, counted, rows, profile = said
    found = []
    for number, (each, both, every, zone, when) in enumerate(listed):
        steps = tuple((p, str(effect), turn(rate)) for p, (effect, rate) in sorted(when.items()))
        for said_amounts, shared in ((each, False), (both, True)):
            found += [Amount(f"b{number}", unit, most, shared, str(every), zone, steps)
                      for unit, most in said_amounts.items()]
    known = {c.name: (c.limit, c.within_seconds, str(c.then)) for c in PROFILES.get(profile, ())}
    known |= {name: (limit, None, str(effect)) for name, (limit, effect) in counted.items()}
    known |= {name: (limit, within, str(effect)) for name, (limit, within, effect) in rows.items()}
    order = [c.name for c in PROFILES.get(profile, ())] + list(counted)
    for name in dict.fromkeys(name for name in order if name in COUNTED):
        limit, _, effect = known[name]
        steps = ((100, effect, None),)
        found.append(Amount(name + COUNTER, COUNTED[name], limit, False, "session", "UTC", steps, name))
    pairs = []
    for number, (each, both, burst) in enumerate(paced):
        pairs += [(f"rates-{number}", shared, *turn(rate, burst))
                  for rate, shared in ((each, False), (both, True)) if rate is not None]
    rows_known = {name: known[name] for name in ("persistence", "stagnation") if name in known}
    return Said(tuple(found), tuple(pairs), rows_known)


def turn(rate: Rate, burst=None):
    """(microseconds between two, how many at once)"""
    return -(-rate.seconds * MICROS // rate.count), burst or max(1, rate.count // rate.seconds)


class Machine(RuleBasedStateMachine):
    """Whatever happens, in any order."""

    @initialize(said=policies, start=st.sampled_from(STARTS))
    def begin(self, said, start):
        self.kernel = Kernel(governing(said), now=start * MICROS)
        self.reference = Reference(referred(said), self.kernel.now)
        self.allowance = {}

    @rule(agent=AGENTS, request=REQUESTS, refused=st.booleans(), host=st.sampled_from("abc"),
          risk=st.sampled_from((0, 0, 3)), body=st.sampled_from((0, 0, 10, 2 * MIB)),
          method=st.sampled_from(("GET", "POST")))
    def ask(self, agent, request, refused, host, risk, body, method):
        name, place = f"main/{len(self.kernel.entries)}", f"{host}.example:443"
        before = self.of_others(agent)
        decided = self.kernel.ask(agent, DENIED if refused else ALLOWED, request=request, place=place, risk=risk,
                                  body_bytes=body, method=method)

        assert decided.verdict.code == self.reference.request(
            name, agent, refused, place, request, body, risk, method == "GET")
        assert decided.verdict.lets_through == (decided.verdict.code is Code.ALLOW) == (name in self.kernel.state.open)
        assert (decided.wait_us > 0) == (decided.verdict.code is Code.RATE_LIMITED)
        assert self.of_others(agent) == before

    @rule(agent=AGENTS, quiet=st.booleans())
    def ask_for_nothing_that_counts(self, agent, quiet):
        before = self.kernel.state.copy()
        fault = Verdict(Action.DENY, Code.RESOLVE_FAILED)
        self.kernel.ask(agent, DENIED if quiet else fault, quiet=quiet, risk=5)
        before.seen[agent] = self.kernel.now

        assert self.kernel.state == before

    @precondition(lambda self: self.reference.flows)
    @rule(data=st.data(), status=st.sampled_from((200, 404, 503)), size=st.sampled_from((0, 7, MIB, 9 * MIB)),
          result=st.sampled_from(("completed", "completed", "failed", "aborted", "cut", "not_sent", "unknown")))
    def end(self, data, result, status, size):
        name = data.draw(st.sampled_from(list(self.reference.flows)))
        self.finish(name, result, status, size)

    def finish(self, name, result, status, size):
        before = self.of_others(agent := self.reference.flows[name].agent)
        self.kernel.end(int(name.removeprefix("main/")), result, status, down=size)
        self.reference.outcome(name, result, status, size)

        assert name not in self.kernel.state.open
        assert self.of_others(agent) == before

    @precondition(lambda self: self.reference.flows)
    @rule(data=st.data(), unit=st.sampled_from((Unit.BYTES, Unit.SECONDS)), wanted=st.sampled_from((1, 60, MIB)))
    def go_on(self, data, unit, wanted):
        name = data.draw(st.sampled_from(list(self.reference.flows)))
        agent = self.reference.flows[name].agent
        draws = more(self.kernel.state, self.kernel.bounds.of(agent), agent, unit, wanted, self.kernel.now)
        granted = self.reference.more(name, unit, wanted)
        if isinstance(draws, Verdict) or not draws:
            assert not granted
            return
        assert {draw.amount for draw in draws} == {granted}
        self.kernel.end(int(name.removeprefix("main/")), "unknown", None, part=1, draws=map(entry.draw, draws))

    @rule(agent=AGENTS)
    def halt(self, agent):
        self.kernel.act("halt", agent, sources=["10.0.0.9"])
        self.reference.halt(agent)

    @rule(agent=AGENTS)
    def release(self, agent):
        self.kernel.act("release", agent)
        self.reference.release(agent)

    @rule(agent=AGENTS)
    def rotate(self, agent):
        self.kernel.act("rotate", agent)
        self.reference.person(agent).session += 1

    @rule(agent=AGENTS, minutes=st.sampled_from((5, 600)))
    def quarantine(self, agent, minutes):
        until = self.kernel.now + minutes * 60 * MICROS
        self.kernel.act("quarantine", agent, until=entry.timestamp(datetime.fromtimestamp(until // MICROS, UTC)))
        self.reference.person(agent).quarantined_until = until // MICROS * MICROS

    @rule(seconds=st.sampled_from((0, 1, 7, 61, 1800, 3600, 7200, 86_400, 700_000)))
    def wait(self, seconds):
        self.pass_time(seconds * MICROS + 1)

    def pass_time(self, micros):
        self.kernel.now += micros
        self.reference.now = self.kernel.now

    @rule(seconds=st.sampled_from((1, 3700, 90_000, 10 * 365 * 86_400)), ahead=st.booleans())
    def jump(self, seconds, ahead):
        """The clock of the machine jumps, and it is noticed."""
        assume(self.kernel.now // MICROS + seconds < 2_500_000_000 and self.kernel.now // MICROS - seconds > 0)
        self.pass_time((seconds if ahead else -seconds) * MICROS)
        self.kernel.log({"type": "clock"}, "")
        self.reference.clock_wrong = True

    @rule(seconds=st.sampled_from((1, 100, 4000)))
    def slip_back(self, seconds):
        """The clock goes back, and nobody notices."""
        self.pass_time(-seconds * MICROS)

    @rule()
    def accept(self):
        self.kernel.log({"type": "operator", "act": "clock accept", "agent": None}, "")
        self.reference.clock_wrong, self.reference.clock_was_wrong = False, True

    @rule(said=policies)
    def reload(self, said):
        """Another policy governs. What was used of an account that both have stays used."""
        self.kernel.said = governing(said)
        self.kernel.bounds, self.reference.said = Bounds(self.kernel.said), referred(said)
        self.allowance = {key: account.spent + account.held for key, account in self.kernel.state.accounts.items()}

    @rule()
    def crash(self):
        """The state is lost. The log makes it again, and what was open has an unknown end."""
        again = self.kernel.again()
        for agent in ("ann", "bob", "eve"):
            bounded = self.kernel.bounds.of(agent)
            told = {digest(state, NO_CHANGE, agent, bounded.bounds, bounded.paces)
                    for state in (again, self.kernel.state)}
            assert len(told) == 1
        assert again == self.kernel.state
        used = {key: account.spent + account.held for key, account in again.accounts.items()}
        self.kernel.state = again
        for name in list(again.open):
            self.finish(name, "unknown", None, 0)
        for key, account in again.accounts.items():
            assert account.spent + account.held == used[key]

    def of_others(self, agent):
        """All that the kernel keeps of everybody but one agent."""
        state, own = self.kernel.state, (agent, TOGETHER)
        return ({key: each for key, each in state.accounts.items() if key[2] not in own},
                {name: each for name, each in state.agents.items() if name != agent},
                {key: each for key, each in state.paces.items() if key[1] not in own},
                {name: each for name, each in state.open.items() if each.agent != agent})

    @invariant()
    def accounts_are_as_foretold(self):
        for (budget, unit, who), purse in self.reference.purses.items():
            account = self.kernel.account(budget, unit, TOGETHER if who == ALL else who)
            assert (account.spent, account.held) == (purse.spent, purse.held), (budget, unit, who)
            assert account.places == purse.places

    @invariant()
    def nobody_is_over_a_limit(self):
        for agent in ("ann", "bob", "eve"):
            for bound in self.kernel.bounds.of(agent).bounds:
                account = self.kernel.state.account(key := bound.key(agent))
                assert account.spent + account.held <= max(bound.limit, self.allowance.get(key, 0))

    @invariant()
    def people_are_as_foretold(self):
        for name, person in self.reference.people.items():
            standing = self.kernel.state.agent(name)
            assert (standing.halt and standing.halt.reason) == person.halted
            assert (standing.epoch, standing.session) == (person.epoch, person.session)

    @invariant()
    def what_is_kept_of_an_agent_is_bounded(self):
        state = self.kernel.state
        for standing in state.agents.values():
            assert len(standing.refused) <= MOST_REQUESTS
            assert len(standing.repeated) <= MOST_REQUESTS
        for flow in state.open.values():
            assert len(flow.draws) == len({draw[:4] for draw in flow.draws})
        assert set(state.open) == set(self.reference.flows)


Machine.TestCase.settings = settings(
    max_examples=scaled(40), stateful_step_count=40, suppress_health_check=list(HealthCheck))
test_the_kernel_keeps_what_the_reference_foretells = Machine.TestCase
