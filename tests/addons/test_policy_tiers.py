"""`governor policy` with the tiers of a policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from addons import cli
from addons.policy_archive import packed

PLATFORM = """\
version: 1
tier: platform
agents: {payments: [payments-*]}
rules:
  - {allow: shop, to: .shop.example, methods: any}
  - {deny: no-admin, to: admin.shop.example}
"""
TEAM = """\
version: 1
tier: team
for: payments
rules:
  - {allow: pay, to: pay.shop.example, methods: [POST]}
"""
CASES = """\
policy: [platform.yaml, team.yaml]
cases:
  - {name: both, agent: payments-1, method: POST, url: "https://pay.shop.example/", expect: allow, rule: shop}
  - {name: one, agent: payments-1, method: GET, url: "https://pay.shop.example/", expect: deny, code: DEFAULT_DENY}
  - {name: others, agent: web-1, method: GET, url: "https://pay.shop.example/", expect: allow}
  - {name: none, agent: web-1, method: GET, url: "https://admin.shop.example/", expect: deny, rule: no-admin}
"""
BOTH = ("--policy", "platform.yaml", "--policy", "team.yaml")


@pytest.fixture
def governor(tmp_path, monkeypatch):
    """Runs the command line in a folder with two tiers; gives status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOVERNOR_HOME", str(tmp_path / "home"))
    for name, text in (("platform.yaml", PLATFORM), ("team.yaml", TEAM), ("t.cases.yaml", CASES)):
        (tmp_path / name).write_text(text)

    def run(*arguments: str):
        result = CliRunner().invoke(cli.governor, ["policy", *arguments])
        return result.exit_code, result.stdout, result.stderr

    return run


def test_tiers_are_checked_together(governor):
    status, out, _ = governor("check", "--tiers", "platform.yaml", "team.yaml", "--json")

    assert status == 0
    assert json.loads(out)["undecided"] == []
    assert [(each["code"], each["rules"]) for each in json.loads(out)["findings"]] == [("I304", ["no-admin", "shop"])]


@pytest.mark.parametrize(("added", "code", "said"), [
    ("  - {allow: other, to: other.example, methods: [GET]}\n", "W301",
     "other has no effect: no rule of tier platform (platform.yaml) allows any of it"),
    ("  - {allow: all-paths, to: pay.shop.example, methods: [POST], paths: ['/a']}\n", "W302",
     "all-paths is not needed: pay allows all of it"),
    ("  - {deny: others, from: web-*, to: pay.shop.example}\n", "W305", "others matches no request"),
    ("  - {allow: admin, to: admin.shop.example, methods: [POST]}\n", "W301",
     "admin has no effect: no-admin refuses everything that it allows"),
])
def test_what_a_tier_says_in_vain_is_found(governor, added, code, said):
    Path("team.yaml").write_text(TEAM + added)

    findings = json.loads(governor("check", "--tiers", "platform.yaml", "team.yaml", "--json")[1])["findings"]

    assert any((each["code"], each["line"]) == (code, 6) and each["message"].startswith(said) for each in findings)


def test_a_rule_that_another_tier_repeats_is_needed_in_both(governor):
    Path("team.yaml").write_text(TEAM.replace("{allow: pay, to: pay.shop.example, methods: [POST]}",
                                              "{allow: pay, to: .shop.example, methods: any, why: all}"))

    findings = json.loads(governor("check", "--tiers", "platform.yaml", "team.yaml", "--json")[1])["findings"]

    assert [each["code"] for each in findings] == ["I304"]


def test_a_tier_of_many_rules_is_judged_with_what_is_below_it(governor):
    rule = "  - {{allow: s{0}, to: s{0}.example, address: 10.0.{0}.0/24, methods: [GET]}}\n"
    more = "".join(map(rule.format, range(20)))
    Path("platform.yaml").write_text(PLATFORM + more)

    found = json.loads(governor("check", "--tiers", "platform.yaml", "team.yaml", "--json")[1])

    assert ([each["code"] for each in found["findings"]], found["undecided"]) == (["I304"], [])


def test_a_tier_more_for_some_agents_is_stricter_and_one_less_looser(governor):
    Path("old").mkdir()
    Path("old/platform.yaml").write_text(PLATFORM.replace("no-admin, to: admin.", "no-admin, to: www."))
    Path("new").mkdir()
    Path("new/platform.yaml").write_text(PLATFORM.replace("no-admin, to: admin.", "no-admin, to: www."))
    Path("new/team.yaml").write_text(TEAM)

    stricter = json.loads(governor("diff", "old", "new", "--json")[1])
    looser = json.loads(governor("diff", "new", "old", "--json")[1])

    assert (stricter["relation"], looser["relation"]) == ("stricter", "looser")
    assert stricter["newly_denied"][0]["witness"]["agent"].startswith("payments-")


def test_a_finding_names_the_file_of_the_tier_that_has_it(governor):
    Path("team.yaml").write_text(TEAM + "  - {deny: shop}\n")

    status, out, _ = governor("check", "--tiers", "platform.yaml", "team.yaml", "--json")
    (finding,) = json.loads(out)["findings"]

    assert (status, finding["code"], finding["file"], finding["line"]) == (1, "E107", "team.yaml", 6)


def test_cases_are_tried_under_all_tiers(governor):
    status, out, _ = governor("test", "t.cases.yaml", "--json")

    assert status == 0
    assert (json.loads(out)["passed"], json.loads(out)["failed"]) == (4, 0)


def test_explain_says_which_tier_grants_and_which_does_not(governor):
    status, out, _ = governor("explain", *BOTH, "--agent", "payments-1", "GET", "https://pay.shop.example/", "--json")
    said = json.loads(out)

    assert (status, said["code"]) == (1, "DEFAULT_DENY")
    assert [(each["tier"], each["rule"], each["file"]) for each in said["matched"]] == [
        ("platform", "shop", "platform.yaml")]
    assert said["would_allow"] == [
        "Tier team (team.yaml) must allow it, too, and does not.",
        "Rule pay (team.yaml:5:5) would allow it, but the method is GET and it wants POST.",
    ]


def test_explain_says_that_a_tier_is_for_others(governor):
    _, out, _ = governor("explain", *BOTH, "--agent", "web-1", "POST", "https://pay.shop.example/")

    assert "missed   allow    pay  team.yaml:5  its tier is for payments-*" in out


def test_explain_says_that_no_tier_binds_the_agent(governor):
    status, out, _ = governor("explain", "--policy", "team.yaml", "--policy", "team2.yaml", "GET", "https://x.example/")
    assert status == 2

    Path("team2.yaml").write_text("version: 1\ntier: team\nfor: [web-*]\n")
    Path("team.yaml").write_text(TEAM.replace("for: payments", "for: [payments-*]"))
    status, out, _ = governor("explain", "--policy", "team.yaml", "--policy", "team2.yaml", "GET", "https://x.example/")

    assert status == 1
    assert "No tier that could allow anything binds local: one of them needs it in for:." in out


def test_what_an_agent_can_reach_leaves_out_tiers_for_others(governor):
    rows = {}
    for agent in ("payments-1", "web-1"):
        _, out, _ = governor("explain", *BOTH, "--agent", agent, "--json")
        rows[agent] = [(row["tier"], row["rule"]) for row in json.loads(out)["reach"]]

    assert rows == {"payments-1": [("platform", "shop"), ("team", "pay")], "web-1": [("platform", "shop")]}


def test_what_each_tier_reaches_is_not_told_as_what_passes(governor):
    _, out, _ = governor("explain", *BOTH, "--agent", "payments-1")

    assert "Each tier that binds an agent must allow what it asks" in out


def test_a_refusal_for_some_agents_does_not_hide_what_others_reach(governor):
    Path("team.yaml").write_text(TEAM + "  - {deny: none, to: .shop.example}\n")

    _, out, _ = governor("explain", *BOTH, "--to", "pay.shop.example", "--json")

    assert [row["rule"] for row in json.loads(out)["reach"]] == ["shop", "pay"]


def test_a_policy_is_told_with_whom_it_binds(governor):
    Path("team.yaml").write_text(TEAM.replace("for: payments", "for: [payments-*]"))

    _, out, _ = governor("explain", "team.yaml")

    assert "Tier team (team.yaml) binds payments-*." in out


def test_a_policy_that_was_kept_is_told_as_its_files_were(governor):
    Path("kept.yaml").write_bytes(packed([PLATFORM.encode(), TEAM.encode()]))

    status, out, _ = governor("explain", "kept.yaml")

    assert status == 0
    assert "Tier team (kept.yaml#2) binds payments." in out
    assert "(pay, kept.yaml#2:5)" in out


def test_folders_of_tiers_are_compared(governor):
    status, out, _ = governor("diff", ".", "platform.yaml", "--json", "--fail-if-looser")

    assert (status, json.loads(out)["relation"]) == (1, "looser")
