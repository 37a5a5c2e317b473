"""Which paths are secrets, and what is told of them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from addons.policy_files import secret_path_hosts
from addons.yaml_nodes import compose
from kernel.compiler import compile_policy
from kernel.errors import PolicyError
from kernel.question import facts_of
from kernel.secret_paths import SecretPaths

RULES = """\
version: 1
rules:
  - allow: notify
    to: hooks.example.org
    methods: [POST]
    paths: ["/services/*/*", "/**/*"]
    secret-paths: yes
  - {allow: bots, to: "https://bots.example.org/bot/*/send", methods: [POST], secret-paths: yes}
  - {deny: loud, address: 10.0.0.0/8, paths: ["/in/**"], secret-paths: yes}
  - {allow: plain, to: plain.example.org, methods: reads, paths: ["/a/*"]}
"""
POLICY = compile_policy([compose(RULES.encode(), "p.yaml")], frozenset({"local"}), "0" * 64).policy
PATHS = SecretPaths(POLICY, secret_path_hosts())


@pytest.mark.parametrize(("url", "groups", "matched"), [
    ("https://hooks.example.org/services/a/b", ("notify",), ("/services/*/*", "/**/*")),
    ("https://hooks.example.org/other", (), ("/**",)),
    ("https://bots.example.org/bot/t0k3n/send", ("bots",), ("/bot/*/send",)),
    ("https://other.example.org/in/x", ("loud",), ("/in/**",)),
    ("https://plain.example.org/a/b", ("plain",), None),
    ("https://hooks.slack.com/services/T/B/x", (), ("/**",)),
    ("https://api.telegram.org/bot1:x/getMe", ("plain",), ("/**",)),
    ("https://a.s3.amazonaws.com/k", (), ("/**",)),
    ("https://www.slack.com/services", (), None),
])
def test_a_secret_path_is_told_by_what_it_matched(url, groups, matched):
    assert PATHS.matched(facts_of("local", "POST", url), groups) == matched


RANGES = """\
version: 1
rules:
  - {deny: inside, address: 10.0.0.0/8, paths: ["/in/*"], secret-paths: yes}
  - {deny: machines, to: 192.168.0.0/16, paths: ["/push/*"], secret-paths: yes}
  - {deny: ports, to: "https://172.16.5.5/hook/*", secret-paths: yes}
  - {deny: anywhere, methods: [PUT], paths: ["/token/**"], secret-paths: yes}
"""


@pytest.mark.parametrize(("url", "resolved", "secret"), [
    pytest.param("https://10.1.2.3/other", None, True, id="a literal within, on another path"),
    pytest.param("https://11.1.2.3/in/x", None, False, id="a literal elsewhere, on its path"),
    pytest.param("https://www.example.org/in/x", None, True, id="a name refused before it was asked, on its path"),
    pytest.param("https://www.example.org/other", None, False, id="a name refused before it was asked, elsewhere"),
    pytest.param("https://www.example.org/other", "10.9.9.9", True, id="a name that leads within"),
    pytest.param("https://www.example.org/in/x", "192.0.2.1", False, id="a name that leads elsewhere"),
    pytest.param("https://192.168.7.7/x", None, True, id="a literal in a range of to"),
    pytest.param("https://172.16.5.5/x", None, True, id="the address of a URL"),
    pytest.param("https://172.16.5.6/hook/x", None, False, id="an address beside it"),
    pytest.param("https://www.example.org/push/x", None, True, id="a name that may lead to a range of to"),
    pytest.param("https://www.example.org/token/x/y", "192.0.2.1", True, id="the path of a rule that names no place"),
    pytest.param("https://www.example.org/TOKEN/x", "192.0.2.1", False, id="another path"),
    pytest.param("https://www.example.org/token%2Fx", "192.0.2.1", True, id="one of two readings of a path"),
])
def test_what_may_yet_be_under_a_rule_counts_as_under_it(url, resolved, secret):
    compiled = compile_policy([compose(RANGES.encode(), "p.yaml")], frozenset({"local"}), "0" * 64).policy
    paths = SecretPaths(compiled, secret_path_hosts())
    addresses = () if resolved is None else (ip_address(resolved),)

    found = paths.matched(facts_of("local", "GET", url), (), addresses)

    assert found == (("/**",) if secret else None)


def test_secret_paths_is_said_with_yes():
    with pytest.raises(PolicyError) as refused:
        compile_policy([compose(RULES.replace("secret-paths: yes", "secret-paths: no").encode(), "p.yaml")],
                       frozenset({"local"}), "0" * 64)

    assert {each.code for each in refused.value.findings} == {"E102"}
