"""Random logs of one lane: each request is judged, weighed and written as the enforcer does it, on its own clock."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from blake3 import blake3

from kernel import canonical, entry
from kernel.bounds import Bounded
from kernel.budget import Counter, Effect, Every
from kernel.cascade import cause_of, entries_after, roll_at
from kernel.contracts import broken
from kernel.decide import address_stage, name_stage
from kernel.disclosure import Disclosure
from kernel.facts import Address, Agent, RequestFacts
from kernel.fields import Fields
from kernel.folding import States
from kernel.measures import Rate
from kernel.normal import host, path
from kernel.pattern import agent_pattern
from kernel.recorded import Judging
from kernel.snapshot import Snapshot, encode
from kernel.state import NO_CHANGE, State
from kernel.step import Asked, Decided, step
from kernel.suffix import Suffixes
from kernel.transition import change
from kernel.trial import OBSERVED, Mode, enforced, mode_at, observing
from kernel.verdict import Action, Code, Judgement, Verdict
from tests.addons.policies import compiled
from tests.kernel.accounting import at, budget, digest, rate

KERNEL = "5a" * 32
IDENTITY = entry.kernel_identity("1.0.0", KERNEL)
START = datetime(2027, 3, 1, 9, 0, 0, 6, tzinfo=UTC)
HOSTS = [
    "api.example.com", "docs.example.com", "x.tracker.example", "pkg.example.org", "unknown.example", "10.1.2.3",
    "8.8.8.8"]
_OUTSIDE = [Code.NON_CANONICAL, Code.RESOLVE_FAILED, Code.BUSY]
INSIDE, OUTSIDE = ip_address("10.1.2.3"), ip_address("8.8.8.8")

POLICY = """\
# Every way in which the rules can answer.
rules:
  - {allow: api, to: api.example.com, methods: any, paths: [/v1/**, /open/*], max-request: 1MB, max-url: 60}
  - {allow: docs, to: [docs.example.com, pkg.example.org], methods: reads}
  - {allow: in, to: 10.1.2.3, methods: any, address: 10.0.0.0/8}
  - {throttle: slow, to: 8.8.8.8, methods: any, rate: 30/minute}
  - {deny: no-secrets, to: api.example.com, methods: any, paths: /v1/secrets/**}
  - {deny: tried, to: pkg.example.org, paths: /simple/**, observe: yes, expires: 2099-01-01}
  - {allow: by-day, to: unknown.example, methods: reads, when: {hours: 08:00-09:30, timezone: UTC}}
  - {deny: expected, to: x.tracker.example, quiet: yes}
  - {halt: trap, to: api.example.com, methods: any, paths: /v1/trap}
never:
  - {to: evil.example}
"""
_RISKS, _RATES = {"docs": 1, "no-secrets": 3}, {"slow": Rate(30, 60)}
_BUDGETS = (
    budget({"requests": 60, "bytes": 90_000_000}, {"requests": 2000}, Every.HOUR, name="hour",
           agents=(agent_pattern("a*"),),
           when_used=(at(50, Effect.TELL), at(80, Effect.THROTTLE, Rate(60, 60)), at(100, Effect.DENY))),
    budget({"seconds": 90_000}, {"risk": 300}, name="day"),
)


def judging(text: str = POLICY, *, budgets: bool = True) -> Judging:
    """The policy in `text`, with budgets, a rate, points and a profile."""
    policy = replace(compiled(text, ahead=True).policy, digest=blake3(f"{budgets}{text}".encode()).hexdigest())
    if budgets:
        rules = [replace(rule, risk=_RISKS.get(rule.name, 0), rate=_RATES.get(rule.name)) for rule in policy.rules]
        policy = replace(policy, rules=tuple(rules), budgets=_BUDGETS, rates=(rate(Rate(40, 60), burst=20),),
                         profile="balanced", counters=(Counter("persistence", 8, Effect.DENY, 600),))
    return Judging(policy)


@dataclass
class Recorder:
    """One process and its lane. `entries` is its log, `values` is what its vault holds, by the number of the entry."""

    judging: Judging
    lane: str = "main"
    seed: int = 0
    mode: Mode = Mode.ENFORCE
    entries: list[dict[str, Any]] = field(default_factory=list)
    values: dict[int, dict[str, object]] = field(default_factory=dict)
    known: dict[str, Judging] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.now = START
        self.real, self.shadow = State(), State()
        self.open: list[tuple[str, str]] = []
        if self.lane == "main":
            self.write(entry.genesis("", "", "", entry.timestamp(START), "0"))
        self.write(entry.lane_open("key", "certificate", IDENTITY, []))
        self.load(self.judging, self.mode)

    def load(self, judging: Judging, mode: Mode = Mode.ENFORCE) -> None:
        self.judging, self.mode = judging, mode
        self.known[judging.policy.digest] = judging
        self.disclosure = Disclosure(judging.policy, Suffixes(("com", "org", "example")))
        self.write(entry.policy_load(judging.policy.digest, ["p.yaml"], mode, IDENTITY))

    @property
    def at(self) -> int:
        return int(self.now.timestamp())

    @property
    def now_us(self) -> int:
        return (self.now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    def write(self, body: dict[str, Any], state: State | None = None) -> str:
        """One entry, and what it does to the state."""
        seq = len(self.entries)
        ts = entry.timestamp(self.now)
        self.entries.append(entry.common(body["type"], seq, "0" * 64, ts, seq, self.lane) | body)
        name = f"{self.lane}/{seq}"
        state = state or self.real
        state.take(change(state, self.entries[-1], name, self.now_us))
        return name

    @staticmethod
    def salt(number: int, name: str) -> bytes:
        return blake3(f"{number}/{name}".encode()).digest()

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def keep_state(self, files: list[bytes]) -> None:
        """Keep the state as it is now, and tell of it a little later."""
        raw, at = encode(Snapshot(self.lane, len(self.entries), States(self.real, self.shadow))), len(self.entries)
        files.append(raw)
        self.random(3)
        self.write(entry.state_snapshot(at, blake3(raw).hexdigest(), len(raw), 0, 0))

    def act(self, act: str, agent: str | None, **more: Any) -> None:
        self.write(entry.operator(act, agent, "because", "ann", "control") | more)

    def end(self, number: int = -1, result: str = "completed", status: int | None = 200, up: int = 0,
            down: int = 0) -> None:
        flow, decision = self.open.pop(number)
        state = self.shadow if decision in self.shadow.open else self.real
        self.write(entry.outcome(flow, decision, result, status, up, down), state)

    def crash(self) -> None:
        """The process is gone in the middle; the next one ends what was open, and goes on from what the log says."""
        while self.open:
            self.end(0, "unknown", None)
        self.write(entry.recovery("000000.jsonl", 4711, 12, "ab" * 32))
        self.write(entry.config({}, {}))
        real, shadow = State(), State()
        for each in self.entries:
            observed = each.get("mode") == Mode.OBSERVE and each["type"] == "decision"
            mine = shadow if observed or each.get("decision") in shadow.open else real
            mine.take(change(mine, each, f"{self.lane}/{each['seq']}", micros(each["ts"])))
        self.real, self.shadow = real, shadow
        self.load(self.judging, self.mode)

    def ask(self, agent: str = "a1", name: str = "api.example.com", where: str = "/v1/x", method: str = "GET",
            scheme: str = "https", body_bytes: int = 0, query: str = "", outside: Code | None = None,
            address: Address | None = None, fields: Fields | None = None) -> dict[str, Any]:
        """One request, and its entry."""
        judging, at = self.judging, self.at
        index = judging.index
        facts = RequestFacts(Agent(agent, "proxy-auth"), method, scheme, host(name), 443, path(where), query,
                             body_bytes, "text/plain", fields or Fields(query, (), b""), at)
        mode = self.mode if mode_at(judging.policy.observed_until, at) is Mode.OBSERVE else Mode.ENFORCE
        judged: Judgement | None = None
        if outside is None:
            judged = name_stage(index, facts)
            if mode is Mode.OBSERVE and judged is not None and judged.verdict.code in OBSERVED:
                judged = None
            if judged is None:
                addresses = (facts.host.address or address or OUTSIDE,)
                judged = address_stage(index, facts, addresses, frozenset())
                if mode is Mode.OBSERVE:
                    judged = enforced(index, facts, addresses, judged, judging.policy.observed_until)
        verdict = judged.verdict if judged else Verdict(Action.DENY, outside or Code.FAULT, None, "from outside")
        return self._written(facts, judged, verdict, mode)

    def _written(self, facts: RequestFacts, judged: Judgement | None, verdict: Verdict, mode: Mode) -> dict[str, Any]:
        groups = judged.groups if judged else ()
        judging, agent = self.judging, facts.agent.id
        bounds, bounded = judging.bounds, judging.bounds.of(agent)
        before, on_trial = self.real.agent(agent).halt, mode is Mode.OBSERVE
        shown = self.disclosure.shown(facts.host)
        request = f"{hash((facts.method, facts.host.name, facts.path.text, facts.body_bytes)) & (2**64 - 1):016x}"
        asked = Asked(agent, verdict, facts.method, f"{shown}:{facts.port}", request, facts.body_bytes,
                      bounds.risk(groups), bounds.throttles(groups), quiet=verdict.rule in judging.index.quiet)
        decided, mode = self._decided(bounded, asked, mode)
        said = decided.verdict
        if not (said.lets_through or said.code in OBSERVED):
            mode = Mode.ENFORCE
        address = judged.address if judged else None
        seen = entry.request_facts(facts.method, facts.scheme, shown, facts.port, None, address and str(address),
                                   facts.body_bytes, facts.content_type)
        seen["request"] = request
        kept: dict[str, object] = {"path": facts.path.text}
        if shown != facts.host.name:
            kept["host"] = facts.host.name
        for name, value in kept.items():
            seen[f"{name}$c"] = entry.commitment(self.salt(len(self.entries), name), name, canonical.encode(value))
        flow = f"f{len(self.entries)}"
        body = entry.decision("request", flow, agent, "proxy-auth", judging.policy.digest, seen, groups, said.action,
                              said.rule, said.code, observing(said.reason, groups, judging.index.observed), mode)
        body |= self.caused(agent)
        body["draws"] = [entry.draw(each) for each in decided.draws]
        state = self.shadow if mode is Mode.OBSERVE else self.real
        paces = (*bounded.paces, *asked.throttles)
        body["pre"] = digest(state, NO_CHANGE, agent, bounded.bounds, paces)
        made = change(state, body, "", self.now_us)
        assert broken(state, made, agent, bounded.bounds, passes=bool(made.opened)) is None
        body["post"] = digest(state, made, agent, bounded.bounds, paces)
        self.values[len(self.entries)] = kept
        name = self.write(body, state)
        if made.opened:
            self.open.append((flow, name))
        said_so = self.entries[-1]
        if before is None and self.real.agent(agent).halt is not None:
            self.spread(agent, on_trial=on_trial)
        return said_so

    def caused(self, agent: str | None) -> dict[str, Any]:
        """The chain of causes of whoever another's halt holds back."""
        cause = None if agent is None else cause_of(self.real.agent(agent), self.now_us)
        return {} if cause is None else {"cause": cause}

    def spread(self, origin: str, *, on_trial: bool) -> None:
        """What follows from a halt for others."""
        halt, cascade = self.real.agent(origin).halt, self.judging.policy.cascade
        if halt is None or cascade is None:
            return
        roll = roll_at(States(self.real, self.shadow), self.now_us)
        for body in entries_after(cascade, roll, origin, halt, on_trial=on_trial):
            self.write(body)
            if body["do"] == "halt":
                agent = str(body["agent"])
                self.write(entry.halt(agent, Code.CASCADE, None, None, []) | self.caused(agent))

    def _decided(self, bounded: Bounded, asked: Asked, mode: Mode) -> tuple[Decided, Mode]:
        if mode is not Mode.OBSERVE or not (asked.verdict.lets_through or asked.verdict.code in OBSERVED):
            return step(self.real, bounded, asked, self.now_us), Mode.ENFORCE
        held = step(self.real, Bounded(), asked, self.now_us).verdict
        if held is not asked.verdict:
            return Decided(held), Mode.ENFORCE
        return step(self.shadow, bounded, asked, self.now_us), mode

    def connect(self, agent: str | None = "a1") -> None:
        facts = entry.request_facts("CONNECT", None, "api.example.com", 443, None, None, None, None)
        self.write(entry.decision("connect", f"f{len(self.entries)}", agent, "proxy-auth" if agent else "none",
                                  self.judging.policy.digest, facts, (), "allow", None, "TUNNEL", "", self.mode)
                   | self.caused(agent))

    def random(self, decisions: int) -> Recorder:
        """So many decisions, and what comes between them."""
        pick = self.chance.choice
        wheres = ["/v1/x", "/v1/y/z", "/v1/secrets/a", "/open/q", "/", "/simple/six", "/v1/trap", "/v1/" + "l" * 70]
        for _ in range(decisions):
            self.wait(self.chance.expovariate(1.5))
            outside = pick(_OUTSIDE) if self.chance.random() < 0.05 else None
            where = pick(wheres) if self.chance.random() < 0.1 else pick(wheres[:4])
            said = self.ask(
                agent=f"{pick('ab')}{pick(range(8))}", name=pick(HOSTS), where=where, outside=outside,
                method=pick(["GET", "GET", "POST"]), body_bytes=pick([0, 0, 10, 5000, 2_000_000]),
                address=INSIDE if self.chance.random() < 0.1 else None, scheme=pick(["https"] * 8 + ["wss"]))
            self._between(said)
        return self

    def _between(self, said: dict[str, Any]) -> None:
        chance, pick = self.chance.random(), self.chance.choice
        while self.open and (len(self.open) > 20 or self.chance.random() < 0.6):
            self.end(self.chance.randrange(len(self.open)), pick(["completed"] * 6 + ["failed", "not_sent", "aborted"]),
                     pick([200, 200, 404, 503, None]), self.chance.randrange(9000), self.chance.randrange(90_000))
        if chance < 0.01:
            self.connect(said["agent"]["id"])
        elif chance < 0.015:
            self.act("agents quarantine", said["agent"]["id"], until=entry.timestamp(self.now + timedelta(minutes=5)))
        elif chance < 0.018:
            self.act(pick(["agents rotate", "agents halt"]), said["agent"]["id"])
        elif chance < 0.019:
            self.write({"type": "clock"})
            self.act("clock accept", None)
        for agent, standing in list(self.real.agents.items()):
            if standing.halt is not None and self.chance.random() < 0.02:
                self.act("agents release", agent)


def micros(ts: str) -> int:
    return (datetime.fromisoformat(ts) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
