"""`governor policy`: the JSON, the exit statuses, and what people read."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from addons import cli
from addons.policy_files import shipped_policy
from kernel.schema import schema

POLICY = """\
version: 1
agents: {coders: [claude-*]}
rules:
  - allow: read
    from: coders
    to: api.example.org
    methods: reads
    paths: ["/repos/**"]
    except: {paths: ["/repos/secret/**"]}
  - allow: billing
    to: billing.example
    address: 10.1.0.0/16
    methods: reads
  - deny: no-gists
    to: gist.example.org
    tell: use the snippet store
never:
  - to: [metadata, loopback]
"""


@pytest.fixture
def governor(tmp_path, monkeypatch):
    """Runs the command line in an empty folder without a home; gives status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOVERNOR_HOME", str(tmp_path / "home"))
    (tmp_path / "p.yaml").write_text(POLICY)

    def run(*arguments: str):
        result = CliRunner().invoke(cli.governor, ["policy", *arguments])
        return result.exit_code, result.stdout, result.stderr

    return run


def test_check_says_yes_to_a_policy_without_errors(governor):
    status, out, _ = governor("check", "p.yaml", "--json")

    assert status == 0
    assert json.loads(out) == {"files": ["p.yaml"], "ok": True, "findings": [], "undecided": [], "cascade": None}


def test_check_tells_the_worst_halt_where_halts_spread(governor):
    Path("p.yaml").write_text("""version: 1
agents: {coders: [c-1, c-2], reviewers: [r-1], ops: [o-*]}
rules: [{deny: d, to: x.example, risk: 5}]
profile: balanced
cascade: {depends: {coders: [reviewers]}, on-halt: {reasons: [OVERRISK], do: quarantine}}
""")
    status, out, _ = governor("check", "p.yaml", "--json")
    _, text, _ = governor("check", "p.yaml")

    assert (status, json.loads(out)["cascade"]) == (0, {
        "worst": "r-1", "reach": 2, "agents": 3, "radius": 1, "hops": 1, "slowed_instead": 1, "unknown": ["ops"]})
    assert ("cascade: the worst halt, of r-1, acts on 2 of 3 known agents in 1 hop; by the blast radius a process "
            "holds back 1 at most, and slows 1 down instead; nobody knows how many agents ops are") in text


def test_check_says_where_no_halt_acts_on_anybody(governor):
    Path("p.yaml").write_text("""version: 1
agents: {coders: [c-1], ops: [o-*]}
cascade: {depends: {ops: [coders]}, on-halt: {reasons: [EXPLORATION_DRIFT], do: throttle}}
""")

    assert "cascade: no halt of the 1 known agent acts on another one; nobody knows" in governor("check", "p.yaml")[1]


def test_check_gives_each_finding_with_its_place_and_witness(governor):
    Path("bad.yaml").write_text(
        'version: 1\nassert:\n  - allowed: {from: a, to: "https://x.example/", method: GET}\n')

    status, out, _ = governor("check", "bad.yaml", "--json")
    shown = json.loads(out)

    assert status == 1
    assert shown["ok"] is False
    assert shown["findings"] == [{
        "code": "P801", "severity": "error", "file": "bad.yaml", "line": 3, "column": 5, "rules": [],
        "message": "a GET https://x.example/ must be allowed, and is refused (DEFAULT_DENY, no rule allows this)",
        "witness": {"agent": "a", "method": "GET", "url": "https://x.example/", "address": None, "at": None,
                    "headers": {}, "body": None},
    }]


def test_check_shows_the_line_the_place_and_the_hint(governor):
    Path("bad.yaml").write_text("version: 1\nrules:\n  - allow: x\n    metods: [GET]\n")

    status, out, _ = governor("check", "bad.yaml")

    assert status == 1
    assert 'bad.yaml:4:5  error E103  unknown key "metods" in a rule' in out
    assert "      4 |     metods: [GET]\n        |     ^\n" in out
    assert 'did you mean "methods"?' in out
    assert "2 findings: 2 errors. 0 rules, 0 never, 0 assertions proved" in out
    assert "This policy does not load until the errors are gone." in out


def test_check_shows_the_request_that_breaks_an_assertion(governor):
    Path("bad.yaml").write_text(
        'version: 1\nassert:\n'
        '  - allowed: {from: a, to: "https://x.example/", method: GET, address: 10.1.2.3}\n')

    _, out, _ = governor("check", "bad.yaml")

    assert "witness: governor policy explain --agent a GET https://x.example/" in out


def test_a_warning_is_a_no_only_when_asked_strictly(governor):
    Path("doubt.yaml").write_text("version: 1\nrules: [{deny: x, from: bob}]\n")

    assert governor("check", "doubt.yaml")[0] == 0
    assert governor("check", "--strict", "doubt.yaml")[0] == 1


def test_check_knows_the_agents_of_the_home(governor, tmp_path):
    Path("doubt.yaml").write_text("version: 1\nrules: [{deny: x, from: bob}]\n")
    home = tmp_path / "home"
    home.mkdir()
    bob = {"added": "2026-01-02T03:04:05.000006Z", "by": "ana", "removed": None, "tokens": []}
    home.joinpath("agents.json").write_text(json.dumps({"v": 1, "agents": {"bob": bob}}))
    home.joinpath("agents.json").chmod(0o600)

    assert governor("check", "--strict", "doubt.yaml")[0] == 0


def test_several_files_are_checked_each_for_itself(governor):
    Path("bad.yaml").write_text("version: 2\n")

    status, out, _ = governor("check", "p.yaml", "bad.yaml", "--json")

    assert status == 1
    assert [finding["file"] for finding in json.loads(out)["findings"]] == ["bad.yaml"]


@pytest.mark.parametrize("arguments", [
    pytest.param(["check"], id="check without a file"),
    pytest.param(["check", "nowhere.yaml"], id="check of a file that is not there"),
    pytest.param(["check", "empty"], id="check of a folder without a policy"),
    pytest.param(["test", "empty"], id="test of a folder without cases"),
    pytest.param(["check", "--format", "xml", "p.yaml"], id="a form that is not there"),
    pytest.param(["explain"], id="explain of nothing"),
    pytest.param(["explain", "https://x.example/"], id="explain of a URL without its method"),
    pytest.param(["explain", "p.yaml", "--agent", "a"], id="explain of a policy and an agent"),
    pytest.param(["explain", "--to", "a b"], id="explain of no host"),
    pytest.param(["explain", "--to", "x.example", "GET", "https://x.example/"], id="explain of a host and a request"),
    pytest.param(["test", "*.cases.yaml"], id="test of a pattern that matches no file"),
    pytest.param(["explain", "GET"], id="explain without a URL"),
    pytest.param(["explain", "G T", "https://x.example/"], id="explain of no method"),
    pytest.param(["explain", "--policy", "nowhere.yaml", "GET", "https://x.example/"], id="explain without a policy"),
    pytest.param(["explain", "--address", "10.0.0.0/8", "GET", "https://x.example/"], id="explain at a range"),
    pytest.param(["explain", "--at", "now", "GET", "https://x.example/"], id="a time, which has no effect yet"),
    pytest.param(["explain", "--header", "a b", "GET", "https://x.example/"], id="a header without a value"),
    pytest.param(["explain", "--body", "@nowhere", "POST", "https://x.example/"], id="a body that is not there"),
])
def test_wrong_usage_is_told_and_exits_2(governor, arguments):
    Path("empty").mkdir()

    status, out, err = governor(*arguments)

    assert (status, out) == (2, "")
    assert "Usage:" in err


CASES = """\
policy: p.yaml
cases:
  - {name: reading, agent: claude-1, method: GET, url: "https://api.example.org/repos/x", expect: allow, rule: read}
  - {name: wrong guess, agent: claude-1, method: GET, url: "https://api.example.org/repos/secret/x", expect: allow}
"""


def test_test_tells_each_case_and_what_no_case_meets(governor):
    Path("p.cases.yaml").write_text(CASES)

    status, out, _ = governor("test", "p.cases.yaml", "--json")

    assert status == 1
    assert json.loads(out) == {
        "passed": 1, "failed": 1,
        "cases": [
            {"name": "reading", "ok": True, "expect": "allow", "verdict": "allow", "rule": "read", "code": "ALLOW"},
            {"name": "wrong guess", "ok": False, "expect": "allow", "verdict": "deny", "rule": None,
             "code": "DEFAULT_DENY"},
        ],
        "uncovered": ["billing", "no-gists", "never-1"],
    }


def test_test_shows_what_was_expected_and_what_came(governor):
    Path("p.cases.yaml").write_text(CASES)

    _, out, _ = governor("test", "p.cases.yaml")

    assert "ok    reading\n" in out
    assert "FAIL  wrong guess\n      expected allow\n      got      deny, DEFAULT_DENY\n" in out
    assert "p.cases.yaml: 1 passed, 1 failed\nno case meets: billing, no-gists, never-1\n" in out


@pytest.mark.parametrize(("wrong", "right"), [("rule: read", "rule: other"), ("rule: read", "code: NEVER")])
def test_a_case_also_fails_by_its_rule_or_code(governor, wrong, right):
    Path("p.cases.yaml").write_text(CASES.replace(wrong, right))

    assert json.loads(governor("test", "p.cases.yaml", "--json")[1])["failed"] == 2


@pytest.mark.parametrize(("cases", "code"), [
    ("policy: p.yaml\ncases: []\n", "E104"),
    ("policy: p.yaml\n", "E104"),
    ('policy: p.yaml\ncases: [{name: x, method: GET, url: "https://x.example/", expect: ask}]\n', "E180"),
    ('policy: p.yaml\ncases: [{name: x, method: GET, url: "https://x.example/", expect: yes}]\n', "E102"),
    ('policy: p.yaml\ncases: [{name: x, method: GET, url: "https://x.example/", expect: deny, at: now}]\n', "E212"),
    ('policy: p.yaml\ncases: [{name: x, method: GET, url: "https://x.example/", expect: deny, code: DENY}]\n', "E102"),
    ('policy: p.yaml\ncases: [{name: x, method: GET, url: "x.example", expect: deny}]\n', "P802"),
    ('policy: p.yaml\ncases: [{name: x, method: GET, url: "https://x.example/", expect: deny, address: x}]\n', "E202"),
    ('policy: bad.yaml\ncases: [{name: x, method: GET, url: "https://x.example/", expect: deny}]\n', "E109"),
])
def test_cases_that_cannot_be_tried_are_refused(governor, cases, code):
    Path("bad.yaml").write_text("version: 2\n")
    Path("p.cases.yaml").write_text(cases)

    status, out, err = governor("test", "p.cases.yaml")

    assert (status, out) == (1, "")
    assert code in err


def explained(governor, *arguments: str):
    status, out, _ = governor("explain", "--policy", "p.yaml", "--json", *arguments)
    return status, json.loads(out)


def test_explain_names_the_rule_that_grants(governor):
    status, said = explained(governor, "--agent", "claude-1", "get", "https://api.example.org/repos/x")

    assert status == 0
    assert said == {
        "verdict": "allow", "rule": "read", "code": "ALLOW",
        "matched": [{"tier": "platform", "rule": "read", "verb": "allow", "file": "p.yaml", "line": 4}],
        "would_allow": [], "draws_on": [],
    }


@pytest.mark.parametrize(("text", "code"), [
    ("budgets: [{budget: b, each: {requests: 5}, every: day, when-used: {100%: halt}}]", "W503"),
    ("budgets: [{budget: b, each: {risk: 5}, every: day}]", "W501"),
    ("counters: {risk: {limit: 5, then: halt}}", "W501"),
    ("rates: [{each: 61/minute, together: 1/second}]", "W501"),
])
def test_check_finds_what_is_doubtful_in_budgets_and_rates(governor, text, code):
    rules = "rules: [{allow: read, to: api.example.org, methods: reads}]"
    Path("q.yaml").write_text(f"version: 1\n{rules}\n{text}\n")

    status, out, _ = governor("check", "q.yaml", "--json")
    (found,) = json.loads(out)["findings"]

    assert (status, found["code"], found["severity"], found["line"]) == (0, code, "warning", 3)
    for form in ("sarif", "github", "junit"):
        assert code in governor("check", "q.yaml", "--strict", "--format", form)[1]


COUNTED = """version: 1
agents: {coders: [claude-*]}
rules:
  - {allow: read, to: api.example.org, methods: any}
  - {throttle: search, to: "https://api.example.org/search", rate: 6/minute, risk: 2}
  - {deny: no-gists, to: gist.github.com, risk: 20}
budgets:
  - {budget: daily, for: coders, each: {requests: 100, risk: 50}, together: {bytes: 1GB}, every: day}
rates: [{each: 60/minute}]
profile: balanced
"""


@pytest.mark.parametrize(("agent", "url", "verdict", "drawn"), [
    ("claude-1", "https://api.example.org/", "allow", ["daily (requests of each, bytes together)", "rates-1"]),
    ("b-1", "https://api.example.org/", "allow", ["rates-1"]),
    ("claude-1", "https://api.example.org/search", "throttle",
     ["daily (requests of each, bytes together)", "rates-1", "search", "2 points of risk on daily and risk counter"]),
    ("claude-1", "https://gist.github.com/", "deny", ["20 points of risk on daily and risk counter"]),
    ("claude-1", "https://x.example/", "deny", []),
])
def test_explain_says_what_a_request_would_draw_on(governor, agent, url, verdict, drawn):
    Path("p.yaml").write_text(COUNTED)

    status, said = explained(governor, "--agent", agent, "GET", url)
    told = governor("explain", "--policy", "p.yaml", "--agent", agent, "GET", url)[1]

    assert (said["verdict"], said["draws_on"], status) == (verdict, drawn, 1 if verdict == "deny" else 0)
    assert (f"would draw on {'; '.join(drawn)}" in " ".join(told.split())) if drawn else "would draw on" not in told


def test_what_an_agent_can_reach_says_at_what_pace(governor):
    Path("p.yaml").write_text(COUNTED)

    out = governor("explain", "--policy", "p.yaml", "--agent", "claude-1", "--json")[1]

    assert [(row["rule"], row["conditions"]) for row in json.loads(out)["reach"]] == [
        ("read", ""), ("search", "at most 6 a minute")]


@pytest.mark.parametrize(("arguments", "code", "would_allow"), [
    pytest.param(["--agent", "claude-1", "DELETE", "https://api.example.org/repos/x"], "DEFAULT_DENY",
                 "Rule read (p.yaml:4:5) would allow it, but the method is DELETE and it wants GET, HEAD or OPTIONS.",
                 id="another method"),
    pytest.param(["GET", "https://api.example.org/repos/x"], "DEFAULT_DENY",
                 "Rule read (p.yaml:4:5) would allow it, but the agent is local and it wants claude-*.",
                 id="another agent"),
    pytest.param(["--agent", "claude-1", "GET", "https://api.example.org/repos/secret/x"], "DEFAULT_DENY",
                 "Rule read (p.yaml:4:5) would allow it, but its except covers this request.", id="an exception"),
    pytest.param(["--agent", "claude-1", "GET", "https://api.example.org/repos%2Fsecret%2Fx"], "DEFAULT_DENY",
                 "Rule read (p.yaml:4:5) would allow it, but the path is /repos%2Fsecret%2Fx and it wants /repos/** "
                 "and its except covers this request.", id="a path with two readings"),
    pytest.param(["GET", "http://other.example:8080/"], "DEFAULT_DENY",
                 "No rule allows anything to other.example: it needs an allow with to: other.example, methods: [GET], "
                 "schemes: http, ports: 8080.", id="another host"),
    pytest.param(["POST", "https://gist.example.org/"], "RULE_DENY",
                 "Except this request from rule no-gists (p.yaml:14:5): it refuses what others allow.", id="a deny"),
    pytest.param(["GET", "http://169.254.169.254/"], "NEVER",
                 "Except this request from never-1 (p.yaml:18:5): it refuses what others allow.", id="a never"),
    pytest.param(["--address", "10.2.0.1", "GET", "https://billing.example/"], "PRIVATE_ADDRESS",
                 "10.2.0.1 is an inside address: an allow for billing.example needs address: 10.2.0.1.",
                 id="an inside address"),
    pytest.param(["GET", "https://billing.example/"], "DEFAULT_DENY",
                 "Rule billing (p.yaml:10:5) would allow it, but the address is 192.0.32.8 and it wants 10.1.0.0/16.",
                 id="an inside service on the internet"),
    pytest.param(["GET", "wss://other.example/"], "UPGRADE_REFUSED",
                 "No rule allows anything to other.example: it needs an allow with to: other.example, methods: [GET], "
                 "websocket: {}.", id="an upgrade"),
    pytest.param(["--agent", "claude-1", "GET", "wss://api.example.org/repos/x"], "UPGRADE_REFUSED",
                 "Rule read (p.yaml:4:5) would allow it, but it does not say websocket and the scheme is wss and it "
                 "wants https.", id="an upgrade where reading is allowed"),
    pytest.param(["GET", "https://x.example/a/../b"], "NON_CANONICAL",
                 "No policy can allow it: the path has a dot segment.", id="a URL with two readings"),
])
def test_explain_says_what_would_let_a_request_through(governor, arguments, code, would_allow):
    status, said = explained(governor, *arguments)

    assert (status, said["verdict"], said["code"]) == (1, "deny", code)
    assert would_allow in said["would_allow"]


SIZES = """\
version: 1
rules:
  - allow: upload
    to: upload.example
    methods: any
    max-request: 3
    max-url: 30
    stream-request: yes
  - allow: talk
    to: [talk.example, upload.example]
    methods: any
    websocket: {max-frame: 1KB, max-rate: 5/minute}
limits:
  - {for: claude-*, max-request: 2, in-flight: 4}
"""


@pytest.mark.parametrize(("arguments", "code", "rule", "sentence"), [
    pytest.param(["--body", "1234", "POST", "https://upload.example/"], "BODY_TOO_LARGE", "upload",
                 "The body has 4 bytes, and max-request of rule upload (sizes.yaml:3:5) is smaller: raise it.",
                 id="a body larger than the rule says"),
    pytest.param(["--agent", "claude-1", "--body", "@three", "POST", "https://upload.example/"], "BODY_TOO_LARGE",
                 "limits-1",
                 "The body has 3 bytes, and max-request of limits-1 (sizes.yaml:14:5) is smaller: raise it, or except "
                 "this request.", id="a body larger than a limit says"),
    pytest.param(["--body", "@huge", "GET", "wss://talk.example/"], "BODY_TOO_LARGE", None,
                 "The body has 20000000 bytes and no rule allows so many: the allow for it needs max-request: "
                 "20000000.", id="a body larger than the default"),
    pytest.param(["GET", "https://upload.example/12345678"], "URL_TOO_LONG", "upload",
                 "The URL has 31 bytes, and max-url of rule upload (sizes.yaml:3:5) is smaller: raise it.",
                 id="a URL longer than the rule says"),
])  # fmt: skip
def test_explain_says_how_large_a_request_may_be(governor, arguments, code, rule, sentence):
    Path("sizes.yaml").write_text(SIZES)
    Path("three").write_text("123")
    Path("huge").write_bytes(b"")
    os.truncate("huge", 20_000_000)

    status, out, _ = governor("explain", "--policy", "sizes.yaml", "--json", *arguments)
    said = json.loads(out)

    assert (status, said["code"], said["rule"], said["would_allow"]) == (1, code, rule, [sentence])


@pytest.mark.parametrize(("arguments", "measured"), [
    pytest.param(["--agent", "claude-1", "GET", "https://upload.example/"],
                 "request at most 2 bytes (limits-1); URL at most 30 bytes (upload); in flight at most 4 at a time "
                 "(limits-1); streamed as it comes", id="a rule and a limit"),
    pytest.param(["GET", "wss://talk.example/"],
                 "request at most 16 MiB (default); a frame at most 1 KB; at most 5 messages in 60 s",
                 id="an upgrade"),
])  # fmt: skip
def test_explain_shows_what_applies_to_a_request_that_passes(governor, arguments, measured):
    Path("sizes.yaml").write_text(SIZES)

    status, out, _ = governor("explain", "--policy", "sizes.yaml", *arguments)

    assert status == 0
    assert f"measured {measured}" in " ".join(out.split())


def test_explain_names_a_limit_that_holds(governor):
    Path("sizes.yaml").write_text(SIZES)

    arguments = ["--policy", "sizes.yaml", "--json", "--agent", "claude-1", "GET", "https://upload.example/"]
    _, out, _ = governor("explain", *arguments)

    matched = [(each["rule"], each["verb"]) for each in json.loads(out)["matched"]]
    assert matched == [("upload", "allow"), ("limits-1", "limit")]


def test_check_counts_the_limits(governor):
    Path("sizes.yaml").write_text(SIZES)

    assert "2 rules, 0 never, 1 limit, 0 assertions proved" in governor("check", "sizes.yaml")[1]


def test_a_case_can_have_a_body(governor):
    Path("sizes.yaml").write_text(SIZES)
    Path("sizes.cases.yaml").write_text("""\
policy: sizes.yaml
cases:
  - {name: small, method: POST, url: "https://upload.example/", body: "123", expect: allow, rule: upload}
  - {name: large, method: POST, url: "https://upload.example/", body: "12ä", expect: deny, code: BODY_TOO_LARGE}
""")

    status, out, _ = governor("test", "sizes.cases.yaml", "--json")

    assert status == 0
    assert json.loads(out)["uncovered"] == ["talk", "limits-1"]


PAYMENTS = """\
version: 1
rules:
  - allow: small-payments
    to: pay.example
    methods: [POST]
    json: {amount: "<= 20000", channel: absent}
    headers: {x-tenant: acme}
  - deny: no-forms
    to: pay.example
    content-types: application/x-www-form-urlencoded
"""
ASKED = ("POST", "https://pay.example/", "--header", "Content-Type: application/json", "--header", "x-tenant: acme")


@pytest.mark.parametrize(("arguments", "code"), [
    ((*ASKED, "--body", '{"amount": 5}'), "ALLOW"),
    ((*ASKED, "--body", "@body"), "ALLOW"),
    ((*ASKED, "--body", '{"amount": 20001}'), "DEFAULT_DENY"),
    ((*ASKED[:4], "--body", '{"amount": 5}'), "DEFAULT_DENY"),
    ((*ASKED[:2], "--header", "content-type:application/x-www-form-urlencoded"), "RULE_DENY"),
])
def test_explain_asks_about_headers_and_a_body(governor, arguments, code):
    Path("pay.yaml").write_text(PAYMENTS)
    Path("body").write_bytes(b'{"amount": 2e4}')

    status, out, _ = governor("explain", "--policy", "pay.yaml", *arguments, "--json")

    assert (status, json.loads(out)["code"]) == (0 if code == "ALLOW" else 1, code)


@pytest.mark.parametrize(("body", "reason"), [
    ('{"amount": 20001}', 'the JSON field amount is "20001" and it wants <= 20000'),
    ('{"channel": "x", "amount": 5}', 'the JSON field channel is "x" and it wants absent'),
    ("{}", "the JSON field amount is absent and it wants <= 20000"),
    ('{"amount": 5, "amount": 6}',
     "the JSON field amount is unreadable (a name stands twice in one object of the JSON) and it wants <= 20000"),
])
def test_explain_says_which_field_does_not_fit_and_how_it_was_read(governor, body, reason):
    Path("pay.yaml").write_text(PAYMENTS)

    _, out, _ = governor("explain", "--policy", "pay.yaml", *ASKED, "--body", body, "--json")

    (sentence,) = json.loads(out)["would_allow"]
    assert reason in sentence


def test_a_case_can_have_headers_and_a_content_type(governor):
    Path("pay.yaml").write_text(PAYMENTS)
    Path("pay.cases.yaml").write_text("""\
policy: pay.yaml
cases:
  - name: small
    method: POST
    url: https://pay.example/
    headers: {X-Tenant: acme}
    content-type: application/json
    body: '{"amount": 5}'
    expect: allow
  - name: twice
    method: POST
    url: https://pay.example/
    headers: {X-Tenant: acme, content-type: application/json}
    body: '{"amount": 5, "amount": 5}'
    expect: deny
    code: DEFAULT_DENY
  - {name: form, method: POST, url: "https://pay.example/", content-type: application/x-www-form-urlencoded,
     body: amount=5, expect: deny, rule: no-forms}
""")

    status, out, _ = governor("test", "pay.cases.yaml", "--json")

    assert (status, json.loads(out)["uncovered"]) == (0, [])


def test_explain_reads_like_a_story(governor):
    status, out, _ = governor("explain", "--policy", "p.yaml", "POST", "https://gist.example.org/")

    assert status == 1
    assert "deny  RULE_DENY  by rule no-gists (p.yaml:14)" in out
    assert "matched  deny     no-gists  p.yaml:14" in out
    assert "--address says where else it resolves to" in out


def test_explain_asks_the_policy_of_the_home_before_the_shipped_one(governor, tmp_path):
    default, _, _ = governor("explain", "GET", "https://github.com/")
    home = tmp_path / "home"
    home.mkdir()
    home.joinpath("policy.yaml").write_text("version: 1\n")

    assert default == 0
    assert governor("explain", "GET", "https://github.com/")[0] == 1


@pytest.mark.parametrize("name", ["default", "demo"])
def test_the_shipped_policies_are_checked_without_a_word(governor, name):
    status, out, _ = governor("check", "--strict", str(shipped_policy(name)))

    assert status == 0
    assert out.startswith("nothing found.")


def test_no_colour_is_no_colour(governor, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    Path("bad.yaml").write_text("version: 2\n")

    assert "\x1b[3" not in governor("check", "bad.yaml")[1]


TIMED = """\
version: 1
rules:
  - {allow: work, to: x.example, methods: any, when: {hours: "08:00-18:00", timezone: UTC}}
"""


@pytest.mark.parametrize(("at", "code"), [("2026-01-09T12:00:00Z", "ALLOW"), ("2026-01-09T18:00:00Z", "OUT_OF_HOURS")])
def test_a_case_and_an_explanation_ask_about_a_moment(governor, at, code):
    Path("t.yaml").write_text(TIMED)
    expect = "allow" if code == "ALLOW" else "deny"
    Path("t.cases.yaml").write_text(
        f"policy: t.yaml\ncases: [{{name: x, method: GET, url: 'https://x.example/', at: '{at}', expect: {expect}, "
        f"code: {code}}}]\n")

    assert governor("test", "t.cases.yaml")[0] == 0
    assert json.loads(governor("explain", "--policy", "t.yaml", "--at", at, "--json", "GET", "https://x.example/")[1])[
        "code"] == code


def test_a_moment_that_is_none_is_refused(governor):
    Path("t.yaml").write_text(TIMED)

    assert governor("explain", "--policy", "t.yaml", "--at", "noon", "GET", "https://x.example/")[0] == 2


def test_a_check_shows_no_line_with_a_secret(governor):
    secret = "ghp_" + "a1B2" * 9
    Path("s.yaml").write_text(f"version: 1\n# {secret}\n")
    status, out, err = governor("check", "s.yaml")

    assert status == 1
    assert "E405" in out
    assert secret not in out + err
def test_explain_shows_what_an_agent_can_reach(governor):
    status, out, _ = governor("explain", "--policy", "p.yaml", "--agent", "claude-1")

    assert status == 0
    assert [" ".join(line.split()) for line in out.splitlines()[2:5]] == [
        "to methods paths conditions rule but not",
        "api.example.org GET HEAD OPTIONS /repos and everything below it read its own except",
        "billing.example GET HEAD OPTIONS any where the name leads to the addresses in 10.1.0.0/16 billing",
    ]


def test_explain_shows_who_can_reach_a_host(governor):
    status, out, _ = governor("explain", "--policy", "p.yaml", "--to", "API.example.org.", "--json")

    assert status == 0
    assert json.loads(out) == {"agent": None, "to": "api.example.org", "reach": [{
        "agents": "coders", "to": ["api.example.org"], "methods": ["GET", "HEAD", "OPTIONS"],
        "paths": "/repos and everything below it", "conditions": "", "tier": "platform", "rule": "read",
        "file": "p.yaml", "line": 4, "except": True, "but_not": [],
    }]}


def test_explain_says_no_where_nothing_can_be_reached(governor):
    status, out, _ = governor("explain", "--policy", "p.yaml", "--to", "gist.example.org")

    assert (status, out) == (1, "Who can reach gist.example.org: nothing is allowed.\n")


def test_explain_tells_a_whole_policy(governor):
    status, out, _ = governor("explain", "p.yaml")
    paragraphs = json.loads(governor("explain", "p.yaml", "--json")[1])["paragraphs"]

    assert status == 0
    assert "coders (claude-*)\n  Allowed: reading (GET, HEAD or OPTIONS) to api.example.org, where the path" in out
    assert [each["title"] for each in paragraphs] == [
        "In general", "coders (claude-*)", "Every agent", "Never, whatever a rule allows"]
    assert [said["rule"] for each in paragraphs for said in each["sentences"] if said["rule"]] == [
        "read", "billing", "no-gists", "never-1"]
    assert all(said["text"] in out for each in paragraphs for said in each["sentences"])


def test_schema_prints_the_schema(governor):
    status, out, _ = governor("schema")

    assert status == 0
    assert json.loads(out) == schema()


@pytest.mark.parametrize(("asked", "told"), [
    (["GET", "api.example.org/x"], "api.example.org/x is no URL; write https://api.example.org/x"),
    (["https://x.example/"], "a URL needs its method before it: GET https://x.example/"),
    (["post"], "a method needs its URL behind it: post https://example.org/"),
    (["--to", "https://x.example/a"], "https://x.example/a is a URL; write --to x.example"),
    (["."], ". is a folder; name one file in it"),
    (["nowhere.yaml"], "there is no file nowhere.yaml"),
])
def test_what_cannot_be_meant_is_told_what_to_write(asked, told):
    answer = CliRunner().invoke(cli.governor, ["policy", "explain", *asked])

    assert (answer.exit_code, told in answer.output) == (2, True)


def test_a_policy_that_does_not_load_is_not_told_and_its_errors_are_shown_in_place(tmp_path):
    policy = tmp_path / "p.yaml"
    policy.write_text("version: 1\nrules: [{ask: it}]\n")
    answer = CliRunner().invoke(cli.governor, ["policy", "explain", str(policy)])

    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "|          ^" in answer.stderr
    assert "--ahead reads it" in answer.stderr


def test_a_policy_in_the_place_of_cases_is_told_to_be_one(tmp_path):
    policy = tmp_path / "p.yaml"
    policy.write_text("version: 1\n")
    answer = CliRunner().invoke(cli.governor, ["policy", "test", str(policy)])

    assert answer.exit_code == 1
    assert "this is a policy: governor policy check reads it" in answer.stderr


def test_a_pipe_may_be_checked_and_an_endless_one_is_refused(governor):
    os.mkfifo("pipe.yaml")
    writer = threading.Thread(target=lambda: Path("pipe.yaml").write_text(POLICY))
    writer.start()
    status, _, _ = governor("check", "pipe.yaml")
    writer.join()

    assert status == 0
    assert "too large" in governor("check", "/dev/zero")[1]
