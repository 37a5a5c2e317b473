"""`governor policy check` and `test` for programs: SARIF, GitHub's workflow commands, JUnit, and folders."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from jsonschema import Draft4Validator, FormatChecker

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

    assert [suite.get("skipped") for suite in root] == ["1"]
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


FORMS = ("text", "json", "sarif", "github", "junit")
SARIF = Path(__file__).parents[1] / "vectors" / "sarif" / "sarif-2.1.0-rtm.5.json"
# Put together here, so that no tool takes this file for a leak.
TOKEN = "ghp_" + "a1B2" * 9
# A policy for each way in which a finding can look: errors, warnings, remarks, witnesses, undecided, odd characters.
ODD = {
    "errors.yaml": "version: 2\nrulez: []\nrules:\n  - {alow: x}\n",
    "not yaml.yaml": "a: *.x.com\n",
    "wide.yaml": "version: 1\nrules: [{allow: x, to: [.com, 9.0.0.0/8], methods: any, schemes: [http, https]}]\n",
    "cut.yaml": "version: 1\nrules:\n  - {allow: x, to: x.example, methods: [GET]}\n  - {deny: y, paths: /a}\n",
    "50%, a:b.yaml": "version: 1\nrules: [{allow: \"a,b:c%\\r\\n::error::d\", to: x.example, methods: [GET]}]\n",
    "ä <&>.yaml": "version: 1\nrules: [{deny: x, from: \"bob<&>\", to: \"\\x1b[31mq\"}]\n",
    "secret.yaml": f"version: 1\n# {TOKEN}\nrules: [{{allow: {TOKEN}, to: x.example, methods: [GET]}}]\n",
}


@pytest.fixture
def odd(governor):
    """Writes the odd policies; gives their names and runs `governor policy`."""
    for name, text in ODD.items():
        Path(name).write_text(text)
    return governor, [*ODD, "good.yaml", "wrong.yaml", "doubt.yaml"]


def test_sarif_is_what_the_schema_of_the_standard_wants(odd):
    governor, files = odd
    validator = Draft4Validator(json.loads(SARIF.read_text()), format_checker=FormatChecker())
    logs = [json.loads(governor("check", "--format", "sarif", *each)[1]) for each in (files, ["good.yaml"])]

    assert [error.message for log in logs for error in validator.iter_errors(log)] == []
    assert len(logs[0]["runs"][0]["results"]) > len(ODD)


@pytest.mark.parametrize("wrong", [
    {"version": "2.0.0"}, {"runs": [{}]}, {"run": []},
])
def test_the_schema_of_the_standard_refuses_what_is_no_sarif(governor, wrong):
    log = json.loads(governor("check", "--format", "sarif", "wrong.yaml")[1])

    assert list(Draft4Validator(json.loads(SARIF.read_text())).iter_errors(log | wrong))


# What the schema that build servers use knows of each element: attributes, those that must be there, and children.
JUNIT = {
    "testsuites": ({"name", "time", "tests", "failures", "errors", "disabled"}, set(), {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
                  {"name", "tests", "failures", "errors"}, {"testcase", "properties", "system-out", "system-err"}),
    "testcase": ({"name", "classname", "time"}, {"name", "classname"}, {"failure", "error", "skipped"}),
    "failure": ({"message", "type"}, {"message", "type"}, set()),
    "skipped": ({"message", "type"}, set(), set()),
}


@pytest.mark.parametrize("asked", [["check"], ["check", "--strict"], ["test"]], ids=" ".join)
def test_junit_has_the_elements_and_attributes_that_build_servers_know(odd, asked):
    governor, files = odd
    out = governor(*asked, "--format", "junit", *(files if asked[0] == "check" else ["good.cases.yaml"]))[1]
    root = ElementTree.fromstring(out)

    assert root.tag == "testsuites"
    for element in root.iter():
        known, needed, children = JUNIT[element.tag]
        assert needed <= set(element.keys()) <= known
        assert {child.tag for child in element} <= children
    for suite in [*root, root]:
        cases = list(suite.iter("testcase"))
        assert all(len(case) <= 1 for case in cases)
        assert suite.get("tests") == str(len(cases))
        assert suite.get("failures") == str(sum(case.find("failure") is not None for case in cases))


def test_junit_tells_every_error_of_a_policy(odd):
    governor, _ = odd
    (failure,) = ElementTree.fromstring(governor("check", "--format", "junit", "errors.yaml")[1]).iter("failure")

    assert [line.split()[1] for line in (failure.text or "").splitlines()] == ["E109", "E103", "E103"]


def test_github_gets_one_line_for_each_finding_whatever_stands_in_it(odd):
    governor, files = odd
    status, out = governor("check", "--format", "github", *files)
    found = json.loads(governor("check", "--json", *files)[1])
    lines = out.splitlines()

    assert status == 1
    assert len(lines) == len(found["findings"]) + len(found["undecided"])
    for line in lines:
        head, message = line[2:].split("::", 1)
        assert line.startswith(("::error file=", "::warning file=", "::notice file="))
        assert all(part.partition("=")[0] in ("file", "line", "col", "title")
                   for part in head.partition(" ")[2].split(","))
        assert ":" not in head
        assert not {"\r", "\x1b"} & set(message)
    assert any("file=50%25%2C a%3Ab.yaml," in line for line in lines)


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_named_by_its_place_and_stands_in_no_form(odd, form):
    governor, _ = odd
    status, out = governor("check", "--format", form, "secret.yaml")

    assert status == 1
    assert "E405" in out
    assert TOKEN[-12:] not in out
