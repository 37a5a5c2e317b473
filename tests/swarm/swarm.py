"""A swarm of agents and proxies that share one ledger over a network which fails, in simulated time.

Proxies run the product's own book, leases and membership, and the ledger its own tables. All chance comes from the
seed: the same seed gives the same swarm.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from types import SimpleNamespace
from typing import Any

from kernel.bounds import Bounds
from kernel.budget import Effect, Every
from kernel.cascade import radius
from kernel.contagion import Cascade, OnHalt, Prevention
from kernel.lease_numbers import LeaseNumbers, granted
from kernel.leases import LEASE_SECONDS, Kind
from kernel.measures import Rate
from kernel.policy import AgentPattern, Policy, Position
from kernel.step import Asked
from kernel.verdict import Code, Verdict
from tests.kernel.accounting import ALLOWED, DENIED, at, budget, policy, rate
from tests.swarm.network import CALM, USUAL, Network, Weather
from tests.swarm.proxies import BEAT_SECONDS, START_US, Proxy, ProxyClock
from tests.swarm.virtual_time import run
from tests.swarm.watching import SeenLedger, Watch

LANES_OF_A_HOST = 4
MOST_WRONG_US = 900_000
"""How far the clock of a proxy is off: two may be 1.8 s apart."""
CUTS = (3.0, 8.0, LEASE_SECONDS + 7.0)
"""Partitions: one that is bridged, one that stops a proxy, one that costs it its leases."""


@dataclass(frozen=True)
class Plan:
    """How large a swarm is and what happens to it. `requests` is how many there are for each agent on average."""

    agents: int = 200
    proxies: int = 10
    teams: int = 20
    seconds: float = 45.0
    requests: float = 6.0
    weather: Weather = USUAL
    cuts: float = 0.5
    """How many partitions there are for each proxy; and deaths, half as many."""
    risky: float = 0.3
    """The share of leads that earn a halt."""
    acts: int = 12
    do: Prevention = Prevention.QUARANTINE
    paced: bool = True


@dataclass
class Report:
    """What a swarm came to."""

    calls: Counter[str]
    codes: Counter[str]
    entries: Counter[str]
    draws: int
    latest_pass: float
    slowest_halt: float
    early_turns: float
    held_back: int
    radius: int
    news: int
    stranded: int
    fingerprint: str = ""

    @property
    def calls_per_draw(self) -> float:
        return sum(self.calls[name] for name in ("acquire", "settle")) / self.draws

    @property
    def entries_per_draw(self) -> float:
        return self.entries["lease"] / self.draws


def simulated(seed: int, plan: Plan) -> Report:
    """Run a swarm to its end. AssertionError as soon as anything does not hold."""
    return run(Swarm(seed, plan).live())


def _policy(plan: Plan) -> Policy:
    crew, leads = (AgentPattern("crew-*"), AgentPattern("kept-*")), (AgentPattern("lead-*"),)
    asked = round(plan.agents * plan.requests)
    said = policy(
        budget(together={"requests": asked // 3}, every=Every.HOUR, name="all"),
        budget(together={"bytes": asked * 2**21}, name="traffic"),
        budget(each={"requests": 5}, name="own", agents=(AgentPattern("kept-*"),)),
        budget(each={"risk": 30}, every=Every.SESSION, name="conduct", when_used=[at(100, Effect.HALT)]),
        rates=(replace(rate(Rate(2, 1), Rate(plan.teams, 1), burst=8), agents=leads),) if plan.paced else ())
    depends = {f"team-{team}": (f"lead-{team}",) for team in range(plan.teams)}
    depends |= {f"lead-{team}": (f"lead-{team - 1}",) for team in range(1, plan.teams, 2)}
    members = {f"lead-{team}": (AgentPattern(f"lead-{team}"),) for team in range(plan.teams)}
    members |= {f"team-{team}": tuple(AgentPattern(f"{kind}-{team}-*") for kind in ("crew", "kept"))
                for team in range(plan.teams)}
    assert crew
    cascade = Cascade(Position("policy.yaml", 1, 1), depends, members, {},
                      OnHalt(frozenset({Code.OVERRISK}), plan.do, hops=2, seconds=600))
    return replace(said, cascade=cascade)


@dataclass
class Swarm:
    """One run. `chance` decides everything."""

    seed: int
    plan: Plan
    proxies: list[Proxy] = field(default_factory=list)

    async def live(self) -> Report:
        self._begin()
        await asyncio.gather(*(proxy.start() for proxy in self.proxies))
        self._plan_requests()
        self._plan_troubles()
        self._plan_acts()
        await asyncio.sleep(self.plan.seconds)
        await self._calm()
        self._check_agreement()
        self._check_reach()
        slowest = self._slowest_halt()
        states = [proxy.state.copy() for proxy in self.proxies]
        assert states
        await self._leave()
        return self._report(slowest)

    def _begin(self) -> None:
        plan, loop = self.plan, asyncio.get_running_loop()
        self.faults: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda loop, context: self.faults.append(context))
        self.chance, self.policy = Random(self.seed), _policy(plan)
        self.governed = SimpleNamespace(bounds=Bounds(self.policy), policy=self.policy)
        self.ledger = SeenLedger(lambda: START_US + round(loop.time() * 1_000_000), loop.time)
        self.network = Network(Random(self.seed + 1), plan.weather)
        self.watch = Watch(self.ledger, self.governed.bounds, loop.time)
        for number in range(plan.proxies):
            host, lane = divmod(number, LANES_OF_A_HOST)
            clock = ProxyClock(loop.time, self.chance.randint(-MOST_WRONG_US, MOST_WRONG_US))
            self.proxies.append(Proxy(f"host{host}", f"w{lane}", self.governed, self.ledger, self.network, self.watch,
                                      clock))

    def _agents(self) -> list[tuple[str, int]]:
        """The agents, each with the team that it is of."""
        found = [(f"lead-{team}", team) for team in range(self.plan.teams)]
        for number in range(self.plan.agents - self.plan.teams):
            team = number % self.plan.teams
            found.append((f"{'kept' if number % 10 == 0 else 'crew'}-{team}-{number}", team))
        return found

    def _plan_requests(self) -> None:
        agents, loop, plan = self._agents(), asyncio.get_running_loop(), self.plan
        risky = {f"lead-{team}" for team in range(plan.teams) if self.chance.random() < plan.risky}
        for _ in range(round(plan.agents * plan.requests)):
            agent, team = self.chance.choice(agents)
            loop.call_later(self.chance.uniform(0.0, plan.seconds), self._ask, agent, team, ALLOWED, 0)
        for agent in sorted(risky):
            when = self.chance.uniform(plan.seconds * 0.2, plan.seconds * 0.8)
            for number in range(3):
                loop.call_later(when + number, self._ask, agent, int(agent.partition("-")[2]), DENIED, 20)

    def _ask(self, agent: str, team: int, verdict: Verdict, risk: int) -> None:
        """Mostly at the proxy of the team, now and then at another one."""
        count = len(self.proxies)
        number = team % count if self.chance.random() < 0.8 else self.chance.randrange(count)
        proxy, size, seconds = self.proxies[number], self.chance.randint(0, 4096), self.chance.expovariate(2.0)
        if proxy.runs:
            proxy.do(proxy.ask(Asked(agent, verdict, "POST", "a.example:443", "r", size, risk), seconds))

    def _plan_troubles(self) -> None:
        loop, plan = asyncio.get_running_loop(), self.plan
        for _ in range(round(plan.cuts * plan.proxies)):
            loop.call_later(self.chance.uniform(0.0, plan.seconds), self._cut, self.chance.choice(self.proxies).name,
                            self.chance.choice(CUTS))
        for _ in range(round(plan.cuts * plan.proxies / 2)):
            loop.call_later(self.chance.uniform(0.0, plan.seconds), self._kill, self.chance.choice(self.proxies),
                            self.chance.uniform(0.1, LEASE_SECONDS + 5))

    def _cut(self, name: str, seconds: float) -> None:
        self.network.cut.add(name)
        asyncio.get_running_loop().call_later(seconds, self.network.cut.discard, name)

    def _kill(self, proxy: Proxy, seconds: float) -> None:
        if proxy.runs:
            proxy.die()
            loop = asyncio.get_running_loop()
            loop.call_later(seconds, lambda: self._again(proxy))

    def _again(self, proxy: Proxy) -> None:
        self._starting.add(asyncio.get_running_loop().create_task(proxy.start()))

    def _plan_acts(self) -> None:
        loop, plan, agents = asyncio.get_running_loop(), self.plan, self._agents()
        self._starting: set[asyncio.Task[None]] = set()
        for _ in range(plan.acts):
            agent = self.chance.choice(agents)[0]
            acts = self.chance.choice([("agents halt",), ("agents halt", "agents release"), ("agents rotate",)])
            when = self.chance.uniform(0.0, plan.seconds * 0.8)
            for act in acts:
                loop.call_later(when, self._act, act, agent)
                when += self.chance.uniform(0.0, 6.0)

    def _act(self, act: str, agent: str) -> None:
        proxy = self.chance.choice(self.proxies)
        if proxy.runs:
            proxy.do(proxy.act(act, agent))

    async def _calm(self) -> None:
        """Let everybody come back, and hear of everything."""
        self.network.weather = CALM
        await asyncio.sleep(max(CUTS) + LEASE_SECONDS + 6)
        assert not self.network.cut
        assert all(proxy.runs for proxy in self.proxies)
        await asyncio.sleep(3 * BEAT_SECONDS)
        assert not self.faults, self.faults[0]
        assert not any(proxy.state.broken for proxy in self.proxies)

    def _check_agreement(self) -> None:
        """All have the same epochs and sessions as the ledger, and the same agents are halted everywhere."""
        standings = {agent: each for (agent,), each in self.ledger.tables.table("standings").items()}
        seen = [{(name, each.epoch, each.session) for name, each in proxy.state.agents.items()
                 if each.epoch or each.session} for proxy in self.proxies]
        assert all(each == {(name, *each) for name, each in standings.items()} for each in seen)
        halted = [{name for name, each in proxy.state.agents.items() if each.halt} for proxy in self.proxies]
        for proxy, each in zip(self.proxies, halted, strict=True):
            assert each == halted[0], f"{proxy.name} differs in {each ^ halted[0]}"

    def _check_reach(self) -> None:
        """No proxy has held back more than the radius of those that it knows, and all of them no more than theirs."""
        assert self.policy.cascade is not None
        radii = [radius(self.policy.cascade, len(proxy.state.seen)) for proxy in self.proxies]
        held = [self._held_by(proxy) for proxy in self.proxies]
        assert all(len(each) <= most for each, most in zip(held, radii, strict=True))
        self.held_back, self.radius = len(set().union(*held)), sum(radii)
        assert self.held_back <= self.radius

    def _held_by(self, proxy: Proxy) -> set[str]:
        """Whom a proxy itself has held back for another's halt."""
        return {entry["agent"] for entry in proxy.lane.entries()
                if entry["type"] == "preventive" and "heard" not in entry and Prevention(entry["do"]).holds_back}

    def _slowest_halt(self) -> float:
        """How long a halt took to be in force where no call failed meanwhile."""
        slowest = 0.0
        released = {news.agent for news, _ in self.ledger.taken.values() if news.kind is Kind.RELEASE}
        for news, taken_at in self.ledger.taken.values():
            if news.kind is not Kind.HALT or news.agent in released:
                continue
            for proxy in self.proxies:
                in_force = proxy.in_force[news.agent]
                failed = self.network.failed_at.get(proxy.name, -1.0)
                if proxy.began_at < taken_at and failed < taken_at - BEAT_SECONDS:
                    slowest = max(slowest, in_force - taken_at)
        assert slowest <= BEAT_SECONDS + 0.3, f"a halt took {slowest} s"
        return slowest

    async def _leave(self) -> None:
        """All end in order: nothing is held, and every log says what happened."""
        for proxy in self.proxies:
            proxy.leave()
            await asyncio.sleep(0.01)
            assert proxy.lane.replayed().real == proxy.state, f"{proxy.name} replays to another state"
        self._check_numbers()
        for balance in self.ledger.overview().balances:
            assert balance.held == 0
            assert balance.spent <= balance.limit
            assert self.watch.drawn[balance.purse] <= balance.spent

    def _check_numbers(self) -> None:
        """Each lease stands in one lane, and in one."""
        for log_id in sorted({proxy.log_id for proxy in self.proxies}):
            log = LeaseNumbers()
            for proxy in self.proxies:
                if proxy.log_id == log_id:
                    lane = LeaseNumbers()
                    lane.take([number for entry in proxy.lane.entries() if (number := granted(entry)) is not None])
                    assert log.add(lane) is None
            assert log.missing() is None, f"lease {log.missing()} of {log_id} stands nowhere"

    def _report(self, slowest: float) -> Report:
        entries = Counter(entry["type"] for proxy in self.proxies for entry in proxy.lane.entries())
        balances = self.ledger.overview().balances
        return Report(
            self.ledger.calls, self.watch.codes, entries, sum(self.watch.passed.values()), self.watch.latest_pass,
            slowest, self.watch.early_turns, self.held_back, self.radius, len(self.ledger.taken),
            sum(each.stranded for each in balances))
