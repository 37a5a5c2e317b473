"""All agents halted by one act: with a Governor and without one, and what people are told of it."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner

from addons import fleet, takeover
from addons.halts_on_disk import state_on_disk
from addons.verbs import agents as verb
from kernel.state import Switch
from kernel.verdict import Code
from tests.addons.operators import Running, acts, agents, run, run_async, told
from tests.addons.test_halting_verbs import ME, WHY, home, running

__all__ = ["home", "running"]
ALL = ("--all", *WHY)


async def test_it_is_in_force_and_in_the_log_when_the_verb_returns(home, running):
    said = told(await run_async(home, "halt", *ALL, "--json"))

    assert running.ended == ["*"]
    assert acts(home, "main")[-1] == {"act": "agents halt all", "agent": None, "reason": "it uploads", "operator": ME,
                                      "by": "control"}
    assert list(said) == ["halted", "since", "by", "reason", "entry", "epoch", "changed", "in_force", "confirmed",
                          "processes"]
    assert (said["halted"], said["by"], said["reason"], said["changed"], said["in_force"]) == (
        True, ME, "it uploads", True, True)
    assert (said["confirmed"], said["processes"], said["entry"]) == (1, 1, running.state.switch.halt.entry)


async def test_a_second_one_changes_nothing_and_the_release_begins_an_epoch(home, running):
    first = (await run_async(home, "halt", *ALL)).stdout
    before = acts(home, "main")
    again = (await run_async(home, "halt", *ALL)).stdout
    assert "halted all agents: what they had open is cut" in first
    assert "in force in 1 of 1 process (main/" in first
    assert f"all agents are halted already, since {ME}" not in again
    assert "nothing was changed; in force in 1 of 1 process" in again
    assert acts(home, "main") == before

    said = told(await run_async(home, "release", *ALL, "--json"))
    assert (said["halted"], said["epoch"], running.state.switch) == (False, 1, Switch(1))
    refused = await run_async(home, "release", *ALL)
    assert (refused.exit_code, "not halted together" in refused.stderr) == (1, True)


@pytest.mark.parametrize("arguments", [
    ("halt", "coder-1", *ALL), ("release", "coder-1", *ALL), ("halt", *WHY), ("release", *WHY), ("halt", "--all"),
    ("quarantine", "--all", "--for", "1h", *WHY),
])  # fmt: skip
def test_one_is_named_or_all_are_meant(home, arguments):
    assert run(home, *arguments).exit_code == 2


@pytest.mark.parametrize(("answer", "more", "status", "halted"), [
    ("n\n", (), 1, False), ("y\n", (), 0, True), ("", ("--yes",), 0, True)])
def test_on_a_terminal_it_is_asked_whether_that_is_meant(home, monkeypatch, answer, more, status, halted):
    monkeypatch.setattr(verb, "_is_terminal", lambda: True)
    result = CliRunner().invoke(
        agents, ["halt", *ALL, *more, "--home", str(home.paths.folder)], input=answer)

    assert result.exit_code == status
    assert ("this stops every agent" in result.stderr) is not bool(more)
    assert (state_on_disk(home.paths).switch.halt is not None) is halted


async def test_who_is_halted_by_itself_stays_so(home, running):
    await run_async(home, "halt", "coder-1", *WHY)
    await run_async(home, "halt", *ALL)
    await run_async(home, "release", *ALL)

    assert told(await run_async(home, "list", "--json"))[0]["state"] == "halted"


async def test_each_agent_is_shown_as_halted_and_can_be_held_back_by_itself_meanwhile(home, running):
    await run_async(home, "halt", *ALL)
    row = told(await run_async(home, "list", "--json"))[0]
    page = (await run_async(home, "show", "coder-1")).stdout
    table = (await run_async(home, "list")).stdout
    await run_async(home, "quarantine", "coder-1", "--for", "1h", *WHY)
    released = await run_async(home, "halt", "coder-1", *WHY), await run_async(home, "release", "coder-1", *WHY)

    assert (row["state"], row["reason"], row["by"]) == ("halted", "OPERATOR", ME)
    assert table.startswith("ALL AGENTS ARE HALTED since ")
    assert "governor agents release --all --reason TEXT" in page
    assert "nothing passes until governor agents release --all" in released[1].stdout
    await run_async(home, "release", *ALL)
    assert told(await run_async(home, "list", "--json"))[0]["state"] == "running"


async def test_no_new_token_lifts_it(home, running):
    await run_async(home, "halt", *ALL)
    for verbs in (("rotate", "coder-1"), ("remove", "coder-1"), ("add", "coder-1"), ("add", "coder-2")):
        await run_async(home, *verbs)

    assert running.book.halted("coder-2", None).code is Code.AGENT_HALTED


def test_without_a_governor_it_waits_for_the_next_start(home):
    result = run(home, "halt", *ALL)

    assert "no Governor runs, so this is in force from the next start on (cli/" in result.stdout
    assert told(run(home, "halt", *ALL, "--json")) | {"since": "", "entry": ""} == {
        "halted": True, "since": "", "by": ME, "reason": "it uploads", "entry": "", "epoch": 0, "changed": False,
        "in_force": False, "confirmed": 0, "processes": 0}
    assert told(run(home, "list", "--json"))[0]["state"] == "halted"


async def test_the_next_start_takes_it_over_and_the_one_after_it_finds_it(home):
    run(home, "halt", *ALL)
    for _ in range(2):
        governor = Running(home)
        governor.book = type(governor.book)(governor.lane, governor.lane.states, lambda: None, lambda agent: ())
        governor.book.take_over(takeover.acts(home, governor.book.state.taken_over))
        assert governor.book.halted("coder-1", None).reason == "all agents are halted"
        governor.lane.close("test")
    run(home, "release", *ALL)
    governor = Running(home)
    governor.book = type(governor.book)(governor.lane, governor.lane.states, lambda: None, lambda agent: ())
    governor.book.take_over(takeover.acts(home, governor.book.state.taken_over))

    assert governor.book.state.switch == Switch(1)
    governor.lane.close("test")


async def test_where_not_all_confirm_it_in_time_the_verb_ends_with_4(home, running, monkeypatch):
    async def some():
        return fleet.InForce(2, 3)

    monkeypatch.setattr(running.fleet, "in_force", some)
    results = [await run_async(home, "halt", *ALL, *more) for more in ((), ("--json",))]

    assert [result.exit_code for result in results] == [4, 4]
    assert "in force in 2 of 3 processes; 1 did not confirm it in time" in results[0].stdout
    assert running.state.switch.halt is not None


async def test_a_word_from_inside_the_process_halts_all_too(home, running):
    said = await running.control.halt_all("seen in the browser", ME, "mitmproxy")

    assert (said["changed"], said["confirmed"], acts(home, "main")[-1]["by"]) == (True, 1, "mitmproxy")
    assert await asyncio.to_thread(lambda: state_on_disk(home.paths).switch.halt.why) == "seen in the browser"
