"""What a policy means once it is compiled, and everything that is refused on the way."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

import pytest

import kernel
from addons.yaml_nodes import compose
from kernel.comparison import Comparison, Field, Interval
from kernel.compiler import compile_policy
from kernel.errors import PolicyError
from kernel.findings import CATALOGUE, Severity, Witness
from kernel.match import Index
from kernel.measures import Rate, Terms, WebSocketMeasures
from kernel.policy import (
    AgentPattern,
    HostPattern,
    HostReach,
    PortRange,
    UrlPattern,
    Verb,
)
from kernel.question import answer, facts_of
from kernel.verdict import Code
from tests.addons.policies import RANGES, codes, compiled, findings


def only(text: str):
    """The only rule of a policy."""
    (rule,) = compiled(f"rules:\n  - {text}\n").policy.rules
    return rule


def verdict(text: str, method: str, url: str, agent: str = "local", address: str | None = None) -> Code:
    index = Index(compiled(text).policy)
    return answer(index, facts_of(agent, method, url), None if address is None else ip_address(address)).verdict.code


def test_an_empty_policy_loads_and_allows_nothing():
    policy = compiled("version: 1").policy

    assert (policy.rules, policy.nevers, policy.contact) == ((), (), None)
    assert verdict("version: 1", "GET", "https://example.org/") is Code.DEFAULT_DENY


def test_every_section_of_a_policy_is_read():
    text = """
        version: 1
        contact: "#agent-platform"
        agents: {coders: [claude-*, codex-*]}
        destinations: {github-api: api.example.org, both: [.example.com, 10.0.0.0/8, "https://h.example/x/**"]}
        identity: {proxy-auth: yes, anonymous: allow}
        rules:
          - allow: read
            from: [coders, bot-7]
            to: github-api
            methods: reads
            paths: ["/repos/acme/**"]
            except: {paths: ["/repos/acme/secrets-*/**"]}
            why: |
              because
              of this
          - deny: no-gists
            to: gist.example.org
            tell: use the snippet store
        never:
          - {to: [metadata, loopback], except: {to: billing.example, address: 127.0.0.1}, why: credentials}
        assert:
          - allowed: {from: claude-1, to: "https://api.example.org/repos/acme/web", method: GET}
          - denied: {from: claude-1, to: "https://api.example.org/repos/acme/secrets-1/x", method: GET}
    """
    policy = compiled(text, known=frozenset({"bot-7"})).policy
    read, gists = policy.rules

    assert policy.contact == "#agent-platform"
    assert policy.identity.sources == {"proxy-auth"}
    assert policy.identity.anonymous
    assert policy.groups == {"coders": (AgentPattern("claude-*"), AgentPattern("codex-*"))}
    assert read.where.agents == (AgentPattern("claude-*"), AgentPattern("codex-*"), AgentPattern("bot-7"))
    assert read.where.to == (HostPattern("api.example.org", HostReach.EXACT),)
    assert read.where.methods == {"GET", "HEAD", "OPTIONS"}
    assert read.where.schemes == {"https"}
    assert read.where.ports == (PortRange(443, 443),)
    assert [glob.text for glob in read.where.paths or ()] == ["/repos/acme/**"]
    assert [glob.text for glob in read.holes[0].paths or ()] == ["/repos/acme/secrets-*/**"]
    assert (read.number, read.name, read.verb, read.why) == (0, "read", Verb.ALLOW, "because\nof this\n")
    assert (gists.number, gists.verb, gists.tell) == (1, Verb.DENY, "use the snippet store")
    assert (gists.where.methods, gists.where.schemes, gists.where.ports) == (None, None, None)
    assert [(never.name, never.number, never.verb, never.why) for never in policy.nevers] == [
        ("never-1", 2, Verb.NEVER, "credentials")
    ]
    assert [assertion.allowed for assertion in policy.assertions] == [True, False]


def test_a_finding_points_at_the_word_it_is_about():
    (finding,) = findings("version: 1\nrules:\n  - allow: x\n    to: example.org\n    methods: [GET, get]\n")

    assert (finding.position.file, finding.position.line, finding.position.column) == ("p.yaml", 5, 20)


def test_a_policy_says_its_version():
    with pytest.raises(PolicyError) as refused:
        compile_policy([compose(b"contact: x\n", "p.yaml")], RANGES, "digest")

    assert [finding.code for finding in refused.value.findings] == ["E104"]


def test_all_problems_are_told_at_once_errors_first():
    text = "rules:\n  - allow: x\n    from: nobody\n    metods: [GET]\n    to: h_*.example\n  - alow: y\n"

    found = findings(text)

    assert [f.severity for f in found] == sorted((f.severity for f in found), key=lambda s: s is not Severity.ERROR)
    assert {f.code for f in found} == {"W120", "E103", "E104", "E201"}


A_RULE = "rules:\n  - allow: x\n    to: example.org\n    methods: reads\n"

REFUSED = [
    ("a root that is a word", "version\n", "E102"),
    ("another version", "version: 2\n", "E109"),
    ("a version that is a number of YAML's", "version: 1.0\n", "E109"),
    ("an unknown section", "rulez: []\n", "E103"),
    ("a contact that a comment has eaten", "contact: #agents\n", "E102"),
    ("a contact of two lines", 'contact: "a\\nb"\n', "E102"),
    ("rules that are no list", "rules: {allow: x}\n", "E102"),
    ("a rule that is a word", "rules: [x]\n", "E102"),
    ("a rule without a verb", "rules:\n  - to: example.org\n", "E104"),
    ("a misspelt verb", "rules:\n  - alow: x\n", "E103"),
    ("two verbs", "rules:\n  - allow: x\n    deny: y\n    methods: any\n", "E110"),
    ("a rule without a name", "rules:\n  - deny:\n", "E102"),
    ("a name with a space", "rules:\n  - deny: no gists\n", "E106"),
    ("a name of Governor's own", "rules:\n  - deny: never-1\n", "E106"),
    ("a name that is a list", "rules:\n  - deny: [x]\n", "E102"),
    ("two rules of one name", "rules:\n  - deny: x\n  - deny: x\n", "E107"),
    ("an allow without methods", "rules:\n  - allow: x\n    to: example.org\n", "E104"),
    ("a key twice in a rule", "rules:\n  - deny: x\n    to: a.example\n    to: b.example\n", "E101"),
    ("a group twice", "agents:\n  a: [x]\n  a: [y]\n", "E101"),
    ("a group called local", "agents: {local: [x]}\n", "E106"),
    ("a group in a group", "agents:\n  a: [x]\n  b: [a]\n", "E107"),
    ("a group of nobody", "agents: {a: []}\n", "E102"),
    ("a destination called like a range", "destinations: {metadata: example.org}\n", "E106"),
    ("a destination in a destination", "destinations:\n  a: example.org\n  b: a\n", "E107"),
    ("a destination with a bad host", "destinations: {a: h*.example.org}\n", "E201"),
    (
        "a misspelt destination",
        "destinations: {github-api: h.example}\nrules:\n  - deny: x\n    to: githubapi\n",
        "E105",
    ),
    ("a misspelt range", "never:\n  - to: metdata\n", "E105"),
    ("a host with a star inside", "rules:\n  - deny: x\n    to: a*b.example\n", "E201"),
    ("a range with host bits", "rules:\n  - deny: x\n    address: 10.0.0.1/8\n", "E202"),
    ("a bad range in to", "rules:\n  - deny: x\n    to: 10.0.0.1/8\n", "E201"),
    ("a relative path", "rules:\n  - deny: x\n    paths: [repos]\n", "E203"),
    ("a path with a dot segment", "rules:\n  - deny: x\n    paths: [/a/../b]\n", "E203"),
    ("a URL of another scheme", 'rules:\n  - deny: x\n    to: "ftp://example.org/"\n', "E204"),
    ("a bad agent", 'rules:\n  - deny: x\n    from: "a b"\n', "E205"),
    ("a port too high", "rules:\n  - deny: x\n    ports: 70000\n", "E206"),
    ("a port in octal", "rules:\n  - deny: x\n    ports: 0o443\n", "E206"),
    ("a method in small letters", "rules:\n  - deny: x\n    methods: [get]\n", "E207"),
    ("any in a list", "rules:\n  - deny: x\n    methods: [any, GET]\n", "E207"),
    ("CONNECT as a method", "rules:\n  - deny: x\n    methods: [CONNECT]\n", "E207"),
    ("a scheme that is none", "rules:\n  - deny: x\n    schemes: [gopher]\n", "E208"),
    ("an empty exception", f"{A_RULE}    except: {{}}\n", "E104"),
    ("an exception that is a word", f"{A_RULE}    except: /x\n", "E102"),
    ("an exception with a verb", f"{A_RULE}    except: {{allow: x}}\n", "E103"),
    ("paths beside a URL", 'rules:\n  - deny: x\n    to: "https://example.org/x"\n    paths: ["/x"]\n', "E108"),
    ("ports beside a URL", 'rules:\n  - deny: x\n    to: "https://example.org/x"\n    ports: 443\n', "E108"),
    ("schemes beside a URL", 'rules:\n  - deny: x\n    to: "https://example.org/x"\n    schemes: https\n', "E108"),
    (
        "a URL by name beside paths",
        'destinations: {r: ["https://example.org/x"]}\nrules:\n  - deny: x\n    to: r\n    paths: ["/x"]\n',
        "E108",
    ),
    (
        "two schemes for every host and no ports",
        "rules:\n  - allow: x\n    methods: any\n    schemes: [http, https]\n",
        "E104",
    ),
    ("a never without conditions", "never:\n  - why: x\n", "E104"),
    ("a never that only excepts", "never:\n  - except: {to: example.org}\n", "E104"),
    ("a never with a tell", "never:\n  - {to: metadata, tell: x}\n", "E103"),
    ("an assertion of neither kind", "assert:\n  - refused: {}\n", "E103"),
    (
        "an assertion of both kinds",
        'assert: [{allowed: {from: a, to: "https://x.example/", method: GET}, denied: {}}]\n',
        "E110",
    ),
    ("an assertion without an agent", 'assert: [{denied: {to: "https://x.example/", method: GET}}]\n', "E104"),
    (
        "an assertion about a group",
        'agents: {a: [b]}\nassert:\n  - denied: {from: a, to: "https://x.example/", method: GET}\n',
        "E102",
    ),
    ("an assertion about a glob", 'assert:\n  - denied: {from: a-*, to: "https://x.example/", method: GET}\n', "E102"),
    (
        "an assertion about two methods",
        'assert:\n  - denied: {from: a, to: "https://x.example/", method: reads}\n',
        "E102",
    ),
    (
        "an assertion about a range of addresses",
        'assert:\n  - denied: {from: a, to: "https://x.example/", method: GET, address: 10.0.0.0/8}\n',
        "E202",
    ),
    ("an assertion about no URL", "assert:\n  - denied: {from: a, to: x.example, method: GET}\n", "P802"),
    ("an assertion that fails", 'assert:\n  - allowed: {from: a, to: "https://x.example/", method: GET}\n', "P801"),
    (
        "an assertion with paths",
        'assert:\n  - denied: {from: a, to: "https://x.example/", method: GET, paths: [/x]}\n',
        "E108",
    ),
    ("a limit without a cap", "limits: [{for: a, to: example.org}]\n", "E104"),
    ("limits that are no list", "limits: {max-request: 1MB}\n", "E102"),
    ("a limit with from", "limits: [{from: a, max-request: 1MB}]\n", "E112"),
    ("a limit with websocket", "limits: [{max-url: 1KB, websocket: {}}]\n", "E112"),
    ("a limit with stream-request", "limits: [{max-url: 1KB, stream-request: yes}]\n", "E112"),
    ("a limit with a verb", "limits: [{allow: x, max-url: 1KB}]\n", "E103"),
    ("a limit with a condition of a later version", "limits: [{max-url: 1KB, mcp: x}]\n", "E180"),
    ("a name like that of a limit", "rules:\n  - deny: limits-1\n", "E106"),
    ("a size that is none", f"{A_RULE}    max-request: 10mb\n", "E209"),
    ("a list of sizes", f"{A_RULE}    max-request: [1MB]\n", "E102"),
    ("a response of nothing", f"{A_RULE}    max-response: 0\n", "E209"),
    ("a URL of nothing", f"{A_RULE}    max-url: 0\n", "E209"),
    ("no flow at a time", "limits: [{in-flight: 0}]\n", "E209"),
    ("in-flight in a rule", f"{A_RULE}    in-flight: 4\n", "E112"),
    ("stream-request switched off", f"{A_RULE}    stream-request: no\n", "E102"),
    ("websocket in a word", f"{A_RULE}    schemes: wss\n    websocket: yes\n", "E102"),
    ("a websocket key that is none", f"{A_RULE}    websocket: {{max-frames: 1KB}}\n", "E103"),
    ("a frame of nothing", f"{A_RULE}    websocket: {{max-frame: 0}}\n", "E209"),
    ("a rate that is none", f"{A_RULE}    websocket: {{max-rate: 100/s}}\n", "E209"),
    ("wss without websocket", f"{A_RULE}    schemes: wss\n", "E104"),
    ("ws beside https without websocket", f"{A_RULE}    schemes: [https, ws]\n", "E104"),
    (
        "a wss URL without websocket",
        'rules:\n  - {allow: x, to: "wss://example.org/**", methods: any}\n',
        "E104",
    ),
    ("websocket for https alone", f"{A_RULE}    schemes: https\n    websocket: {{}}\n", "E112"),
    (
        "websocket for https URLs alone",
        'rules:\n  - {allow: x, to: "https://example.org/**", methods: any, websocket: {}}\n',
        "E112",
    ),
    (
        "websocket without GET",
        "rules:\n  - {allow: x, to: example.org, methods: writes, websocket: {}}\n",
        "E112",
    ),
    ("fields that are no mapping", f"{A_RULE}    json: amount\n", "E102"),
    ("no field at all", f"{A_RULE}    json: {{}}\n", "E104"),
    ("a field without a value", f"{A_RULE}    json: {{amount: }}\n", "E102"),
    ("a field with an empty list", f"{A_RULE}    json: {{amount: []}}\n", "E102"),
    ("a field with a mapping", f"{A_RULE}    json: {{amount: {{max: 5}}}}\n", "E102"),
    ("a field that stands twice", f"{A_RULE}    form: {{a: x, a: y}}\n", "E101"),
    ("a header that stands twice in two cases", f"{A_RULE}    headers: {{X-A: x, x-a: y}}\n", "E101"),
    ("a comparison that is none", f'{A_RULE}    json: {{amount: "<= 1.5"}}\n', "E210"),
    ("an interval that runs backwards", f"{A_RULE}    query: {{a: 9..1}}\n", "E210"),
    ("a media type without a slash", f"{A_RULE}    content-types: json\n", "E210"),
    ("a media type with parameters", f'{A_RULE}    content-types: "text/html; charset=utf-8"\n', "E210"),
    ("an interval of media types", f"{A_RULE}    content-types: 1..5\n", "E210"),
    ("a path into a list", f'{A_RULE}    json: {{"items[0].id": x}}\n', "E211"),
    ("a path as JSONPath has it", f"{A_RULE}    json: {{$.amount: x}}\n", "E211"),
    ("a path with an empty name", f"{A_RULE}    json: {{user..name: x}}\n", "E211"),
    ("a name with a star", f'{A_RULE}    form: {{"a*": x}}\n', "E211"),
    ("the content type as a header", f"{A_RULE}    headers: {{Content-Type: text/html}}\n", "E211"),
    ("a header of Governor's own", f"{A_RULE}    headers: {{host: example.org}}\n", "E211"),
    ("a header for proxies", f"{A_RULE}    headers: {{proxy-authorization: x}}\n", "E211"),
    ("a header that is no token", f'{A_RULE}    headers: {{"x tenant": x}}\n', "E211"),
    ("json beside stream-request", f"{A_RULE}    stream-request: yes\n    json: {{a: x}}\n", "E112"),
    ("form beside stream-request", f"{A_RULE}    stream-request: yes\n    form: {{a: x}}\n", "E112"),
    ("hours without a time zone", 'rules: [{deny: x, when: {hours: "08:00-18:00"}}]\n', "E104"),
    ("a time zone alone", "rules: [{deny: x, when: {timezone: UTC}}]\n", "E104"),
    ("a time zone that is none", "rules: [{deny: x, when: {days: mon, timezone: Europe/Berln}}]\n", "E213"),
    ("a time zone with dots", "rules: [{deny: x, when: {days: mon, timezone: ../UTC}}]\n", "E213"),
    ("a day that is none", "rules: [{deny: x, when: {days: monday, timezone: UTC}}]\n", "E214"),
    ("days to nowhere", "rules: [{deny: x, when: {days: mon-, timezone: UTC}}]\n", "E214"),
    ("an hour that is none", 'rules: [{deny: x, when: {hours: "08:00-24:01", timezone: UTC}}]\n', "E215"),
    ("an hour of no length", 'rules: [{deny: x, when: {hours: "08:00-08:00", timezone: UTC}}]\n', "E215"),
    ("an hour in words", "rules: [{deny: x, when: {hours: 8-18, timezone: UTC}}]\n", "E215"),
    ("a day of no month", "rules: [{deny: x, when: {not-on: [2026-02-30], timezone: UTC}}]\n", "E212"),
    ("an end in words", "rules: [{deny: x, expires: tomorrow}]\n", "E212"),
    ("an end without a zone", 'rules: [{deny: x, expires: "2026-12-31T18:00:00"}]\n', "E212"),
    ("an end in another age", "rules: [{deny: x, expires: 2400-01-01}]\n", "E212"),
    ("a grant that is quiet", f"{A_RULE}    quiet: yes\n", "E112"),
    ("quiet switched off", "rules: [{deny: x, quiet: no}]\n", "E102"),
    ("a trial without an end", "mode: observe\n", "E104"),
    ("an end without a trial", "until: 2099-12-31\n", "E112"),
    ("an end of what is enforced", "mode: enforce\nuntil: 2099-12-31\n", "E112"),
    ("a mode that is none", "mode: off\n", "E102"),
    ("a trial until some day", "mode: observe\nuntil: soon\n", "E212"),
    ("a deny on trial without an end", "rules: [{deny: x, observe: yes}]\n", "E104"),
    ("a deny on trial switched off", "rules: [{deny: x, observe: no, expires: 2099-12-31}]\n", "E102"),
    ("a grant on trial", f"{A_RULE}    observe: yes\n    expires: 2099-12-31\n", "E112"),
    ("a never on trial", "never: [{to: x.com, observe: yes, expires: 2099-12-31}]\n", "E103"),
    ("a never that is only quiet", "never: [{quiet: yes}]\n", "E104"),
    ("an identity source switched off", "identity: {proxy-auth: no}\n", "E102"),
    ("anonymous said differently", "identity: {anonymous: yes}\n", "E102"),
]


@pytest.mark.parametrize(("text", "code"), [pytest.param(text, code, id=name) for name, text, code in REFUSED])
def test_what_cannot_be_meant_does_not_load(text, code):
    with pytest.raises(PolicyError) as refused:
        compiled(text)

    assert code in [finding.code for finding in refused.value.findings if finding.severity is Severity.ERROR]


def test_fields_are_read_wherever_conditions_stand():
    policy = compiled("""
        version: 1
        rules:
          - allow: pay
            to: pay.example.org
            methods: [POST]
            json: {amount: "<= 20000", user.name: [a, "b*", absent]}
            form: {"card[number]": "4*"}
            query: {debug: absent}
            headers: {X-Tenant: acme}
            content-types: [application/json, Text/*, absent]
            except: {json: {amount: 13}}
          - deny: uploads
            content-types: multipart/*
        never:
          - json: {amount: "> 5000000"}
        limits:
          - {headers: {x-batch: "*"}, max-request: 1MB}
    """).policy
    pay, uploads = policy.rules

    assert pay.where.json == (
        Field("amount", Comparison(intervals=(Interval(high=20000),))),
        Field("user.name", Comparison(("a", "b*"), absent=True)))
    assert pay.where.form == (Field("card[number]", Comparison(("4*",))),)
    assert pay.where.query == (Field("debug", Comparison(absent=True)),)
    assert pay.where.headers == (Field("x-tenant", Comparison(("acme",))),)
    assert pay.where.content_types == Comparison(("application/json", "text/*"), absent=True)
    assert pay.holes[0].json == (Field("amount", Comparison(("13",))),)
    assert uploads.where.content_types == Comparison(("multipart/*",))
    assert policy.nevers[0].where.json == (
        Field("amount", Comparison(intervals=(Interval(low=5000000, low_open=True),))),)
    assert policy.limits[0].where.headers == (Field("x-batch", Comparison(("*",))),)


PAY = """
rules:
  - allow: pay
    to: pay.example.org
    methods: [POST]
    json: {amount: "<= 20000", channel: absent}
    query: {debug: absent}
assert:
  - %s: {from: a, to: "https://pay.example.org/", method: POST, %s}
"""


@pytest.mark.parametrize(("expected", "keys", "found"), [
    ("allowed", "json: {amount: 20000, channel: absent}", []),
    ("denied", "json: {amount: 20001}", []),
    ("denied", "json: {amount: 5, channel: x}", []),
    ("denied", "json: {amount: 5}, query: {debug: 1}", []),
    ("denied", "form: {amount: 5}, headers: {x-tenant: acme}", []),
    ("allowed", "json: {amount: 20001}", ["P801"]),
    ("denied", "json: {amount: 5}", ["P801"]),
    ("denied", 'json: {amount: "<= 5"}', ["E102"]),
    ("denied", "json: {amount: [5, 6]}", ["E102"]),
    ("denied", "json: {amount: [5, 7..8]}", ["E102"]),
    ("denied", "json: {amount: [5, absent]}", ["E102"]),
    ("denied", 'query: {a: "x*"}', ["E102"]),
    ("denied", "content-types: [text/plain, text/html]", ["E102"]),
    ("denied", "json: {amount: 5}, form: {amount: 5}", ["P802"]),
    ("denied", "json: {amount: 5}, content-types: text/plain", ["P802"]),
])
def test_an_assertion_may_say_what_the_request_carries(expected, keys, found):
    assert codes(PAY % (expected, keys)) == found


def test_the_witness_of_an_assertion_carries_what_the_assertion_says():
    (found,) = findings(PAY % ("denied", "json: {amount: 5}, headers: {x-tenant: acme}, query: {a: b}"))

    assert found.witness == Witness(
        "a", "POST", "https://pay.example.org/?a=b", "192.0.32.8",
        (("x-tenant", "acme"), ("content-type", "application/json")), '{"amount": 5}')


@pytest.mark.parametrize(("line", "hint"), [
    ("content-types: json", "application/json"),
    ('content-types: "text/html; charset=x"', "write text/html"),
    ("headers: {Content-Type: text/html}", "content-types: [application/json]"),
    ("json: {user..name: x}", "write user.name"),
    ('json: {"a[0]": x}', "user.name"),
    ('json: {amount: "=5"}', 'write "5"'),
])
def test_a_field_that_cannot_be_meant_says_what_to_write(line, hint):
    (found,) = findings(f"rules:\n  - deny: x\n    {line}\n")

    assert hint in found.hint


LATER = {
    "a rule": [
        "ask",
        "mcp",
        "git",
        "graphql",
        "credentials",
        "redact",
        "contains",
        "add-headers",
        "tunnel",
    ],
}


@pytest.mark.parametrize("key", LATER["a rule"])
def test_a_key_or_verb_that_this_version_cannot_enforce_refuses_to_load(key):
    found = findings(f"{A_RULE}    {key}: x\n")

    assert [(finding.code, finding.position.line) for finding in found] == [("E180", 6)]


TERMS = {
    "max-request": "1MB", "max-response": "1MB", "max-url": "1KB", "stream-request": "yes", "websocket": "{}",
}  # fmt: skip


@pytest.mark.parametrize("key", TERMS)
@pytest.mark.parametrize(
    "text",
    [
        "rules:\n  - {{deny: x, {}}}\n",
        "never:\n  - {{to: metadata, {}}}\n",
        "rules:\n  - {{deny: x, except: {{to: example.org, {}}}}}\n",
        "limits:\n  - {{max-url: 1KB, except: {{to: example.org, {}}}}}\n",
        'assert:\n  - denied: {{from: a, to: "https://x.example/", method: GET, {}}}\n',
    ],
)
def test_how_large_something_may_be_means_nothing_where_nothing_is_granted(key, text):
    (finding,) = findings(text.format(f"{key}: {TERMS[key]}"))

    assert (finding.code, finding.severity) == ("E112", Severity.ERROR)
    assert f'"{key}:" means nothing in' in finding.message
    assert "in an allow" in finding.hint


def test_a_rule_that_has_only_a_verb_of_a_later_version_has_one_finding():
    assert codes("rules:\n  - ask: x\n    to: example.org\n") == ["E180"]


@pytest.mark.parametrize(("line", "told"), [
    ("methods: [any, GET]", '"any" stands alone'),
    ("methods: [CONNECT]", "a tunnel opens where any request inside it could pass"),
    ("schemes: [gopher]", "http, https, ws or wss"),
    ('from: "a b"', "letters, digits and . _ : @ / + - inside"),
])
def test_a_word_that_cannot_be_meant_says_what_may_stand_there(line, told):
    (found,) = findings(f"rules:\n  - deny: x\n    {line}\n")

    assert told in f"{found.message} ({found.hint})"


DOUBTFUL = [
    ("a misspelt group", "agents: {coders: [c-*]}\nrules:\n  - deny: x\n    from: codres\n", "W120"),
    ("an agent nobody knows", "rules:\n  - deny: x\n    from: bob\n", "W120"),
    ("anonymous where nobody is", "rules:\n  - deny: x\n    from: anonymous\n", "W121"),
    ("a host of one label", "rules:\n  - deny: x\n    to: intranet\n", "W105"),
    ("a misspelt method", "rules:\n  - deny: x\n    methods: [DELTE]\n", "W207"),
    ("a rule that has expired", "rules: [{deny: x, expires: 1970-01-01}]\n", "W306"),
    ("a range in an allow", "rules:\n  - allow: x\n    to: 10.0.0.0/8\n    methods: any\n", "I108"),
]


@pytest.mark.parametrize(("text", "code"), [pytest.param(text, code, id=name) for name, text, code in DOUBTFUL])
def test_what_is_doubtful_loads_and_is_told(text, code):
    assert [finding.code for finding in compiled(text, now=86400).findings] == [code]


QUIET = [
    ("a registered agent", "rules:\n  - deny: x\n    from: bob\n"),
    ("an agent of a group", "agents: {a: [eve, c-*]}\nrules:\n  - deny: x\n    from: eve\n"),
    ("an agent that a group's glob covers", "agents: {a: [e*]}\nrules:\n  - deny: x\n    from: eve\n"),
    ("a glob", "rules:\n  - deny: x\n    from: bo*\n"),
    ("local", "rules:\n  - deny: x\n    from: local\n"),
    ("anonymous where it is allowed", "identity: {anonymous: allow}\nrules:\n  - deny: x\n    from: anonymous\n"),
    ("localhost", "rules:\n  - deny: x\n    to: localhost\n"),
    ("a host of one label by a name", "destinations: {in: intranet}\nrules:\n  - deny: x\n    to: in\n"),
    ("a method of one's own", "rules:\n  - deny: x\n    methods: [FROBNICATE]\n"),
    ("one address in an allow", "rules:\n  - allow: x\n    to: 10.1.2.3\n    methods: any\n"),
]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in QUIET])
def test_what_is_not_doubtful_is_not_told(text):
    assert compiled(text, known=frozenset({"bob"})).findings == ()


def test_a_doubtful_word_is_told_at_each_of_its_places():
    found = findings("rules:\n  - deny: x\n    from: bob\n  - deny: y\n    from: bob\n")

    assert [(finding.code, finding.position.line) for finding in found] == [("W120", 4), ("W120", 6)]


def test_yaml_values_that_other_loaders_change_stay_text():
    rule = only("{deny: 0443, from: [NO, 1.10], methods: [ON], paths: [/22:30]}")

    assert rule.name == "0443"
    assert [pattern.text for pattern in rule.where.agents] == ["NO", "1.10"]
    assert rule.where.methods == {"ON"}


def test_methods_any_is_every_method_and_sets_add_up():
    assert only("{deny: x, methods: any}").where.methods is None
    assert only("{deny: x, methods: [reads, POST]}").where.methods == {"GET", "HEAD", "OPTIONS", "POST"}
    assert only("{deny: x, methods: writes}").where.methods == {"POST", "PUT", "PATCH", "DELETE"}


def test_a_refusal_without_schemes_and_ports_covers_every_scheme_and_port():
    text = "rules:\n  - deny: x\n    to: example.org\n"

    assert verdict(text, "GET", "http://example.org:8080/") is Code.RULE_DENY


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.org/", Code.ALLOW),
        ("https://example.org:8443/", Code.DEFAULT_DENY),
        ("http://example.org/", Code.DEFAULT_DENY),
        ("http://example.org:443/", Code.DEFAULT_DENY),
    ],
)
def test_an_allow_covers_https_on_its_own_port(url, code):
    assert verdict(A_RULE, "GET", url) is code


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.org/a", Code.ALLOW),
        ("http://example.org/a", Code.ALLOW),
        ("http://example.org:443/a", Code.DEFAULT_DENY),
        ("https://example.org:80/a", Code.DEFAULT_DENY),
        ("https://example.org/b", Code.DEFAULT_DENY),
        ("http://203.0.113.7/a", Code.ALLOW),
    ],
)
def test_with_two_schemes_each_has_its_own_port(url, code):
    text = "rules:\n  - {allow: x, to: [example.org, 203.0.113.7], methods: any, schemes: [http, https], paths: [/a]}\n"

    assert verdict(text, "GET", url) is code


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        pytest.param("websocket: {}", ["wss"], id="websocket means wss"),
        pytest.param("websocket: {}, schemes: ws", ["ws"], id="ws"),
        pytest.param("websocket: {}, schemes: [https, wss]", ["https", "wss"], id="two that share a port"),
        pytest.param("websocket: {}, schemes: [http, https, wss]", ["http", "https", "wss"], id="ports of their own"),
        pytest.param("schemes: [http, https]", ["http", "https"], id="no upgrade"),
    ],
)
@pytest.mark.parametrize("to", ["to: example.org, ", "ports: [80, 443], "])
def test_a_rule_that_speaks_of_websockets_covers_the_schemes_it_names(said, allowed, to):
    text = f"rules:\n  - {{allow: x, {to}methods: [GET], {said}}}\n"

    passing = [scheme for scheme in ("http", "https", "ws", "wss")
               if verdict(text, "GET", f"{scheme}://example.org/") is Code.ALLOW]

    assert passing == allowed


def test_a_host_beside_a_url_in_a_rule_with_websocket_means_wss():
    text = 'rules:\n  - {allow: x, to: [a.example, "https://b.example/**"], methods: any, websocket: {}}\n'

    assert verdict(text, "GET", "wss://a.example/") is Code.ALLOW
    assert verdict(text, "GET", "https://a.example/") is Code.DEFAULT_DENY
    assert verdict(text, "GET", "https://b.example/") is Code.ALLOW
    assert verdict(text, "GET", "wss://b.example/") is Code.UPGRADE_REFUSED


def test_a_refusal_without_schemes_covers_upgrades_and_one_with_https_does_not():
    allow = "rules:\n  - {allow: x, to: example.org, methods: any, websocket: {}}\n"

    assert verdict(f"{allow}  - {{deny: y, to: example.org}}\n", "GET", "wss://example.org/") is Code.RULE_DENY
    assert verdict(f"{allow}  - {{deny: y, schemes: https}}\n", "GET", "wss://example.org/") is Code.ALLOW
    assert verdict(f"{allow}  - {{deny: y, schemes: wss}}\n", "GET", "wss://example.org/") is Code.RULE_DENY


def test_an_assertion_can_speak_of_an_upgrade():
    text = """
        rules: [{allow: x, to: example.org, methods: [GET], websocket: {}}]
        assert:
          - allowed: {from: a, to: "wss://example.org/", method: GET}
          - denied: {from: a, to: "https://example.org/", method: GET}
          - denied: {from: a, to: "ws://example.org/", method: GET}
    """

    assert compiled(text).findings == ()


def test_what_a_rule_says_of_sizes_is_read():
    rule = only(
        "{allow: x, to: example.org, methods: any, schemes: [https, wss], max-request: 0, max-response: 500MB, "
        "max-url: 2KiB, stream-request: yes, websocket: {max-frame: 1MB, max-rate: 100/minute}}")

    assert rule.terms == Terms(0, 500_000_000, 2048, None, WebSocketMeasures(1_000_000, Rate(100, 60)), True)
    assert only("{allow: x, to: example.org, methods: any}").terms == Terms()


def test_limits_are_read_with_what_they_are_for():
    text = """
        agents: {coders: [c-*]}
        rules: [{deny: x}]
        never: [{to: metadata}]
        limits:
          - {for: coders, to: [.example.org, 10.0.0.0/8], methods: writes, max-request: 10MB, in-flight: 8,
             except: {to: artifacts.example.org}}
          - {schemes: wss, ports: 443, paths: ["/x/**"], address: private-networks, max-url: 1KB, max-response: 1GB}
    """
    first, second = compiled(text).policy.limits

    assert (first.name, first.number, first.verb, first.terms) == (
        "limits-1", 2, Verb.LIMIT, Terms(max_request=10_000_000, in_flight=8))
    assert first.where.agents == (AgentPattern("c-*"),)
    assert (first.where.schemes, first.where.ports) == (None, None)
    assert [hole.to for hole in first.holes] == [(HostPattern("artifacts.example.org", HostReach.EXACT),)]
    assert (second.name, second.terms) == ("limits-2", Terms(max_url=1000, max_response=10**9))
    assert (second.where.agents, second.where.schemes) == (None, {"wss"})


def test_a_doubtful_word_in_for_is_told_as_in_from():
    assert codes("limits: [{for: bob, max-url: 1KB}]\n") == ["W120"]


def test_written_ports_are_for_every_written_scheme():
    text = "rules:\n  - {allow: x, to: example.org, methods: any, schemes: [http, https], ports: [80, 8000-8999]}\n"

    assert verdict(text, "GET", "https://example.org:8500/") is Code.ALLOW
    assert verdict(text, "GET", "http://example.org/") is Code.ALLOW
    assert verdict(text, "GET", "https://example.org/") is Code.DEFAULT_DENY


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://a.example/any/path", Code.ALLOW),
        ("http://a.example/", Code.DEFAULT_DENY),
        ("https://b.example/x/y", Code.ALLOW),
        ("https://b.example/y", Code.DEFAULT_DENY),
        ("http://c.example:8080/z", Code.ALLOW),
        ("https://c.example/z", Code.DEFAULT_DENY),
        ("https://a.example:8080/z", Code.DEFAULT_DENY),
    ],
)
def test_hosts_and_urls_in_one_list_keep_their_own_defaults(url, code):
    to = '[a.example, "https://b.example/x/**", "http://c.example:8080/z"]'

    assert verdict(f"rules:\n  - {{allow: x, to: {to}, methods: any}}\n", "GET", url) is code


def test_a_url_pattern_alone_is_kept_as_it_is():
    rule = only('{allow: x, to: "http://c.example:8080/z", methods: any}')

    assert isinstance(rule.where.to[0], UrlPattern)
    assert (rule.where.schemes, rule.where.ports) == (None, None)


def test_a_destination_that_is_called_like_a_host_is_the_destination():
    text = "destinations: {api.example: other.example}\nrules:\n  - {allow: x, to: api.example, methods: any}\n"

    assert verdict(text, "GET", "https://other.example/") is Code.ALLOW
    assert verdict(text, "GET", "https://api.example/") is Code.DEFAULT_DENY


def test_several_exceptions_are_several_holes():
    rule = only("{deny: x, except: [{to: a.example}, {methods: reads, to: b.example}]}")

    assert [hole.methods for hole in rule.holes] == [None, {"GET", "HEAD", "OPTIONS"}]


def test_an_inside_service_by_name_needs_its_address():
    text = "rules:\n  - {allow: x, to: billing.example, address: 10.1.0.0/16, methods: any}\n"

    assert verdict(text, "GET", "https://billing.example/", address="10.1.2.3") is Code.ALLOW
    assert verdict(text, "GET", "https://billing.example/", address="10.2.2.3") is Code.PRIVATE_ADDRESS
    assert verdict(text, "GET", "https://billing.example/", address="192.0.32.8") is Code.DEFAULT_DENY


def test_an_address_that_is_a_literal_inside_a_url_pattern_opens_itself():
    text = "rules:\n  - {allow: x, to: 10.1.2.3, schemes: [http, https], methods: any}\n"

    assert verdict(text, "GET", "http://10.1.2.3/") is Code.ALLOW
    assert verdict(text, "GET", "http://10.1.2.4/") is Code.PRIVATE_ADDRESS


def test_a_failing_assertion_has_the_request_as_its_witness():
    text = f'{A_RULE}assert:\n  - denied: {{from: a-1, to: "https://example.org/x", method: GET}}\n'

    (finding,) = findings(text)

    assert (finding.code, finding.position.line, finding.rules) == ("P801", 7, ("x",))
    assert (finding.witness.agent, finding.witness.method, finding.witness.url) == (
        "a-1",
        "GET",
        "https://example.org/x",
    )
    assert "must be denied, and is granted" in finding.message


def test_an_assertion_can_say_what_the_name_resolves_to():
    text = """
        rules: [{allow: x, to: b.example, address: 10.1.0.0/16, methods: any}]
        assert: [{allowed: {from: a, to: "https://b.example/", method: GET, address: 10.1.2.3}}]
    """

    assert compiled(text).findings == ()


def test_no_file_is_no_policy():
    with pytest.raises(PolicyError) as refused:
        compile_policy([], RANGES, "digest")

    assert [finding.code for finding in refused.value.findings] == ["E111"]


def test_every_code_in_the_sources_is_in_the_catalogue_and_the_other_way_round():
    sources = [
        *Path(kernel.__file__).parent.rglob("*.py"),
        Path(kernel.__file__).parents[1] / "addons" / "yaml_nodes.py",
        Path(kernel.__file__).parents[1] / "addons" / "cases.py",
        Path(kernel.__file__).parents[1] / "addons" / "policy_files.py",
    ]
    used = {
        code
        for path in sources
        if path.name != "findings.py"
        for code in re.findall(r'"([EWIP][0-9]{3})"', path.read_text())
    }

    assert used == CATALOGUE.keys()


def test_the_page_on_the_kernel_lists_every_finding():
    page = (Path(kernel.__file__).parent / "README.md").read_text()

    for code, sentence in CATALOGUE.items():
        assert f"| {code} | {sentence} |" in page


def test_the_compiled_rules_are_what_the_matcher_numbers_by():
    policy = compiled("rules: [{deny: a}, {deny: b}]\nnever: [{to: metadata}, {to: loopback}]\n").policy

    assert [rule.number for rule in (*policy.rules, *policy.nevers)] == [0, 1, 2, 3]
    assert [never.name for never in policy.nevers] == ["never-1", "never-2"]
