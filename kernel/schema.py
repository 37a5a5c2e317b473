"""The policy language as a JSON Schema (draft 2020-12), for editors: which keys stand where, and the form of values.

An editor may read `443`, `yes` or `1.5` as a number or a truth value, so every value may be one. What a schema cannot
say (names that are looked up, contradictions) `governor policy check` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kernel.document import Keys
from kernel.normal import OWN_PORTS
from kernel.policy import Verb
from kernel.vocabulary import (
    ASSERT,
    ASSERTED,
    EXCEPT,
    GRANT_TERMS,
    IDENTITY,
    LIMIT,
    METHOD_SETS,
    NEVER,
    POLICY,
    RULE,
    VERBS,
    WEBSOCKET,
    WHEN,
)

Schema = dict[str, Any]

_SCALAR = ["string", "number", "boolean"]


def _text(pattern: str = "") -> Schema:
    return {"type": _SCALAR, "minLength": 1, **({"pattern": pattern} if pattern else {})}


def _words(one: Schema) -> Schema:
    return {"anyOf": [one, {"type": "array", "minItems": 1, "items": one}]}


def _items(name: str) -> Schema:
    return {"type": "array", "items": _ref(name)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _names(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


_NAME = _text("^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")
_YES: Schema = {"enum": ["yes", True]}
_SIZE = _text("^[0-9]+([KMG]i?B)?$")
_COUNT = _text("^[0-9]+$")
_FIELDS = _names(_words(_text()))
_METHOD = _text("^[A-Z][A-Z0-9_-]{0,31}$|^(" + "|".join(sorted(METHOD_SETS)) + ")$")
_METHODS: Schema = {"anyOf": [{"const": "any"}, *_words(_METHOD)["anyOf"]]}
_SCHEME: Schema = {"enum": sorted(OWN_PORTS)}

# Of each key its form and what it is for.
_KEYS: dict[str, tuple[Schema, str]] = {
    "version": ({"enum": ["1", 1]}, "The version of the language: 1."),
    "contact": (_text(), "Whom an agent's user asks when something is refused. It stands in every refusal."),
    "agents": (_names(_words(_text())), "Groups of agent ids for from: and for:. * is any run of characters."),
    "destinations": (_names(_words(_text())), "Names for to: hosts, addresses, ranges, URL patterns."),
    "rules": (_items("rule"), "What is allowed and what is refused. Order does not matter: deny beats allow."),
    "never": (_items("never"), "What no rule can allow."),
    "limits": (_items("limit"), "Caps on what is allowed, never permissions. The smallest that holds wins."),
    "assert": (_items("assertion"), "What must stay true: where one fails, the policy does not load."),
    "identity": (_ref("identity"), "How clients say who they are."),
    "proxy-auth": (_YES, "Every client needs a token, even before the first one was given."),
    "anonymous": ({"const": "allow"}, "A client without a token comes in as the agent anonymous."),
    "allow": (_NAME, "The name of a rule that allows."),
    "deny": (_NAME, "The name of a rule that refuses."),
    "from": (_words(_text()), "Groups, agent ids or patterns of ids. Without it: every agent but anonymous."),
    "for": (_words(_text()), "Groups, agent ids or patterns of ids. Without it: every agent."),
    "to": (_words(_text()), "Hosts (x.com, .x.com, *.x.com), addresses, ranges, URL patterns, names of destinations."),
    "address": (_words(_text()), "Where the name must lead: addresses, CIDR blocks or named ranges."),
    "methods": (_METHODS, "reads (GET HEAD OPTIONS), writes (POST PUT PATCH DELETE), any, or methods in capitals."),
    "schemes": (_words(_SCHEME), "Without it an allow means https, or wss where it says websocket."),
    "ports": (_words(_text("^[0-9]{1,5}(-[0-9]{1,5})?$")), "Without it an allow means the scheme's own port."),
    "paths": (_words(_text("^/[^?]*$")), "* is any run of characters of one segment, ** any number of segments."),
    "query": (_FIELDS, "What parameters of the query may be."),
    "headers": (_FIELDS, "What headers may be."),
    "content-types": (_words(_text()), "Media types: application/json, text/*, or absent."),
    "json": (_FIELDS, "What fields of a JSON body may be: a.b is the field b of the object a."),
    "form": (_FIELDS, "What fields of a form may be."),
    "when": (_ref("when"), "Days and hours in which it holds. What is open is cut at their end."),
    "expires": (_text(), "The last day, 2026-12-31, or a moment as RFC 3339 has it. Afterwards it has no effect."),
    "days": (_words(_text()), "mon-fri, or a list: [mon, wed]."),
    "hours": (_text("^[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$"), "08:00-18:00, or over midnight: 22:00-06:00."),
    "timezone": (_text(), "Whose clocks: Europe/Berlin, UTC."),
    "not-on": (_words(_text("^[0-9]{4}-[0-9]{2}-[0-9]{2}$")), "Dates on which it does not hold."),
    "quiet": (_YES, "Its refusals are no news: one in an hour is written down, the others are counted."),
    "max-request": (_SIZE, "The largest body of a request. 0: no body. Without it: 16 MiB in an allow."),
    "max-response": (_SIZE, "The largest body of an answer."),
    "max-url": (_SIZE, "The longest URL."),
    "in-flight": (_COUNT, "How many flows at a time."),
    "websocket": (_ref("websocket"), "The request may become a WebSocket. {}: without further caps."),
    "max-frame": (_SIZE, "The largest message of a WebSocket."),
    "max-rate": (_text("^[0-9]+/(second|minute|hour|day)$"), "How many messages: 100/second."),
    "stream-request": (_YES, "The body goes out while it is still coming in."),
    "except": ({"anyOf": [_ref("except"), {"type": "array", "items": _ref("except")}]}, "A hole in this item."),
    "tell": (_text(), "What a refused agent is told."),
    "why": (_text(), "The reason, for people. Never shown to an agent."),
    "allowed": (_ref("asserted"), "This request must pass."),
    "denied": (_ref("asserted"), "This request must be refused."),
    "method": (_text("^[A-Z][A-Z0-9_-]{0,31}$"), "The method of the request."),
}
_OF_AN_ASSERTION = {
    "from": "The id of one agent.", "to": "The URL of the request.", "address": "What the host leads to.",
}


def schema() -> Schema:
    """The schema of a policy file."""
    asserted = _object(ASSERTED)
    for key, description in _OF_AN_ASSERTION.items():
        asserted["properties"][key] = {**_text(), "description": description}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A policy of Governor",
        **_object(POLICY),
        "$defs": {
            "rule": {**_object(RULE), "oneOf": [_of_verb(verb) for verb in sorted(VERBS)]},
            "never": {**_object(NEVER), "minProperties": 1},
            "limit": _object(LIMIT),
            "except": {**_object(EXCEPT), "minProperties": 1},
            "websocket": _object(WEBSOCKET),
            "when": _object(WHEN),
            "assertion": {**_object(ASSERT), "minProperties": 1, "maxProperties": 1},
            "asserted": asserted,
            "identity": _object(IDENTITY),
        },
    }


def _object(keys: Keys) -> Schema:
    found: Schema = {"type": "object", "properties": _properties(keys.now), "additionalProperties": False}
    return {**found, "required": list(keys.required)} if keys.required else found


def _properties(names: Iterable[str]) -> Schema:
    return {name: {**_KEYS[name][0], "description": _KEYS[name][1]} for name in sorted(names)}


def _of_verb(verb: str) -> Schema:
    """What a rule with this verb needs, and must not say."""
    if Verb(verb).grants:
        return {"required": [verb, "methods"]}
    return {"required": [verb], "not": {"anyOf": [{"required": [term]} for term in sorted(GRANT_TERMS)]}}
