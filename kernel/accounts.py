"""`budgets`, `rates`, `profile` and `counters`, from text to values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kernel.budget import Budget, Counter, Effect, Every, RateLimit, Threshold, Unit
from kernel.choices import choice
from kernel.conditions import ConditionReader
from kernel.document import Keys, Node, Reader, Scalar, did_you_mean, quote
from kernel.document import Mapping as Tree
from kernel.errors import PatternError
from kernel.hours import UTC_ZONE, Zone
from kernel.measures import Rate
from kernel.pattern import agents_meet, agents_of_both
from kernel.policy import AgentPattern
from kernel.quantity import count, duration, money, percentage, positive_size, rate, tally
from kernel.rules import names_an_item
from kernel.several import Above
from kernel.times import TimeReader

BUDGET = Keys(
    "an item of budgets",
    now=frozenset({"budget", "for", "each", "together", "every", "timezone", "when-used"}),
    required=("budget", "every"),
    elsewhere={
        "from": 'say "for:" here: a budget is for agents, and grants them nothing',
        "limit": 'say "each:" for every agent by itself, or "together:" for all of them',
        "when-empty": "write when-used: {100%: deny}",
        "pool": "write budget: NAME",
    },
)
AMOUNTS = Keys("an amount", now=frozenset(unit.value for unit in Unit))
RATE_LIMIT = Keys(
    "an item of rates",
    now=frozenset({"for", "each", "together", "burst"}),
    elsewhere={"from": 'say "for:" here: a rate is for agents, and grants them nothing'},
)
# The counters of what an agent does again and again; the others count over its session.
REPEATED = frozenset({"persistence", "stagnation"})
_USUAL_SECONDS = 3600
COUNTERS = Keys("counters", now=frozenset({"risk", "exploration", "persistence", "stagnation", "steps"}))
SESSION_COUNTER = Keys(
    "a counter of a session",
    now=frozenset({"limit", "then"}),
    required=("limit", "then"),
    elsewhere={"within": "it counts over the session; a budget with every: hour counts for an hour"},
)
COUNTER = Keys("a counter", now=frozenset({"limit", "then", "within"}), required=("limit", "then"))
PROFILES = frozenset({"conservative", "balanced", "aggressive"})

_EFFECTS = frozenset(effect.value for effect in Effect)
_PARSERS: dict[Unit, tuple[str, Callable[[str], int]]] = {
    Unit.USD: ("E220", money), Unit.BYTES: ("E209", positive_size), Unit.SECONDS: ("E222", duration),
}  # fmt: skip


class AccountReader:
    """Reads what agents may use up. `conditions` knows what the words of `for:` stand for, `times` the time zones.

    `above` are the files that were read before. Nothing here reaches an agent that the file does not bind: `binds`.
    """

    def __init__(
        self, reader: Reader, conditions: ConditionReader, times: TimeReader, above: Above,
        binds: tuple[AgentPattern, ...] | None,
    ) -> None:
        self._reader, self._conditions, self._times = reader, conditions, times
        self._above, self._binds = above, binds

    def budgets(self, node: Node | None) -> tuple[Budget, ...]:
        items = [] if node is None else self._reader.items(node, "budgets")
        read = [self._budget(item) for item in items]
        return tuple(budget for budget in read if budget is not None)

    def _budget(self, node: Node) -> Budget | None:
        found = self._reader.mapping(node, BUDGET)
        if found is None or not BUDGET.now & found.keys() >= {"budget", "every"}:
            return None
        if not found.keys() & {"each", "together"}:
            self._reader.error("E104", node, "a budget without an amount limits nothing", "say each: or together:")
        every = choice(self._reader, found, "every", "E224", {each.value for each in Every})
        budget = Budget(
            self._name(found["budget"]),
            self._agents(found),
            self._amounts(found, "each"),
            self._amounts(found, "together"),
            Every(every or "session"),
            self._zone(found, every),
            self._thresholds(found),
            self._reader.at(node),
        )
        if Unit.USD in budget.units and not any(each.ends for each in budget.when_used):
            message = f"budget {quote(budget.name)} is about money, and does not say what ends it"
            self._reader.error("E502", node, message, "add when-used: {100%: deny}")
        return budget

    def _name(self, node: Node) -> str:
        name = self._reader.name(node, "a budget")
        if name is None:
            return ""
        if names_an_item(name):
            self._reader.error("E106", node, f"{quote(name)} is how Governor names an item itself", "take another name")
        self._above.take(self._reader, node, "budget", name)
        return name

    def _agents(self, found: Mapping[str, Node]) -> tuple[AgentPattern, ...] | None:
        """The agents that are named and that the file binds."""
        if "for" not in found:
            return self._binds
        said = self._conditions.agents(found["for"])
        strangers = [each.text for each in said if not agents_meet((each,), self._binds)]
        if strangers and len(strangers) == len(said):
            hint = "add them to the for: of the file, or take this item out"
            self._reader.error("E112", found["for"], "this file binds none of these agents, so it bounds nobody", hint)
        elif strangers:
            message = f"{quote(strangers[0])} is named, and this file binds other agents: it is not bounded here"
            self._reader.warn("W122", found["for"], message, 'add the agent to the "for:" of the file, or take it out')
        try:
            return agents_of_both(said, self._binds)
        except PatternError as refused:
            self._reader.error("E205", found["for"], refused.problem, refused.hint)
            return ()

    def _amounts(self, found: Mapping[str, Node], key: str) -> dict[Unit, int]:
        said = (self._reader.mapping(found[key], AMOUNTS) or {}) if key in found else {}
        node = found.get(key)
        if isinstance(node, Tree) and not node.parts:
            self._reader.error("E104", node, f"{key} says no amount", "for example requests, bytes or new-hosts")
        amounts = {}
        for unit in said:
            code, parse = _PARSERS.get(Unit(unit), ("E221", tally))
            amount = self._reader.value(said, unit, code, parse)
            if amount is not None:
                amounts[Unit(unit)] = amount
        return amounts

    def _zone(self, found: Mapping[str, Node], every: str | None) -> Zone:
        if "timezone" in found and every == Every.SESSION:
            message = '"timezone:" means nothing in a budget of a session'
            self._reader.error("E112", found["timezone"], message, "a session does not begin anew by the clock")
        zone = self._times.zone(found["timezone"]) if "timezone" in found else None
        return UTC_ZONE if zone is None else zone

    def _thresholds(self, found: Mapping[str, Node]) -> tuple[Threshold, ...]:
        entries = self._reader.entries(found["when-used"], "when-used") if "when-used" in found else []
        read = [self._threshold(key, node) for key, node in entries]
        return tuple(sorted((each for each in read if each is not None), key=lambda each: each.percent))

    def _threshold(self, key: Scalar, node: Node) -> Threshold | None:
        percent = self._reader.parsed("E223", key, percentage)
        if percent is None or self._reader.text(node, "what a threshold leads to") is None:
            return None
        effect = self._reader.parsed("E225", node, _effect) if isinstance(node, Scalar) else None
        return None if effect is None else Threshold(percent, *effect)

    def rates(self, node: Node | None) -> tuple[RateLimit, ...]:
        items = [] if node is None else self._reader.items(node, "rates")
        read = [self._rate(f"rates-{place}", item) for place, item in enumerate(items, self._above.rates + 1)]
        return tuple(each for each in read if each is not None)

    def _rate(self, name: str, node: Node) -> RateLimit | None:
        found = self._reader.mapping(node, RATE_LIMIT)
        if found is None:
            return None
        if not found.keys() & {"each", "together"}:
            self._reader.error("E104", node, "an item of rates without a rate limits nothing", "say each: 60/minute")
        each, together = (self._reader.value(found, key, "E209", rate) for key in ("each", "together"))
        burst = self._reader.value(found, "burst", "E209", count)
        return RateLimit(name, self._agents(found), each, together, burst, self._reader.at(node))

    def profile(self, found: Mapping[str, Node]) -> str | None:
        return choice(self._reader, found, "profile", "E226", PROFILES)

    def counters(self, node: Node | None) -> tuple[Counter, ...]:
        found = {} if node is None else self._reader.mapping(node, COUNTERS) or {}
        read = [self._counter(name, each) for name, each in found.items()]
        return tuple(counter for counter in read if counter is not None)

    def _counter(self, name: str, node: Node) -> Counter | None:
        found = self._reader.mapping(node, COUNTER if name in REPEATED else SESSION_COUNTER)
        if found is None:
            return None
        limit = self._reader.value(found, "limit", "E221", tally)
        then = choice(self._reader, found, "then", "E225", _EFFECTS)
        within = self._reader.value(found, "within", "E222", duration)
        if within is None and name in REPEATED:
            within = _USUAL_SECONDS
        return None if limit is None or then is None else Counter(
            name, limit, Effect(then), within, self._reader.at(node))


def _effect(text: str) -> tuple[Effect, Rate | None]:
    """`tell`, `deny`, `halt`, or `throttle` with a rate."""
    word, _, rest = text.partition(" ")
    if word not in _EFFECTS:
        hint = did_you_mean(word, _EFFECTS) or "tell, throttle RATE, deny or halt"
        raise PatternError(f"{quote(text)} is nothing that a threshold can lead to", hint)
    if word == Effect.THROTTLE:
        if not rest:
            raise PatternError("throttle does not say to what", "write throttle 6/minute")
        return Effect.THROTTLE, rate(rest.strip())
    if rest:
        raise PatternError(f"{quote(text)} says more than {word}", f"write {word}")
    return Effect(word), None
