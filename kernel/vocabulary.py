"""The words of the policy language: the keys of each part of a policy, and which of them this version can enforce."""

from __future__ import annotations

from kernel.document import Keys

VERBS = frozenset({"allow", "deny"})
LATER_VERBS = frozenset({"ask", "throttle", "halt"})

_LATER_CONDITIONS = frozenset({
    "query", "headers", "content-types", "json", "form", "websocket", "stream-request", "llm", "mcp", "git", "graphql",
    "credentials", "max-request", "max-response", "max-url", "when", "expires", "contains",
})
_LATER_EFFECTS = frozenset({
    "risk", "quiet", "secret-paths", "observe", "redact", "add-headers", "tunnel", "approvers", "hold", "valid",
})
_CONDITIONS = frozenset({"from", "to", "address", "methods", "paths", "ports", "schemes"})

POLICY = Keys(
    "a policy",
    now=frozenset({"version", "contact", "agents", "destinations", "rules", "never", "assert", "identity"}),
    later=frozenset({
        "tier", "for", "unmatched", "mode", "until", "budgets", "rates", "limits", "profile", "cascade", "counters",
        "dns",
    }),
    required=("version",),
)
RULE = Keys(
    "a rule",
    now=VERBS | _CONDITIONS | {"except", "tell", "why"},
    later=LATER_VERBS | _LATER_CONDITIONS | _LATER_EFFECTS,
)
NEVER = Keys("an item of never", now=_CONDITIONS | {"except", "why"}, later=_LATER_CONDITIONS)
EXCEPT = Keys("except", now=_CONDITIONS, later=_LATER_CONDITIONS)
ASSERT = Keys("an item of assert", now=frozenset({"allowed", "denied"}))
ASSERTED = Keys(
    "an assertion",
    now=frozenset({"from", "to", "method", "address"}),
    later=(_CONDITIONS | _LATER_CONDITIONS) - {"from", "to", "address"},
    required=("from", "to", "method"),
)
IDENTITY = Keys(
    "identity",
    now=frozenset({"proxy-auth", "anonymous"}),
    later=frozenset({"cert", "source", "port", "sandbox"}),
)

READS = frozenset({"GET", "HEAD", "OPTIONS"})
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
METHOD_SETS = {"reads": READS, "writes": WRITES}
WELL_KNOWN_METHODS = READS | WRITES | {
    "TRACE", "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "QUERY",
}

OWN_PORTS = {"http": 80, "https": 443}
LATER_SCHEMES = frozenset({"ws", "wss"})
RESERVED_AGENTS = frozenset({"local", "anonymous"})
