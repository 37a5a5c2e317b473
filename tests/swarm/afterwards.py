"""What must hold of a swarm once its troubles are over, and what it came to."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import permutations, product
from typing import TYPE_CHECKING, NamedTuple

from kernel.cascade import is_one_of, radius
from kernel.lease_numbers import LeaseNumbers
from kernel.leases import Kind
from tests.swarm.proxies import BEAT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernel.contagion import Cascade
    from kernel.leases import News
    from tests.swarm.proxies import Proxy
    from tests.swarm.swarm import Swarm

_ROUND_TRIPS_SECONDS = 0.3
"""How long the calls of one heartbeat take at most where none fails."""


class Report(NamedTuple):
    """What a swarm came to. Times are in seconds."""

    calls: Counter[str]
    codes: Counter[str]
    entries: Counter[str]
    draws: int
    slowest_halt: float
    latest_pass: float
    early_turns: float
    spread: int
    """How many agents a halt was to reach, each counted at each proxy where it had asked."""
    held_back: int
    throttled: int
    radius: int
    stranded: int
    beats_per_proxy: float
    """A second."""

    @property
    def calls_per_draw(self) -> float:
        """Heartbeats come whether or not anything is drawn."""
        return (self.calls["acquire"] + self.calls["settle"]) / self.draws

    @property
    def entries_per_draw(self) -> float:
        return self.entries["lease"] / self.draws


def checked(swarm: Swarm) -> Report:
    """Hold everybody to one another while they still run."""
    assert all(proxy.runs and not proxy.state.broken for proxy in swarm.proxies)
    _agree(swarm)
    _hold_what_the_ledger_says(swarm)
    slowest = _slowest_halt(swarm)
    cascade, watch = swarm.policy.cascade, swarm.watch
    assert cascade is not None
    spread = _spread(swarm, cascade)
    held_back, within = set().union(*watch.held_back.values()), sum(
        radius(cascade, len(proxy.state.seen)) for proxy in swarm.proxies)
    assert len(held_back) <= within, f"{len(held_back)} agents are held back for others, beyond {within}"
    # A process may draw one turn later than the ledger counts it: when the request that asked for it was refused.
    assert watch.early_turns <= len(swarm.proxies), f"a rate was ahead by {watch.early_turns} turns"
    entries = sum((proxy.lane.kinds for proxy in swarm.proxies), Counter())
    stranded = sum(each.stranded for each in swarm.ledger.overview().balances)
    calls = Counter(swarm.ledger.calls)
    beats = calls["beat"] / len(swarm.proxies) / asyncio.get_running_loop().time()
    return Report(calls, watch.codes, entries, sum(watch.passed.values()), slowest, watch.latest_pass,
                  watch.early_turns, spread, len(held_back), watch.throttled, within, stranded, beats)


def _agree(swarm: Swarm) -> None:
    """All have the ledger's epochs and sessions, and the same agents are halted everywhere."""
    standings = {(agent, each.epoch, each.session)
                 for (agent,), each in swarm.ledger.tables.table("standings").items() if each.epoch or each.session}
    halted = _halted(swarm.proxies[0])
    for proxy in swarm.proxies:
        found = {(name, each.epoch, each.session) for name, each in proxy.state.agents.items()
                 if each.epoch or each.session}
        assert found == standings, f"{proxy.name} has other epochs: {found ^ standings}"
        assert _halted(proxy) == halted, f"{proxy.name} has others halted: {_halted(proxy) ^ halted}"


def _halted(proxy: Proxy) -> set[str]:
    return {name for name, each in proxy.state.agents.items() if each.halt is not None}


def _hold_what_the_ledger_says(swarm: Swarm) -> None:
    """A lease that lives for the ledger lives in the lane that it names, and the other way round."""
    there = {(holder, each.lease, each.purse, each.amount) for holder, each in swarm.ledger.overview().leases}
    here = {(proxy.name, number, (*lease.key, lease.window), lease.amount)
            for proxy in swarm.proxies for number, lease in proxy.state.leases.items()}
    assert there == here, f"the ledger alone knows of {there - here}, and lanes alone of {here - there}"


def _slowest_halt(swarm: Swarm) -> float:
    """How long a halt that the ledger knew took to be in force, wherever no call failed meanwhile."""
    slowest = 0.0
    for news, taken_at in _halts(swarm):
        for proxy in swarm.proxies:
            in_force = proxy.in_force[news.agent]
            if proxy.began_at < taken_at and not swarm.network.failed(proxy.name, taken_at - 1.0, in_force):
                slowest = max(slowest, in_force - taken_at)
    assert slowest <= BEAT_SECONDS + _ROUND_TRIPS_SECONDS, f"a halt took {slowest} s"
    return slowest


def _spread(swarm: Swarm, cascade: Cascade) -> int:
    """A halt reaches whoever had asked at a proxy when it came there; what a proxy does to somebody holds everywhere.

    How many agents were looked at, each at each proxy where it had asked.
    """
    released, found = _released(swarm), 0
    leads = [news.agent for news, _ in _halts(swarm) if news.said["reason"] in cascade.on_halt.reasons]
    for lead, proxy in product(leads, swarm.proxies):
        for agent in _asked_before_halt(proxy, cascade, lead) - released:
            assert not _goes_on(proxy, agent), f"{lead} is halted, and {agent} goes on at {proxy.name}"
            found += 1
    for proxy, other in permutations(swarm.proxies, 2):
        for agent in proxy.acted_on - released:
            assert not _goes_on(other, agent), f"{proxy.name} acts on {agent}, which goes on at {other.name}"
    return found


def _goes_on(proxy: Proxy, agent: str) -> bool:
    standing = proxy.state.agent(agent)
    return standing.preventive is None and standing.halt is None


def _asked_before_halt(proxy: Proxy, cascade: Cascade, lead: str) -> set[str]:
    """Those of a lead's team who had asked here when its halt came."""
    teams = [cascade.members[name] for name, leads in cascade.depends.items() if lead in leads]
    return {agent for agent, asked_at in proxy.first_asked.items()
            if asked_at < proxy.in_force[lead] and any(is_one_of(team, agent) for team in teams)}


def _halts(swarm: Swarm) -> Iterator[tuple[News, float]]:
    """The halts that no release has ended, and when the ledger took each."""
    released = _released(swarm)
    for news, taken_at in swarm.ledger.taken.values():
        if news.kind is Kind.HALT and news.agent not in released:
            yield news, taken_at


def _released(swarm: Swarm) -> set[str]:
    return {news.agent for news, _ in swarm.ledger.taken.values() if news.kind is Kind.RELEASE}


def settled(swarm: Swarm) -> None:
    """All have left in order: nothing is held, nothing is above its limit, and every log says what happened."""
    for proxy in swarm.proxies:
        assert proxy.lane.replayed().real == proxy.state, f"{proxy.name} replays to another state"
    _numbers_stand_once(swarm)
    for balance in swarm.ledger.overview().balances:
        assert balance.held == 0
        assert swarm.watch.drawn[balance.purse] <= balance.spent <= balance.limit


def _numbers_stand_once(swarm: Swarm) -> None:
    """Each number of a lease stands in one lane of its log, and none is missing."""
    logs: dict[str, LeaseNumbers] = {}
    for proxy in swarm.proxies:
        lane, log = LeaseNumbers(), logs.setdefault(proxy.log_id, LeaseNumbers())
        lane.take(proxy.lane.leases())
        twice = log.add(lane)
        assert twice is None, f"lease {twice} stands in {proxy.name} and in another lane"
    for log_id, log in logs.items():
        assert log.missing() is None, f"lease {log.missing()} of {log_id} stands nowhere"

