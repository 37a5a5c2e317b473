"""`governor audit replay` over the lanes of processes that shared a ledger: each lane comes out again by itself."""

from __future__ import annotations

import json
import random
import time
from ipaddress import ip_address
from typing import Any

import pytest
from blake3 import blake3
from click.testing import CliRunner

from addons import build_info
from addons.audit_log import AuditLog
from addons.home import Home
from addons.pools.memory import MemoryLedger
from addons.pools.protocol import Ledger, LedgerError
from addons.replay_parts import parts_of
from addons.snapshots import Snapshots
from addons.verbs.audit import audit
from addons.verifying import verify_log
from kernel import canonical, chain
from kernel.decide import address_stage, name_stage
from kernel.facts import Agent, RequestFacts
from kernel.fields import Fields
from kernel.normal import host, path
from kernel.report import Result
from kernel.step import Asked
from kernel.verdict import Code, Verdict
from tests.addons.logs import KERNEL, entries, segments
from tests.addons.replay_homes import kept
from tests.addons.workers import Worker
from tests.conftest import scaled

POLICY = """\
version: 1
rules:
  - {allow: api, to: api.example.com, methods: any}
  - {allow: docs, to: [docs.example.com, pkg.example.org], methods: reads}
  - {deny: no-secrets, to: secret.example.com, risk: 7}
budgets:
  - budget: team
    together: {requests: 30, bytes: 40MB}
    every: session
    when-used: {50%: tell, 100%: deny}
  - budget: each
    each: {requests: 40, new-hosts: 3, risk: 40, seconds: 2h}
    every: day
    when-used: {80%: tell, 100%: halt}
rates:
  - {each: 600/minute, together: 1200/minute, burst: 60}
profile: balanced
"""
HOSTS = ["api.example.com", "docs.example.com", "pkg.example.org", "secret.example.com", "unknown.example"]
OUTSIDE = ip_address("8.8.8.8")


@pytest.fixture(autouse=True)
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_info, "kernel_digest", lambda: KERNEL["digest"])


class Process(Worker):
    """A process that judges by a policy that is kept, and keeps its state."""

    def __init__(self, home: Home, ledger: Ledger, lane: str) -> None:
        self.judging = kept(POLICY)
        super().__init__(home, ledger, self.judging.policy, lane)
        loaded = {"policy": self.judging.policy.digest, "files": ["p.yaml"], "mode": "enforce", "kernel": KERNEL}
        self.book.record("policy_load", loaded, "")
        self.snapshots = Snapshots(home.paths, self.lane, self.lane.states)

    async def request(self, agent: str, name: str, body_bytes: int = 0) -> Verdict:
        judging = self.judging
        facts = RequestFacts(Agent(agent, "proxy-auth"), "GET", "https", host(name), 443, path("/"), "", body_bytes,
                             "text/plain", Fields("", (), b""), int(time.time()))
        judged = name_stage(judging.index, facts) or address_stage(judging.index, facts, (OUTSIDE,), frozenset())
        said = Asked(agent, judged.verdict, "GET", f"{name}:443", f"{hash(name) & (2**64 - 1):016x}", body_bytes,
                     judging.bounds.risk(judged.groups), judging.bounds.throttles(judged.groups))
        return await self.decide(said, judged.groups, judged.address and str(judged.address))

    async def requests(self, chance: random.Random, count: int) -> list[Code]:
        codes = []
        for _ in range(count):
            agent = f"{chance.choice('ab')}{chance.randrange(3)}"
            codes.append((await self.request(agent, chance.choice(HOSTS), chance.choice((0, 0, 1000, 300_000)))).code)
            while len(self.open) > chance.randrange(6):
                self.end(chance.choice(("completed", "completed", "failed", "not_sent")),
                         self.book.state.open[self.open[0]].agent, chance.randrange(90_000))
        return codes


class Away(MemoryLedger):
    """A ledger that can be cut off."""

    away = False

    def _transact(self, call: Any) -> Any:
        if self.away:
            raise LedgerError("the ledger does not answer")
        return super()._transact(call)

    def _read(self, call: Any) -> Any:
        if self.away:
            raise LedgerError("the ledger does not answer")
        return super()._read(call)


def replayed(home: Home, *arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(audit, ["replay", str(home.paths.folder), "--json", *map(str, arguments)],
                                standalone_mode=False)
    assert result.exception is None, result.exception
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def keep_policy(home: Home) -> None:
    home.paths.policies.mkdir(exist_ok=True)
    (home.paths.policies / f"{blake3(POLICY.encode()).hexdigest()}.yaml").write_text(POLICY)


async def written(home: Home, seed: int = 0) -> list[Code]:
    """Two processes draw by turns on one ledger and keep their states meanwhile; one dies, and begins anew."""
    keep_policy(home)
    ledger, chance = Away(), random.Random(seed)
    processes = [Process(home, ledger, name) for name in ("w0", "w1")]
    codes = []
    for turn in range(12):
        for process in processes:
            codes += await process.requests(chance, 6)
        if turn % 3 == 1:
            processes[turn % 2].snapshots.finish()
        for process in processes:
            await process.member.turn()
        if turn == 6:
            await processes[0].acts.act("agents halt", "a1", "because", "ann", "control")
        if turn == 7:
            codes += await unheard(ledger, processes)
            processes[1].lane.close("died")
            processes[1] = Process(home, ledger, "w1")
    for process in processes:
        process.snapshots.finish()
        process.leave()
    return codes


async def unheard(ledger: Away, processes: list[Process]) -> list[Code]:
    """What is asked while the ledger does not answer, by somebody new and by one who has leases."""
    ledger.away = True
    codes = [(await process.request(agent, HOSTS[3])).code for process in processes for agent in ("b9", "b0")]
    ledger.away = False
    return codes


def changed(home: Home, lane: str, seq: int, **fields: Any) -> None:
    """One entry says something else, and nobody has looked whether its line still holds."""
    for segment in segments(home, lane):
        lines = segment.read_bytes().splitlines(keepends=True)
        for at, line in enumerate(lines):
            body = json.loads(line)
            if body["e"]["seq"] == seq:
                _, kid, signature = chain.split(line)
                lines[at] = chain.line(canonical.encode(body["e"] | fields), kid, signature)
        segment.write_bytes(b"".join(lines))


@pytest.mark.parametrize("seed", range(scaled(2)))
async def test_each_decision_comes_out_again_whatever_other_processes_drew(home: Home, seed: int) -> None:
    codes = await written(home, seed)

    said = replayed(home, "--jobs", 1)
    assert (said["result"], said["decisions"], said["not_replayable"]) == ("equal", len(codes), {})
    assert replayed(home, "--jobs", 2) == said
    assert {Code.ALLOW, Code.BUDGET_EXHAUSTED, Code.AGENT_HALTED, Code.POOL_UNREACHABLE} <= set(codes)
    assert {each["act"] for each in leases(home)} >= {"granted", "settled", "refused"}
    assert verify_log(AuditLog.at(home.paths.folder), home.root).result is Result.VERIFIED


def leases(home: Home) -> list[dict[str, Any]]:
    return [each for lane in ("w0", "w1") for each in entries(home, lane) if each["type"] == "lease"]


async def test_a_part_begins_with_what_was_leased_and_not_settled(home: Home) -> None:
    await written(home)
    log = AuditLog.at(home.paths.folder)
    states = [part.states.real for lane in log.lanes() for part in parts_of(log, lane) if part.states is not None]
    in_parts = replayed(home, "--jobs", 2)

    assert any(state.leases for state in states)
    assert all(state.pooled for state in states)
    for kept_state in home.paths.states.iterdir():
        kept_state.unlink()
    assert len(parts_of(log, "w0")) == 1
    assert replayed(home) == in_parts


async def test_a_lease_of_another_amount_is_told(home: Home) -> None:
    """By the first state that a lane keeps behind it, where no decision shows it before."""
    await written(home)
    granted = [each for each in leases(home) if each["act"] == "granted" and each["lease"]]
    for each in random.Random(0).sample(granted, min(scaled(8), len(granted))):
        changed(home, each["lane"], each["seq"], amount=each["amount"] + 1)
        said = replayed(home)
        assert said["result"] == "divergent", each
        assert said["first_divergence"]["entry"].startswith(each["lane"])
        changed(home, each["lane"], each["seq"], amount=each["amount"])

    assert replayed(home)["result"] == "equal"


async def test_a_lease_that_was_drawn_on_and_was_none_is_told_by_the_first_decision_that_drew(home: Home) -> None:
    keep_policy(home)
    process = Process(home, Away(), "w0")
    await process.request("b0", HOSTS[0])
    process.lane.close("died")
    for lease in process.entries("lease"):
        if lease["unit"] == "requests" and lease["budget"] == "team":
            changed(home, "w0", lease["seq"], amount=0)
    [drawn] = process.entries("decision")

    assert replayed(home)["first_divergence"] == {
        "entry": f"w0/{drawn['seq']}", "field": "verdict", "recorded": "allow", "computed": "deny"}
