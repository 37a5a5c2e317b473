# ruff: noqa: E501 - a policy of the tables stands in one line
"""A policy with one fault is told of that fault, at its place; a tricky policy without one is told of nothing."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest
from click.testing import CliRunner

from addons import cli
from addons.policy_files import load_policy
from kernel.ahead.outlook import at_most
from kernel.findings import CATALOGUE
from kernel.question import STAND_IN, facts_of
from kernel.verdict import Code
from tests.kernel.reference_matcher import judge

PASSES = {Code.ALLOW, Code.BODY_TOO_LARGE, Code.URL_TOO_LONG}
TOKEN = "ghp_" + "a1B2" * 9  # put together here, so that no tool takes this file for a leak
ALLOW = "allow: a, to: a.example.org, methods: [GET]"
MODEL = "rules: [{allow: m, to: api.anthropic.com, methods: any, llm: {also: housekeeping}}]\n"

# One fault for each code; the mark « stands before its place.
FAULTS = {
    "E100": 'rules: [{deny: x, to: «*.example.org}]',
    "E101": "rules: [{deny: x, to: a.example.org, «to: b.example.org}]",
    "E102": "contact: «[]",
    "E103": "«rulez: []",
    "E104": "rules: [«{to: a.example.org}]",
    "E105": "rules: [{deny: x, to: «metdata}]",
    "E106": "rules: [{deny: «a b}]",
    "E107": "rules:\n  - {deny: x, to: gist.github.com}\n  - {deny: «x, to: a.example.org}",
    "E108": 'rules: [{deny: x, to: "https://a.example.org/a", paths: «/b}]',
    "E109": "version: «2",
    "E110": "rules: [{deny: x, allow: «y}]",
    "E112": "rules: [{deny: x, max-url: «1KB}]",
    "E180": "rules: [{deny: x, except: {methods: GET, «mcp: {}}}]",
    "E201": 'rules: [{deny: x, to: «"a*b.example.org"}]',
    "E202": "rules: [{deny: x, address: «10.0.0.1/8}]",
    "E203": "rules: [{deny: x, paths: «a}]",
    "E204": 'rules: [{deny: x, to: «"https://a.example.org/a?b"}]',
    "E205": 'rules: [{deny: x, from: «"a b"}]',
    "E206": "rules: [{deny: x, ports: [443, «70000]}]",
    "E207": 'rules: [{deny: x, methods: [GET, «"G T"]}]',
    "E208": "rules: [{deny: x, schemes: «ftp}]",
    "E209": "limits: [{max-url: «1 KB}]",
    "E210": 'rules: [{deny: x, json: {amount: «"< many"}}]',
    "E211": "rules: [{deny: x, headers: {«host: x}}]",
    "E212": "rules: [{deny: x, expires: «2026-13-01}]",
    "E213": "rules: [{deny: x, when: {timezone: «Mars/Base, days: mon}}]",
    "E214": "rules: [{deny: x, when: {timezone: UTC, days: [mon, «someday]}}]",
    "E215": 'rules: [{deny: x, when: {timezone: UTC, hours: «"25:00-26:00"}}]',
    "E220": "budgets: [{budget: b, every: day, each: {usd: «$5}, when-used: {100%: deny}}]",
    "E221": "rules: [{deny: x, risk: «many}]",
    "E222": "rules: [{ask: x, to: a.example.org, hold: «10}]",
    "E223": "budgets: [{budget: b, every: day, each: {requests: 5}, when-used: {«80: tell}}]",
    "E224": "budgets: [{budget: b, every: «month, each: {requests: 5}}]",
    "E225": "budgets: [{budget: b, every: day, each: {requests: 5}, when-used: {80%: «stop}}]",
    "E226": "rules: [{deny: x, contains: «names}]",
    "E227": f"rules: [{{{ALLOW}, add-headers: {{«x-forwarded-for: a}}}}]",
    "E228": f"rules: [{{{ALLOW}, mcp: {{tools: «'a b'}}}}]",
    "E229": "agents: {a: [a-1]}\ncascade: {depends: {«coders: [a]}}",
    "E230": "identity: {cert: {ca: «nowhere.pem}}",
    "E402": "rules: [«{allow: a, to: b.corp.example, address: 127.0.0.1, methods: [GET]}]\nnever: [{to: loopback}]",
    "E403": "rules: [«{allow: a, to: gist.github.com, methods: [POST]}]",
    "E405": f"contact: «{TOKEN}",
    "E502": f"{MODEL}budgets: [«{{budget: b, every: day, each: {{usd: 5}}}}]",
    "E601": "agents: {a: [a-1], b: [b-1]}\nrules: [{deny: r, from: [a, b], to: gist.github.com, risk: 5}]\nprofile: balanced\ncascade: «{depends: {a: [b], b: [a]}, on-halt: {reasons: [OVERRISK], do: halt, hops: 2}}\n",
    "W602": "agents: {a: [a-1], b: [b-1, b-2]}\nrules: [{deny: r, from: [a, b], to: gist.github.com, risk: 5}]\nprofile: balanced\ncascade: «{depends: {b: [a]}, on-halt: {reasons: [OVERRISK], do: quarantine}}\n",
    "I108": "rules: [{allow: a, to: «10.0.0.0/8, methods: [GET]}]",
    "I304": f'rules:\n  - {{{ALLOW}, paths: ["/x/**"]}}\n  - «{{deny: d, to: a.example.org, paths: [/x/secret]}}',
    "P801": f'rules: [{{{ALLOW}}}]\nassert:\n  - «denied: {{from: local, to: "https://a.example.org/", method: GET}}',
    "P802": 'assert:\n  - «denied: {from: local, to: "ftp://a.example.org/", method: GET}',
    "W105": "rules: [{deny: x, to: «intranet}]",
    "W120": "rules: [{deny: x, from: «bob, to: gist.github.com}]",
    "W121": f"rules: [{{{ALLOW}, from: «anonymous}}]",
    "W122": f"agents: {{coders: [c-*], others: [d-1]}}\nfor: [coders]\nrules: [«{{{ALLOW}, from: [coders, d-1]}}]",
    "W207": f"rules: [{{{ALLOW}}}, {{allow: b, to: a.example.org, methods: «PSOT}}]",
    "W301": f"rules:\n  - «{{{ALLOW}}}\n  - {{deny: d, to: .example.org}}",
    "W302": f"rules:\n  - {{{ALLOW}}}\n  - «{{allow: b, to: a.example.org, methods: [GET], paths: [/x]}}",
    "W303": f"rules:\n  - {{{ALLOW}, paths: [/x]}}\n  - «{{deny: d, to: a.example.org, paths: [/y]}}",
    "W305": f"rules:\n  - {{{ALLOW}}}\n  - «{{allow: b, to: b.example.org, methods: [GET], except: {{methods: reads}}}}",
    "W306": "rules: [{deny: x, to: gist.github.com, expires: «2020-01-01}]",
    "W307": "mode: «observe\nuntil: 2099-01-01\nrules: [{deny: x, to: gist.github.com}]",
    "W310": "rules: [«{allow: m, to: api.anthropic.com, methods: [POST], llm: {models: m}}]",
    "W311": f"{MODEL.replace('{also', '{models: claude-soonet-5, also').replace('[{', '[«{')}budgets: [{{budget: b, every: day, each: {{usd: 5}}, when-used: {{100%: deny}}}}]",
    "W401": "rules: [«{allow: a, to: .com, methods: [GET]}]",
    "W404": f"rules: [«{{{ALLOW}, schemes: [http]}}]",
    "W501": "rules: [{allow: a, to: a.example.org, methods: [GET]}]\nbudgets: [«{budget: b, every: day, each: {tokens: 5}}]",
    "W503": f"{MODEL}budgets: [«{{budget: b, every: day, each: {{requests: 5}}, when-used: {{100%: halt}}}}]",
}


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Checks a policy, looked at ahead; gives what `governor policy check --json` finds, and the file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOVERNOR_HOME", str(tmp_path / "home"))
    file = tmp_path / "p.yaml"

    def run(text: str):
        file.write_text(text if text.startswith("version") else f"version: 1\n{text}")
        result = CliRunner().invoke(cli.governor, ["policy", "check", "--ahead", "--json", file.name])
        return json.loads(result.stdout), file

    return run


def test_there_is_a_fault_for_each_code():
    # E111 is for a call without a file, which the command line does not let through.
    assert FAULTS.keys() == CATALOGUE.keys() - {"E111"}


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_is_told_at_its_line_and_column(check, code):
    text = FAULTS[code]
    before = (text if text.startswith("version") else f"version: 1\n{text}").partition("«")[0]
    place = (before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)

    answer, _ = check(text.replace("«", ""))

    assert [(found["line"], found["column"]) for found in answer["findings"] if found["code"] == code] == [place]
    assert [found["code"] for found in answer["findings"] if found["code"] != code and found["severity"] != "info"] == []
    assert answer["undecided"] == []
    assert answer["ok"] is (code[0] not in "EP")


CLAIMED = {"P801": True, "E402": False, "W301": False, "I304": False, "W302": True, "W303": False, "W310": False,
           "W401": True, "E403": True, "W404": True}


@pytest.mark.parametrize("code", CLAIMED)
def test_the_witness_of_a_fault_passes_or_not_as_the_finding_claims(check, code):
    answer, file = check(FAULTS[code].replace("«", ""))
    (seen,) = [found["witness"] for found in answer["findings"] if found["code"] == code]
    text = file.read_text()
    if not answer["ok"]:
        # What does not load has no verdict: without its assertions and never items it has the one that is spoken of.
        text = text.partition("assert:")[0]
    text = text.replace("address: 127.0.0.1, ", "") if code == "E402" else text
    file.write_text(text if code != "E403" else text.replace("allow:", "why: meant, allow:"))
    policy = load_policy([file], ahead=True).policy
    policy = at_most(policy)

    facts = facts_of(seen["agent"], seen["method"], seen["url"])
    address = facts.host.address or (ip_address(seen["address"]) if seen["address"] else STAND_IN)

    assert (judge(policy, facts, [address], set()).code in PASSES) is CLAIMED[code]


# Correct, and made so that a careless check would find something.
TRICKY = {
    "a name of YAML for a rule": "rules: [{allow: NO, to: a.example.org, methods: [GET]}]",
    "a group that is called like a host": f"agents: {{a.example.org: [c-*]}}\nrules: [{{{ALLOW}, from: a.example.org}}]",
    "a destination that is called like a host": f"destinations: {{a.example.org: b.example.org}}\nrules: [{{{ALLOW}}}, {{allow: b, to: 'https://a.example.org/x', methods: [GET]}}]",
    "two hosts of which one name ends in the other": f"rules: [{{{ALLOW}}}, {{allow: b, to: aa.example.org, methods: [GET]}}]",
    "an allow of what another one excepts": f'rules: [{{{ALLOW}, paths: ["/x/**"], except: {{paths: ["/x/y/**"]}}}}, {{allow: b, to: a.example.org, methods: [GET], paths: ["/x/y/z"]}}]',
    "a deny of what its allow excepts, for a reason": f'rules: [{{{ALLOW}, paths: ["/x/**"], except: {{paths: ["/x/y/**"]}}}}, {{deny: d, to: a.example.org, paths: ["/x/y/**"], why: a guard}}]',
    "an exception for another agent": "agents: {c: [c-*]}\nrules: [{allow: a, from: c, to: a.example.org, methods: [GET], except: {from: c-1}}, {allow: b, from: c-1, to: a.example.org, methods: [GET]}]",
    "paths that are alike but for their case": 'rules: [{allow: a, to: a.example.org, methods: [GET], paths: [/a]}, {allow: b, to: a.example.org, methods: [GET], paths: [/A]}]',
    "one star and two": 'rules: [{allow: a, to: a.example.org, methods: [GET], paths: ["/a/*"]}, {allow: b, to: a.example.org, methods: [GET], paths: ["/a/*/b/**"]}]',
    "the apex and what lies below it": 'rules: [{allow: a, to: "*.example.org", methods: [GET]}, {allow: b, to: example.org, methods: [GET]}]',
    "a port that is not the scheme's own": f"rules: [{{{ALLOW}}}, {{allow: b, to: a.example.org, methods: [GET], ports: 444}}]",
    "an inside service by name": "rules: [{allow: a, to: b.corp.example, address: 10.0.0.0/8, methods: any}]\nnever: [{to: metadata}]",
    "loopback that the never lets be": "rules: [{allow: a, to: localhost, address: 127.0.0.1, ports: 9000, methods: [GET]}]\nnever: [{to: loopback, except: {to: localhost, address: 127.0.0.1, ports: 9000}}]",
    "a smaller body in one rule, a longer URL in the other": f"rules: [{{{ALLOW}, max-request: 0}}, {{allow: b, to: a.example.org, methods: [GET], max-url: 1KB}}]",
    "reading where anybody can write": "rules: [{allow: a, to: gist.github.com, methods: reads}]",
    "a refusal that guards what nobody is allowed": "rules: [{deny: x, to: gist.github.com}]",
    "an escaped slash": 'rules: [{allow: a, to: a.example.org, methods: [GET], paths: ["/a%2Fb", "/a/b"]}]',
    "a host in another spelling": 'rules: [{allow: a, to: "BÜCHER.example.", methods: [GET]}, {allow: b, to: bucher.example, methods: [GET]}]',
    "an upgrade beside the request": "rules: [{allow: a, to: a.example.org, methods: [GET], websocket: {}}, {allow: b, to: a.example.org, methods: [GET]}]",
    "an address that is a host": "rules: [{allow: a, to: 9.9.9.9, methods: [GET]}]",
    "an assertion about the hole": f'rules: [{{{ALLOW}, except: {{paths: [/x]}}}}]\nassert: [{{denied: {{from: local, to: "https://a.example.org/x", method: GET}}}}]',
    "a limit of nothing": "limits: [{max-request: 0}]\nrules: [{allow: a, to: a.example.org, methods: [GET]}]",
    "two buckets of one store": 'destinations: {mine: "https://s3.example.org/mine/**"}\nrules: [{allow: a, to: mine, methods: any}, {allow: b, to: "https://s3.example.org/other/**", methods: reads}]',
    "a list of one and a word": "rules: [{allow: a, to: [a.example.org], methods: [GET]}, {allow: b, to: b.example.org, methods: [GET]}]",
    "every agent and the anonymous one": "identity: {anonymous: allow}\nrules: [{allow: a, from: anonymous, to: a.example.org, methods: [GET]}, {allow: b, to: a.example.org, methods: [GET]}]",
    "the whole web for a reason": "rules: [{allow: a, methods: [GET], why: research}]",
    "a budget that every part fits into": f"{MODEL}agents: {{c: [c-*], d: [d-*]}}\nbudgets: [{{budget: all, for: [c, d], together: {{requests: 10}}, every: day}}, {{budget: c-s, for: c, together: {{requests: 4}}, every: day}}, {{budget: d-s, for: d, together: {{requests: 6}}, every: day}}]",
    "a circle that only slows down": "agents: {a: [a-1], b: [b-1]}\nrules: [{deny: r, from: [a, b], to: gist.github.com, risk: 5}]\nprofile: balanced\ncascade: {depends: {a: [b], b: [a]}, on-halt: {reasons: [OVERRISK], do: throttle, hops: 2}}",
    "a halt at the end of a session": f"{MODEL}budgets: [{{budget: b, every: session, each: {{requests: 5}}, when-used: {{100%: halt}}}}]",
    "two rules for two models": "rules: [{allow: a, to: api.anthropic.com, llm: {models: claude-opus-5, also: housekeeping}}, {allow: b, to: api.anthropic.com, llm: {models: [claude-*], max-output-tokens: 4k}}]",
    "a purse and a price of one's own": f"{MODEL.replace('{also', '{models: ours-1, also')}prices: {{openai: [{{models: ours-*, input: 0, output: 0, context: 8k, longest-output: 8k}}]}}\nbudgets: [{{budget: b, every: day, each: {{usd: 5}}, when-used: {{100%: deny}}}}]",
    "two rules for one tool server": "rules: [{allow: a, to: mcp.example.org, mcp: {tools: [get_*]}}, {allow: b, to: mcp.example.org, mcp: {tools: [put_x], where: {n: '<= 5'}}}]",
    "a quoted comment": 'contact: "#agent-platform"\nrules: [{deny: x, tell: "a # b", to: gist.github.com}]',
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in TRICKY.items()])
def test_a_tricky_policy_without_a_fault_is_told_of_nothing(check, text):
    answer, _ = check(text)

    assert ([f"{found['code']} {found['message']}" for found in answer["findings"]], answer["undecided"]) == ([], [])
