"""`governor policy diff`: the sides, what is said, and when the answer is no."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from addons import cli
from addons.verbs.difference import may_loosen
from kernel.analysis.difference import Difference, Relation

READS = "version: 1\nrules: [{allow: it, to: x.example, methods: reads}]\n"
WRITES = READS.replace("reads", "any")
OTHER = READS.replace("x.example", "y.example")


@pytest.fixture
def governor(tmp_path, monkeypatch):
    """Runs `governor policy` in an empty git repository; gives status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name, value in {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str):
        result = CliRunner().invoke(cli.governor, ["policy", *arguments])
        return result.exit_code, result.stdout, result.stderr

    return run


def git(*arguments: str) -> None:
    named = ["-c", "user.name=ana", "-c", "user.email=ana@example.org"]
    subprocess.run(["git", *named, *arguments], check=True, capture_output=True)


def commit(files: dict[str, str]) -> None:
    if not Path(".git").exists():
        git("init", "-q", "-b", "main")
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    git("add", "-A")
    git("commit", "-qm", "change")


TOKENS = READS + "identity: {proxy-auth: yes}\n"
CERTIFICATES = READS + "identity: {cert: {ca: a.pem}}\n"


@pytest.mark.parametrize(("old", "new", "relation", "failing"), [
    pytest.param(TOKENS, READS, "undecided", 1, id="nobody has to say any more who he is"),
    pytest.param(TOKENS, TOKENS.replace("yes", "yes, anonymous: allow"), "undecided", 1, id="anonymous clients"),
    pytest.param(CERTIFICATES, CERTIFICATES.replace("a.pem", "b.pem"), "undecided", 1, id="another CA of clients"),
    pytest.param(CERTIFICATES, "# a comment\n" + CERTIFICATES, "equal", 0, id="the same CA, a line below"),
    pytest.param(READS, WRITES, "looser", 1, id="looser"),
    pytest.param(WRITES, READS, "stricter", 0, id="stricter"),
    pytest.param(READS, READS + "# a comment\n", "equal", 0, id="equal"),
    pytest.param(READS, OTHER, "incomparable", 1, id="incomparable"),
])
def test_only_a_policy_that_may_be_looser_fails_and_only_when_asked(governor, old, new, relation, failing):
    Path("old.yaml").write_text(old)
    Path("new.yaml").write_text(new)

    status, out, _ = governor("diff", "old.yaml", "new.yaml", "--json")

    assert (status, json.loads(out)["relation"]) == (0, relation)
    assert governor("diff", "old.yaml", "new.yaml", "--fail-if-looser")[0] == failing


def test_each_change_has_its_rules_a_sentence_and_a_request(governor):
    Path("old.yaml").write_text(READS)
    Path("new.yaml").write_text(WRITES)

    said = json.loads(governor("diff", "old.yaml", "new.yaml", "--json")[1])
    (change,) = said["newly_allowed"]

    assert said.keys() == {"relation", "mode", "newly_allowed", "newly_denied", "changed", "undecided"}
    assert said["mode"] == {"old": "enforce", "new": "enforce"}
    assert change["rules"] == ["it"]
    assert "x.example" in change["message"]
    assert change["witness"]["url"].startswith("https://x.example/")
    assert change["witness"]["method"] not in ("GET", "HEAD", "OPTIONS")


@pytest.mark.parametrize(("form", "first"), [
    ("text", "LOOSER (1 newly allowed, 0 newly denied, 0 changed, 0 undecided), "),
    ("markdown", "### Policy change: LOOSER (1 newly allowed, 0 newly denied, 0 changed, 0 undecided)\n"),
    ("github", "::warning file=new.yaml,title=policy diff::LOOSER (1 newly allowed, "),
])
def test_every_form_begins_with_how_the_new_policy_stands_to_the_old(governor, form, first):
    Path("old.yaml").write_text(READS)
    Path("new.yaml").write_text(WRITES)

    status, out, _ = governor("diff", "old.yaml", "new.yaml", "--format", form)

    assert status == 0
    assert out.startswith(first)
    assert "governor policy explain --agent" in out


@pytest.mark.parametrize(("old", "new"), [
    ("main~1:team.yaml", "main:team.yaml"),
    ("HEAD~1:team.yaml", "team.yaml"),
    ("HEAD~1:", "HEAD:"),
    ("HEAD~1:", "."),
    ("HEAD~1:deep", "HEAD:deep/"),
    ("HEAD~1:deep/x.yaml", "deep"),
])
def test_a_side_is_a_file_a_folder_or_either_at_a_revision(governor, old, new):
    commit({"team.yaml": READS, "deep/x.yaml": READS, "team.cases.yaml": "no policy", ".hidden.yaml": "nor this"})
    commit({"team.yaml": WRITES, "deep/x.yaml": WRITES})

    status, out, err = governor("diff", old, new, "--json")

    assert (status, err) == (0, "")
    assert json.loads(out)["relation"] == "looser"


def test_a_revision_is_read_without_touching_the_work_tree(governor):
    commit({"team.yaml": READS})
    commit({"team.yaml": WRITES})
    Path("team.yaml").write_text(OTHER)
    Path("mine.yaml").write_text("not committed")
    before = {path: path.stat().st_mtime_ns for path in (Path("team.yaml"), Path("mine.yaml"), Path(".git/index"))}

    governor("diff", "HEAD~1:team.yaml", "HEAD:team.yaml")

    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("side", [
    "nowhere.yaml", "HEAD:nowhere.yaml", "nowhere:team.yaml", ":team.yaml", "--output=x:team.yaml", "empty",
    "HEAD:none", "bad.yaml", "HEAD:bad.yaml",
])
def test_a_side_that_is_not_there_or_does_not_load_is_told_and_exits_2(governor, side):
    commit({"team.yaml": READS, "bad.yaml": "version: 2\n", "none/x.txt": ""})
    Path("empty").mkdir()

    for sides in ((side, "team.yaml"), ("team.yaml", side)):
        status, out, err = governor("diff", "--fail-if-looser", "--", *sides)

        assert (status, out) == (2, "")
        assert side in err
        assert ("there is no policy in this folder" in err) is (side in ("empty", "HEAD:none"))
    assert {path.name for path in Path().iterdir()} == {".git", "team.yaml", "bad.yaml", "none", "empty"}


def test_a_revision_without_git_is_told_and_exits_2(governor, monkeypatch):
    commit({"team.yaml": READS})
    monkeypatch.setenv("PATH", os.devnull)

    status, _, err = governor("diff", "HEAD:team.yaml", "team.yaml")

    assert status == 2
    assert "no git" in err


def test_nothing_of_a_policy_is_read_as_markdown(governor):
    Path("old.yaml").write_text(READS)
    Path("new.yaml").write_text(READS + "  # x\n" + "limits: [{to: x.example, paths: '/*a*/`b`', max-url: 9}]\n")

    _, out, _ = governor("diff", "old.yaml", "new.yaml", "--format", "markdown")

    sentences = [line for line in out.splitlines() if line.startswith("- ")]
    assert not any("`b`" in line.replace("\\`", "") for line in sentences)


BUDGET = READS + "budgets: [{budget: daily, each: {requests: 100}, every: day}]\n"


def test_a_raised_budget_is_looser_and_is_told_in_every_form_without_a_request(governor):
    Path("old.yaml").write_text(BUDGET)
    Path("new.yaml").write_text(BUDGET.replace("100", "200"))
    sentence = "daily no longer refuses after 100 requests of every agent in a day (UTC)"

    status, out, _ = governor("diff", "old.yaml", "new.yaml", "--json", "--fail-if-looser")
    said = json.loads(out)

    assert (status, said["relation"]) == (1, "looser")
    assert said["changed"] == [{"rules": ["daily"], "message": sentence, "witness": None}]
    for form in ("text", "markdown", "github"):
        told = governor("diff", "old.yaml", "new.yaml", "--format", form)[1]
        assert sentence in told
        assert "witness" not in told


def test_what_is_undecided_may_be_looser():
    assert may_loosen(Difference(Relation.EQUAL, (), (), (), ("rule it",)))
