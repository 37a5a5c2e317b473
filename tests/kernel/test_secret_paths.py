"""Which paths are secrets, and what is told of them."""

from __future__ import annotations

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


def test_secret_paths_is_said_with_yes():
    with pytest.raises(PolicyError) as refused:
        compile_policy([compose(RULES.replace("secret-paths: yes", "secret-paths: no").encode(), "p.yaml")],
                       frozenset({"local"}), "0" * 64)

    assert {each.code for each in refused.value.findings} == {"E102"}
