"""Processes of one home that share a ledger, as far as budgets go: a lane, a book and a member each."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from addons.book import Book
from addons.home import Home
from addons.lane import Lane
from addons.pools.acts import SharedActs
from addons.pools.member import Member
from addons.pools.protocol import Ledger
from kernel import entry
from kernel.bounds import Bounds
from kernel.policy import Policy
from kernel.step import Asked
from kernel.transition import POOL
from kernel.trial import Mode
from kernel.verdict import Verdict
from tests.addons.logs import KERNEL, entries
from tests.kernel.accounting import ALLOWED

POOLED = {POOL: "sqlite:pool.db"}


async def judged(book: Book, governed: Any, said: Asked, groups: Sequence[str] = (),
                 address: str | None = None) -> tuple[Verdict, int]:
    """The decision on a request for which these rules hold, once it is durable, and the number of its entry."""
    weighed = await book.weigh(governed, said, Mode.ENFORCE)
    host, _, port = (said.place or ":").rpartition(":")
    method = said.method or "GET"
    facts = entry.request_facts(method, "https", host, int(port), None, address, said.body_bytes, None)
    facts |= {"request": said.request}
    decided = weighed.decided.verdict
    body = entry.decision("request", "f", said.agent, "proxy-auth", governed.policy.digest, facts, groups,
                          decided.action, decided.rule, decided.code, decided.reason, weighed.mode)
    number, durable = book.commit(weighed, body, None)
    await durable
    return decided, number


class Worker:
    """One life of a lane. `ended` are the agents whose flows were cut, `halts` why it has counted some as halted, and
    `said` is what it told its operator.
    """

    def __init__(self, home: Home, ledger: Ledger, policy: Policy, lane: str = "w0",
                 beat_seconds: float = 0.02, option: str = POOLED[POOL]) -> None:
        """`option` names the ledger."""
        self.home = home
        self.governed = SimpleNamespace(bounds=Bounds(policy), policy=policy, mode=lambda at: Mode.ENFORCE)
        self.lane = Lane.open(home, lane, kernel=KERNEL, vault=False)
        self.book = Book(self.lane, self.lane.states, lambda: self.governed, lambda agent: ())  # type: ignore[arg-type,return-value]
        self.ended: list[str] = []
        self.halts: list[str] = []
        self.said: list[str] = []
        self.book.on_halt = lambda agent, verdict: self.ended.append(agent)
        self.book.on_new_halt = self.halts.append
        self.book.record("config", entry.config({POOL: option}, {}), "")
        self.member = Member(ledger, home.log_id, lane, self.book, self.said.append, beat_seconds)
        self.book.pool = self.member
        self.acts = SharedActs(self.book, self.member)
        self.open: list[str] = []
        self.member.begin({"lane": lane})

    @property
    def state(self) -> Any:
        return self.book.state

    async def ask(self, agent: str = "coder", verdict: Verdict = ALLOWED, **asked: Any) -> Verdict:
        """The decision on a request, once it is durable."""
        return await self.decide(Asked(agent, verdict, **{"place": "a.example:443", "request": "r", **asked}))

    async def decide(self, said: Asked, groups: Sequence[str] = (), address: str | None = None) -> Verdict:
        """The same of one for which these rules hold."""
        decided, number = await judged(self.book, self.governed, said, groups, address)
        if decided.lets_through:
            self.open.append(f"{self.lane.name}/{number}")
        return decided

    def end(self, result: str = "completed", agent: str = "coder", down: int = 0) -> None:
        """The oldest open flow ends."""
        self.book.record("outcome", entry.outcome("f", self.open.pop(0), result, 200, 0, down), agent)

    def entries(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in entries(self.home, self.lane.name) if each["type"] == kind]

    def leave(self) -> None:
        self.member.end()
        self.lane.close("test")

