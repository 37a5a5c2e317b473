"""What rules and never items say that has no effect yet, from text to `Clause`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kernel.ahead.said import Clause, Git, GraphQl, Mcp
from kernel.choices import choice, choices
from kernel.document import Keys, Node, Reader, did_you_mean, quote
from kernel.errors import PatternError
from kernel.name_globs import globs
from kernel.policy import Verb
from kernel.quantity import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

MCP = Keys("mcp", now=frozenset({"tools", "where"}))
GIT = Keys("git", now=frozenset({"fetch", "push", "refs", "force", "delete"}))
GRAPHQL = Keys("graphql", now=frozenset({"operations", "fields"}))

DETECTORS = frozenset({"secrets", "cloud-keys", "email"})
OPERATIONS = frozenset({"query", "mutation", "subscription"})
OWN_METHODS = {
    "git": frozenset({"GET", "POST"}),
    "mcp": frozenset({"GET", "POST", "DELETE"}),
    "tunnel": None,
}
"""Keys that say by themselves which methods are meant, so that their rule need not; None for any."""

NO_CLAUSE = Clause()

_FOR_GRANTS = {
    "credentials": "it says whose keys may be used in what passes",
    "redact": "it changes what passes",
    "add-headers": "it changes what passes",
    "tunnel": "it says how something passes",
}
_OF_AN_ASK = frozenset({"approvers", "hold", "valid"})
_HEADER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?", re.ASCII)
_TENANT_HEADERS = frozenset({
    "restrict-access-to-tenants", "restrict-access-context", "sec-restrict-tenant-access-policy",
    "anthropic-allowed-org-ids",
})
# Others read these as who the client is, where it comes from or what it asks: nobody sets them by a rule.
_FORGEABLE = ("x-governor-", "x-forwarded-", "x-real-", "x-original-", "x-rewrite-", "x-http-method", "x-method-")
_LONGEST_VALUE = 500
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,98}[A-Za-z0-9])?", re.ASCII)


def clause(reader: Reader, found: Mapping[str, Node], verb: Verb) -> Clause:
    """What the keys say in a rule of this verb. A key that means nothing there is a finding."""
    _refuse_misplaced(reader, found, verb)
    return Clause(
        mcp=_mcp(reader, found["mcp"]) if "mcp" in found else None,
        git=_git(reader, found["git"]) if "git" in found else None,
        graphql=_graphql(reader, found["graphql"]) if "graphql" in found else None,
        contains=choices(reader, found, "contains", "E226", DETECTORS) or frozenset(),
        credentials=frozenset(_names(reader, found, "credentials")),
        redact=choices(reader, found, "redact", "E226", DETECTORS) or frozenset(),
        add_headers=tuple(_headers(reader, found["add-headers"])) if "add-headers" in found else (),
        tunnel=choice(reader, found, "tunnel", "E226", {"opaque"}) is not None,
        approvers=_names(reader, found, "approvers"),
        hold_seconds=reader.value(found, "hold", "E222", duration),
        valid_seconds=reader.value(found, "valid", "E222", duration),
    )


def misplaced(verb: Verb) -> frozenset[str]:
    """The keys of this module that mean nothing in a rule of this verb."""
    found = frozenset() if verb is Verb.ASK else _OF_AN_ASK
    found |= frozenset() if verb.grants else _FOR_GRANTS.keys()
    return found | ({"contains"} if verb is Verb.ALLOW else frozenset())


def _refuse_misplaced(reader: Reader, found: Mapping[str, Node], verb: Verb) -> None:
    for key, node in found.items():
        if key in _FOR_GRANTS and not verb.grants:
            reader.error("E112", node, f'"{key}:" means nothing in a {verb}', _FOR_GRANTS[key])
        elif key in _OF_AN_ASK and verb is not Verb.ASK:
            reader.error("E112", node, f'"{key}:" means nothing in a rule that is no ask')
        elif key == "contains" and verb is Verb.ALLOW:
            hint = "what a detector misses would pass: deny, ask or throttle what it finds"
            reader.error("E112", node, '"contains:" means nothing in an allow', hint)


def _mcp(reader: Reader, node: Node) -> Mcp:
    found = reader.mapping(node, MCP) or {}
    entries = reader.entries(found["where"], "where") if "where" in found else []
    where = {key.text: tuple(word.text for word in reader.words(each, key.text)) for key, each in entries}
    return Mcp(globs(reader, found, "tools"), where)


def _git(reader: Reader, node: Node) -> Git:
    found = reader.mapping(node, GIT) or {}
    if not found.keys() & {"fetch", "push"}:
        reader.error("E104", node, "git without fetch: or push: lets nothing through", 'write fetch: ["acme/**"]')
    for key in found.keys() & {"refs", "force", "delete"}:
        if "push" not in found:
            reader.error("E112", found[key], f'"{key}:" means nothing without "push:"', "it is about what is pushed")
    return Git(
        globs(reader, found, "fetch") or (),
        globs(reader, found, "push") or (),
        globs(reader, found, "refs"),
        _yes_or_no(reader, found, "force"),
        _yes_or_no(reader, found, "delete"),
    )


def _graphql(reader: Reader, node: Node) -> GraphQl:
    found = reader.mapping(node, GRAPHQL) or {}
    return GraphQl(choices(reader, found, "operations", "E226", OPERATIONS), globs(reader, found, "fields"))


def _yes_or_no(reader: Reader, found: Mapping[str, Node], key: str) -> bool:
    """False where the key is left out."""
    said = reader.text(found[key], key) if key in found else "no"
    if said not in ("yes", "no", None):
        reader.error("E102", found[key], f"{key} is yes or no, not {quote(said or '')}")
    return said == "yes"


def _names(reader: Reader, found: Mapping[str, Node], key: str) -> tuple[str, ...]:
    words = reader.words(found[key], key) if key in found else []
    names = [reader.parsed("E228", word, lambda text: _name(text, key)) for word in words]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _name(text: str, key: str) -> str:
    if _NAME.fullmatch(text):
        return text
    raise PatternError(f"{quote(text)} is no name in {key}", "letters, digits, and . _ @ - inside; at most 100")


def _headers(reader: Reader, node: Node) -> Iterator[tuple[str, str]]:
    for key, each in reader.entries(node, "add-headers"):
        name = reader.parsed("E227", key, _header)
        text = reader.line(each, key.text, _LONGEST_VALUE)
        if name is None or text is None:
            continue
        if not text.isascii():
            reader.error("E227", each, f"the value of {name} is not ASCII", "a header carries letters without accents")
        yield name, text


def _header(text: str) -> str:
    name = text.lower()
    if not _HEADER.fullmatch(name):
        raise PatternError(f"{quote(text)} is not the name of a header", "letters, digits and -")
    if name.startswith(_FORGEABLE) or not (name.startswith("x-") or name in _TENANT_HEADERS):
        known = ", ".join(sorted(_TENANT_HEADERS))
        hint = did_you_mean(name, _TENANT_HEADERS) or f"a header that begins with x-, or {known}"
        raise PatternError(f"{quote(text)} is not a header that a rule may set", hint)
    return name
