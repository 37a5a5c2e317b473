"""Every decision of a log comes out again as it was; whatever was changed in it, or in the kernel, is told."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import canonical, entry
from kernel.fields import Fields
from kernel.hindsight import NO_FACTS, Hindsight
from kernel.recorded import FIELDS_DECIDE
from kernel.replay import NO_POLICY, OTHER_KERNEL, Replay
from kernel.report import Result
from kernel.trial import Mode
from kernel.verdict import Code
from kernel.verify import verify
from tests.conftest import SCALE, scaled
from tests.logs import PINNED, Lane, source, verify_signature
from tests.replay_logs import KERNEL, POLICY, START, Recorder, judging

ROOT = Path(__file__).resolve().parents[2]
# A hundred thousand where there is time for it.
MANY = scaled(1000) * (10 if SCALE >= 10 else 1)
OURS_TEXT, ANOTHER_TEXT = POLICY, f"# another\n{POLICY}"
OURS = judging(OURS_TEXT)
TRIED_TEXT = f"mode: observe\nuntil: 2027-03-01T09:20:00Z\n{POLICY}"
TRIED = judging(TRIED_TEXT)
FIELDS = judging("""\
rules:
  - {allow: find, to: api.example.com, methods: any, query: {q: "x*"}}
  - {deny: forms, to: api.example.com, methods: any, form: {a: "1"}}
  - {allow: docs, to: docs.example.com, methods: reads}
""")


def replayed(recorder, entries=None, *, vault=True, kernel=KERNEL, known=None, wanted=lambda _: True):
    known = recorder.known if known is None else known
    replay = Replay(recorder.lane, lambda digest: known.get(digest, NO_POLICY), kernel, wanted)
    for each in recorder.entries if entries is None else entries:
        replay.take(each, recorder.values.get(each["seq"], {}) if vault else {})
    return replay.found


def codes(recorder):
    return {each["code"] for each in recorder.entries if each["type"] == "decision"}


@pytest.fixture(scope="module")
def long_log():
    """Much of everything, with a crash in the middle, a reload, and another at the end."""
    recorder = Recorder(OURS).random(MANY // 2)
    recorder.crash()
    recorder.load(judging(ANOTHER_TEXT))
    recorder.random(MANY // 5)
    recorder.load(OURS)
    recorder.random(3 * MANY // 10).crash()
    return recorder


def test_every_decision_comes_out_as_it_was_also_after_a_crash(long_log):
    found = replayed(long_log)

    assert found.first_divergence is None
    assert (found.equal, found.not_replayable) == (found.decisions, {})
    assert found.decisions >= MANY
    assert found.matched > found.decisions * 0.8
    assert MANY < 1000 or len(codes(long_log)) >= 12


def test_without_the_vault_the_kernel_is_replayed_alone(long_log):
    found = replayed(long_log, vault=False)

    assert (found.equal, found.matched) == (found.decisions, 0)


def test_decisions_of_a_trial_go_with_its_own_state():
    recorder = Recorder(TRIED, mode=Mode.OBSERVE).random(scaled(300))
    recorder.crash()
    recorder.random(scaled(300))
    recorder.now = START + timedelta(minutes=25)
    recorder.load(TRIED, Mode.ENFORCE)
    recorder.random(scaled(200))

    found = replayed(recorder)

    assert found.first_divergence is None
    assert found.equal == found.decisions
    assert {each["mode"] for each in recorder.entries if each["type"] == "decision"} == {"enforce", "observe"}


def test_at_the_end_of_a_trial_either_side_of_it_may_have_been_asked():
    recorder = Recorder(judging(TRIED_TEXT, budgets=False), mode=Mode.OBSERVE)
    for seconds in (-90, -1, 0, 90):
        recorder.now = START.replace(hour=9, minute=20) + timedelta(seconds=seconds)
        recorder.ask(where="/nowhere", name="docs.example.com", method="POST")
    assert [each["mode"] for each in recorder.entries[3:]] == ["observe", "observe", "enforce", "enforce"]
    assert replayed(recorder).equal == 4
    swapped = [each | {"ts": other["ts"]} for each, other in zip(
        recorder.entries[3:], [recorder.entries[number] for number in (4, 5, 4, 3)], strict=True)]

    found = replayed(recorder, [*recorder.entries[:3], *swapped])

    assert (found.equal, found.first_divergence.entry, found.first_divergence.field) == (3, "main/6", "mode")


def _others():
    """Interpreters of other versions that have what the kernel and its compiler need."""
    folders = [os.environ.get("PATH", ""), *map(str, Path.home().glob(".pyenv/versions/3.1[2-9]*/bin"))]
    names = [f"python3.{minor}" for minor in range(12, 20) if minor != sys.version_info.minor]
    found = (shutil.which(name, path=os.pathsep.join(folders)) for name in names)
    return [path for path in found if path and subprocess.run(
        [path, "-c", "import blake3, yaml"], capture_output=True).returncode == 0]


def test_another_version_of_python_decides_the_same(long_log, tmp_path):
    others, found = _others(), replayed(long_log)
    if not others:
        pytest.skip("no other version of Python here that has blake3 and PyYAML")
    log = {"entries": long_log.entries, "values": list(long_log.values.items()), "policies": [OURS_TEXT, ANOTHER_TEXT]}
    (tmp_path / "log.json").write_text(json.dumps(log))
    for path in others:
        said = subprocess.run([path, "-m", "tests.replay_elsewhere", str(tmp_path / "log.json")], cwd=ROOT,
                              capture_output=True, text=True)

        assert (said.returncode, said.stderr) == (0, "")
        assert json.loads(said.stdout) == {"equal": found.decisions, "matched": found.matched, "first": "None"}


def test_decisions_of_another_kernel_are_said_and_not_called_divergent(long_log):
    found = replayed(long_log, kernel="00" * 32)

    assert (found.divergent, found.equal) == (0, 0)
    assert found.not_replayable == {OTHER_KERNEL: found.decisions}


def test_each_policy_load_says_which_kernel_decides_from_there_on():
    recorder = Recorder(OURS).random(20)
    before = replayed(recorder).decisions
    other = entry.policy_load(OURS.policy.digest, [], "enforce", entry.kernel_identity("9", "00" * 32))
    recorder.write(other)
    recorder.random(30)

    found = replayed(recorder)

    assert (found.equal, found.divergent) == (before, 0)
    assert found.not_replayable == {OTHER_KERNEL: found.decisions - before}


def test_a_policy_that_was_not_kept_is_said(long_log):
    found = replayed(long_log, known={OURS.policy.digest: OURS})

    assert found.divergent == 0
    assert 0 < found.not_replayable[NO_POLICY] < found.decisions


def test_only_what_is_wanted_is_compared_and_everything_counts(long_log):
    found = replayed(long_log, wanted=lambda each: each["agent"]["id"] == "a1")

    assert found.divergent == 0
    assert found.decisions == sum(
        each["type"] == "decision" and each["agent"]["id"] == "a1" for each in long_log.entries)


def _flips(value):
    """Values of another kind or size than this one."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1]
        case None:
            return ["x"]
        case str():
            return [value + "0"]
        case []:
            return [[{"budget": "day", "for": None, "unit": "requests", "window": 1, "amount": 1, "lease": None}]]
        case list():
            return [value[:-1], value[::-1] if len(value) > 1 else []]
    return []


# What a replay tells of a decision whose signature and chain hold: whoever has the keys cannot change these.
_TOLD = {
    "verdict": ["allow", "deny", "halt", "throttle"], "code": ["ALLOW", "RULE_DENY", "BUDGET_EXHAUSTED"],
    "rule": ["docs", "no-secrets", None], "mode": ["enforce", "observe"], "pre": ["0" * 64], "post": ["0" * 64],
}


@pytest.mark.parametrize("field", ["verdict", "code", "rule", "mode", "pre", "post", "draws", "groups"])
def test_whoever_holds_the_keys_and_changes_a_field_of_a_decision_is_told(field):
    recorder = Recorder(OURS, seed=3).random(60)
    weighed = [n for n, each in enumerate(recorder.entries)
               if each["type"] == "decision" and each["stage"] == "request"]
    for number in recorder.chance.sample(weighed, min(len(weighed), scaled(12))):
        old = recorder.entries[number]
        for value in _TOLD.get(field, _flips(old[field])):
            if value == old[field]:
                continue
            entries = [*recorder.entries[:number], {**old, field: value}, *recorder.entries[number + 1:]]
            found = replayed(recorder, entries)

            assert found.divergent, (field, value, old)
            assert found.first_divergence.entry.startswith("main/")


@pytest.mark.parametrize(("kind", "field"), [
    ("outcome", "bytes_down"), ("outcome", "result"), ("outcome", "decision"), ("operator", "agent"),
    ("operator", "act"), ("operator", "until"), ("decision", "ts"), ("clock", "type"), ("halt", "agent"),
])
def test_what_changes_the_accounts_is_told_by_the_decisions_after_it(kind, field):
    recorder = Recorder(OURS)
    recorder.ask(agent="a1", body_bytes=10)
    recorder.end(0, up=10, down=500)
    recorder.act("agents quarantine", "a1", until=entry.timestamp(recorder.now + timedelta(minutes=5)))
    recorder.write(entry.halt("b9", "OPERATOR", None, "main/2", ()))
    recorder.write({"type": "clock"})
    for agent in ("a1", "b9", "a2"):
        recorder.ask(agent=agent, body_bytes=20)
    number = next(n for n, each in enumerate(recorder.entries) if each["type"] == kind)
    old = recorder.entries[number]
    new = {"ts": "2027-03-02T09:00:00.000006Z", "until": "2027-03-01T09:00:00.000006Z", "result": "not_sent",
           "bytes_down": 501}.get(field, "nothing")
    assert replayed(recorder).divergent == 0

    entries = [*recorder.entries[:number], {**old, field: new}, *recorder.entries[number + 1:]]
    assert replayed(recorder, entries).divergent


def test_one_decision_that_differs_does_not_make_the_later_ones_differ():
    recorder = Recorder(OURS)
    for _ in range(9):
        recorder.ask(agent="a1")
    entries = copy.deepcopy(recorder.entries)
    entries[5]["rule"] = "docs"

    found = replayed(recorder, entries)

    assert (found.divergent, found.equal) == (1, 8)
    first = found.first_divergence
    assert (first.entry, first.field, first.recorded, first.computed) == ("main/5", "rule", "docs", "api")


def test_rules_are_found_again_from_what_the_vault_holds():
    recorder = Recorder(OURS)
    recorder.ask(where="/v1/x")
    recorder.ask(where="/v1/secrets/a")
    recorder.values[3] = {"path": "/v1/secrets/a"}

    found = replayed(recorder)

    assert (found.first_divergence.field, found.first_divergence.recorded) == ("groups", ["api"])
    assert found.first_divergence.computed == ["api", "no-secrets"]
    assert (found.divergent, found.matched) == (1, 1)


@pytest.mark.parametrize("values", [
    pytest.param({}, id="erased"), pytest.param({"path": ["/v1/**"]}, id="secret, only the globs it matched"),
])
def test_what_the_vault_does_not_hold_is_replayed_from_the_rules(values):
    recorder = Recorder(OURS)
    recorder.ask()
    recorder.values[3] = values

    assert (replayed(recorder).equal, replayed(recorder).matched) == (1, 0)


@pytest.mark.parametrize(("asked", "reason"), [
    pytest.param({"query": "q=xyz"}, FIELDS_DECIDE, id="a query that a grant asks for"),
    pytest.param({"query": "q=no"}, FIELDS_DECIDE, id="one that it does not want"),
    pytest.param({"name": "docs.example.com"}, None, id="no rule asks for fields there"),
    pytest.param({"name": "unknown.example"}, None, id="nothing holds there"),
])
def test_where_fields_decide_that_is_said_and_nowhere_else(asked, reason):
    recorder = Recorder(FIELDS)
    recorder.ask(**asked)

    found = replayed(recorder)

    assert found.divergent == 0
    assert found.not_replayable == ({reason: 1} if reason else {})
    assert found.matched == (0 if reason else 1)


def test_a_rule_that_no_field_could_make_hold_is_told():
    recorder = Recorder(FIELDS)
    recorder.ask(query="q=xyz", fields=Fields("q=xyz", ((b"content-type", b"text/plain"),), b""))
    entries = copy.deepcopy(recorder.entries)
    entries[-1].update(groups=["docs"], rule="docs")

    assert replayed(recorder, entries).first_divergence.field == "groups"


MODELS = judging("""\
rules:
  - {allow: ask, to: api.example.com, llm: {models: [m-*]}}
  - {deny: not-that, to: api.example.com, llm: {models: m-9}}
""", budgets=False)
_CHAT, _GOOGLE = "/v1/chat/completions", "/v1beta/models/m-1:generateContent"


@pytest.mark.parametrize(("where", "body", "told", "rule"), [
    pytest.param(_CHAT, b'{"model": "m-1"}', "m-1", "ask", id="an allowed model"),
    pytest.param(_CHAT, b'{"model": "m-9"}', "m-9", "not-that", id="a refused one"),
    pytest.param(_CHAT, b'{"model": "n-1"}', "n-1", None, id="another one"),
    pytest.param(_CHAT, b'{"model": ', None, "not-that", id="one that cannot be read"),
    pytest.param(_GOOGLE, b"{}", "m-1", "ask", id="one in the path"),
])
def test_the_model_of_a_call_is_judged_again_from_its_entry(where, body, told, rule):
    recorder = Recorder(MODELS)
    sent = Fields("", ((b"content-type", b"application/json"),), body)
    recorder.ask(where=where, method="POST", fields=sent)
    entries = copy.deepcopy(recorder.entries)
    entries[-1]["llm"] = {"model": told}

    found = replayed(recorder, entries)
    hindsight = Hindsight(recorder.lane, MODELS)
    for each in entries:
        hindsight.take(each, recorder.values.get(each["seq"], {}))

    assert entries[-1]["rule"] == rule
    assert (found.equal, found.matched, found.first_divergence) == (1, 1, None)
    assert (hindsight.found.decisions, hindsight.found.changed, hindsight.found.undecided) == (1, {}, {})


def test_without_its_path_a_call_of_a_model_cannot_be_judged_anew():
    recorder = Recorder(MODELS)
    recorder.ask(where=_CHAT, method="POST")
    hindsight = Hindsight(recorder.lane, MODELS)
    for each in recorder.entries:
        hindsight.take(each)

    assert hindsight.found.undecided == {NO_FACTS: 1}


def test_another_model_in_an_entry_than_the_one_that_was_judged_is_told():
    recorder = Recorder(MODELS)
    sent = Fields("", ((b"content-type", b"application/json"),), b'{"model": "m-1"}')
    recorder.ask(where=_CHAT, method="POST", fields=sent)
    entries = copy.deepcopy(recorder.entries)
    entries[-1]["llm"] = {"model": "m-9"}

    assert replayed(recorder, entries).first_divergence.field == "groups"
    assert replayed(recorder).not_replayable == {FIELDS_DECIDE: 1}


def test_a_moment_at_which_hours_end_may_be_either_side_of_it():
    recorder = Recorder(OURS)
    for hour, minute, second in ((9, 29, 59), (9, 30, 0), (9, 30, 1), (12, 0, 0)):
        recorder.now = START.replace(hour=hour, minute=minute, second=second)
        recorder.ask(name="unknown.example", where="/")
    found = replayed(recorder)
    late = copy.deepcopy(recorder.entries)
    late[3]["ts"] = late[-1]["ts"]

    assert (found.equal, found.matched) == (4, 4)
    assert replayed(recorder, late).first_divergence.field == "groups"


def test_the_clock_of_the_log_may_be_seconds_from_the_one_that_hours_were_judged_by():
    recorder = Recorder(judging(budgets=False))
    recorder.now = START.replace(hour=9, minute=29, second=59)
    recorder.ask(name="unknown.example", where="/")
    before = recorder.entries[-1]
    later = [{**before, "ts": f"2027-03-01T09:{time}.000006Z"} for time in ("30:30", "31:30")]

    assert [replayed(recorder, [*recorder.entries[:-1], each]).divergent for each in (before, *later)] == [0, 0, 1]


def test_that_governor_itself_listens_somewhere_is_said_of_addresses_alone():
    recorder = Recorder(OURS)
    recorder.ask(name="elsewhere.example", where="/")
    refused = recorder.entries[-1]
    own = {**refused, "code": "NEVER", "in": {**refused["in"], "address": "127.0.0.1"}}

    assert refused["in"]["address"] is None
    assert replayed(recorder, [*recorder.entries[:-1], {**refused, "code": "NEVER"}]).divergent == 1
    assert replayed(recorder, [*recorder.entries[:-1], own], vault=False).divergent == 0


def test_hours_that_are_over_are_no_reason_while_they_last():
    recorder = Recorder(OURS)
    recorder.ask(name="unknown.example", where="/")
    entries = copy.deepcopy(recorder.entries)
    entries[-1].update(groups=[], rule="by-day", code="OUT_OF_HOURS", verdict="deny", draws=[], mode="enforce")

    assert replayed(recorder, entries, vault=False).first_divergence.field == "rule"


@pytest.mark.parametrize(("code", "verdict"), [
    ("FAULT", "allow"), ("NON_CANONICAL", "halt"), ("BUSY", "throttle"), ("TUNNEL", "allow"), ("REFUSAL_RATE", "allow"),
])
def test_a_fact_from_outside_lets_nothing_through_and_halts_nobody(code, verdict):
    recorder = Recorder(OURS)
    recorder.ask(outside=Code.FAULT)
    entries = copy.deepcopy(recorder.entries)
    entries[-1].update(code=code, verdict=verdict)

    assert replayed(recorder, entries).divergent == 1


def test_nobody_passes_without_an_identity():
    recorder = Recorder(OURS)
    recorder.ask()
    entries = copy.deepcopy(recorder.entries)
    entries[-1]["agent"] = {"id": None, "by": "none"}

    assert replayed(recorder, entries).first_divergence.field == "agent"


def test_a_halt_by_a_source_stands_where_somebody_was_halted_who_came_from_one():
    recorder = Recorder(OURS)
    refused = {"verdict": "halt", "rule": None, "code": "AGENT_HALTED", "groups": [], "draws": []}
    recorder.ask(agent="b1", outside=Code.FAULT)
    alone = [*recorder.entries[:-1], recorder.entries[-1] | refused]
    halt = entry.operator("agents halt", "a1", "because", "ann", "control") | {"sources": ["10.0.0.9"]}
    halted = [*recorder.entries[:-1], entry.common("operator", 3, "", alone[0]["ts"], 0, "main") | halt, alone[-1]]

    assert replayed(recorder, alone).divergent == 1
    assert replayed(recorder, halted).divergent == 0


_leaves = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "allow", "x", "RULE_DENY"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "host"]), inner, max_size=2),
    max_leaves=4)


@given(st.data())
def test_whatever_a_log_holds_a_replay_of_it_ends(long_log, data):
    entries = copy.deepcopy(long_log.entries[:60])
    for _ in range(3):
        each = entries[data.draw(st.integers(0, 59))]
        inner = data.draw(st.sampled_from([each, *(part for part in each.values() if isinstance(part, dict))]))
        key = data.draw(st.sampled_from(sorted(inner) or ["type"]))
        if key != "seq" and data.draw(st.booleans()):
            inner.pop(key, None)
        elif key != "seq":
            inner[key] = data.draw(_leaves)

    found = replayed(long_log, entries)

    assert found.decisions == found.equal + found.divergent + found.not_replayable.total()


def _one_of_each_kind():
    """A signed lane with an entry of every kind that the kernel can build, and what its vault holds."""
    recorder = Recorder(OURS)
    recorder.ask(agent="a1", name="hidden.unknown.example")
    recorder.ask(agent="a1")
    recorder.end(up=1, down=2)
    recorder.keep_state([])
    recorder.connect()
    ts = entry.timestamp(START)
    for body in (
        entry.connection("192.0.2.9", "malformed", "MALFORMED"), entry.refusals("a1", {"RULE_DENY": 3}, ts, ts),
        entry.fault("request", "ValueError", "FAULT", "f1"),
        entry.halt("b1", "OPERATOR", "trap", "main/3", ["192.0.2.9"]),
        entry.operator("agents halt", "b2", "because", "ann", "control"), entry.clock(ts, ts),
        entry.config({"mode": ["regular"]}, {"mitmproxy": "12"}), entry.recovery("000000.jsonl", 7, 3, "ab" * 32),
        entry.close("stopped"),
    ):
        recorder.write(body)
    lane = Lane("main").open(first=True)
    for each in recorder.entries[2:]:
        lane.add_raw(canonical.encode({**each, "seq": lane.tree.size, "prev": lane.head}))
    return lane.checkpoint()


def _changed(value):
    """Every value that differs from this one in one field."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: each for name, each in value.items() if name != key}
            for each in _changed(inner):
                yield {**value, key: each}
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            for each in _changed(inner):
                yield [*value[:number], each, *value[number + 1:]]
    yield from _flips(value)


def test_no_field_of_any_entry_can_be_changed_without_being_told():
    lane = _one_of_each_kind()
    entries = [json.loads(line)["e"] for line in lane.lines]
    kinds = {each["type"] for each in entries}
    changes = [(number, old, new) for number, old in enumerate(entries) for new in _changed(old)]
    for number, old, new in random.Random(5).sample(changes, min(len(changes), scaled(150))):
        line = lane.lines[number].replace(canonical.encode(old), canonical.encode(new))
        forged = copy.copy(lane)
        forged.lines = [*lane.lines[:number], line, *lane.lines[number + 1:]]

        assert verify([source(forged)], PINNED, verify_signature, canonical.parse).result is Result.TAMPERED, new
    assert len(kinds) >= 14
    assert len(changes) > 250
