# ruff: noqa: E501 - a policy, and what is told of it, stand in one line each
"""What a review and a difference tell, word for word, with the rules that they name and the requests that they show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernel.analysis.difference import MOST_CHANGES, Difference, difference
from kernel.analysis.review import review
from kernel.errors import PolicyError
from kernel.findings import Finding, Witness
from tests.kernel.test_analysis_review import TABLES, policy_of
from tests.kernel.test_several import together

GET = "{allow: a, to: a.example.org, methods: [GET]}"
TAKE_OUT = "(take it out, or change what makes it needless)"
EXCEPT = "(take it out, or write an except: into what refuses)"
MEANT = "(compare their paths and agents; why: says that it is meant so)"
NAME = "(name the hosts, or say why:)"
READS_ONLY = "(allow reads only, or say why:, which makes this a warning)"
OUT_OF_THE_RULE = "(take the range out of the rule, or write an except: into the never)"


def request(witness: Witness | None) -> str:
    if witness is None:
        return "-"
    said = [witness.agent, witness.method, witness.url, *([witness.address] if witness.address else [])]
    return " ".join(said + [f"{name}: {value}" for name, value in witness.headers] + [witness.body or ""]).rstrip()


def told(finding: Finding) -> str:
    return f"{finding} | {' '.join(finding.rules)} | {request(finding.witness)}"


def rules_of(rules: list[str]) -> str:
    return "\n".join(f"  - {rule}" for rule in rules)


REVIEWED = {
    "an exception takes everything back": ([GET, "{allow: b, to: b.example.org, methods: [GET], except: {methods: reads}}"], [
        "p.yaml:5:5: W305 b matches no request (what except: says takes everything back) | b | -"]),
    "a path with an escaped slash alone": ([GET, "{allow: b, to: b.example.org, methods: [GET], paths: ['/a%2Fb']}"], [
        "p.yaml:5:5: W305 b matches no request (an allow covers a path with %2F where it also covers the path with / in its place) | b | -"]),
    "a URL with an escaped slash alone": ([GET, "{allow: b, to: 'https://b.example.org/a%2Fb', methods: [GET]}"], [
        "p.yaml:5:5: W305 b matches no request (an allow covers a path with %2F where it also covers the path with / in its place) | b | -"]),
    "keys that exclude each other": (["{allow: a, from: coders, to: 9.9.9.9, address: 8.8.8.8, methods: [GET]}"], [
        "p.yaml:4:5: W305 a matches no request (two keys exclude each other) | a | -"]),
    "a refusal of everything": ([GET, "{deny: d, to: .example.org}"], [
        f"p.yaml:4:5: W301 a has no effect: d refuses everything that it allows {EXCEPT} | a d | a GET https://a.example.org/"]),
    "a refusal at every address that is opened": ([GET, "{allow: b, to: b.example.org, address: 10.0.0.0/7, methods: [GET]}", "{deny: d, to: b.example.org}"], [
        f"p.yaml:5:5: W301 b has no effect: d refuses everything that it allows {EXCEPT} | b d | a GET https://b.example.org/ 11.0.0.0"]),
    "an inside address that is not opened": (["{allow: a, to: [9.9.9.9, 10.0.0.0/7], address: 10.0.0.0/8, ports: 1, methods: [GET]}", "{allow: b, to: 10.0.0.0/7, methods: [GET], except: {to: 11.0.0.0/8}}"], [
        "p.yaml:5:5: W301 b has no effect: its addresses are inside, and it does not open them (name the inside range itself: address: RANGE) | b | a GET https://10.0.0.0/"]),
    "one grant that is cut": ([GET, "{allow: b, to: b.example.org, methods: [HEAD]}", "{deny: d, to: a.example.org, paths: [/x]}"], [
        "p.yaml:6:5: I304 d refuses a part of what a allows | d a | a GET https://a.example.org/x"]),
    "two grants that are cut, and one that has no effect": (["{deny: d, methods: [HEAD]}", *(f"{{allow: a{n}, to: a{n}.example.org, methods: reads}}" for n in range(2)), "{allow: b, to: b.example.org, methods: [HEAD]}"], [
        "p.yaml:4:5: I304 d refuses a part of what a0 and a1 allow | d a0 a1 | a HEAD https://a0.example.org/",
        f"p.yaml:7:5: W301 b has no effect: d refuses everything that it allows {EXCEPT} | b d | a HEAD https://b.example.org/"]),
    "more grants that are cut than are named": (["{deny: d, methods: [HEAD]}", *(f"{{allow: a{n}, to: a{n}.example.org, methods: reads}}" for n in range(7))], [
        "p.yaml:4:5: I304 d refuses a part of what a0, a1, a2, a3, a4 and 1 more allow | d a0 a1 a2 a3 a4 a5 | a HEAD https://a0.example.org/"]),
    "a refusal beside a grant": (["{allow: a, to: a.example.org, methods: [GET], paths: ['/x/**']}", "{deny: d, to: a.example.org, paths: ['/y/**']}"], [
        f"p.yaml:5:5: W303 d refuses nothing that is allowed; a allows other requests there {MEANT} | d a | a GET https://a.example.org/y"]),
    "a repetition": ([GET, GET.replace("a,", "b,", 1)], [
        "p.yaml:5:5: W302 b repeats a (keep one of them) | b a | a GET https://a.example.org/"]),
    "what one grant makes needless": ([GET, "{allow: b, from: coders, to: a.example.org, methods: [GET]}"], [
        f"p.yaml:5:5: W302 b is not needed: a allows all of it {TAKE_OUT} | b a | codex-a GET https://a.example.org/"]),
    "what two grants make needless": ([GET, "{allow: h, to: a.example.org, methods: [HEAD]}", "{allow: b, to: a.example.org, methods: [GET, HEAD]}"], [
        f"p.yaml:6:5: W302 b is not needed: a and h together allow all of it {TAKE_OUT} | b a h | a GET https://a.example.org/"]),
    "what one refusal makes needless": (["{deny: d, to: .example.org}", "{deny: e, to: b.example.org}"], [
        f"p.yaml:5:5: W302 e is not needed: d refuses all of it {TAKE_OUT} | e d | a POST https://b.example.org/"]),
    "what two refusals make needless": (["{deny: d, to: 10.0.0.0/9}", "{deny: e, to: 10.128.0.0/9}", "{deny: f, to: 10.0.0.0/8}"], [
        f"p.yaml:6:5: W302 f is not needed: d and e together refuse all of it {TAKE_OUT} | f d e | a POST https://gist.github.com/ 10.0.0.0"]),
    "every host": (["{allow: a, methods: [GET]}"], [
        f"p.yaml:4:5: W401 a allows every host {NAME} | a | a GET https://gist.github.com/"]),
    "names that anybody can register": (["{allow: a, to: [com, .com, '*.github.io', example.com, .example.com], methods: [GET]}"], [
        f"p.yaml:4:5: W401 a allows .com: names that anybody can register {NAME} | a | a GET https://com/",
        f"p.yaml:4:5: W401 a allows *.github.io: names that anybody can register {NAME} | a | a GET https://com/"]),
    "the public internet": (["{allow: a, to: public-internet, methods: [GET]}"], [
        f"p.yaml:4:5: W401 a allows every address of the public internet {NAME} | a | a GET https://192.0.32.8/"]),
    "every host at some addresses": (["{allow: a, address: public-internet, methods: [GET]}"], []),
    "clear text and every port": (["{allow: a, to: b.example.org, methods: [GET], ports: 1-65535, schemes: [https, http]}"], [
        "p.yaml:4:5: W404 a allows clear text on the public internet (write schemes: [https]) | a | a GET http://b.example.org/",
        "p.yaml:4:5: W404 a allows every port of a host of the public internet (name the ports) | a | a GET https://b.example.org/"]),
    "clear text and every port inside": (["{allow: a, to: b.example.org, address: 10.0.0.0/8, methods: [GET], ports: 1-65535, schemes: [http]}"], []),
    "every port but one": (["{allow: a, to: b.example.org, methods: [GET], ports: [1-99, 101-65535]}"], []),
    "writing to where anybody can read": (["{allow: a, to: gist.github.com, methods: [PATCH]}"], [
        f"p.yaml:4:5: E403 a allows writing to gist.github.com, from where anybody can fetch it {READS_ONLY} | a | a PATCH https://gist.github.com/"]),
    "writing to where anybody can read, of which something is refused": (["{allow: a, to: .paste.example, methods: any}", "{deny: d, to: paste.example}", "{deny: e, methods: [PUT]}"], [
        f"p.yaml:4:5: E403 a allows writing to a.paste.example, from where anybody can fetch it {READS_ONLY} | a | a POST https://a.paste.example/",
        "p.yaml:5:5: I304 d refuses a part of what a allows | d a | a POST https://paste.example/",
        "p.yaml:6:5: I304 e refuses a part of what a allows | e a | a PUT https://paste.example/"]),
    "writing to everywhere": (["{allow: a, methods: any}"], [
        f"p.yaml:4:5: W401 a allows every host {NAME} | a | a POST https://gist.github.com/"]),
    "addresses that hide others": (["{allow: a, to: a.example.org, address: '64:ff9b:1::/48', methods: [GET]}"], []),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "wanted"), REVIEWED.values(), ids=REVIEWED)
def test_a_finding_is_told_in_full(rules, wanted):
    found = review(policy_of(rules_of(rules)), TABLES)

    assert [told(each) for each in found.findings] == wanted


PLATFORM = "tier: platform\nrules:\n  - {allow: up, to: a.example.org, methods: [GET]}\n"
TEAM = "tier: team\nrules:\n  - {allow: t, to: b.example.org, methods: [GET]}\n  - {allow: u, to: a.example.org, methods: any}\n"
CODERS = "for: [c-*]\nrules:\n"
SILENT = "(take it out, or allow it there too)"
IN_TIERS = {
    "the tier above grants none of it": ([PLATFORM, TEAM + "  - {allow: v, to: a.example.org, methods: reads}\n"], [
        f"1.yaml:4:5: W301 t has no effect: no rule of tier platform (0.yaml) allows any of it {SILENT} | t | a GET https://b.example.org/",
        f"1.yaml:6:5: W302 v is not needed: u allows all of it {TAKE_OUT} | v u | a GET https://a.example.org/"]),
    "two other tiers together": ([PLATFORM, TEAM, "tier: agent\nrules:\n  - {allow: w, to: [a.example.org, b.example.org], methods: any}\n"], [
        f"1.yaml:4:5: W301 t has no effect: no rule of tier platform (0.yaml) and tier agent (2.yaml) allows any of it {SILENT} | t | a GET https://b.example.org/"]),
    "a tier that passes, and agents of others": (["unmatched: pass\nrules: [{deny: d, to: x.example.org}]", f"{CODERS}  - {{allow: t, to: b.example.org, methods: [GET]}}\n  - {{allow: g, from: d-1, to: b.example.org, methods: [GET]}}\n  - {{allow: h, to: 9.9.9.9, address: 8.8.8.8, methods: [GET]}}\n"], [
        "1.yaml:5:5: W305 g matches no request (its tier is for other agents, or two keys exclude each other) | g | -",
        "1.yaml:6:5: W305 h matches no request (two keys exclude each other) | h | -"]),
    "writing to where anybody can read, in each": (["rules:\n  - {allow: a, to: gist.github.com, methods: any}", f"{CODERS}  - {{allow: b, to: .github.com, methods: [POST]}}\n"], [
        f"0.yaml:3:5: E403 a allows writing to gist.github.com, from where anybody can fetch it {READS_ONLY} | a | a POST https://gist.github.com/",
        f"1.yaml:4:5: E403 b allows writing to gist.github.com, from where anybody can fetch it {READS_ONLY} | b | c-a POST https://gist.github.com/"]),
    "a wide rule that a lower tier narrows for all": (["rules:\n  - {allow: a, to: .com, methods: [GET], schemes: [http], ports: 1-65535}", "rules:\n  - {allow: b, to: example.com, methods: [GET], schemes: [http]}\n"], [
        "1.yaml:3:5: W404 b allows clear text on the public internet (write schemes: [https]) | b | a GET http://example.com/"]),
    "refusals for different agents": (["rules:\n  - {deny: d, to: a.example.org}", f"{CODERS}  - {{deny: f, to: a.example.org}}\n  - {{deny: g, to: a.example.org}}\n"], [
        "1.yaml:5:5: W302 g repeats f (keep one of them) | g f | c-a POST https://a.example.org/"]),
}  # fmt: skip


@pytest.mark.parametrize(("texts", "wanted"), IN_TIERS.values(), ids=IN_TIERS)
def test_a_finding_in_one_of_several_files_is_told_in_full(texts, wanted):
    found = review(together(*texts).policy, TABLES)

    assert ([told(each) for each in found.findings], found.undecided) == (wanted, ())


def refused(rules: list[str], never: str) -> list[str]:
    with pytest.raises(PolicyError) as error:
        policy_of(rules_of(rules), f"never:\n{rules_of(never.splitlines())}\n")
    return [told(finding) for finding in error.value.findings if finding.code == "E402"]


@pytest.mark.parametrize(("rule", "never", "wanted"), [
    pytest.param("{allow: a, to: b.corp.example, address: [127.0.0.0/8, 10.0.0.0/8], methods: reads}", "{to: loopback}",
        f"a names 127.0.0.0/8, and never-1 refuses all of it: it never takes effect {OUT_OF_THE_RULE} | a never-1 | a GET https://b.corp.example/ 127.0.0.0", id="one of two ranges"),
    pytest.param("{allow: a, to: b.corp.example, address: 127.0.0.0/8, methods: reads}", "{to: a.example.org}\n{to: 127.0.0.0/9}\n{to: 127.128.0.0/9}",
        f"a names 127.0.0.0/8, and never-2 and never-3 refuse all of it: it never takes effect {OUT_OF_THE_RULE} | a never-2 never-3 | a GET https://b.corp.example/ 127.0.0.0", id="two of three nevers"),
    pytest.param("{allow: a, to: 127.0.0.1, methods: reads}", "{to: loopback}",
        f"a names 127.0.0.1, and never-1 refuses all of it: it never takes effect {OUT_OF_THE_RULE} | a never-1 | a GET https://127.0.0.1/", id="an address"),
    pytest.param("{allow: a, to: 'http://[::1]:8080/x/**', methods: reads}", "{to: loopback}",
        f"a names ::1, and never-1 refuses all of it: it never takes effect {OUT_OF_THE_RULE} | a never-1 | a GET http://[::1]:8080/x", id="a URL at an address"),
])  # fmt: skip
def test_a_grant_that_a_never_closes_is_told_in_full(rule, never, wanted):
    assert refused(["{deny: d, to: d.example.org}", rule], never) == [f"p.yaml:5:5: E402 {wanted}"]


D = "{deny: d, to: a.example.org, paths: ['/x/**']}"
MANY = [f"{{allow: a{n}, to: a{n}.example.org, methods: reads}}" for n in range(MOST_CHANGES + 2)]
DIFFERENCES = {
    "a method more": ([GET], [GET.replace("GET", "GET, POST")], [
        "looser",
        "allowed: every agent may now GET and POST to a.example.org (rule a, p.yaml:4) | a | a POST https://a.example.org/"]),
    "a method less": ([GET.replace("GET", "GET, POST")], [GET], [
        "stricter",
        "denied: every agent may no longer GET and POST to all of a.example.org (rule a, p.yaml:4) | a | a POST https://a.example.org/"]),
    "a refusal that is gone": ([GET, D], [GET], [
        "looser",
        "allowed: every agent may now GET to a.example.org (rule a, p.yaml:4); d no longer refuses it | a d | a GET https://a.example.org/x",
        "changed: d is no longer the reason why a request is refused (rule d, p.yaml:5) | d | a GET https://a.example.org/x 0.0.0.0"]),
    "a refusal that came": ([GET], [GET, D], [
        "stricter",
        "denied: every agent may no longer GET to all of a.example.org (rule a, p.yaml:4); d refuses it | a d | a GET https://a.example.org/x",
        "changed: d is now the reason why a request is refused (rule d, p.yaml:5) | d | a GET https://a.example.org/x 0.0.0.0"]),
    "agents, hosts and methods": (["{allow: a, from: coders, to: a.example.org, methods: reads}"], ["{allow: a, from: [coders, ops-1], to: [a.example.org, 'https://b.example.org/x/**'], methods: any}"], [
        "looser",
        "allowed: coders and ops-1 may now use any method to a.example.org (over https) and b.example.org (over https, path /x and everything below it) (rule a, p.yaml:4) | a | ops-1 POST https://a.example.org/"]),
    "paths": ([GET.replace("}", ", paths: /b}")], [GET.replace("}", ", paths: ['/a/**', /b]}")], [
        "looser",
        "allowed: every agent may now GET to a.example.org under /a/** and /b (rule a, p.yaml:4) | a | a GET https://a.example.org/a"]),
    "addresses": ([GET.replace("}", ", address: 10.0.0.0/16}")], [GET.replace("}", ", address: 10.0.0.0/8}")], [
        "looser",
        "allowed: every agent may now GET to a.example.org in 10.0.0.0/8 (rule a, p.yaml:4) | a | a GET https://a.example.org/ 10.1.0.0"]),
    "every host": ([GET], [GET, "{allow: w, methods: writes}"], [
        "looser",
        "allowed: every agent may now send writes to every host (rule w, p.yaml:5) | w | a POST https://a.example.org/"]),
    "more methods than are told": ([GET], [GET.replace("GET", "A, B, C, D, E, F")], [
        "incomparable",
        "allowed: every agent may now A, B, C, D and 2 more to a.example.org (rule a, p.yaml:4) | a | a A https://a.example.org/",
        "denied: every agent may no longer GET to all of a.example.org (rule a, p.yaml:4) | a | a GET https://a.example.org/"]),
    "more rules than are told": ([D], [D, *MANY], [
        "looser",
        *(f"allowed: every agent may now send reads to a{n}.example.org (rule a{n}, p.yaml:{n + 5}) | a{n} | a GET https://a{n}.example.org/" for n in range(MOST_CHANGES))]),
    "hours": ([GET.replace("}", ", when: {days: mon, timezone: UTC}}")], [GET], [
        "looser",
        "allowed: every agent may now GET to a.example.org (rule a, p.yaml:4) | a | a GET https://a.example.org/"]),
    "another order": ([GET, D], [D, GET], ["equal"]),
    "another name": ([GET], [GET.replace("a,", "b,", 1)], ["equal"]),
    "another rule for the same": ([GET], [GET, "{allow: b, from: coders, to: a.example.org, methods: [GET]}"], ["equal"]),
    "two deny rules, one within the other": (["{deny: n, to: a.example.org, paths: ['/x/**']}", "{deny: m, to: a.example.org, paths: ['/x/y/**']}"], ["{deny: n, to: a.example.org, paths: ['/x/**']}"], ["equal"]),
    "a deny where nothing is allowed": ([D], [D.replace("/x", "/x/y")], [
        "equal",
        "changed: d is no longer the reason why a request is refused (rule d, p.yaml:4) | d | a POST https://a.example.org/x"]),
    "addresses that hide others": ([GET], [GET.replace("}", ", address: '64:ff9b:1::/48'}")], [
        "undecided",
        "undecided: what hides behind some addresses that a rule opens",
        "denied: every agent may no longer GET to all of a.example.org (rule a, p.yaml:4) | a | a GET https://a.example.org/"]),
    "a larger body": ([GET.replace("}", ", max-request: 1KB}")], [GET.replace("}", ", max-request: 2KB}")], [
        "looser",
        "changed: max-request lets more pass (rule a, p.yaml:4) | a | a GET https://a.example.org/"]),
    "a body of the size that is allowed anyhow": ([GET], [GET.replace("}", ", max-request: 16MiB}")], ["equal"]),
    "a smaller body than is allowed anyhow": ([GET], [GET.replace("}", ", max-request: 15MiB}")], [
        "stricter",
        "changed: max-request lets less pass (rule a, p.yaml:4) | a | a GET https://a.example.org/"]),
    "a shorter answer": ([GET], [GET.replace("}", ", max-response: 1KB}")], [
        "stricter",
        "changed: max-response lets less pass (rule a, p.yaml:4) | a | a GET https://a.example.org/"]),
    "a longer URL": ([GET.replace("}", ", max-url: 1KB}")], [GET], [
        "looser",
        "changed: max-url lets more pass (rule a, p.yaml:4) | a | a GET https://a.example.org/"]),
    "a body that is streamed": ([GET], [GET.replace("}", ", stream-request: yes}")], [
        "looser",
        "changed: stream-request lets more pass (rule a, p.yaml:4) | a | a GET https://a.example.org/"]),
    "longer messages at a slower rate": ([GET.replace("}", ", websocket: {max-frame: 1KB, max-rate: 300/minute}}")], [GET.replace("}", ", websocket: {max-frame: 2KB, max-rate: 4/second}}")], [
        "incomparable",
        "changed: max-frame lets more pass (rule a, p.yaml:4) | a | a GET wss://a.example.org/",
        "changed: max-rate lets less pass (rule a, p.yaml:4) | a | a GET wss://a.example.org/"]),
    "as many messages, counted for longer": ([GET.replace("}", ", websocket: {max-rate: 1/second}}")], [GET.replace("}", ", websocket: {max-rate: 60/minute}}")], [
        "looser",
        "changed: max-rate lets more pass (rule a, p.yaml:4) | a | a GET wss://a.example.org/"]),
    "two URLs, one for each reading": (["{allow: a, to: 'https://.example.org/x/y', methods: [GET]}"], ["{allow: a, to: ['https://.example.org/x/y', 'https://a.example.org/x%2Fy'], methods: [GET]}"], [
        "looser",
        "allowed: every agent may now GET to example.org and everything below it (over https, path /x/y) and a.example.org (over https, path /x%2Fy) (rule a, p.yaml:4) | a | a GET https://a.example.org/x%2Fy"]),
    "two URLs that do not meet": (["{allow: a, to: 'https://.example.org/x/y', methods: [GET]}"], ["{allow: a, to: ['https://.example.org/x/y', 'http://a.example.org/x%2Fy', 'https://a.example.org:444/x%2Fy', 'https://a.example.com/x%2Fy'], methods: [GET]}"], ["equal"]),
    "a WebSocket in the place of requests": ([GET], [GET.replace("}", ", websocket: {}}")], [
        "incomparable",
        "allowed: every agent may now GET to a.example.org (rule a, p.yaml:4) | a | a GET wss://a.example.org/",
        "denied: every agent may no longer GET to all of a.example.org (rule a, p.yaml:4) | a | a GET https://a.example.org/"]),
}  # fmt: skip

WITNESSES = {
    "another port": ("to: a.example.org, ports: [8443]", "a GET https://a.example.org:8443/"),
    "the port of http": ("to: a.example.org, ports: [80]", "a GET https://a.example.org:80/"),
    "http at its port": ("to: a.example.org, schemes: [http]", "a GET http://a.example.org/"),
    "http at another port": ("to: a.example.org, schemes: [http], ports: 100-200", "a GET http://a.example.org:100/"),
    "a WebSocket in clear text": ("to: 'ws://a.example.org/', websocket: {}", "a GET ws://a.example.org/"),
    "an address": ("to: 9.9.9.9", "a GET https://9.9.9.9/"),
    "an IPv6 address": ("to: '2600::1'", "a GET https://[2600::1]/"),
    "an IPv6 address and a port": ("to: '2600::/16', ports: [8443]", "a GET https://[2600::]:8443/"),
    "a name before an address": ("to: [9.9.9.9, a.example.org]", "a GET https://a.example.org/"),
    "an inside address": ("to: a.example.org, address: [10.0.0.0/8, 'fd00::/8']", "a GET https://a.example.org/ 10.0.0.0"),
    "a public address before an inside one": ("to: a.example.org, address: [10.0.0.0/8, 9.9.9.9]", "a GET https://a.example.org/ 9.9.9.9"),
    "an IPv6 address inside": ("to: a.example.org, address: 'fd00::/8'", "a GET https://a.example.org/ fd00::"),
    "what is below": ("to: '*.example.org', except: {to: a.example.org}", "a GET https://www.example.org/"),
    "every host": ("to: public-internet, except: {to: 9.9.9.9}", "a GET https://192.0.32.8/"),
    "anonymous": ("from: anonymous, to: a.example.org", "anonymous GET https://a.example.org/"),
    "an agent before anonymous": ("from: [anonymous, b*], to: a.example.org", "b GET https://a.example.org/"),
    "a path": ("to: a.example.org, paths: ['/x/*/y', '/z%2Fq']", "a GET https://a.example.org/x/a/y"),
    "a path and a query": ("to: a.example.org, paths: [/x], query: {n: '5..6'}", "a GET https://a.example.org/x?n=5.1"),
    "a header": ("to: a.example.org, headers: {x-a: 'b*'}", "a GET https://a.example.org/ x-a: b"),
    "a body": ("to: a.example.org, json: {n: '> 7'}", 'a GET https://a.example.org/ content-type: application/json {"n": 8}'),
    "a field that is absent": ("to: a.example.org, json: {n: [absent, x]}", "a GET https://a.example.org/"),
    "a form": ("to: a.example.org, form: {n: 'a b'}", "a GET https://a.example.org/ content-type: application/x-www-form-urlencoded n=a%20b"),
}  # fmt: skip


@pytest.mark.parametrize(("where", "wanted"), WITNESSES.values(), ids=WITNESSES)
def test_a_change_is_shown_by_a_plain_request(where, wanted):
    anonymous = "identity: {anonymous: allow}\n"
    old = ["{deny: z, to: z.example.org}"]
    new = [*old, f"{{allow: b, methods: [GET], {where}}}"]

    (change,) = difference(policy_of(rules_of(old), anonymous), policy_of(rules_of(new), anonymous)).newly_allowed

    assert request(change.witness) == wanted


@pytest.mark.parametrize(("method", "usual"), [("any", "POST"), ("[POST, GET]", "GET"), ("writes", "POST"), ("[PUT, PATCH]", "PATCH"), ("[X, Y]", "X")])
def test_a_change_is_shown_by_a_usual_method(method, usual):
    old, new = [D], [D, f"{{allow: b, to: b.example.org, methods: {method}}}"]

    (change,) = difference(policy_of(rules_of(old)), policy_of(rules_of(new))).newly_allowed

    assert change.witness.method == usual


def lines(found: Difference) -> list[str]:
    sides = {"allowed": found.newly_allowed, "denied": found.newly_denied, "changed": found.changed}
    return [found.relation.value, *(f"undecided: {each}" for each in found.undecided),
            *(f"{side}: {each.message} | {' '.join(each.rules)} | {request(each.witness)}"
              for side, changes in sides.items() for each in changes)]


@pytest.mark.parametrize(("old", "new", "wanted"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_change_is_told_in_full(old, new, wanted):
    assert lines(difference(policy_of(rules_of(old)), policy_of(rules_of(new)))) == wanted


def test_of_a_rule_that_has_expired_nothing_more_is_told():
    policy = policy_of(rules_of([GET.replace("}", ", expires: 2030-01-01}"), WHOLE]))
    end = policy.rules[0].where.expires

    assert [[each.code for each in review(policy, now=now).findings] for now in (0, end - 1, end, end + 1)] == [
        ["W301"], ["W301"], [], []]


def test_of_a_refusal_on_trial_nothing_is_told():
    policy = policy_of(rules_of([GET, D]))
    observed = replace(policy, rules=(policy.rules[0], replace(policy.rules[1], observed=True)))

    assert [each.code for each in review(policy).findings] == ["I304"]
    assert review(observed).findings == ()


def test_a_never_is_proved_only_where_no_grant_opens_addresses_that_hide_others():
    hiding = "{allow: b, to: b.example.org, address: ['64:ff9b:1::/48', '2001::/32'], methods: [GET]}"
    never = "never: [{to: c.example.org}, {to: loopback}]\n"
    clear, vague = (review(policy_of(rules_of(rules), never)) for rules in ([GET], [GET, hiding]))

    assert (clear.proved, clear.undecided) == (("never-1", "never-2"), ())
    assert (vague.proved, vague.undecided) == ((), ("rule b: what hides behind some addresses that it opens",))


@pytest.fixture
def no_work(monkeypatch):
    """Questions that need more than a first look are not answered."""
    monkeypatch.setattr("kernel.analysis.language._MOST_OF_A_QUESTION", 0)


WILD = "{allow: a, from: ['*a*b*', '*b*a*'], to: a.example.org, methods: any}"


@pytest.mark.parametrize(("rules", "wanted"), [
    pytest.param([WILD, "{deny: d, from: ['*a*', '*b*'], to: a.example.org}"],
                 ["rule a: whether it has an effect", "rule d: whether it has an effect", "rule a: whether it is needed"], id="agents"),
    pytest.param([GET, "{deny: d, to: a.example.org}"], ["rule a: whether it has an effect"], id="what is shown"),
    pytest.param([GET, "{allow: b, to: b.example.org, methods: [GET], schemes: [http]}"], ["rule b: how wide it is"], id="what is too wide"),
])  # fmt: skip
def test_what_takes_too_much_work_is_undecided_in_a_review(rules, wanted, request):
    policy = policy_of(rules_of(rules))
    request.getfixturevalue("no_work")

    found = review(policy, TABLES)

    assert ([told(each) for each in found.findings], list(found.undecided)) == ([], wanted)


def test_a_finding_stands_though_a_request_that_shows_it_takes_too_much_work(request):
    policy = policy_of(rules_of([GET, "{allow: b, from: coders, to: a.example.org, methods: [GET]}"]))
    request.getfixturevalue("no_work")

    found = review(policy, TABLES)

    assert [(each.code, each.rules, each.witness) for each in found.findings] == [("W302", ("b", "a"), None)]
    assert found.undecided == ()


MANY_DIGITS = "{allow: a, to: a.example.org, methods: any, json: {n: ['*" + "1*" * 22 + "', '> 5']}}"


def test_fields_that_take_too_much_work_leave_a_difference_and_an_assertion_undecided():
    asserted = rules_of([MANY_DIGITS]) + "\nassert:\n  - denied: {to: b.example.org}"
    policy = policy_of(rules_of([MANY_DIGITS]))
    found = difference(policy, policy)
    with pytest.raises(PolicyError) as refused:
        policy_of(asserted)

    assert (found.relation, found.undecided) == ("undecided", ("the policies as a whole",))
    assert [each.code for each in refused.value.findings] == ["P801"]
    assert "cannot be proved" in str(refused.value)


@pytest.mark.parametrize(("old", "new", "wanted"), [
    pytest.param([GET], [GET, WILD.replace("a,", "b,", 1)], ["undecided", "undecided: rule b: what it changes"], id="a grant"),
    pytest.param([GET], [GET, D], ["undecided", "undecided: rule a: what it changes", "undecided: rule d: what it changes"], id="a refusal"),
])  # fmt: skip
def test_what_takes_too_much_work_is_undecided_in_a_difference(old, new, wanted, request):
    before, after = policy_of(rules_of(old)), policy_of(rules_of(new))
    request.getfixturevalue("no_work")

    assert lines(difference(before, after)) == lines(difference(after, before)) == wanted


@pytest.mark.parametrize(("old", "new", "wanted"), [
    pytest.param("{max-url: 1KB}", "{max-url: 2KB}", ["looser", "changed: max-url lets more pass (rule a, p.yaml:4) | a | a GET https://a.example.org/"], id="a longer URL"),
    pytest.param("{max-request: 2KB}", "{max-request: 1KB}", ["stricter", "changed: max-request lets less pass (rule a, p.yaml:4) | a | a GET https://a.example.org/"], id="a smaller body"),
    pytest.param("{in-flight: 3, to: a.example.org}", "{in-flight: 4}", ["looser", "changed: in-flight lets more pass (rule a, p.yaml:4) | a | a GET https://a.example.org/"], id="more at a time"),
    pytest.param("{max-response: 1KB, to: b.example.org}", "{max-response: 2KB, to: b.example.org}", ["equal"], id="elsewhere"),
    pytest.param("{max-url: 1KB}", "{max-url: 1KB, except: {to: a.example.org}}", ["looser", "changed: max-url lets more pass (rule a, p.yaml:4) | a | a GET https://a.example.org/"], id="an exception"),
    pytest.param("{max-url: 1KB, max-request: 1KB}", "{max-url: 1KB}", ["looser", "changed: max-request lets more pass (rule a, p.yaml:4) | a | a GET https://a.example.org/"], id="one of two"),
])  # fmt: skip
def test_a_limit_lets_less_pass_than_a_larger_one(old, new, wanted):
    before, after = (policy_of(rules_of([GET]), f"limits: [{limit}]\n") for limit in (old, new))

    assert lines(difference(before, after)) == wanted


NEVER = "never: [{to: a.example.org}]\n"
WHOLE = "{deny: d, to: a.example.org}"
NOW, NO_LONGER = "is now the reason why a request is refused", "is no longer the reason why a request is refused"


@pytest.mark.parametrize(("old", "new", "wanted"), [
    pytest.param(([WHOLE], NEVER), ([WHOLE], ""), [f"never-1 {NO_LONGER} (rule never-1, p.yaml:5)"], id="a never goes, a deny stays"),
    pytest.param(([WHOLE], ""), ([WHOLE], NEVER), [f"never-1 {NOW} (rule never-1, p.yaml:5)"], id="a never comes to a deny"),
    pytest.param(([D, WHOLE.replace("d,", "e,")], ""), ([D], ""), [f"e {NO_LONGER} (rule e, p.yaml:5)"], id="a deny goes, a part of it stays"),
    pytest.param(([D, WHOLE.replace("d,", "e,")], ""), ([WHOLE.replace("d,", "e,")], ""), [], id="a part goes, the whole stays"),
    pytest.param(([D, GET], NEVER), ([GET], NEVER), [], id="a deny goes where a never stays"),
    pytest.param(([D, GET], NEVER), ([GET, D.replace("/x", "/x/y")], NEVER), [], id="a deny gets smaller where a never stays"),
    pytest.param(([D, GET], NEVER), ([GET], ""), [f"never-1 {NO_LONGER} (rule never-1, p.yaml:6)"], id="both go"),
    pytest.param(([WHOLE], NEVER), (["{deny: z, to: z.example.org}"], NEVER), [f"z {NOW} (rule z, p.yaml:4)"], id="a deny moves away from a never"),
    pytest.param(([WHOLE, GET], NEVER), ([WHOLE, GET], NEVER.replace("a.e", "b.e")), [f"never-1 {NO_LONGER} (rule never-1, p.yaml:6)", f"never-1 {NOW} (rule never-1, p.yaml:6)"], id="a never moves"),
])  # fmt: skip
def test_a_reason_changes_where_another_kind_of_rule_refuses(old, new, wanted):
    before, after = (policy_of(rules_of(rules), never) for rules, never in (old, new))

    found = difference(before, after)

    assert [each.message for each in found.changed] == wanted
    assert [each.message for each in difference(after, before).changed] == [
        _turned(message) for message in wanted[::-1]]


def _turned(message: str) -> str:
    return message.replace(NOW, NO_LONGER) if NOW in message else message.replace(NO_LONGER, NOW)


def test_a_trial_more_or_a_longer_one_is_looser():
    policy = policy_of(rules_of([GET]))
    plain, short, long = (replace(policy, observed_until=end) for end in (None, 100, 200))

    asked = [(plain, short, 0), (short, plain, 0), (short, long, 0), (long, short, 0), (short, short, 0), (plain, short, 100), (short, long, 150)]
    found = [difference(old, new, now) for old, new, now in asked]

    assert [each.relation.value for each in found] == ["looser", "stricter", "looser", "stricter", "equal", "equal", "looser"]
    assert [each.trials for each in found] == [(None, 100), (100, None), (100, 200), (200, 100), (100, 100), (None, None), (None, 200)]


def test_tiers_that_let_too_many_boxes_pass_together_leave_everything_undecided(monkeypatch):
    claim = "assert:\n  - allowed: {to: a.example.org, methods: [GET]}\n"
    upper, lower = (f"rules: [{GET.replace('a,', name, 1)}]\n" for name in ("a,", "b,"))
    policy = together(upper, lower).policy
    monkeypatch.setattr("kernel.analysis.region._MOST_TOGETHER", 0)

    with pytest.raises(PolicyError) as error:
        together(upper, lower + claim)

    assert [told(finding) for finding in error.value.findings] == [
        "1.yaml:4:5: P801 it cannot be proved that all of it is allowed (narrow the assertion, or make several of it) |  | -"]
    assert review(policy).undecided == ("the policy as a whole",)
    assert lines(difference(policy, policy)) == [
        "undecided", "undecided: what passes",
        "undecided: what follows from requests: budgets, throttles, halts, points of risk",
        "undecided: why requests are refused"]
