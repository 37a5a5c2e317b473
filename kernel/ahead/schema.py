"""The keys without effect yet in the JSON Schema of the language: their forms, and what each is for."""

from __future__ import annotations

from kernel.ahead.clauses import DETECTORS, GIT, GRAPHQL, MCP, OPERATIONS
from kernel.forms import (
    DURATION,
    GLOBS,
    NAME,
    YES_OR_NO,
    Described,
    Schema,
    mapping,
    names,
    one_of,
    ref,
    text,
    with_one_of,
    words,
)

WITHOUT_EFFECT = "Without effect yet, so a policy that says it does not load; governor policy check --ahead reads it. "
_NAMES = words(text("^[A-Za-z0-9]([A-Za-z0-9._@-]{0,98}[A-Za-z0-9])?$"))
_DETECTORS = words(one_of(DETECTORS))
_HEADERS: Schema = {
    **names(text()), "propertyNames": {"pattern": "^[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?$"},
}

_IN_THEIR_PLACE: dict[str, Described] = {
    "ask": (NAME, "The name of a rule that asks a human first."),
    "approvers": (_NAMES, "Who is asked."),
    "hold": (DURATION, "How long the request is kept open while somebody decides: 20s."),
    "valid": (DURATION, "How long the same request, repeated, passes once somebody said yes: 15m."),
    "contains": (_DETECTORS, "Only requests in which a detector finds something. Never in an allow."),
    "redact": (_DETECTORS, "What is taken out of what passes."),
    "credentials": (_NAMES, "Whose keys may be used: names that the operator registered."),
    "add-headers": (_HEADERS, "Headers that are set in what passes."),
    "tunnel": (one_of(["opaque"]), "opaque: bytes pass unseen, measured only."),
    "mcp": (ref("mcp"), "Only calls of these tools."),
    "git": (ref("git"), "Only these repositories, and what may be pushed."),
    "graphql": (ref("graphql"), "Only these operations."),
}
KEYS: dict[str, Described] = {key: (form, WITHOUT_EFFECT + said) for key, (form, said) in _IN_THEIR_PLACE.items()}
"""Of each such key of a policy, a rule or a never its form and what it is for."""

_MCP: dict[str, Described] = {
    "tools": (GLOBS, "Names of tools: [search_*, get_ticket]."),
    "where": (names(words(text())), 'What arguments may be: {amount: "<= 200", currency: [eur, usd]}.'),
}
_GIT: dict[str, Described] = {
    "fetch": (GLOBS, 'Repositories that may be fetched: ["acme/**"].'),
    "push": (GLOBS, "Repositories to which may be pushed: [acme/web]."),
    "refs": (GLOBS, 'Branches and tags of a push: ["refs/heads/agent/*"].'),
    "force": (YES_OR_NO, "Whether a push may rewrite what is there. Without it: no."),
    "delete": (YES_OR_NO, "Whether a push may delete a branch. Without it: no."),
}
_GRAPHQL: dict[str, Described] = {
    "operations": (words(one_of(OPERATIONS)), "query, mutation or subscription."),
    "fields": (GLOBS, "Fields at the root of an operation: [viewer, repository]."),
}


DEFINITIONS: dict[str, Schema] = {
    "mcp": mapping(MCP, _MCP),
    "git": {
        **with_one_of(GIT, _GIT, "fetch", "push"),
        "dependentRequired": {key: ["push"] for key in ("refs", "force", "delete")},
    },
    "graphql": mapping(GRAPHQL, _GRAPHQL),
}
