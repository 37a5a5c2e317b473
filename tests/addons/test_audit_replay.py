"""`governor audit replay`: on logs with policies and a vault, whole, changed, and judged by another policy."""

from __future__ import annotations

import json
import sqlite3

import pytest
from blake3 import blake3
from click.testing import CliRunner

from addons import build_info
from addons.audit_log import AuditLog
from addons.replay_parts import parts_of
from addons.verbs.audit import audit
from kernel import canonical, entry
from kernel.folding import States
from kernel.snapshot import Snapshot, encode
from tests.addons.replay_homes import POLICY, home, kept
from tests.conftest import scaled
from tests.logs import KERNEL, Lane, two_lanes
from tests.replay_logs import Recorder


@pytest.fixture(autouse=True)
def _kernel(monkeypatch):
    monkeypatch.setattr(build_info, "kernel_digest", lambda: KERNEL["digest"])


@pytest.fixture
def recorder():
    return Recorder(kept(POLICY)).random(scaled(200))


@pytest.fixture
def folder(tmp_path, recorder):
    return home(tmp_path / "home", [recorder], [POLICY])


def governor(*arguments):
    return CliRunner().invoke(audit, ["replay", *map(str, arguments)], standalone_mode=False)


def replayed(*arguments):
    result = governor(*arguments, "--json")
    assert result.exception is None, result.exception
    return result.return_value, json.loads(result.stdout)


def rewritten(folder, change, lane="main"):
    """The lane with its entries as `change` makes them, signed by whoever holds the keys."""
    path = folder / "audit" / "lanes" / lane / "000000.jsonl"
    made = Lane(lane).open(first=True)
    for line in path.read_bytes().splitlines()[2:]:
        made.add_raw(canonical.encode({**change(json.loads(line)["e"]), "prev": made.head}))
    path.write_bytes(b"".join(made.lines))


def test_a_log_comes_out_again_as_it_is(folder):
    code, said = replayed(folder)

    assert (code, said["result"], said["first_divergence"], said["incomplete"]) == (0, "equal", None, None)
    assert said["decisions"] == said["equal"] > scaled(200) - 1
    assert said["matched"] > said["decisions"] * 0.8
    assert (said["divergent"], said["not_replayable"]) == (0, {})


def test_a_home_and_its_audit_folder_are_one_log(folder):
    assert replayed(folder) == replayed(folder / "audit")


def test_without_a_vault_the_kernel_is_replayed_alone(folder):
    (folder / "vault.db").unlink()

    code, said = replayed(folder)

    assert (code, said["equal"], said["matched"]) == (0, said["decisions"], 0)


def test_a_vault_that_is_none_is_as_good_as_no_vault(folder):
    (folder / "vault.db").write_bytes(b"SQLite? no" * 500)

    assert replayed(folder)[1]["matched"] == 0


def test_a_value_that_the_entry_does_not_commit_to_says_nothing(folder):
    with sqlite3.connect(folder / "vault.db") as vault:
        vault.execute("""UPDATE "values" SET value = '"/v1/secrets/a"' WHERE name = 'path'""")

    code, said = replayed(folder)

    assert (code, said["divergent"]) == (0, 0)
    assert said["matched"] < said["decisions"] / 2


def test_what_differs_is_told_with_its_entry_and_field(folder, recorder):
    number = next(each["seq"] for each in recorder.entries if each.get("rule") == "api")
    rewritten(folder, lambda each: {**each, "rule": "docs"} if each["seq"] == number else each)

    code, said = replayed(folder)
    told = governor(folder).stdout

    assert (code, said["result"], said["divergent"]) == (1, "divergent", 1)
    assert said["first_divergence"] == {
        "entry": f"main/{number}", "field": "rule", "recorded": "docs", "computed": "api"}
    assert f"main/{number}: rule is another than computed" in told
    assert "governor audit verify proves that" in told


@pytest.mark.parametrize("content", [None, "version: 1\n", "version: 9\n"])
def test_a_policy_that_is_not_there_as_it_judged_is_said(folder, content):
    path, = (folder / "audit" / "policies").iterdir()
    path.unlink()
    if content:
        path.write_text(content)

    code, said = replayed(folder)

    assert (code, said["result"], said["divergent"]) == (3, "partial", 0)
    assert sum(said["not_replayable"].values()) == said["decisions"]
    assert set(said["not_replayable"]) == {"the policy that was kept was changed" if content else "policy not kept"}


def test_another_kernel_is_said_and_not_called_divergent(folder, monkeypatch):
    monkeypatch.setattr(build_info, "kernel_digest", lambda: "00" * 32)

    code, said = replayed(folder)

    assert (code, said["divergent"], list(said["not_replayable"])) == (3, 0, ["other kernel"])


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_lanes_are_replayed_each_for_itself_whatever_the_number_of_jobs(tmp_path, jobs):
    one = Recorder(kept(POLICY), seed=1).random(scaled(100))
    two = Recorder(kept(POLICY), lane="w0", seed=2).random(scaled(50))
    folder = home(tmp_path / "home", [one, two], [POLICY])

    code, said = replayed(folder, "--jobs", jobs)

    assert (code, said["result"], said["incomplete"]) == (0, "equal", None)
    assert said["decisions"] == sum(
        each["type"] == "decision" for lane in (one, two) for each in lane.entries)


def test_a_fault_in_one_of_several_processes_is_told(tmp_path):
    lanes = [Recorder(kept(POLICY), lane=name).random(3) for name in ("main", "w0")]
    folder = home(tmp_path / "home", lanes, [POLICY])
    (folder / "audit" / "lanes" / "w0" / "000001.jsonl").mkdir()

    for jobs in (1, 2):
        assert governor(folder, "--jobs", jobs).exception is not None


def test_only_what_is_asked_for_is_compared(folder, recorder):
    decisions = [each for each in recorder.entries if each["type"] == "decision"]
    middle = decisions[len(decisions) // 2]["ts"]

    _, later = replayed(folder, "--since", middle)
    _, earlier = replayed(folder, "--until", middle)
    _, one = replayed(folder, "--agent", "a1")

    assert later["decisions"] == sum(each["ts"] >= middle for each in decisions)
    assert later["decisions"] + earlier["decisions"] == len(decisions)
    assert one["decisions"] == sum(each["agent"]["id"] == "a1" for each in decisions)
    assert {later["result"], earlier["result"], one["result"]} == {"equal"}


def test_a_log_without_entries_is_incomplete(tmp_path):
    (tmp_path / "audit" / "lanes").mkdir(parents=True)

    code, said = replayed(tmp_path)

    assert (code, said["result"], said["incomplete"]) == (4, "incomplete", "there are no entries")


def test_a_gap_is_incomplete(folder):
    path = folder / "audit" / "lanes" / "main" / "000000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    # An entry that changes no account.
    path.write_bytes(b"".join(lines[:2] + lines[3:]))

    code, said = replayed(folder)

    assert said["incomplete"] == "main/2 is not where it belongs, but main/3"
    assert code in (1, 4)


def test_a_line_that_is_none_and_an_unfinished_one_stop_nothing(folder):
    path = folder / "audit" / "lanes" / "main" / "000000.jsonl"
    path.write_bytes(path.read_bytes() + b"what is this\n" + b'{"e":{"v":1')

    code, said = replayed(folder)

    assert (code, said["divergent"], said["not_replayable"]) == (3, 0, {"not an entry": 1})


def test_logs_of_other_shapes_are_replayed_without_a_fault(tmp_path):
    code, said = replayed(two_lanes().write(tmp_path / "home"))

    assert (code, said["not_replayable"]) == (3, {"policy not kept": 8})


@pytest.mark.parametrize("arguments", [["absent"], ["--fail-on-change"], ["--policy", "absent.yaml"], ["--jobs", "0"]])
def test_a_wrong_question_is_told(folder, arguments):
    result = governor(*([folder] if arguments[0] != "absent" else []), *arguments)

    assert getattr(result.exception, "exit_code", None) == 2


def test_a_policy_that_does_not_load_is_a_wrong_question(folder, tmp_path):
    (tmp_path / "bad.yaml").write_text("version: 1\nrules: [{alow: x}]\n")

    assert getattr(governor(folder, "--policy", tmp_path / "bad.yaml").exception, "exit_code", None) == 2


def test_a_state_that_the_log_tells_of_is_compared_and_parts_begin_from_it(tmp_path):
    recorder = Recorder(kept(POLICY))
    raws = []
    for _ in range(3):
        recorder.random(scaled(60))
        recorder.keep_state(raws)
        recorder.random(scaled(10))
    folder = home(tmp_path / "home", [recorder], [POLICY])
    states = folder / "audit" / "state"
    states.mkdir()
    whole = replayed(folder, "--jobs", 1)
    for raw in raws:
        (states / f"{blake3(raw).hexdigest()}.json").write_bytes(raw)

    assert whole[1]["result"] == "equal"
    assert len(parts_of(AuditLog.at(folder), "main")) == 4
    assert replayed(folder, "--jobs", 2) == whole == replayed(folder, "--jobs", 1)
    for file in states.iterdir():
        file.write_bytes(b"{}")
    assert replayed(folder, "--jobs", 2) == whole


def test_a_state_that_the_log_tells_otherwise_is_told(tmp_path):
    recorder, raws = Recorder(kept(POLICY)).random(scaled(60)), []
    recorder.keep_state(raws)
    recorder.random(5)
    folder = home(tmp_path / "home", [recorder], [POLICY])
    number = next(each["seq"] for each in recorder.entries if each["type"] == "state_snapshot")
    rewritten(folder, lambda each: {**each, "digest": "ab" * 32} if each["seq"] == number else each)

    code, said = replayed(folder)

    assert (code, said["divergent"]) == (1, 1)
    assert said["first_divergence"] == {"entry": f"main/{number}", "field": "digest", "recorded": "ab" * 32,
                                        "computed": blake3(raws[0]).hexdigest()}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_kept_state_that_the_entries_before_do_not_make_is_told(tmp_path, jobs):
    recorder = Recorder(kept(POLICY)).random(60)
    at, forged = len(recorder.entries), encode(Snapshot("main", len(recorder.entries), States()))
    recorder.write(entry.state_snapshot(at, blake3(forged).hexdigest(), len(forged), 0, 0))
    recorder.random(5)
    folder = home(tmp_path / "home", [recorder], [POLICY])
    (folder / "audit" / "state").mkdir()
    (folder / "audit" / "state" / f"{blake3(forged).hexdigest()}.json").write_bytes(forged)

    code, said = replayed(folder, "--jobs", jobs)

    assert (code, said["first_divergence"]["entry"], said["first_divergence"]["field"]) == (1, f"main/{at}", "digest")


OTHER = POLICY.replace("allow: docs, to: [docs.example.com, pkg.example.org]", "allow: just-docs, to: docs.example.com")


def judged(folder, tmp_path, text, *more):
    (tmp_path / "new.yaml").write_text(text)
    return replayed(folder, "--policy", tmp_path / "new.yaml", *more)


def test_the_same_policy_changes_nothing(folder, tmp_path):
    code, said = judged(folder, tmp_path, POLICY, "--fail-on-change")

    assert (code, said["changed"]) == (0, [])
    # No query is in the log, and a URL is as long as its query lets it be.
    assert said["undecided"].keys() <= {"the length of the URL decides"}
    assert said["decisions"] > scaled(150)


def test_what_another_policy_changes_is_grouped_by_host_and_rule_with_an_example(tmp_path):
    recorder = Recorder(kept(POLICY))
    for name in ("pkg.example.org", "pkg.example.org", "docs.example.com", "api.example.com"):
        recorder.ask(name=name)
    folder = home(tmp_path / "home", [recorder], [POLICY])

    code, said = judged(folder, tmp_path, OTHER)
    failed, _ = judged(folder, tmp_path, OTHER, "--fail-on-change")

    assert (code, failed, said["decisions"]) == (0, 1, 4)
    assert said["changed"] == [{"host": "pkg.example.org", "rule_old": "docs", "rule_new": None, "from": "allow",
                                "to": "deny", "count": 2, "example": "main/3"}]
    told = governor(folder, "--policy", tmp_path / "new.yaml").stdout
    assert "2 of 4 verdicts would be others" in told
    assert "docs -> -" in told


def test_a_name_that_was_never_looked_up_counts_as_one_on_the_public_internet(tmp_path):
    recorder = Recorder(kept(POLICY))
    recorder.ask(name="elsewhere.org", where="/a")
    folder = home(tmp_path / "home", [recorder], [POLICY])

    _, said = judged(folder, tmp_path, f"{POLICY}  - {{allow: new, to: elsewhere.org, methods: any, paths: /a}}\n")

    assert [(each["rule_new"], each["to"]) for each in said["changed"]] == [("new", "allow")]


def test_without_the_path_a_policy_that_asks_for_it_is_undecided(tmp_path):
    recorder = Recorder(kept(POLICY))
    recorder.ask()
    folder = home(tmp_path / "home", [recorder], [POLICY], vault=False)

    _, paths = judged(folder, tmp_path, POLICY)
    _, plain = judged(folder, tmp_path, "version: 1\nrules: [{deny: all, to: .example.com}]\n")

    assert (paths["changed"], paths["undecided"]) == ([], {"path or host not kept": 1})
    assert [each["to"] for each in plain["changed"]] == ["deny"]


def test_budgets_of_another_policy_begin_full_and_are_drawn_on_in_order(tmp_path):
    recorder = Recorder(kept(POLICY))
    for _ in range(5):
        recorder.ask()
        recorder.end(up=1, down=2)
    folder = home(tmp_path / "home", [recorder], [POLICY])

    _, said = judged(folder, tmp_path, f"{POLICY}budgets:\n  - {{budget: few, each: {{requests: 3}}, every: day}}\n")

    assert said["changed"] == [{"host": "api.example.com", "rule_old": "api", "rule_new": "few", "from": "allow",
                                "to": "deny", "count": 2, "example": "main/9"}]


def test_help_tells_what_is_compared_and_how_it_ends():
    said = CliRunner().invoke(audit, ["replay", "--help"]).output

    for word in ("--policy new.yaml", "0 equal", "1 divergent", "4 entries", "governor audit verify"):
        assert word in " ".join(said.split())
