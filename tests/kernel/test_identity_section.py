"""`identity:`: what may stand there, what is said about what may not, and how it reads in sentences."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from kernel.findings import Severity
from kernel.prose import in_words
from tests.addons.policies import codes, compiled, findings

EVERY_KEY = """
    version: 1
    agents: {coders: [coder-*]}
    identity:
      proxy-auth: yes
      anonymous: allow
      cert: {ca: clients.pem}
      source: {10.1.0.0/24: coder-1, "10.2.0.7": ci, "fd00::/64": reviewers-1}
      port: {8081: coder-1, 8082: ci}
      sandbox: yes
"""


def test_every_key_of_the_section_is_read():
    identity = compiled(EVERY_KEY).policy.identity

    assert identity.sources == {"proxy-auth", "cert", "source", "port", "sandbox"}
    assert identity.anonymous
    assert identity.authority is not None
    assert (identity.authority.file, identity.authority.position.line) == ("clients.pem", 7)
    assert identity.networks.of == (
        (ip_network("10.1.0.0/24"), "coder-1"), (ip_network("10.2.0.7"), "ci"),
        (ip_network("fd00::/64"), "reviewers-1"))
    assert identity.ports == {8081: "coder-1", 8082: "ci"}
    assert identity.agents == {"coder-1", "ci", "reviewers-1"}


NO_ID = 'is not the id of an agent (a-z 0-9 . _ -, at most 64, and a letter or digit first)'
NO_PORT = "is not a port (write one at which Governor listens: 1 to 65535)"
WRONG = {
    "cert: yes": 'E102 2:18 cert is written as keys and values, not as the text "yes"',
    "cert: {}": 'E104 2:18 cert needs "ca:"',
    "cert: {ca: a.pem, crl: b.pem}": 'E103 2:30 unknown key "crl" in cert (known here: ca)',
    "cert: {ca: []}": "E102 2:23 ca is one piece of text, not a list",
    "cart: {ca: a.pem}": 'E103 2:12 unknown key "cart" in identity (did you mean "cert"?)',
    "ports: {1: a}": 'E103 2:12 unknown key "ports" in identity (did you mean "port"?)',
    "source: {}": "E104 2:20 source names nobody (write {10.1.0.0/24: coder-1}, or leave it out)",
    "source: 10.1.0.0/24": 'E102 2:20 source is written as names and values, not as the text "10.1.0.0/24"',
    "source: {10.1.0.1/24: a}":
        'E202 2:21 "10.1.0.1/24" has bits set to the right of its prefix '
        "(write 10.1.0.0/24 for the block, or 10.1.0.1 for the one address)",
    "source: {'::ffff:10.1.0.1': a}":
        'E202 2:21 "::ffff:10.1.0.1" is IPv4 written as IPv6 (write the IPv4 form: it covers the mapped one too)',
    "source: {private: a}":
        'E202 2:21 "private" is not an address and not a network (write 10.1.0.0/24, 10.1.0.7 or fd00::/64)',
    "source: {10.1.0.7: a, 10.1.0.7/32: b}":
        'E101 2:34 "10.1.0.7/32" stands twice in source (the first is written 10.1.0.7)',
    "source: {10.1.0.7: a, 10.1.0.7: b}": 'E101 2:34 "10.1.0.7" stands twice in source (first in line 2)',
    "source: {10.1.0.7: [a, b]}": 'E102 2:31 the agent of "10.1.0.7" is one piece of text, not a list',
    "source: {10.1.0.7: Coder}": f'E205 2:31 "Coder" {NO_ID}',
    "source: {10.1.0.7: coder-*}": f'E205 2:31 "coder-*" {NO_ID}',
    "source: {10.1.0.7: coders}":
        'E205 2:31 "coders" is a group, and the agent of "10.1.0.7" is one agent '
        "(name one agent: whoever comes that way is this agent)",
    "source: {10.1.0.7: anonymous}":
        'E205 2:31 "anonymous" is who nobody knows, and cannot be the agent of "10.1.0.7" '
        "(anonymous: allow is how clients without identity come in)",
    "port: {0: a}": f'E206 2:19 "0" {NO_PORT}',
    "port: {65536: a}": f'E206 2:19 "65536" {NO_PORT}',
    "port: {08081: a}": f'E206 2:19 "08081" {NO_PORT}',
    "port: {8081: a, 8081: b}": 'E101 2:28 "8081" stands twice in port (first in line 2)',
    "port: [8081]": "E102 2:18 port is written as names and values, not as a list",
    "sandbox: no": "E102 2:21 sandbox is yes, or is left out",
}


@pytest.mark.parametrize(("text", "finding"), WRONG.items(), ids=str)
def test_what_cannot_be_meant_is_told_with_its_place(text, finding):
    found = findings(f"version: 1\nidentity: {{{text}}}\nagents: {{coders: [coder-*]}}\n")
    told = [f"{each.code} {each.position.line}:{each.position.column} {each.message}"
            + (f" ({each.hint})" if each.hint else "") for each in found if each.severity is Severity.ERROR]

    assert told == [finding]


def test_an_agent_that_a_network_or_port_names_is_no_stranger_to_rules():
    rule = "rules: [{deny: x, to: gist.github.com, from: [ci, coder-9]}]\n"

    assert codes(f"version: 1\n{rule}") == ["W120", "W120"]
    assert codes(f"version: 1\nidentity: {{source: {{10.1.0.7: ci}}, port: {{8081: coder-9}}}}\n{rule}") == []


def test_a_policy_says_in_sentences_who_is_who():
    general = next(each for each in in_words(compiled(EVERY_KEY).policy) if each.title == "In general")
    told = [sentence.text for sentence in general.sentences]

    assert told[1:] == [
        "A client without identity is the agent anonymous, and may only what a rule allows anonymous.",
        ("A client is known by the sandbox in which governor run has put it, by the certificate with which it speaks "
         "TLS to Governor, by its token, by the port to which it comes or by the address from which it comes. Where "
         "two of these name different agents, it is refused."),
        "In TLS with Governor itself a client needs a certificate of the CA in clients.pem: its name is the agent.",
        "Whoever comes to port 8081 is coder-1.",
        "Whoever comes to port 8082 is ci.",
        "Whoever comes from the network 10.1.0.0/24 is coder-1.",
        "Whoever comes from 10.2.0.7 is ci.",
        "Whoever comes from the network fd00::/64 is reviewers-1.",
    ]


@pytest.mark.parametrize(("source", "overlap"), [
    ("{10.0.0.0/8: a, 10.1.0.0/24: b}", True),
    ("{10.1.0.0/24: b, 10.0.0.0/8: a}", True),
    ("{10.0.0.0/8: a, 10.0.0.0/24: b}", True),
    ("{10.0.0.0/24: a, 10.0.1.0/24: b}", False),
    ("{0.0.0.0/0: a, '::/0': b}", False),
])
def test_that_the_narrower_network_counts_is_said_where_it_matters(source, overlap):
    (general, *_) = in_words(compiled(f"version: 1\nidentity: {{source: {source}}}\n").policy)

    assert any("narrower" in sentence.text for sentence in general.sentences) is overlap
