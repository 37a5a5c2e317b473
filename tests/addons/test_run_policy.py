"""The policy of one run."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from addons.sandbox.run_policy import PolicyWordsError, chosen, in_words
from kernel.comparison import UNREAD
from kernel.errors import PolicyError
from kernel.match import Index
from kernel.question import answer, facts_of
from tests.addons.policies import compiled

TODAY = date(2026, 11, 28)


def verdict(text: bytes, method: str, url: str) -> str:
    asked = facts_of("local", method, url, headers=UNREAD, body=UNREAD, at=0)
    return answer(Index(compiled(text.decode()).policy), asked).verdict.action


@pytest.mark.parametrize(("words", "passes", "refused"), [
    ("GET api.example.org/v1/**", [("GET", "https://api.example.org/v1/me")],
     [("POST", "https://api.example.org/v1/me"), ("GET", "https://api.example.org/v2"),
      ("GET", "http://api.example.org/v1/me"), ("GET", "https://www.example.org/v1/me")]),
    ("get,post api.example.org", [("POST", "https://api.example.org/any/where"), ("GET", "https://api.example.org/")],
     [("PUT", "https://api.example.org/")]),
    ("api.example.org", [("HEAD", "https://api.example.org/x")], [("POST", "https://api.example.org/x")]),
    ("any http://192.0.2.7:8000/", [("DELETE", "http://192.0.2.7:8000/")], [("GET", "http://192.0.2.7:8000/x")]),
], ids=["method and path", "methods", "a host alone is read", "scheme and port"])
def test_allow_lets_through_what_it_says_and_nothing_else(words, passes, refused):
    text = in_words([words])

    assert [verdict(text, *each) for each in passes] == ["allow"] * len(passes)
    assert [verdict(text, *each) for each in refused] == ["deny"] * len(refused)


@pytest.mark.parametrize("words", ["", "GET", "GET a b c", '"'])
def test_words_that_cannot_be_read_are_refused(tmp_path, words):
    with pytest.raises((PolicyWordsError, PolicyError)):
        chosen(tmp_path / "none.yaml", (), (words,), TODAY, observe=False)


def test_words_cannot_bring_keys_of_their_own(tmp_path):
    with pytest.raises((PolicyWordsError, PolicyError)):
        chosen(tmp_path / "none.yaml", (), ('GET x.example.org/"\n    ports: [25]',), TODAY, observe=False)


def test_a_run_without_a_word_has_the_homes_policy_or_the_shipped_one(tmp_path):
    own = tmp_path / "policy.yaml"
    shipped = chosen(own, (), (), TODAY, observe=False)
    own.write_text("version: 1\nrules:\n  - {allow: a, to: x.example.org, methods: any, ports: [8443]}\n")

    assert shipped.text is None
    assert shipped.files == ()
    assert chosen(own, (), (), TODAY, observe=False).ports == ((80, 80), (443, 443), (8443, 8443))


def test_the_summary_names_the_policy_that_governs(tmp_path):
    own, team, upper = tmp_path / "policy.yaml", tmp_path / "team.yaml", tmp_path / "platform.yaml"
    for file in (team, upper):
        file.write_text("version: 1\nrules: []\n")

    assert chosen(own, (), (), TODAY, observe=False).name == "default.yaml"
    assert chosen(own, (team,), (), TODAY, observe=True).name == "team.yaml"
    assert chosen(own, (), ("x.example.org",), TODAY, observe=False).name == "--allow"
    own.write_text("version: 1\nrules: []\n")
    assert chosen(own, (), (), TODAY, observe=False).name == "policy.yaml"


def test_observe_puts_a_policy_on_trial_until_tomorrow(tmp_path):
    policy = tmp_path / "team.yaml"
    policy.write_text("version: 1\nrules: []\n# the end, without a line feed")

    found = chosen(tmp_path / "none.yaml", (policy,), (), TODAY, observe=True)

    assert found.files == ()
    assert found.text == policy.read_bytes() + b"\nmode: observe\nuntil: 2026-11-29\n"
    assert compiled(found.text.decode()).policy.observed_until == datetime(2026, 11, 30, tzinfo=UTC).timestamp()


def test_observe_does_not_overrule_a_policy_that_says_its_mode(tmp_path):
    policy = tmp_path / "team.yaml"
    policy.write_text("version: 1\nmode: enforce\nrules: []\n")

    with pytest.raises(PolicyError, match="mode"):
        chosen(tmp_path / "none.yaml", (policy,), (), TODAY, observe=True)


def test_what_does_not_go_together_is_said(tmp_path):
    files = (tmp_path / "a.yaml", tmp_path / "b.yaml")

    with pytest.raises(PolicyWordsError, match="--policy"):
        chosen(tmp_path / "none.yaml", files[:1], ("x.example.org",), TODAY, observe=False)
    with pytest.raises(PolicyWordsError, match="uppermost"):
        chosen(tmp_path / "none.yaml", files, (), TODAY, observe=True)
