"""The policy language as a JSON Schema (draft 2020-12), for editors: which keys stand where, and the form of values.

What a schema cannot say (names that are looked up, contradictions) `governor policy check` says.
"""

from __future__ import annotations

from collections.abc import Iterable

from kernel.account_schema import DEFINITIONS as ACCOUNT_DEFINITIONS
from kernel.account_schema import KEYS as ACCOUNT_KEYS
from kernel.ahead.clauses import OWN_METHODS, misplaced
from kernel.ahead.schema import DEFINITIONS as AHEAD_DEFINITIONS
from kernel.ahead.schema import KEYS as AHEAD_KEYS
from kernel.cascade_schema import DEFINITIONS as CASCADE_DEFINITIONS
from kernel.cascade_schema import KEYS as CASCADE_KEYS
from kernel.dns import ANSWERED_TYPES
from kernel.dns_section import ANSWERS, DNS, LATER_TYPES
from kernel.forms import (
    COUNT,
    GLOBS,
    NAME,
    POSITIVE_SIZE,
    RATE,
    SIZE,
    TALLY,
    YES,
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
from kernel.llm_terms import HOUSEKEEPING, LLM
from kernel.normal import OWN_PORTS
from kernel.policy import Verb
from kernel.price_lists import PRICE
from kernel.vocabulary import (
    ASSERT,
    ASSERTED,
    CERT,
    EXCEPT,
    GRANT_TERMS,
    IDENTITY,
    LATER_VERBS,
    LIMIT,
    METHOD_SETS,
    NEVER,
    POLICY,
    RULE,
    TIERS,
    VERBS,
    WEBSOCKET,
    WHEN,
)

_FIELDS = names(words(text()))
_METHOD = text("^[A-Z][A-Z0-9_-]{0,31}$|^(" + "|".join(sorted(METHOD_SETS)) + ")$")
_METHODS: Schema = {"anyOf": [{"const": "any"}, *words(_METHOD)["anyOf"]]}
_SCHEME = one_of(OWN_PORTS)
_AGENTS: Schema = {**names(text("^[a-z0-9][a-z0-9._-]{0,63}$")), "minProperties": 1}
_COST = text(r"^[0-9]+(\.[0-9]{1,6})?$")

# Of each key its form and what it is for.
_KEYS: dict[str, Described] = {
    **AHEAD_KEYS,
    **ACCOUNT_KEYS,
    **CASCADE_KEYS,
    "version": ({"enum": ["1", 1]}, "The version of the language: 1."),
    "tier": ({"enum": list(TIERS)}, "What this file is: platform, team or agent. Every file narrows."),
    "unmatched": ({"const": "pass"}, "This file only refuses and caps: what it does not speak of, others decide."),
    "contact": (text(), "Whom an agent's user asks when something is refused. It stands in every refusal."),
    "agents": (names(words(text())), "Groups of agent ids for from: and for:. * is any run of characters."),
    "destinations": (names(words(text())), "Names for to: hosts, addresses, ranges, URL patterns."),
    "rules": (items("rule"), "What is allowed and what is refused. Order does not matter: deny beats allow."),
    "never": (items("never"), "What no rule can allow."),
    "limits": (items("limit"), "Caps on what is allowed, never permissions. The smallest that holds wins."),
    "assert": (items("assertion"), "What must stay true: where one fails, the policy does not load."),
    "identity": (ref("identity"), "How clients say who they are."),
    "dns": (ref("dns"), "Which names are looked up for clients, in mode dns."),
    "proxy-auth": (YES, "Every client needs a token, even before the first one was given."),
    "anonymous": ({"const": "allow"}, "A client without identity comes in as the agent anonymous."),
    "cert": (ref("cert"), "Clients that speak TLS to Governor itself prove who they are with a certificate."),
    "ca": (text(), "The file of the CA that signs the certificates of clients, beside the policy: clients.pem."),
    "source": (_AGENTS, "Who comes from which network or address: {10.1.0.0/24: coder-1}. The narrowest counts."),
    "port": ({**_AGENTS, "propertyNames": {"pattern": "^[1-9][0-9]{0,4}$"}},
             "Who comes to which of the ports at which Governor listens: {8081: coder-1}."),
    "sandbox": (YES, "Every client needs an identity: the sandbox of governor run, or another one."),
    "allow": (NAME, "The name of a rule that allows."),
    "deny": (NAME, "The name of a rule that refuses."),
    "from": (words(text()), "Groups, agent ids or patterns of ids. Without it: every agent but anonymous."),
    "for": (words(text()), "Groups, agent ids or patterns of ids. Without it: every agent."),
    "to": (words(text()), "Hosts (x.com, .x.com, *.x.com), addresses, ranges, URL patterns, names of destinations."),
    "address": (words(text()), "Where the name must lead: addresses, CIDR blocks or named ranges."),
    "methods": (_METHODS, "reads (GET HEAD OPTIONS), writes (POST PUT PATCH DELETE), any, or methods in capitals."),
    "schemes": (words(_SCHEME), "Without it an allow means https, or wss where it says websocket."),
    "ports": (words(text("^[0-9]{1,5}(-[0-9]{1,5})?$")), "Without it an allow means the scheme's own port."),
    "paths": (words(text("^/[^?]*$")), "* is any run of characters of one segment, ** any number of segments."),
    "query": (_FIELDS, "What parameters of the query may be."),
    "headers": (_FIELDS, "What headers may be."),
    "content-types": (words(text()), "Media types: application/json, text/*, or absent."),
    "json": (_FIELDS, "What fields of a JSON body may be: a.b is the field b of the object a."),
    "form": (_FIELDS, "What fields of a form may be."),
    "llm": (ref("llm"), "Only calls of a model API: these models, and how long their answers may be."),
    "prices": (names({"type": "array", "items": ref("price")}),
               "What models cost, by provider, where the shipped table says it wrong or not at all."),
    "when": (ref("when"), "Days and hours in which it holds. What is open is cut at their end."),
    "expires": (text(), "The last day, 2026-12-31, or a moment as RFC 3339 has it. Afterwards it has no effect."),
    "days": (words(text()), "mon-fri, or a list: [mon, wed]."),
    "hours": (text("^[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$"), "08:00-18:00, or over midnight: 22:00-06:00."),
    "timezone": (text(), "Whose clocks: Europe/Berlin, UTC."),
    "not-on": (words(text("^[0-9]{4}-[0-9]{2}-[0-9]{2}$")), "Dates on which it does not hold."),
    "mode": ({"enum": ["enforce", "observe"]}, "observe: what the rules refuse passes, and is written down."),
    "until": (text(), "The last day of mode: observe, 2026-12-31, or a moment. Afterwards the policy enforces."),
    "observe": (YES, "A deny on trial, with expires: it refuses nothing, and that it holds is written down."),
    "secret-paths": (YES, "The path is a secret: only what it matched is kept, never the path."),
    "quiet": (YES, "Its refusals are no news: one in an hour is written down, the others are counted."),
    "max-request": (SIZE, "The largest body of a request. 0: no body. Without it: 16 MiB in an allow."),
    "max-response": (POSITIVE_SIZE, "The largest body of an answer."),
    "max-url": (POSITIVE_SIZE, "The longest URL."),
    "in-flight": (COUNT, "How many flows at a time."),
    "websocket": (ref("websocket"), "The request may become a WebSocket. {}: without further caps."),
    "max-frame": (POSITIVE_SIZE, "The largest message of a WebSocket."),
    "max-rate": (RATE, "How many messages: 100/second."),
    "stream-request": (YES, "The body goes out while it is still coming in."),
    "except": ({"anyOf": [ref("except"), {"type": "array", "items": ref("except")}]}, "A hole in this item."),
    "tell": (text(), "What a refused agent is told."),
    "why": (text(), "The reason, for people. Never shown to an agent."),
    "allowed": (ref("asserted"), "This request must pass."),
    "denied": (ref("asserted"), "This request must be refused."),
    "method": (text("^[A-Z][A-Z0-9_-]{0,31}$"), "The method of the request."),
}
_LLM: dict[str, Described] = {
    "models": (GLOBS, "Names of models: [claude-sonnet-*, gpt-5-mini]. Without it: any model."),
    "max-output-tokens": (TALLY, "How long an answer may be: 8k. Longer ones are asked for with this length."),
    "min-output-tokens": (TALLY, "Where a budget pays for less than this, the request is refused. Without it: 256."),
    "also": (one_of([HOUSEKEEPING]), "housekeeping: the harmless calls with which clients begin, too."),
}
_PRICE: dict[str, Described] = {
    "models": (GLOBS, "Names of models: [our-model, our-model-*]."),
    "input": (_COST, "US dollars for a million tokens of input."),
    "cached": (_COST, "The same for input that was cached before. Without it: as input."),
    "written": (_COST, "The same for input that is cached for later. Without it: as input."),
    "output": (_COST, "US dollars for a million tokens of output."),
    "context": (TALLY, "How many tokens the model takes: 400k."),
    "longest-output": (TALLY, "How many tokens it gives at most: 128k."),
}
_DNS: dict[str, Described] = {
    "answer": (one_of(ANSWERS), "allowed-names: those to which some rule could lead. nothing: none."),
    "types": (words(one_of(ANSWERED_TYPES | LATER_TYPES)),
              "A, AAAA, HTTPS, SVCB: the two last are answered as absent. Without it: A, AAAA."),
    "max-labels": (COUNT, "How many labels a name may have that no item has written out. Without it: 6."),
    "max-name": (COUNT, "How long such a name may be. Without it: 100."),
}
_OF_AN_ASSERTION = {
    "from": "With method: the id of one agent.", "to": "With method: the URL of the request.",
    "address": "What the host leads to.",
}


def schema() -> Schema:
    """The schema of a policy file, with the keys that have no effect yet."""
    asserted = mapping(ASSERTED, _KEYS)
    for key, description in _OF_AN_ASSERTION.items():
        asserted["properties"][key] |= {"description": description}
    one = {key: {**text(), "description": description} for key, description in _OF_AN_ASSERTION.items()}
    of_one = {"required": ["from", "to"], "properties": one}
    asserted |= {"minProperties": 1, "if": {"required": ["method"]}, "then": of_one}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A policy of Governor",
        **mapping(POLICY, _KEYS),
        "$defs": {
            "rule": {**mapping(RULE, _KEYS), "oneOf": [_of_verb(Verb(verb)) for verb in sorted(VERBS | LATER_VERBS)]},
            "never": {**mapping(NEVER, _KEYS), "minProperties": 1, **_without(misplaced(Verb.NEVER) & NEVER.ahead)},
            "limit": mapping(LIMIT, _KEYS),
            "except": {**mapping(EXCEPT, _KEYS), "minProperties": 1},
            "websocket": mapping(WEBSOCKET, _KEYS),
            "when": mapping(WHEN, _KEYS),
            "llm": mapping(LLM, _LLM),
            "price": mapping(PRICE, _PRICE),
            "assertion": {**mapping(ASSERT, _KEYS), "minProperties": 1, "maxProperties": 1},
            "asserted": asserted,
            "identity": mapping(IDENTITY, _KEYS),
            "cert": mapping(CERT, _KEYS),
            "dns": mapping(DNS, _DNS),
            **ACCOUNT_DEFINITIONS,
            **CASCADE_DEFINITIONS,
            **AHEAD_DEFINITIONS,
        },
    }


def _of_verb(verb: Verb) -> Schema:
    """What a rule with this verb needs, and must not say."""
    needed = ["rate"] if verb is Verb.THROTTLE else []
    refused = misplaced(verb) | ({"quiet"} if verb.grants else GRANT_TERMS)
    refused |= (set() if verb is Verb.THROTTLE else {"rate"}) | ({"risk"} if verb is Verb.HALT else set())
    found: Schema = {"required": [verb.value, *needed], **_without(refused)}
    if verb is Verb.ALLOW:
        found["anyOf"] = [{"required": [key]} for key in ("methods", *sorted({"llm", *OWN_METHODS}))]
    return found


def _without(keys: Iterable[str]) -> Schema:
    return {"not": {"anyOf": [{"required": [key]} for key in sorted(keys)]}}
