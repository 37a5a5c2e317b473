"""What must hold at every moment of a swarm, looked at by somebody who sees all of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from addons.pools.memory import MemoryLedger
from kernel.cascade import radius, roll_at
from kernel.contagion import Prevention
from kernel.leases import CUT_OFF_SECONDS, Kind, News, Purse
from kernel.state import RATE, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from addons.pools.clock import Clock
    from kernel.folding import States
    from kernel.leases import Beat
    from kernel.state import Draw


class SeenLedger(MemoryLedger):
    """The ledger, with what it was called for, when it took which news, and when it last heard of whom."""

    def __init__(self, clock: Callable[[], int], seconds: Callable[[], float]) -> None:
        super().__init__(clock)
        self.server = "swarm"
        self.calls: Counter[str] = Counter()
        self.taken: dict[int, tuple[News, float]] = {}
        self.heard_of: dict[str, float] = {}
        self._seconds = seconds

    def _do(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls[call.__name__] += 1
        return super()._do(call, *args, **kwargs)

    def beat(self, holder: str, *said: Any) -> Beat:
        beat = super().beat(holder, *said)
        self.heard_of[holder] = self._seconds()
        return beat

    def tell(self, holder: str, news: News) -> News:
        told = super().tell(holder, news)
        if told.number:
            self.taken.setdefault(told.number, (told, self._seconds()))
        return told

    def gone(self, purse: Purse) -> int | None:
        """What is spent of a purse or held; None where it is forgotten."""
        account = self.tables.table("accounts").get(purse)
        return None if account is None else account.spent + account.held


class Watch:
    """Everything that is drawn, halted and let through, over all proxies. What does not hold is an AssertionError."""

    def __init__(self, ledger: SeenLedger, governed: Any, seconds: Callable[[], float]) -> None:
        bounds = governed.bounds
        self._ledger, self._bounds, self._seconds = ledger, bounds, seconds
        self._cascade = governed.policy.cascade
        self._limits = {(bound.budget, bound.unit): bound.most()[0] for bound in bounds.amounts()}
        self._by_proxy: dict[tuple[str, Purse], int] = {}
        self.drawn: Counter[Purse] = Counter()
        self.passed: Counter[str] = Counter()
        """How many requests of each agent went to an origin."""
        self.codes: Counter[str] = Counter()
        self._due: dict[Purse, float] = {}
        self.early_turns = float("-inf")
        """By how many turns a rate was ahead of what it allows, at the most."""
        self._halted: dict[str, float | None] = defaultdict(lambda: None)
        self._looked = 0
        self.held_back: dict[str, set[str]] = defaultdict(set)
        """Whom each proxy was the first that it knows of to hold back for another's halt."""
        self._held_elsewhere: dict[str, set[str]] = defaultdict(set)
        self.throttled = 0
        self.latest_pass = 0.0
        """How long after the ledger knew of a halt a request of its agent still passed, at the most."""

    def drew(self, proxy: str, state: State, draws: Iterable[Draw]) -> None:
        """A proxy has drawn, or has settled what it drew."""
        for draw in draws:
            purse, account = Purse(*draw.key, draw.window), state.account(draw.key)
            if draw.unit != RATE and (draw.budget, draw.unit) in self._limits and account.window == draw.window:
                self._count(proxy, purse, account.spent + account.held)

    def _count(self, proxy: str, purse: Purse, gone: int) -> None:
        before = self._by_proxy.get((proxy, purse), 0)
        self._by_proxy[proxy, purse] = gone
        self.drawn[purse] += gone - before
        drawn, limit, known = self.drawn[purse], self._limits[purse.budget, purse.unit], self._ledger.gone(purse)
        assert drawn <= limit, f"{drawn} of {limit} are drawn of {purse}"
        assert known is None or drawn <= known <= limit, f"{drawn} are drawn of {purse}, {known} are gone of {limit}"

    def restarted(self, proxy: str, state: State) -> None:
        """A proxy died, and of what it drew only that is true which its log says."""
        for owner, purse in [key for key in self._by_proxy if key[0] == proxy]:
            account = state.account(purse[:3])
            if account.window == purse.window:
                self._count(owner, purse, account.spent + account.held)

    def turned(self, draws: Iterable[Draw], agent: str) -> None:
        """A request took a turn of each of its rates."""
        paces = {pace.name: pace for pace in self._bounds.of(agent).paces}
        for draw in draws:
            pace = paces.get(draw.budget) if draw.unit == RATE else None
            if pace is not None:
                purse, now = Purse(*draw.key, 0), self._seconds() * 1_000_000
                due = self._due[purse] = max(self._due.get(purse, 0.0), now) + pace.each_us
                self.early_turns = max(self.early_turns, (due - now) / pace.each_us - pace.burst)

    def heard(self, proxy: str, kind: str, fields: Mapping[str, Any]) -> None:
        """A proxy has heard what another one did."""
        if kind == "preventive" and Prevention(fields["do"]).holds_back:
            self._held_elsewhere[proxy].add(fields["agent"])

    def prevented(self, proxy: str, states: States, clock: Clock, fields: Mapping[str, Any]) -> None:
        """A proxy has done something to an agent because another one was halted."""
        assert len(fields["path"]) == fields["hop"] + 1
        self.throttled += fields["degraded"]
        if Prevention(fields["do"]).holds_back and fields["agent"] not in self._held_elsewhere[proxy]:
            self.held_back[proxy].add(fields["agent"])
        roll = roll_at(states, clock.micros())
        held, most = self.held_back[proxy] & roll.held.keys(), radius(self._cascade, len(roll.active))
        assert len(held) <= most, f"{proxy} holds back {sorted(held)}, and may only {most}"

    def let_through(self, proxy: str, agent: str) -> None:
        """A request went to its origin."""
        self.passed[agent] += 1
        silent = self._seconds() - self._ledger.heard_of[proxy]
        assert silent <= CUT_OFF_SECONDS, f"{proxy} lets {agent} pass {silent} s after its last heartbeat"
        halted_at = self._halted_at(agent)
        if halted_at is not None:
            self.latest_pass = max(self.latest_pass, self._seconds() - halted_at)
            assert self.latest_pass <= CUT_OFF_SECONDS, f"{agent} passes {self.latest_pass} s after it was halted"

    def _halted_at(self, agent: str) -> float | None:
        """Since when the ledger knows that an agent is halted, as of now."""
        taken = self._ledger.taken
        while self._looked < len(taken):
            self._looked += 1
            news, at = taken[self._looked]
            if news.kind is Kind.RELEASE:
                self._halted[news.agent] = None
            elif news.kind is Kind.HALT and self._halted[news.agent] is None:
                self._halted[news.agent] = at
        return self._halted[agent]
