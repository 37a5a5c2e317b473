"""`governor policy check` and `test` for programs: SARIF, GitHub's workflow commands, JUnit, and folders."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from addons import cli
from addons.verbs.github import command
from kernel.findings import CATALOGUE

GOOD = """\
version: 1
rules:
  - {allow: read, to: x.example, methods: reads}
never:
  - to: metadata
assert:
  - allowed: {from: local, to: "https://x.example/", method: GET}
"""
WRONG = GOOD.replace("allowed:", "denied:")
CASES = """\
policy: good.yaml
cases:
  - {name: read it, method: GET, url: "https://x.example/", expect: allow}
  - {name: "a <b> & c", method: PUT, url: "https://x.example/", expect: allow}
"""


@pytest.fixture
def governor(tmp_path, monkeypatch):
    """Runs `governor policy` beside a good and a wrong policy; gives status and standard output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOVERNOR_HOME", str(tmp_path / "home"))
    Path("good.yaml").write_text(GOOD)
    Path("wrong.yaml").write_text(WRONG)
    Path("doubt.yaml").write_text("version: 1\nrules: [{deny: x, from: bob}]\n")
    Path("good.cases.yaml").write_text(CASES)

    def run(*arguments: str):
        result = CliRunner().invoke(cli.governor, ["policy", *arguments])
        return result.exit_code, result.stdout

    return run


def test_sarif_says_what_the_standard_requires_of_every_object(governor):
    status, out = governor("check", "--format", "sarif", "wrong.yaml", "doubt.yaml")
    log = json.loads(out)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]

    assert status == 1
    assert log["version"] == "2.1.0"
    assert run["tool"]["driver"]["name"] == "governor"
    assert run["columnKind"] == "unicodeCodePoints"
    assert {rule["id"]: rule["shortDescription"]["text"] for rule in rules} == CATALOGUE
    assert {rule["defaultConfiguration"]["level"] for rule in rules} == {"error", "warning", "note"}
    for result in run["results"]:
        (place,) = result["locations"]
        region = place["physicalLocation"]["region"]
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert region["startLine"] >= 1
        assert region["startColumn"] >= 1
        assert result["message"]["text"]
    levels = [(result["ruleId"], result["level"]) for result in run["results"]]
    assert levels == [("P801", "error"), ("W120", "warning")]


@pytest.mark.parametrize("name", ["a b.yaml", "a%b.yaml", "ä.yaml"])
def test_sarif_names_a_file_as_a_uri(governor, name):
    Path(name).write_text(WRONG)

    uris = []
    for file in (name, str(Path(name).absolute())):
        (result,) = json.loads(governor("check", "--format", "sarif", file)[1])["runs"][0]["results"]
        uris.append(result["locations"][0]["physicalLocation"]["artifactLocation"])

    relative, absolute = uris
    assert relative["uriBaseId"] == "%SRCROOT%"
    assert absolute["uri"] == Path(name).absolute().as_uri()
    assert absolute["uri"].endswith(f"/{relative['uri']}")


def test_github_gets_one_command_for_each_finding(governor):
    status, out = governor("check", "--format", "github", "wrong.yaml", "doubt.yaml")

    first, second = out.splitlines()
    assert status == 1
    assert first.startswith("::error file=wrong.yaml,line=7,col=5,title=P801::local GET https://x.example/ must be ")
    assert first.endswith("%0Awitness: governor policy explain --agent local GET https://x.example/ "
                          "--address 192.0.32.8")
    assert second.startswith("::warning file=doubt.yaml,line=2,col=25,title=W120::")


def test_nothing_in_a_finding_can_end_a_command_of_github_early():
    assert command("error", "50%\n::error::x\r", {"file": "a,line=9:b%.yaml"}) == (
        "::error file=a%2Cline=9%3Ab%25.yaml::50%25%0A::error::x%0D")


def test_github_gets_nothing_where_nothing_was_found(governor):
    assert governor("check", "--format", "github", "good.yaml") == (0, "")


def suites(out: str):
    root = ElementTree.fromstring(out)
    return {
        suite.get("name"): [(case.get("name"), [failure.get("message") for failure in case]) for case in suite]
        for suite in root
    }, root


def test_junit_has_a_suite_for_each_file_and_a_case_for_each_proof(governor):
    status, out = governor("check", "--format", "junit", "good.yaml", "wrong.yaml")
    found, root = suites(out)

    assert status == 1
    assert (root.get("tests"), root.get("failures")) == ("5", "1")
    assert found["good.yaml"] == [
        ("loads", []),
        ("assertion in line 7: local GET https://x.example/ is allowed", []),
        ("never-1 in line 5", []),
    ]
    (loads, (asserted, failures)) = found["wrong.yaml"]
    assert loads == ("loads", [])
    assert asserted == "assertion in line 7"
    assert failures[0].startswith("wrong.yaml:7:5: P801 ")


def test_a_never_that_was_not_proved_is_not_called_so(governor):
    Path("hidden.yaml").write_text(
        "version: 1\nnever:\n  - {to: 10.0.0.0/8}\nrules:\n  - {allow: old, address: '2001::/32', methods: [GET]}\n")
    found, root = suites(governor("check", "--format", "junit", "hidden.yaml")[1])

    assert root.get("skipped") == "1"
    assert found["hidden.yaml"][1:] == [("never-1 in line 3", ["it was not proved"])]
    assert "0 of 1 never proved" in governor("check", "hidden.yaml")[1]


@pytest.mark.parametrize(("strict", "failures"), [([], "0"), (["--strict"], "1")])
def test_junit_fails_on_a_warning_only_when_asked_strictly(governor, strict, failures):
    status, out = governor("check", "--format", "junit", "doubt.yaml", *strict)

    assert suites(out)[1].get("failures") == failures
    assert status == int(failures)


def test_junit_has_a_case_for_each_case(governor):
    status, out = governor("test", "--format", "junit", "good.cases.yaml")

    assert status == 1
    assert suites(out)[0] == {"good.cases.yaml": [
        ("read it", []), ("a <b> & c", ["expected allow; got deny, DEFAULT_DENY"])]}


def test_a_folder_stands_for_its_policies_and_not_for_its_cases(governor):
    Path("below").mkdir()
    Path("below/other.yaml").write_text(WRONG)
    Path(".hidden.yaml").write_text(WRONG)

    status, out = governor("check", ".", "--json")

    assert status == 1
    assert json.loads(out)["files"] == ["doubt.yaml", "good.yaml", "wrong.yaml"]


def test_a_folder_stands_for_its_cases(governor):
    _, out = governor("test", ".", "--json")

    assert [case["name"] for case in json.loads(out)["cases"]] == ["read it", "a <b> & c"]


def test_the_summary_counts_what_was_found_and_looked_at(governor):
    assert governor("check", "good.yaml")[1].startswith(
        "nothing found. 1 rule, 1 of 1 never proved, 1 assertion proved, 0 undecided, ")
    assert ("2 findings: 1 error, 1 warning. 1 rule, 0 never, 0 assertions proved, 0 undecided, "
            in governor("check", "wrong.yaml", "doubt.yaml")[1])
