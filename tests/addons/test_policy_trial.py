"""`governor policy` of policies and rules on trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from addons import cli

RULES = "rules:\n  - {allow: a, to: a.example.org, methods: [GET]}\n  - {deny: d, to: a.example.org, paths: [/x]%s}\n"
TRIAL = "mode: observe\nuntil: 2099-01-01\n"


@pytest.fixture
def governor(tmp_path, monkeypatch):
    """Runs the command line in a folder with policies that enforce or are on trial, and one with a rule on trial."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOVERNOR_HOME", str(tmp_path / "home"))
    texts = {"enforce": RULES % "", "trial": TRIAL + RULES % "", "longer": TRIAL.replace("01-01", "06-01") + RULES % "",
             "over": TRIAL.replace("2099", "2001") + RULES % "", "rule": RULES % ", observe: yes, expires: 2099-01-01"}
    for name, text in texts.items():
        Path(f"{name}.yaml").write_text(f"version: 1\n{text}")

    def run(*arguments: str):
        result = CliRunner().invoke(cli.governor, ["policy", *arguments])
        return result.exit_code, result.stdout

    return run


@pytest.mark.parametrize(("old", "new", "relation", "status"), [
    ("enforce", "trial", "looser", 1),
    ("trial", "enforce", "stricter", 0),
    ("trial", "longer", "looser", 1),
    ("longer", "trial", "stricter", 0),
    ("trial", "trial", "equal", 0),
    ("enforce", "over", "equal", 0),
    ("enforce", "rule", "looser", 1),
    ("rule", "enforce", "stricter", 0),
])
def test_a_trial_more_is_looser(governor, old, new, relation, status):
    found = governor("diff", f"{old}.yaml", f"{new}.yaml", "--json", "--fail-if-looser")

    assert (found[0], json.loads(found[1])["relation"]) == (status, relation)


@pytest.mark.parametrize(("form", "first"), [
    ("text", "mode enforce -> observe until 2099-01-02"),
    ("markdown", "- **mode enforce -\\> observe until 2099-01-02"),
    ("github", "::warning file=trial.yaml,title=mode::mode enforce -> observe until 2099-01-02"),
])
def test_a_difference_leads_with_a_change_of_mode(governor, form, first):
    out = governor("diff", "enforce.yaml", "trial.yaml", "--format", form)[1]
    lines = [line for line in out.splitlines() if line and not line.startswith("###")]

    assert lines[0].startswith(first)


def test_a_difference_tells_modes_to_machines(governor):
    found = json.loads(governor("diff", "enforce.yaml", "trial.yaml", "--json")[1])

    assert found["mode"] == {"old": "enforce", "new": "observe", "until": {"old": None, "new": "2099-01-02T00:00:00Z"}}


@pytest.mark.parametrize(("request_", "code", "mode"), [
    (["POST", "https://a.example.org/"], "DEFAULT_DENY", "observe"),
    (["GET", "https://a.example.org/x"], "RULE_DENY", "observe"),
    (["GET", "https://a.example.org/"], "ALLOW", None),
    (["GET", "https://b.example.org/", "--address", "10.0.0.1"], "PRIVATE_ADDRESS", None),
])
def test_what_passes_only_for_the_trial_is_explained(governor, request_, code, mode):
    asked = ["explain", "--policy", "trial.yaml", "--agent", "local", *request_]
    status, out = governor(*asked, "--json")
    found = json.loads(out)

    assert (found["code"], found.get("mode"), status) == (code, mode, 0 if code == "ALLOW" else 1)
    assert ("on trial until 2099-01-02" in governor(*asked)[1]) is (mode == "observe")


def test_after_its_end_a_trial_is_no_excuse(governor):
    asked = ["explain", "--policy", "trial.yaml", "--agent", "local", "POST", "https://a.example.org/"]

    assert json.loads(governor(*asked, "--at", "2099-02-01T00:00:00Z", "--json")[1]).get("mode") is None


def test_nothing_rests_on_a_deny_on_trial(governor):
    Path("never.yaml").write_text(
        "version: 1\nrules:\n  - {allow: a, to: a.example.org, methods: [GET]}\n"
        "  - {deny: d, to: a.example.org, observe: yes, expires: 2099-01-01}\n")

    findings = json.loads(governor("check", "never.yaml", "--json")[1])["findings"]

    assert [each["code"] for each in findings] == []
