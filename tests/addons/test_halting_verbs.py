"""Halt, release, quarantine, list, show and the clock: through a running Governor and without one."""

from __future__ import annotations

import asyncio
import json
import os
import re

import pytest
from click.testing import CliRunner

from addons import acts_alone, build_info, takeover
from addons.agent_rows import FIELDS
from addons.control import ControlError, ControlTimeout, Peer, request, user_name
from addons.errors import StartRefused
from addons.halts_on_disk import state_on_disk
from addons.home import Home, Paths
from addons.keys import SigningKey
from addons.lane import Lane
from addons.verbs import acting
from kernel import chain
from kernel.bounds import Bounds
from kernel.budget import Counter, Effect
from kernel.entry import operator
from kernel.note import lane_name
from kernel.state import Change
from kernel.transition import change, micros
from kernel.verdict import Code
from tests.addons.operators import Running, acts, agents, clock, run, run_async, told
from tests.kernel.accounting import MICROS, budget, policy

ME = user_name(os.geteuid())
WHY = ("--reason", "it uploads")


@pytest.fixture
def home(home):
    Lane.open(home, "main", kernel=build_info.kernel_identity()).close("made")
    assert run(home, "add", "coder-1").exit_code == 0
    return home


@pytest.fixture
async def running(home):
    running = Running(home)
    for body in takeover.acts(home, running.state.taken_over):
        await running.book.act(**{name: value for name, value in body.items() if name != "type"})
    await running.server.start()
    yield running
    await running.stop()


def states(home):
    return {row["id"]: row["state"] for row in told(run(home, "list", "--json"))}


async def states_async(home):
    return await asyncio.to_thread(states, home)


async def test_a_halt_is_in_force_and_in_the_log_when_the_verb_returns(home, running):
    running.registry.whereabouts.saw("coder-1", "192.0.2.7")
    said = told(await run_async(home, "halt", "coder-1", *WHY, "--json"))

    assert running.state.agent("coder-1").halt.reason == Code.OPERATOR
    assert running.ended == ["coder-1"]
    assert acts(home, "main")[-1] == {
        "act": "agents halt", "agent": "coder-1", "reason": "it uploads", "operator": ME, "by": "control",
        "sources": ["192.0.2.7"]}
    assert (said["state"], said["reason"], said["by"], said["changed"], said["in_force"]) == (
        "halted", "OPERATOR", ME, True, True)
    assert re.fullmatch(r"main/\d+", said["entry"])


async def test_to_halt_who_is_halted_says_so_and_changes_nothing(home, running):
    await run_async(home, "halt", "coder-1", *WHY)
    before = len(acts(home, "main"))
    again = await run_async(home, "halt", "coder-1", "--reason", "once more")

    assert again.exit_code == 0
    assert re.match(rf"coder-1 is halted already, since \S+ \S+ UTC by {ME}: OPERATOR; nothing", again.stdout)
    assert len(acts(home, "main")) == before
    assert told(await run_async(home, "halt", "coder-1", *WHY, "--json"))["changed"] is False


async def test_a_release_lets_it_go_on(home, running):
    await run_async(home, "halt", "coder-1", *WHY)
    said = told(await run_async(home, "release", "coder-1", "--reason", "looked at", "--json"))

    assert (said["state"], said["reason"], running.state.agent("coder-1").epoch) == ("running", None, 1)
    assert acts(home, "main")[-1]["act"] == "agents release"


async def test_a_quarantine_says_when_it_ends_and_can_be_ended(home, running):
    said = told(await run_async(home, "quarantine", "coder-1", "--for", "1h", *WHY, "--json"))
    entry = acts(home, "main")[-1]
    began = micros(said["since"])

    assert (said["state"], said["reason"], said["until"]) == ("quarantined", "QUARANTINED", entry["until"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["until"])
    assert 3590 * MICROS < micros(entry["until"]) - began <= 3600 * MICROS
    assert told(await run_async(home, "release", "coder-1", *WHY, "--json"))["state"] == "running"


async def test_a_claimed_name_stands_beside_the_user_who_claims_it(home, running):
    await run_async(home, "halt", "coder-1", *WHY, "--operator", "ana")
    entry = acts(home, "main")[-1]

    assert (entry["operator"], entry["by"]) == ("ana", f"control:{ME}")
    assert running.state.agent("coder-1").halt.by == "ana"


@pytest.mark.parametrize(("arguments", "said"), [
    pytest.param(("halt", "nobody", *WHY), "no agent nobody is known", id="a name nobody has"),
    pytest.param(("show", "nobody"), "no agent nobody is known", id="shown"),
    pytest.param(("release", "coder-1", *WHY), "neither halted nor held back", id="not halted"),
    pytest.param(("quarantine", "nobody", "--for", "1h", *WHY), "no agent nobody is known", id="quarantined"),
])
@pytest.mark.parametrize("lane", ["cli", "main"])
async def test_what_has_no_sense_is_refused_and_leaves_no_entry(home, arguments, said, lane):
    """In lane cli without a Governor, in its own with one."""
    governor = Running(home)
    if lane == "main":
        await governor.server.start()
    else:
        await governor.stop()
    before = acts(home, lane)
    result = await run_async(home, *arguments)
    as_json = await run_async(home, *arguments, "--json")

    assert (result.exit_code, as_json.exit_code) == (1, 1)
    assert said in result.stderr
    assert said in json.loads(as_json.stdout)["error"]
    assert acts(home, lane) == before
    await governor.stop()


async def test_a_halted_agent_cannot_be_quarantined(home, running):
    await run_async(home, "halt", "coder-1", *WHY)
    result = await run_async(home, "quarantine", "coder-1", "--for", "1h", *WHY)

    assert (result.exit_code, "halted, which is more" in result.stderr) == (1, True)


@pytest.mark.parametrize("arguments", [
    ("halt", "coder-1"), ("halt", "coder-1", "--reason", " "), ("halt", "coder-1", "--reason", "a\nb"),
    ("halt", "coder-1", "--reason", "x" * 501), ("halt", "coder-1", *WHY, "--operator", ""),
    ("quarantine", "coder-1", *WHY), ("quarantine", "coder-1", "--for", "1 hour", *WHY),
    ("quarantine", "coder-1", "--for", "0s", *WHY), ("quarantine", "coder-1", "--for", "400d", *WHY),
    ("release", "coder-1"), ("halt", *WHY),
])  # fmt: skip
def test_wrong_usage_is_2(home, arguments):
    result = run(home, *arguments)

    assert (result.exit_code, len(acts(home, "cli"))) == (2, 1)


def test_a_time_that_is_nearly_one_is_told_how_to_write_it(home):
    assert "write 90m" in run(home, "quarantine", "coder-1", "--for", "1h30m", *WHY).stderr


async def test_no_answer_in_time_is_4_and_says_that_it_may_still_be_done(home, monkeypatch):
    def late(*arguments, **more):
        raise ControlTimeout("the Governor did not answer within 20 s")

    monkeypatch.setattr(acting, "request", late)
    results = [run(home, "halt", "coder-1", *WHY, *more) for more in ((), ("--json",))]

    assert [result.exit_code for result in results] == [4, 4]
    assert "may still be done" in results[0].stderr
    assert "may still be done" in json.loads(results[1].stdout)["error"]


async def test_everybody_may_be_halted_where_no_agent_has_a_token(home, running):
    assert told(await run_async(home, "halt", "local", *WHY, "--json"))["state"] == "halted"
    assert (await states_async(home))["local"] == "halted"


async def test_a_new_token_and_a_removal_lift_no_halt(home, running):
    await run_async(home, "halt", "coder-1", *WHY)
    rotated = await run_async(home, "rotate", "coder-1")
    removed = told(await run_async(home, "remove", "coder-1", "--json"))
    added = await run_async(home, "add", "coder-1")

    assert "a new token lifts no halt" in rotated.stderr
    assert "a new token lifts no halt" in added.stderr
    assert removed == {"id": "coder-1", "state": "halted"}
    assert (await states_async(home))["coder-1"] == "halted"


async def test_a_new_token_begins_a_session(home, running):
    before = running.state.agent("coder-1").session
    await run_async(home, "rotate", "coder-1")

    assert running.state.agent("coder-1").session == before + 1


BUDGETED = Bounds(policy(
    budget({"requests": 20000}, {"bytes": 5_000_000}, name="daily"), counters=(Counter("risk", 100, Effect.HALT),)))


@pytest.fixture
async def budgeted(home):
    running = Running(home, BUDGETED)
    await running.server.start()
    yield running
    await running.stop()


async def test_a_row_has_the_fields_of_the_contract_and_the_budgets(home, budgeted):
    row = told(await run_async(home, "list", "--json"))[0]

    assert list(row) == ["id", "state", "reason", "since", "by", "budgets", "risk", "last_seen"]
    assert [list(each) for each in row["budgets"]] == [
        ["budget", "unit", "limit", "spent", "held", "window", "each", "remaining"]] * 2
    assert [(each["unit"], each["limit"], each["remaining"], each["each"]) for each in row["budgets"]] == [
        ("requests", 20000, 20000, True), ("bytes", 5_000_000, 5_000_000, False)]
    assert row["risk"] == 0


async def test_the_page_of_an_agent_tells_why_since_when_by_whom_and_what_is_left(home, budgeted):
    budgeted.registry.whereabouts.saw("coder-1", "192.0.2.7")
    await run_async(home, "halt", "coder-1", *WHY)
    page = (await run_async(home, "show", "coder-1")).stdout

    assert re.match(rf"coder-1  HALTED since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC, \d s ago, by {ME}\n", page)
    assert "OPERATOR: it uploads" in page
    assert re.search(r"entry +main/\d+", page)
    assert "192.0.2.7 to whoever has no identity" in page
    assert re.search(r"daily +requests +░{8} +0 of 20,000 +20,000 left", page)
    assert re.search(r"daily +bytes +░{8} +0 of 5,000,000 +5,000,000 left +all together", page)
    assert "governor agents release coder-1 --reason TEXT" in page


async def test_the_page_as_json_has_everything(home, budgeted):
    row = told(await run_async(home, "show", "coder-1", "--json"))

    assert row.keys() >= {*FIELDS, "until", "why", "rule", "entry", "sources", "counters", "open", "epoch", "session"}
    assert {each["budget"] for each in row["counters"]} >= {"risk"}


async def test_the_list_puts_who_is_held_back_first_and_stops_at_forty(home, running):
    for number in range(45):
        running.state.take(change(running.state, {
            "type": "operator", "act": "agents add", "agent": f"a{number:02}", "by": "control"}, "main/9", 0))
    await run_async(home, "halt", "coder-1", *WHY)
    await run_async(home, "quarantine", "a44", "--for", "1h", *WHY)
    short, whole = [(await run_async(home, "list", *more)).stdout for more in ((), ("--all",))]

    assert [line.split()[0] for line in short.splitlines()[1:3]] == ["coder-1", "a44"]
    assert "HALTED" in short.splitlines()[1]
    assert "reads only until" in short.splitlines()[2]
    assert "40 of 46 shown (--all shows every one)" in short
    assert len(whole.splitlines()) == 1 + 46 + 1


async def test_without_colours_the_words_alone_say_it(home, running, monkeypatch):
    await run_async(home, "halt", "coder-1", *WHY)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = (await run_async(home, "list")).stdout
    monkeypatch.delenv("NO_COLOR")
    coloured = (await run_async(home, "list")).stdout

    assert "\x1b[31m" not in plain
    assert "HALTED" in plain
    assert "31m" in coloured


@pytest.mark.parametrize("verb", ["halt", "release", "quarantine", "show", "list"])
def test_help_teaches(verb):
    shown = CliRunner().invoke(agents, [verb, "--help"]).stdout

    assert "--home" in shown
    assert "--json" in shown
    assert ("--reason" in shown) is (verb in ("halt", "release", "quarantine"))


def test_names_are_completed_by_the_shell(home):
    context = agents.commands["halt"].make_context("halt", ["x", *WHY, "--home", str(home.paths.folder)])
    parameter = agents.commands["halt"].params[0]

    assert [item.value for item in parameter.shell_complete(context, "cod")] == ["coder-1"]


async def test_the_clock_is_accepted_once(home, running):
    refused = await run_async(home, "accept", *WHY, group=clock)
    running.state.take(Change(clock_ok=False))
    said = told(await run_async(home, "accept", *WHY, "--json", group=clock))

    assert (refused.exit_code, "has not jumped" in refused.stderr) == (1, True)
    assert running.state.clock_ok
    assert (acts(home, "main")[-1]["act"], said["changed"]) == ("clock accept", True)


async def test_a_word_from_inside_the_process_halts_too(home, running):
    said = await running.control.halt("coder-1", "seen in the browser", ME, "mitmproxy")

    assert (said["changed"], acts(home, "main")[-1]["by"]) == (True, "mitmproxy")


@pytest.mark.parametrize("fields", [
    {"act": "halt", "agent": "coder-1"}, {"act": "halt", "agent": "coder-1", "reason": 7},
    {"act": "halt", "agent": "coder-1", "reason": ""}, {"act": "halt", "agent": "coder-1", "reason": "a\nb"},
    {"act": "halt", "agent": "coder-1", "reason": "x", "operator": 7},
    {"act": "quarantine", "agent": "coder-1", "reason": "x"},
    {"act": "quarantine", "agent": "coder-1", "reason": "x", "seconds": True},
    {"act": "quarantine", "agent": "coder-1", "reason": "x", "seconds": -1},
    {"act": "quarantine", "agent": "coder-1", "reason": "x", "seconds": 10**12},
])  # fmt: skip
async def test_a_message_that_is_not_right_halts_nobody(home, running, fields):
    with pytest.raises(ControlError, match=r"act is|is one line of"):
        await asyncio.to_thread(lambda: request(home.paths.folder, "agents", 5.0, **fields))
    assert running.state.agent("coder-1").halt is None


async def test_two_halts_at_once_are_one(home, running):
    control, message = running.control, {"act": "halt", "agent": "coder-1", "reason": "x"}
    both = await asyncio.gather(*(control.agents(message, Peer(os.geteuid())) for _ in range(2)))

    assert sorted(each["changed"] for each in both) == [False, True]


async def test_what_two_verbs_hand_over_at_once_is_taken_over_once(home, running):
    for number in range(3):
        acts_alone._write(home.paths.folder, operator("agents rotate", f"a{number}", "", "ann", "cli"))
    peer = Peer(os.geteuid())
    both = await asyncio.gather(*(running.control.agents({"act": "takeover"}, peer) for _ in range(2)))

    assert sorted(len(each["entries"]) for each in both) == [0, 3]
    assert [running.state.agent(f"a{number}").session for number in range(3)] == [1, 1, 1]


def test_without_a_governor_a_halt_waits_for_the_next_start(home):
    result = run(home, "halt", "coder-1", *WHY)

    assert result.exit_code == 0
    assert "in force from the next start on (cli/" in result.stdout
    assert acts(home, "cli")[-1] == {"act": "agents halt", "agent": "coder-1", "reason": "it uploads",
                                     "operator": ME, "by": "cli"}
    assert states(home) == {"coder-1": "halted"}
    assert told(run(home, "halt", "coder-1", *WHY, "--json"))["changed"] is False


def test_without_a_governor_a_release_is_known_at_once(home):
    run(home, "halt", "coder-1", *WHY)
    run(home, "remove", "coder-1")
    before = states(home)
    run(home, "release", "coder-1", *WHY)

    assert (before, states(home)) == ({"coder-1": "halted"}, {"coder-1": "revoked"})
    assert run(home, "release", "coder-1", *WHY).exit_code == 1


def test_without_a_governor_budgets_are_not_known(home):
    row = told(run(home, "list", "--json"))[0]

    assert (row["budgets"], row["risk"], row["state"]) == ([], None, "running")


async def test_a_halt_of_a_running_governor_is_seen_once_it_is_gone(home):
    running = Running(home)
    decided = {"type": "decision", "stage": "request", "agent": {"id": "x-1", "by": "none"}, "flow": "f", "draws": [],
               "in": {}, "verdict": "halt", "code": "EXHAUSTION", "rule": "daily", "reason": "used up",
               "mode": "enforce"}
    running.lane.write_now("decision", decided)
    await running.book.act("agents halt", "coder-1", "why", "ann", "control")
    await running.stop()

    shown = told(await run_async(home, "show", "x-1", "--json"))
    assert (await states_async(home))["coder-1"] == "halted"
    assert [shown[name] for name in ("state", "reason", "rule", "why")] == ["halted", "EXHAUSTION", "daily", "used up"]


def test_a_home_that_is_none_is_not_made(home, tmp_path):
    result = CliRunner().invoke(clock, ["accept", *WHY, "--home", str(tmp_path / "typo")])

    assert (result.exit_code, (tmp_path / "typo").exists()) == (1, False)


def test_what_was_done_alone_is_taken_over_in_order_and_once(home):
    run(home, "halt", "coder-1", *WHY, "--operator", "ana")
    run(home, "release", "coder-1", *WHY)
    run(home, "quarantine", "coder-1", "--for", "1h", *WHY)
    found = takeover.acts(home, -1)
    numbers = [int(body["by"].removeprefix("cli/")) for body in found]

    assert [body["act"] for body in found] == [
        "agents add", "agents halt", "agents release", "agents quarantine"]
    assert found[1]["operator"] == "ana"
    assert found[3]["until"] == acts(home, "cli")[-1]["until"]
    assert numbers == sorted(numbers)
    assert takeover.acts(home, numbers[1]) == found[2:]
    assert takeover.acts(home, numbers[-1]) == []


async def test_the_next_start_does_what_was_done_alone_and_the_one_after_it_nothing(home):
    run(home, "halt", "coder-1", *WHY)
    first = Running(home)
    for body in takeover.acts(home, first.state.taken_over):
        await first.book.act(**{name: value for name, value in body.items() if name != "type"})
    halted, taken_over = first.state.agent("coder-1").halt, first.state.taken_over
    await first.stop()

    assert (halted.reason, halted.by, first.state.agent("coder-1").session) == (Code.OPERATOR, ME, 1)
    assert takeover.acts(home, taken_over) == []
    assert state_on_disk(home.paths).taken_over == taken_over
    assert acts(home, "main")[-1]["by"] == f"cli/{taken_over}"


def test_a_home_without_the_lane_has_nothing_to_take_over(tmp_path):
    assert takeover.acts(Home.open(tmp_path / "new"), -1) == []


def without_a_line(raw):
    lines = raw.splitlines(keepends=True)
    return b"".join(lines[:1] + lines[2:])


def with_another_last_act(raw):
    """Nothing follows it whose `prev` could tell."""
    return b"".join(raw.splitlines(keepends=True)[:-1]).replace(b"agents halt", b"agents hold")


@pytest.mark.parametrize("damage", [
    pytest.param(with_another_last_act, id="another last act"),
    pytest.param(lambda raw: raw.replace(b"agents halt", b"agents hold"), id="another act"),
    pytest.param(without_a_line, id="a gap"),
    pytest.param(lambda raw: raw.replace(b'"by":"cli"', b'"by": "cli"'), id="a space"),
])
def test_a_lane_that_was_changed_refuses_the_start(home, damage):
    run(home, "halt", "coder-1", *WHY)
    path = home.paths.lane("cli") / "000000.jsonl"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(StartRefused, match="TAMPERED"):
        takeover.acts(home, -1)


def test_a_line_that_the_lanes_key_signed_in_the_place_of_another_refuses_the_start(home):
    run(home, "halt", "coder-1", *WHY)
    path = home.paths.lane("cli") / "000000.jsonl"
    key = SigningKey.load(home.paths.lane_key("cli"), lane_name(home.log_id, "cli"))
    forged = []
    for line in path.read_bytes().splitlines(keepends=True):
        raw = chain.split(line)[0].replace(b"agents halt", b"agents hold")
        forged.append(chain.line(raw, key.kid, key.sign(chain.signed_bytes(chain.entry_hash(raw)))))
    path.write_bytes(b"".join(forged))

    with pytest.raises(StartRefused, match="does not follow"):
        takeover.acts(home, -1)


async def test_an_act_that_was_taken_over_is_not_counted_again_without_a_governor(home):
    run(home, "halt", "coder-1", *WHY)
    running = Running(home)
    running.book.take_over(takeover.acts(home, running.state.taken_over))
    halted = running.state.agent("coder-1").halt is not None
    await running.book.act("agents release", "coder-1", "why", "ann", "control")
    await running.stop()

    assert (halted, await states_async(home)) == (True, {"coder-1": "running"})


def test_a_line_that_is_being_written_is_left_for_later(home):
    path = home.paths.lane("cli") / "000000.jsonl"
    with path.open("ab") as file:
        file.write(b'{"e":{"act":"agents halt"')

    assert [body["act"] for body in takeover.acts(home, -1)] == ["agents add"]


async def test_an_act_that_a_starting_governor_did_not_see_is_handed_to_it(home, running, monkeypatch):
    """The verb found no socket and wrote into lane cli, the Governor had looked there before."""
    first = acts_alone.request

    def not_yet(*arguments, **more):
        monkeypatch.setattr(acts_alone, "request", first)
        raise acts_alone.NotRunning("not yet")

    monkeypatch.setattr(acts_alone, "request", not_yet)
    monkeypatch.setattr(acting, "request", not_yet)
    said = told(await run_async(home, "halt", "coder-1", *WHY, "--json"))

    assert (said["in_force"], running.state.agent("coder-1").halt.by) == (True, ME)
    assert acts(home, "main")[-1]["by"] == said["entry"]


async def test_an_act_beside_a_governor_that_never_opens_its_socket_is_4(home, monkeypatch):
    starting = Running(home)
    monkeypatch.setattr(acts_alone, "START_SECONDS", 0.2)
    result = await run_async(home, "halt", "coder-1", *WHY)
    await starting.stop()

    assert (result.exit_code, "has not finished its start" in result.stderr) == (4, True)
    assert acts(home, "cli")[-1]["act"] == "agents halt"


def test_who_is_halted_on_disk_is_what_the_next_start_would_find(home):
    run(home, "halt", "coder-1", *WHY)
    lane = Lane.open(home, "main", kernel=build_info.kernel_identity())
    lane.write_now("operator", {"type": "operator", "act": "agents halt", "agent": "b", "reason": "", "operator": "ann",
                                "by": "control"})
    lane.write_now("halt", {"type": "halt", "agent": "c", "reason": "OVERRISK", "rule": None, "decision": "main/1",
                            "sources": []})
    lane.write_now("clock", {"type": "clock"})
    lane.close("done")
    state = state_on_disk(Paths(home.paths.folder))

    assert {name: state.agent(name).halt.reason for name in "bc"} == {"b": "OPERATOR", "c": "OVERRISK"}
    assert state.agent("coder-1").halt is not None
    assert not state.clock_ok


def test_a_halt_in_words_of_an_agent_halts_nobody(home):
    lane = Lane.open(home, "main", kernel=build_info.kernel_identity())
    lane.write_now("fault", {"type": "fault", "where": '"type":"operator","act":"agents halt"', "error": "x",
                             "code": "FAULT", "flow": None})
    lane.close("done")

    assert state_on_disk(home.paths).agents.keys() == {"coder-1"}

