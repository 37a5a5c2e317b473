"""One agent's requests before the kernel, each with its entry: what a step decides is what the entry then does."""

from __future__ import annotations

from dataclasses import dataclass, field

from kernel import entry
from kernel.bounds import Bounds
from kernel.budget import Budget, Counter, Every, RateLimit, Threshold, Unit
from kernel.cascade import cause_of, entries_after, roll_at
from kernel.contracts import broken, inconsistent
from kernel.folding import States
from kernel.hours import UTC_ZONE
from kernel.policy import Policy, Position
from kernel.state import NO_CHANGE, State
from kernel.state_digest import Reads
from kernel.step import Asked, Decided, step
from kernel.transition import change
from kernel.verdict import Action, Code, Verdict

MICROS = 1_000_000
START = 1_800_000_000 * MICROS
ALLOWED = Verdict(Action.ALLOW, Code.ALLOW, "rule")
DENIED = Verdict(Action.DENY, Code.RULE_DENY, "no-gists")
_AT = Position("policy.yaml", 1, 1)


def budget(each=None, together=None, every=Every.DAY, when_used=(), name="b", agents=None, zone=UTC_ZONE) -> Budget:
    amounts = [{Unit(unit): most for unit, most in (said or {}).items()} for said in (each, together)]
    return Budget(name, agents, *amounts, every, zone, tuple(when_used), _AT)


def at(percent, effect, rate=None) -> Threshold:
    return Threshold(percent, effect, rate)


def policy(*budgets: Budget, rates=(), profile=None, counters: tuple[Counter, ...] = ()) -> Policy:
    return Policy("0" * 64, ("policy.yaml",), (), budgets=budgets, rates=rates, profile=profile, counters=counters)


def rate(each=None, together=None, burst=None) -> RateLimit:
    return RateLimit("rates-1", None, each, together, burst, _AT)


def digest(state, change, agent, bounds, paces) -> str:
    """The hash over all that a step for this agent may read, after the change."""
    return Reads(agent, bounds, paces).digest(state, change, agent)


@dataclass
class Kernel:
    """A kernel under one policy. `entries` is its log."""

    said: Policy
    state: State = field(default_factory=State)
    now: int = START
    entries: list[tuple[dict, int]] = field(default_factory=list)

    def __post_init__(self):
        self.bounds = Bounds(self.said)

    def ask(self, agent="coder", verdict=ALLOWED, **asked) -> Decided:
        asked = Asked(agent, verdict, **{"place": "a.example:443", "request": "r", **asked})
        bounded = self.bounds.of(agent)
        decided = step(self.state, bounded, asked, self.now)
        facts = entry.request_facts("GET", "https", None, None, None, None, 0, None)
        host, _, port = (asked.place or ":").rpartition(":")
        facts |= {"host": host, "port": int(port or 0), "request": asked.request}
        draws = [entry.draw(each) for each in decided.draws]
        said = decided.verdict
        body = entry.decision("request", f"f{len(self.entries)}", agent, "proxy-auth", "0" * 64, facts, (),
                              said.action, said.rule, said.code, said.reason, "enforce") | {"draws": draws}
        cause = cause_of(self.state.agent(agent), self.now)
        body |= {} if cause is None else {"cause": cause}
        before = self.state.agent(agent).halt
        self.log(body, agent, passes=said.lets_through)
        if before is None:
            self.spread(agent)
        return decided

    def spread(self, origin: str):
        """What follows for others where the agent is halted now."""
        halt, cascade = self.state.agent(origin).halt, self.said.cascade
        if halt is None or cascade is None:
            return
        for body in entries_after(cascade, roll_at(States(self.state), self.now), origin, halt, on_trial=False):
            self.log(body, body["agent"], lasts_us=cascade.seconds * MICROS)

    def log(self, body, agent, *, passes=False, lasts_us=None) -> str:
        """Take an entry; the name it has."""
        name = f"main/{len(self.entries)}"
        self.entries.append((body, self.now))
        made = change(self.state, body, name, self.now)
        assert broken(self.state, made, agent, self.bounds.of(agent).bounds, passes=passes, lasts_us=lasts_us) is None
        self.state.take(made)
        assert inconsistent(self.state) is None
        return name

    def end(self, number=-1, result="completed", status=200, up=0, down=0, part=None, draws=()):
        """The outcome of a request that passed: of the last one, or of the entry of that number."""
        number = len(self.entries) - 1 if number < 0 else number
        body = entry.outcome(f"f{number}", f"main/{number}", result, status, up, down, part) | {"draws": list(draws)}
        agent = self.entries[number][0]["agent"]["id"]
        self.log(body, agent)

    def act(self, act, agent="coder", **more):
        self.log(entry.operator(f"agents {act}", agent, "because", "ann", "control") | more, agent)

    def wait(self, seconds):
        self.now += seconds * MICROS

    def account(self, name="b", unit="requests", agent="coder"):
        return self.state.account((name, unit, agent))

    def again(self) -> State:
        """The state that the log makes."""
        state = State()
        for number, (body, now) in enumerate(self.entries):
            state.take(change(state, body, f"main/{number}", now))
        return state

    def digest(self, agent="coder"):
        bounded = self.bounds.of(agent)
        return digest(self.state, NO_CHANGE, agent, bounded.bounds, bounded.paces)


__all__ = ["ALLOWED", "DENIED", "MICROS", "START", "Kernel", "at", "budget", "digest", "policy", "rate"]
