"""A policy with a whole secret in it is told by its place, and what is only like one is not."""

from __future__ import annotations

import pytest

from addons.policy_files import load_policy
from kernel.errors import PolicyError
from kernel.whole_secrets import whole_secrets

# Put together here, so that no tool takes this file for a leak.
SECRETS = [
    "gov_" + "a1B2" * 10,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2" * 9,
    "sk-" + "proj-a1B2" * 5,
    "xoxb" + "-123456789012-a1B2c3",
    "AKIA" + "ABCDEFGH12345678",
    "-----BEGIN " + "RSA PRIVATE KEY-----",
    ".".join(["eyJ" + "hbGciOiJIUzI1", "eyJ" + "zdWIiOiIxMjM0", "dozjgNryP4J3jVmNHl0w"]),
    "https://hooks.example.org/services/" + "T0123ABCD/B0123ABCD/" + "a1B2" * 6,
    "https://chat.example.org/api/webhooks/" + "123456789/" + "a1B2" * 12,
    "https://api.example.org/bot" + "123456789:" + "a1B2" * 9,
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("before", ["to: ", "# ", "x: [a, '"])
def test_a_secret_is_found_wherever_it_stands_and_never_repeated(secret, before):
    (finding,) = whole_secrets(f"version: 1\n  {before}{secret}'\n", "p.yaml")

    assert (finding.code, finding.position.line) == ("E405", 2)
    assert finding.position.column >= 3 + len(before)
    assert secret[-12:] not in str(finding)


@pytest.mark.parametrize("text", [
    "allow: sk-nightly-mirror-of-everything-we-have", "to: task-a1B2c3d4e5f6a7b8c9d0e1f2", "from: gov_agents",
    'paths: ["/services/*/*/*"]', "to: AKIA.example.org", "why: the PRIVATE KEY stays in the vault",
    'paths: ["/bot*/sendMessage"]', "from: gh-pages",
])
def test_what_is_only_like_a_secret_may_stand(text):
    assert list(whole_secrets(text, "p.yaml")) == []


def test_such_a_policy_does_not_load_and_no_other_finding_quotes_it(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(f"version: 1\nrulez: {SECRETS[0]}\n")

    with pytest.raises(PolicyError) as refused:
        load_policy([file])

    assert [finding.code for finding in refused.value.findings] == ["E405"]
    assert SECRETS[0] not in str(refused.value)
