"""The words of the policy language: the keys of each part of a policy, and which of them this version can enforce."""

from __future__ import annotations

from kernel.document import Keys

VERBS = frozenset({"allow", "throttle", "deny", "halt"})
LATER_VERBS = frozenset({"ask"})

# Keys without effect yet that `--ahead` reads in full.
_AHEAD_CONDITIONS = frozenset({"mcp", "git", "graphql", "credentials", "contains"})
_AHEAD_EFFECTS = frozenset({"redact", "add-headers", "tunnel", "approvers", "hold", "valid"})
# What compares the fields of a request.
FIELDS = frozenset({"query", "headers", "content-types", "json", "form"})
TIMES = frozenset({"when", "expires"})
_CONDITIONS = FIELDS | TIMES | {"from", "to", "address", "methods", "paths", "ports", "schemes", "llm"}

SIZES = frozenset({"max-request", "max-response", "max-url"})
# What only a grant says: in a refusal there is nothing to measure.
GRANT_TERMS = SIZES | {"websocket", "stream-request"}
_CAPS = SIZES | {"in-flight"}
_OF_A_LIMIT = {"in-flight": 'it stands in an item of "limits:"'}
_OF_A_GRANT = dict.fromkeys(SIZES, 'it stands in an allow, or in an item of "limits:" for whatever is allowed')
_OF_AN_UPGRADE = dict.fromkeys(("websocket", "stream-request"), "it stands in an allow")
TERMS_ELSEWHERE = {**_OF_A_GRANT, **_OF_AN_UPGRADE, **_OF_A_LIMIT}

POLICY = Keys(
    "a policy",
    now=frozenset({
        "version", "tier", "for", "unmatched", "mode", "until", "contact", "identity", "agents", "destinations",
        "rules", "never", "limits", "assert", "budgets", "rates", "profile", "counters", "cascade", "prices", "dns",
    }),
    required=("version",),
)
# From the uppermost to the lowest.
TIERS = ("platform", "team", "agent")
RULE = Keys(
    "a rule",
    now=VERBS | _CONDITIONS | GRANT_TERMS | {
        "except", "observe", "quiet", "secret-paths", "tell", "why", "risk", "rate",
    },
    ahead=LATER_VERBS | _AHEAD_CONDITIONS | _AHEAD_EFFECTS,
    elsewhere=_OF_A_LIMIT,
)
NEVER = Keys(
    "an item of never",
    now=_CONDITIONS | {"except", "quiet", "why"},
    ahead=_AHEAD_CONDITIONS,
    elsewhere=TERMS_ELSEWHERE,
)
EXCEPT = Keys("except", now=_CONDITIONS, later=_AHEAD_CONDITIONS, elsewhere=TERMS_ELSEWHERE)
LIMIT = Keys(
    "an item of limits",
    now=(_CONDITIONS - {"from"}) | _CAPS | {"for", "except"},
    later=_AHEAD_CONDITIONS,
    elsewhere={"from": 'say "for:" here: a limit is for agents, and grants them nothing', **_OF_AN_UPGRADE},
)
WEBSOCKET = Keys("websocket", now=frozenset({"max-frame", "max-rate"}))
WHEN = Keys("when", now=frozenset({"days", "hours", "timezone", "not-on"}))
ASSERT = Keys("an item of assert", now=frozenset({"allowed", "denied"}))
# With `method` an assertion is about one request, without it about all that its conditions hold for.
ASSERTED = Keys(
    "an assertion",
    now=(_CONDITIONS - TIMES) | {"method", "except"},
    later=_AHEAD_CONDITIONS,
    elsewhere={**TERMS_ELSEWHERE, **dict.fromkeys(TIMES, "an assertion holds at any time")},
)
IDENTITY = Keys("identity", now=frozenset({"proxy-auth", "anonymous", "cert", "source", "port", "sandbox"}))
CERT = Keys("cert", now=frozenset({"ca"}), required=("ca",))

READS = frozenset({"GET", "HEAD", "OPTIONS"})
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
METHOD_SETS = {"reads": READS, "writes": WRITES}
WELL_KNOWN_METHODS = READS | WRITES | {
    "TRACE", "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "QUERY",
}

RESERVED_AGENTS = frozenset({"local", "anonymous"})
