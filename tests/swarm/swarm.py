"""A swarm of agents and proxies that share one ledger over a network which fails, in simulated time.

Proxies have the product's own book, leases and membership, and the ledger its own tables. All chance comes from the
seed: the same seed gives the same swarm.
"""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

from kernel.bounds import Bounds
from kernel.leases import LEASE_SECONDS
from kernel.step import Asked
from kernel.trial import Mode
from kernel.verdict import Verdict
from tests.kernel.accounting import ALLOWED, DENIED
from tests.swarm.afterwards import Report, checked, settled
from tests.swarm.network import CALM, Network
from tests.swarm.plans import Agent, Plan, agents_of, policy_of
from tests.swarm.proxies import BEAT_SECONDS, START_US, Proxy, ProxyClock
from tests.swarm.virtual_time import run
from tests.swarm.watching import SeenLedger, Watch

LANES_OF_A_HOST = 4
MOST_WRONG_US = 900_000
"""How far the clock of a proxy is off: two may be 1.8 s apart."""
CUTS = (3.0, 8.0, LEASE_SECONDS + 7.0)
"""Partitions: one that is bridged, one that stops a proxy, one that costs it its leases."""
MOST_DOWN_SECONDS = LEASE_SECONDS + 5.0
_AT_HOME = 0.8
_WAYS = (("agents halt",), ("agents halt", "agents release"), ("agents rotate",))


def simulated(seed: int, plan: Plan) -> Report:
    """What a swarm came to. AssertionError as soon as anything does not hold."""
    return run(Swarm(seed, plan).live())


class Swarm:
    """One run. Made within its event loop's time."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.plan, self._chance = plan, Random(seed)
        self.policy, self.agents = policy_of(plan), list(agents_of(plan))
        self.network = Network(Random(seed + 1), plan.weather)
        self.proxies: list[Proxy] = []
        self.faults: list[dict[str, Any]] = []

    async def live(self) -> Report:
        self._begin()
        await asyncio.gather(*(proxy.start() for proxy in self.proxies))
        self._plan_requests()
        self._plan_troubles()
        self._plan_acts()
        await asyncio.sleep(self.plan.seconds)
        self.network.weather = CALM
        await asyncio.sleep(6 * BEAT_SECONDS)
        self._no_fault()
        found = checked(self)
        for proxy in self.proxies:
            proxy.leave()
        await asyncio.sleep(BEAT_SECONDS)
        self._no_fault()
        settled(self)
        return found

    def _no_fault(self) -> None:
        assert not self.faults, self.faults[0]

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.faults.append(context))
        governed = SimpleNamespace(bounds=Bounds(self.policy), policy=self.policy, mode=lambda _: Mode.ENFORCE)
        self.ledger = SeenLedger(lambda: START_US + round(loop.time() * 1_000_000), loop.time)
        self.watch = Watch(self.ledger, governed, loop.time)
        for number in range(self.plan.proxies):
            host, lane = divmod(number, LANES_OF_A_HOST)
            clock = ProxyClock(loop.time, self._chance.randint(-MOST_WRONG_US, MOST_WRONG_US))
            self.proxies.append(
                Proxy(f"host{host}", f"w{lane}", governed, self.ledger, self.network, self.watch, clock))

    def _plan_requests(self) -> None:
        chance, plan = self._chance, self.plan
        for _ in range(round(plan.agents * plan.requests)):
            self._at(chance.uniform(0.0, plan.seconds), self._ask, chance.choice(self.agents), ALLOWED, 0)
        for lead in chance.sample(self.agents[:plan.teams], plan.risky):
            begin = chance.uniform(0.2, 0.8) * plan.seconds
            for number in range(3):
                self._at(begin + number, self._ask, lead, DENIED, 20)

    def _at(self, seconds: float, work: Any, *said: Any) -> None:
        asyncio.get_running_loop().call_later(seconds, work, *said)

    def _ask(self, agent: Agent, verdict: Verdict, risk: int) -> None:
        """Mostly at the proxy of the team, now and then at another one."""
        chance, count = self._chance, len(self.proxies)
        proxy = self.proxies[agent.team % count if chance.random() < _AT_HOME else chance.randrange(count)]
        body_bytes, seconds = chance.randint(0, 4096), chance.expovariate(2.0)
        if proxy.runs:
            proxy.do(proxy.ask(Asked(agent.name, verdict, "POST", "a.example:443", "r", body_bytes, risk), seconds))

    def _plan_troubles(self) -> None:
        """All of them are over before the end."""
        chance, plan = self._chance, self.plan
        for _ in range(round(plan.cuts * plan.proxies)):
            seconds, name = chance.choice(CUTS), chance.choice(self.proxies).name
            begin = chance.uniform(0.0, plan.seconds - seconds)
            self._at(begin, self.network.cut, name)
            self._at(begin + seconds, self.network.mend, name)
        for _ in range(round(plan.cuts * plan.proxies / 2)):
            seconds = chance.uniform(0.1, MOST_DOWN_SECONDS)
            self._at(chance.uniform(0.0, plan.seconds - seconds), self._kill, chance.choice(self.proxies), seconds)

    def _kill(self, proxy: Proxy, seconds: float) -> None:
        if proxy.runs:
            proxy.die()
            self._at(seconds, proxy.start_soon)

    def _plan_acts(self) -> None:
        chance, plan = self._chance, self.plan
        for _ in range(plan.acts):
            agent, when = chance.choice(self.agents), chance.uniform(0.0, 0.8) * plan.seconds
            for act in chance.choice(_WAYS):
                self._at(when, self._act, act, agent.name)
                when += chance.uniform(0.0, 6.0)

    def _act(self, act: str, agent: str) -> None:
        proxy = self._chance.choice(self.proxies)
        if proxy.runs:
            proxy.do(proxy.act(act, agent))
