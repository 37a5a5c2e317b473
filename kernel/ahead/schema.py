"""The keys without effect yet in the JSON Schema of the language: their forms, and what each is for."""

from __future__ import annotations

from kernel.ahead.accounts import AMOUNTS, BUDGET, COUNTER, COUNTERS, PROFILES, RATE_LIMIT
from kernel.ahead.cascade import BREAKER, CASCADE, CONTAGIOUS, DNS, ON_HALT, RECORD_TYPES
from kernel.ahead.clauses import DETECTORS, GIT, GRAPHQL, LLM, MCP, OPERATIONS
from kernel.ahead.said import Prevention
from kernel.budget import Effect, Every
from kernel.document import Keys
from kernel.forms import (
    COUNT,
    DURATION,
    MONEY,
    NAME,
    PERCENTAGE,
    POSITIVE_SIZE,
    RATE,
    TALLY,
    YES_OR_NO,
    Described,
    Schema,
    items,
    mapping,
    names,
    one_of,
    ref,
    text,
    words,
)

_WITHOUT_EFFECT = "Without effect yet, so a policy that says it does not load; governor policy check --ahead reads it. "
_GLOBS = words(text("^[A-Za-z0-9_*]([A-Za-z0-9_*./:@-]{0,126}[A-Za-z0-9_*])?$"))
_NAMES = words(text("^[A-Za-z0-9]([A-Za-z0-9._@-]{0,98}[A-Za-z0-9])?$"))
_DETECTORS = words(one_of(DETECTORS))
_DO = one_of(each.value for each in Prevention)
_AGENTS = words(text())
_SPENT = f"^(tell|deny|halt|throttle +{RATE['pattern'].strip('^$')})$"
_HEADERS: Schema = {
    **names(text()), "propertyNames": {"pattern": "^[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?$"},
}

_IN_THEIR_PLACE: dict[str, Described] = {
    "ask": (NAME, "The name of a rule that asks a human first."),
    "throttle": (NAME, "The name of a rule that allows at a slower pace. It needs rate:."),
    "halt": (NAME, "The name of a rule that ends an agent until an operator releases it."),
    "approvers": (_NAMES, "Who is asked."),
    "hold": (DURATION, "How long the request is kept open while somebody decides: 20s."),
    "valid": (DURATION, "How long the same request, repeated, passes once somebody said yes: 15m."),
    "rate": (RATE, "How often it passes: 6/minute."),
    "risk": (TALLY, "Points of risk that a request adds to its agent."),
    "contains": (_DETECTORS, "Only requests in which a detector finds something. Never in an allow."),
    "redact": (_DETECTORS, "What is taken out of what passes."),
    "credentials": (_NAMES, "Whose keys may be used: names that the operator registered."),
    "add-headers": (_HEADERS, "Headers that are set in what passes."),
    "tunnel": (one_of(["opaque"]), "opaque: bytes pass unseen, measured only."),
    "llm": (ref("llm"), "Only calls of a model API that fit."),
    "mcp": (ref("mcp"), "Only calls of these tools."),
    "git": (ref("git"), "Only these repositories, and what may be pushed."),
    "graphql": (ref("graphql"), "Only these operations."),
    "budgets": (items("budget"), "What agents may use up, and what happens then."),
    "rates": (items("rate-limit"), "How often agents may ask."),
    "profile": (one_of(PROFILES), "What counters lead to where the policy does not say it."),
    "counters": (ref("counters"), "What each counter leads to."),
    "cascade": (ref("cascade"), "What the halt of one agent means for its neighbours."),
    "dns": (ref("dns"), "Which names are answered."),
}
KEYS: dict[str, Described] = {key: (form, _WITHOUT_EFFECT + said) for key, (form, said) in _IN_THEIR_PLACE.items()}
"""Of each such key of a policy, a rule or a never its form and what it is for."""

_BUDGET: dict[str, Described] = {
    "budget": (text(), "The name of the budget."),
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
    "risk": (ref("counter"), "Points of risk."),
    "exploration": (ref("counter"), "New destinations."),
    "persistence": (ref("counter"), "Failures and retries of one request."),
    "stagnation": (ref("counter"), "The same request with the same outcome."),
    "steps": (ref("counter"), "Requests in a session."),
}
_COUNTER: dict[str, Described] = {
    "limit": (TALLY, "How far it may count."),
    "then": (one_of(each.value for each in Effect), "What happens then."),
    "within": (DURATION, "In how long: 1h."),
}
_CASCADE: dict[str, Described] = {
    "depends": (names(_AGENTS), "Whom each group or agent needs: when those halt, it is acted upon."),
    "on-halt": (ref("on-halt"), "What a halt does to those that need the agent."),
    "blast-radius": (text("^(0*[1-9][0-9]?|0*100)%$"), "How large a share of the agents one halt may reach: 10%."),
    "circuit-breaker": (ref("circuit-breaker"), "What several halts in a short time lead to."),
}
_ON_HALT: dict[str, Described] = {
    "reasons": (words(one_of(CONTAGIOUS)), "Which reasons spread."),
    "do": (_DO, "What is done."),
    "hops": (text("^0*([1-9]|1[0-6])$"), "How many steps along depends it goes: from 1 to 16. Without it: 1."),
    "for": (DURATION, "How long it lasts: 10m."),
}
_BREAKER: dict[str, Described] = {
    "halts": (COUNT, "How many halts."),
    "within": (DURATION, "In how long: 5m."),
    "do": (_DO, "What is done."),
}
_DNS: dict[str, Described] = {
    "answer": (one_of(["allowed-names", "nothing"]), "allowed-names: those that some rule could allow."),
    "types": (words(one_of(RECORD_TYPES)), "Which types of records."),
    "max-labels": (COUNT, "How many labels a name may have."),
    "max-name": (COUNT, "How long a name may be."),
}
_LLM: dict[str, Described] = {
    "models": (_GLOBS, "Names of models: [claude-sonnet-*, gpt-5-mini]."),
    "max-output-tokens": (TALLY, "How long an answer may be: 8k."),
    "also": (one_of(["housekeeping"]), "housekeeping: the harmless calls with which clients begin, too."),
}
_MCP: dict[str, Described] = {
    "tools": (_GLOBS, "Names of tools: [search_*, get_ticket]."),
    "where": (names(words(text())), 'What arguments may be: {amount: "<= 200", currency: [eur, usd]}.'),
}
_GIT: dict[str, Described] = {
    "fetch": (_GLOBS, 'Repositories that may be fetched: ["acme/**"].'),
    "push": (_GLOBS, "Repositories to which may be pushed: [acme/web]."),
    "refs": (_GLOBS, 'Branches and tags of a push: ["refs/heads/agent/*"].'),
    "force": (YES_OR_NO, "Whether a push may rewrite what is there. Without it: no."),
    "delete": (YES_OR_NO, "Whether a push may delete a branch. Without it: no."),
}
_GRAPHQL: dict[str, Described] = {
    "operations": (words(one_of(OPERATIONS)), "query, mutation or subscription."),
    "fields": (_GLOBS, "Fields at the root of an operation: [viewer, repository]."),
}


def _with_one_of(keys: Keys, described: dict[str, Described], *needed: str) -> Schema:
    """An object that says at least one of the keys."""
    return {**mapping(keys, described), "anyOf": [{"required": [key]} for key in needed]}


DEFINITIONS: dict[str, Schema] = {
    "budget": _with_one_of(BUDGET, _BUDGET, "each", "together"),
    "amounts": {**mapping(AMOUNTS, _AMOUNTS), "minProperties": 1},
    "rate-limit": _with_one_of(RATE_LIMIT, _RATE_LIMIT, "each", "together"),
    "counters": mapping(COUNTERS, _COUNTERS),
    "counter": mapping(COUNTER, _COUNTER),
    "cascade": mapping(CASCADE, _CASCADE),
    "on-halt": mapping(ON_HALT, _ON_HALT),
    "circuit-breaker": mapping(BREAKER, _BREAKER),
    "dns": mapping(DNS, _DNS),
    "llm": mapping(LLM, _LLM),
    "mcp": mapping(MCP, _MCP),
    "git": {
        **_with_one_of(GIT, _GIT, "fetch", "push"),
        "dependentRequired": {key: ["push"] for key in ("refs", "force", "delete")},
    },
    "graphql": mapping(GRAPHQL, _GRAPHQL),
}
