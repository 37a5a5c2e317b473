"""Budgets, rates and counters in the JSON Schema of the language."""

from __future__ import annotations

from kernel.accounts import AMOUNTS, BUDGET, COUNTER, COUNTERS, PROFILES, RATE_LIMIT, SESSION_COUNTER
from kernel.budget import Effect, Every
from kernel.forms import (
    COUNT,
    DURATION,
    MONEY,
    NAME,
    PERCENTAGE,
    POSITIVE_SIZE,
    RATE,
    TALLY,
    Described,
    Schema,
    items,
    mapping,
    one_of,
    ref,
    text,
    with_one_of,
    words,
)

_AGENTS = words(text())
_SPENT = f"^(tell|deny|halt|throttle +{RATE['pattern'].strip('^$')})$"

KEYS: dict[str, Described] = {
    "throttle": (NAME, "The name of a rule that allows at a slower pace. It needs rate:."),
    "halt": (NAME, "The name of a rule that refuses, and ends its agent until an operator releases it."),
    "rate": (RATE, "How often each agent may ask what the throttle allows: 6/minute."),
    "risk": (TALLY, "Points of risk that a request adds to its agent."),
    "budgets": (items("budget"), "What agents may use up, and what happens then."),
    "rates": (items("rate-limit"), "How often agents may ask."),
    "profile": (one_of(PROFILES), "What is counted of every agent where counters: does not say it."),
    "counters": (ref("counters"), "What each counter leads to."),
}
"""Of each such key of a policy or a rule its form and what it is for."""

_BUDGET: dict[str, Described] = {
    "budget": (NAME, "The name of the budget."),
    "for": (_AGENTS, "Groups, agent ids or patterns of ids. Without it: every agent."),
    "each": (ref("amounts"), "What every agent may use up by itself."),
    "together": (ref("amounts"), "What all of them may use up together."),
    "every": (one_of(each.value for each in Every), "When it begins anew; a session ends with the agent's token."),
    "timezone": (text(), "Whose days and weeks: Europe/Berlin. Without it: UTC."),
    "when-used": ({"type": "object", "propertyNames": {"pattern": PERCENTAGE["pattern"]},
                   "additionalProperties": text(_SPENT)},
                  "What happens at a share of it: {80%: tell, 95%: throttle 6/minute, 100%: deny}."),
}
_AMOUNTS: dict[str, Described] = {
    "usd": (MONEY, "US dollars: 5 or 0.25."),
    "tokens": (TALLY, "Tokens of models: 4M."),
    "requests": (TALLY, "Requests: 2k."),
    "bytes": (POSITIVE_SIZE, "Bytes in both directions: 10GB."),
    "seconds": (DURATION, "Time: 8h."),
    "risk": (TALLY, "Points of risk."),
    "new-hosts": (TALLY, "Hosts to which the agent has not spoken before."),
}
_RATE_LIMIT: dict[str, Described] = {
    "for": _BUDGET["for"],
    "each": (RATE, "How often every agent by itself: 60/minute."),
    "together": (RATE, "How often all of them together: 600/minute."),
    "burst": (COUNT, "How many at once."),
}
_COUNTERS: dict[str, Described] = {
    "risk": (ref("session-counter"), "Points of risk in a session."),
    "exploration": (ref("session-counter"), "New destinations in a session."),
    "persistence": (ref("counter"), "Refusals of one request."),
    "stagnation": (ref("counter"), "The same request with the same outcome."),
    "steps": (ref("session-counter"), "Requests in a session."),
}
_COUNTER: dict[str, Described] = {
    "limit": (TALLY, "How far it may count."),
    "then": (one_of(each.value for each in Effect), "What happens then."),
    "within": (DURATION, "In how long: 1h."),
}

DEFINITIONS: dict[str, Schema] = {
    "budget": with_one_of(BUDGET, _BUDGET, "each", "together"),
    "amounts": {**mapping(AMOUNTS, _AMOUNTS), "minProperties": 1},
    "rate-limit": with_one_of(RATE_LIMIT, _RATE_LIMIT, "each", "together"),
    "counters": mapping(COUNTERS, _COUNTERS),
    "counter": mapping(COUNTER, _COUNTER),
    "session-counter": mapping(SESSION_COUNTER, _COUNTER),
}
