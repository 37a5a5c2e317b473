"""The conditions of a rule: what their words mean, and what is told of a word that means nothing."""

from __future__ import annotations

import pytest

from kernel.address import network
from kernel.pattern import path_glob
from kernel.policy import AddressRange, AgentPattern, HostPattern, HostReach, PortRange, UrlPattern
from tests.addons.policies import compiled, findings

FRAME = "agents: {coders: [claude-1, zebra-*]}\ndestinations: {github-api: h.example, mine: 'https://m.example/x'}\nrules:\n"


def told(text: str) -> list[str]:
    """What is found, as code, line, column, message and hint. `bobby` is registered."""
    return [f"{found.code} {found.position.line}:{found.position.column} {found.message}"
            + (f" ({found.hint})" if found.hint else "") for found in findings(text, frozenset({"bobby"}))]


NO_WORDS = "is a word or a list of words, not keys and values"
NO_METHOD = "reads, writes, any or a list such as [GET, POST]"
NO_AGENT = "is no group, and no agent that is registered or in a group"
NO_NAME = "no destination or named range is called"
NO_EXCEPTION = "an exception without conditions would except everything"
NO_URL = "stands beside a URL pattern, which says its scheme, port and path itself"
IDS = "letters, digits and . _ : @ / + - inside, at most 128 characters; * for any run of characters"
OWN_RULE = "give the hosts a rule of their own, or write the path into the URL"


@pytest.mark.parametrize(("line", "expected"), [
    ("from: {a: b}", f"E102 6:11 from {NO_WORDS}"),
    ("to: {a: b}", f"E102 6:9 to {NO_WORDS}"),
    ("address: {a: b}", f"E102 6:14 address {NO_WORDS}"),
    ("methods: {a: b}", f"E102 6:14 methods {NO_WORDS}"),
    ("schemes: {a: b}", f"E102 6:14 schemes {NO_WORDS}"),
    ("ports: {a: b}", f"E102 6:12 ports {NO_WORDS}"),
    ("paths: {a: b}", f"E102 6:12 paths {NO_WORDS}"),
    ("to: []", "E102 6:9 to is an empty list, which matches nothing (leave the key out, or name something)"),
    ("methods: [any, GET]", 'E207 6:15 "any" stands alone (write methods: any)'),
    ("methods: [CONNECT]",
     "E207 6:15 CONNECT is not a method of a rule (a tunnel opens where any request inside it could pass)"),
    ("methods: [get]", 'E207 6:15 "get" is not a method (write GET)'),
    ("methods: [red]", 'E207 6:15 "red" is not a method (did you mean "reads"?)'),
    ('methods: ["G T"]', f'E207 6:15 "G T" is not a method ({NO_METHOD})'),
    ("methods: [GET, PSOT]", 'W207 6:20 PSOT is not a well-known method (did you mean "POST"?)'),
    ("schemes: [https, gopher]", 'E208 6:22 "gopher" is not a scheme (http, https, ws or wss)'),
    ("from: bobb", f'W120 6:11 "bobb" {NO_AGENT} (did you mean "bobby"?)'),
    ("from: loca", f'W120 6:11 "loca" {NO_AGENT} (did you mean "local"?)'),
    ("from: coder", f'W120 6:11 "coder" {NO_AGENT} (did you mean "coders"?)'),
    ("from: claude-2", f'W120 6:11 "claude-2" {NO_AGENT} (did you mean "claude-1"?)'),
    ("from: eve", f'W120 6:11 "eve" {NO_AGENT}'),
    ("from: zebr-1", f'W120 6:11 "zebr-1" {NO_AGENT}'),
    ("from: anonymous",
     "W121 6:11 nobody is anonymous here (identity: {anonymous: allow} lets clients without identity in)"),
    ('from: "a b"', f'E205 6:11 "a b" is not an agent id or an id glob ({IDS})'),
    ("to: intranet", 'W105 6:9 "intranet" is read as a host of one label (no destination has this name)'),
    ("to: githubapi", f'E105 6:9 {NO_NAME} "githubapi" (did you mean "github-api"?)'),
    ("to: metdata", f'E105 6:9 {NO_NAME} "metdata" (did you mean "metadata"?)'),
    ('to: "1234"', 'E201 6:9 "1234" is not an address, a CIDR block or a named range (write 0.0.4.210)'),
    ("to: a_b*", 'E201 6:9 "a_b*": a star stands only as the whole first label of a host (list the hosts)'),
    ("to: x.example/a",
     'E201 6:9 "x.example/a" is a host with a path (write a URL pattern: "https://x.example/a")'),
    ('to: "https://x.example/?q"',
     'E204 6:9 "https://x.example/?q" has a query or a fragment (a URL pattern ends with its path)'),
    ("address: metdata",
     'E202 6:14 "metdata" is not an address, a CIDR block or a named range (did you mean "metadata"?)'),
    ("paths: a", 'E203 6:12 the path "a" does not begin with / (write "/a")'),
    ("ports: x", 'E206 6:12 "x" is not a port or a range of ports (write 443 or 8000-8999)'),
    ("except: {}", f"E104 6:13 {NO_EXCEPTION}"),
    ("except: [{methods: reads}, {}]", f"E104 6:32 {NO_EXCEPTION}"),
    ("except: x", 'E102 6:13 except is written as keys and values, not as the text "x"'),
    ("to: mine\n    paths: /x", f'E108 7:12 "paths:" {NO_URL} ({OWN_RULE})'),
    ("to: mine\n    ports: 1", f'E108 7:12 "ports:" {NO_URL} ({OWN_RULE})'),
    ("to: [a.example, mine]\n    schemes: http", f'E108 7:14 "schemes:" {NO_URL} ({OWN_RULE})'),
])
def test_a_word_that_cannot_stand_under_its_key_is_told_with_what_may(line, expected):
    assert told(f"{FRAME}  - deny: x\n    {line}\n") == [expected]


def test_the_agents_of_a_limit_are_told_under_their_own_key():
    assert told("limits: [{for: {a: b}, max-url: 1KB}]\n") == [f"E102 2:16 for {NO_WORDS}"]


def test_an_allow_whose_schemes_have_different_ports_names_its_ports_or_its_hosts():
    expected = 'an allow for every host and schemes with different ports needs "ports:" (write ports: [80, 443])'

    assert told(f"{FRAME}  - {{allow: x, methods: any, schemes: [http, https]}}\n") == [f"E104 5:5 {expected}"]
    assert told(f"{FRAME}  - {{allow: x, methods: any, schemes: [http, https], to: x.example}}\n") == []


@pytest.mark.parametrize("line", [
    "from: bobby", "from: claude-1", "from: zebra-7", "from: coders", "from: [local, e-*]",
    "to: localhost", "to: github-api", "to: loopback", "to: 1password.example", 'to: ".org"',
    "methods: [reads, writes]", "methods: [TRACE, FROBNICATE]", "schemes: [http, https, ws, wss]",
    "except: [{methods: reads}, {to: loopback}]",
])
def test_a_word_that_is_known_is_told_nothing_of(line):
    assert told(f"{FRAME}  - deny: x\n    {line}\n") == []


def where(line: str, *, verb: str = "deny"):
    """The conditions of the only rule of a policy."""
    (rule,) = compiled(f"{FRAME}  - {verb}: x\n    {line}\n", frozenset({"bobby"})).policy.rules
    return rule.where


def test_what_is_named_twice_stands_once_and_in_the_order_of_the_words():
    found = where("from: [bobby, coders, bobby]\n    paths: [/b, /a, /b]\n    ports: [9, 7-8, 9]")

    assert found.agents == (AgentPattern("bobby"), AgentPattern("claude-1"), AgentPattern("zebra-*"))
    assert found.paths == (path_glob("/b"), path_glob("/a"))
    assert found.ports == (PortRange(9, 9), PortRange(7, 8))


def test_words_that_were_read_before_are_not_read_again():
    rules = [f"  - {{deny: x{number}, paths: {paths}, to: {to}, methods: {methods}}}\n" for number, (paths, to, methods)
             in enumerate([("[/a, /b]", "10.0.0.0/8", "any"), ("[/a, /c]", "10.0.0.0/8", "[GET]"),
                           ("/a", "11.0.0.0/8", "[GET, PUT]"), ("[/a, /b]", "10.0.0.0/8", "any")])]
    found = [rule.where for rule in compiled(f"rules:\n{''.join(rules)}").policy.rules]

    assert [[glob.text for glob in each.paths] for each in found] == [["/a", "/b"], ["/a", "/c"], ["/a"], ["/a", "/b"]]
    assert [each.methods for each in found] == [None, {"GET"}, {"GET", "PUT"}, None]
    assert found[0].paths is found[3].paths
    assert found[0].to is found[1].to


TEN = AddressRange("10.0.0.0/8", (network("10.0.0.0/8"),))


def test_schemes_with_different_ports_are_urls_of_every_path_at_the_port_of_each():
    to = 'to: [a.example, "*.b.example", .c.example, 10.0.0.0/8]'
    found = where(f"{to}\n    methods: any\n    schemes: [https, http]", verb="allow")

    hosts = [("a.example", HostPattern("a.example", HostReach.EXACT)),
             ("*.b.example", HostPattern("b.example", HostReach.BELOW)),
             (".c.example", HostPattern("c.example", HostReach.SELF_AND_BELOW)), ("10.0.0.0/8", TEN)]
    assert found.to == tuple(
        UrlPattern(f"{scheme}://{name}/**", scheme, host, port, path_glob("/**"))
        for name, host in hosts for scheme, port in (("http", 80), ("https", 443)))
    assert (found.schemes, found.ports) == ({"http", "https"}, None)


@pytest.mark.parametrize(("schemes", "port"), [
    ("http", 80), ("https", 443), ("ws", 80), ("wss", 443), ("[http, ws]", 80), ("[https, wss]", 443),
])
def test_schemes_of_one_port_have_that_port(schemes, port):
    said = "websocket: {}, " if "w" in schemes else ""
    (rule,) = compiled(f"rules: [{{allow: x, to: a.example, methods: [GET], {said}schemes: {schemes}}}]\n").policy.rules

    assert rule.where.ports == (PortRange(port, port),)
    assert rule.where.to == (HostPattern("a.example", HostReach.EXACT),)


@pytest.mark.parametrize(("line", "moment"), [
    pytest.param("expires: 2030-06-01", 1906588800, id="a day ends in UTC"),
    pytest.param("expires: 2030-06-01\n    when: {days: mon, timezone: America/New_York}", 1906603200,
                 id="a day ends where the hours are"),
    pytest.param("when: {days: mon, timezone: America/New_York}", None, id="hours have no end"),
])
def test_a_day_ends_in_the_time_zone_of_the_rule(line, moment):
    found = where(line)

    assert found.expires == moment
    assert (found.when is None) == ("when" not in line)


def test_an_exception_says_what_it_means_like_a_rule_and_gets_nothing_that_is_left_unsaid():
    holes = "[{to: 'https://a.example/x'}, {schemes: [http, https], to: b.example}]"
    (rule,) = compiled(f"rules: [{{deny: x, except: {holes}}}]").policy.rules
    first, second = rule.holes

    assert first.to == (UrlPattern("https://a.example/x", "https", HostPattern("a.example", HostReach.EXACT), 443,
                                   path_glob("/x")),)
    assert (second.to, second.ports) == ((HostPattern("b.example", HostReach.EXACT),), None)
    assert second.schemes == {"http", "https"}
