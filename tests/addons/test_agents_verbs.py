"""`governor agents`, alone and through a running Governor: the token, the file and the log's entry."""

from __future__ import annotations

import asyncio
import json
import os
import re

import pytest
from click.testing import CliRunner

from addons import build_info
from addons.agents_file import load
from addons.control import ControlError, request, user_name
from addons.errors import AuditUnavailable
from addons.identity import Registry
from addons.lane import Lane
from addons.verbs.agents import agents
from kernel.facts import Agent
from kernel.identity import Evidence
from kernel.policy import Identity
from kernel.verdict import Code
from tests.addons.operators import Running

ME = user_name(os.geteuid())
TOKEN = re.compile(r"gov_[A-Za-z0-9_-]{43}")


@pytest.fixture
def home(home):
    Lane.open(home, "main", kernel=build_info.kernel_identity()).close("made")
    return home


def run(home, *arguments):
    return CliRunner().invoke(agents, [*arguments, "--home", str(home.paths.folder)])


def added(home, name="coder-1"):
    return json.loads(run(home, "add", name, "--json").stdout)["token"]


def operator_entries(home, lane="cli"):
    lines = (home.paths.lane(lane) / "000000.jsonl").read_text().splitlines()
    entries = [json.loads(line)["e"] for line in lines]
    return [{name: entry[name] for name in ("act", "agent", "reason", "operator", "by")}
            for entry in entries if entry["type"] == "operator"]  # fmt: skip


def identified(home, token):
    return Registry(home.paths.agents).identify(Identity(), Evidence([f"Bearer {token}"]))


def test_add_prints_the_token_alone_on_standard_output_and_it_identifies_the_agent(home):
    result = run(home, "add", "coder-1")
    token = result.stdout.strip()

    assert (result.exit_code, bool(TOKEN.fullmatch(token))) == (0, True)
    assert identified(home, token) == (Agent("coder-1", "proxy-auth"), None)
    assert "407" in result.stderr


def test_add_as_json_has_the_fields_of_the_contract(home):
    reply = json.loads(run(home, "add", "coder-1", "--json").stdout)

    assert (reply["id"], bool(TOKEN.fullmatch(reply["token"])), len(reply)) == ("coder-1", True, 2)


def test_a_token_stands_nowhere_in_the_home(home):
    token = added(home)
    held = b"".join(path.read_bytes() for path in home.paths.folder.rglob("*") if path.is_file())

    assert token.encode() not in held
    assert token.removeprefix("gov_").encode() not in held


def test_rotate_gives_a_new_token_and_refuses_the_old_one(home):
    old = added(home)
    new = json.loads(run(home, "rotate", "coder-1", "--json").stdout)["token"]

    assert identified(home, old) == (None, Code.IDENTITY_REFUSED)
    assert identified(home, new) == (Agent("coder-1", "proxy-auth"), None)


def test_remove_takes_the_token_back_and_the_agent_stays_known(home):
    token = added(home)

    assert json.loads(run(home, "remove", "coder-1", "--json").stdout) == {"id": "coder-1", "state": "revoked"}
    assert identified(home, token) == (None, Code.IDENTITY_REFUSED)
    assert json.loads(run(home, "list", "--json").stdout)[0]["state"] == "revoked"


def test_each_change_leaves_an_entry_of_the_operator_in_the_log(home):
    added(home)
    run(home, "rotate", "coder-1")
    run(home, "remove", "coder-1")
    run(home, "remove", "coder-1")

    assert operator_entries(home) == [
        {"act": f"agents {act}", "agent": "coder-1", "reason": "", "operator": ME, "by": "cli"}
        for act in ("add", "rotate", "remove")
    ]


@pytest.mark.parametrize("arguments", [
    ("add", "Not-Valid"), ("add", "local"), ("add", "a/b"), ("rotate", "nobody"), ("remove", "nobody"),
])  # fmt: skip
def test_what_has_no_sense_is_refused_and_leaves_neither_token_nor_entry(home, arguments):
    result = run(home, *arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert load(home.paths.agents).agents == {}
    assert not home.paths.lane("cli").exists()


def test_a_home_that_does_not_exist_is_not_made(home, tmp_path):
    result = CliRunner().invoke(agents, ["add", "coder-1", "--home", str(tmp_path / "typo")])

    assert (result.exit_code, (tmp_path / "typo").exists()) == (1, False)


def test_the_list_is_readable_and_says_when_there_is_nobody(home):
    before = run(home, "list").stdout
    added(home)

    assert "every flow is the agent local" in before
    assert re.search(r"coder-1 +running", run(home, "list").stdout)


@pytest.fixture
async def running(home):
    running = Running(home)
    await running.server.start()
    yield running
    await running.stop()


async def run_async(home, *arguments):
    return await asyncio.to_thread(run, home, *arguments)


async def test_in_a_running_governor_a_change_is_in_force_when_the_verb_returns(home, running):
    token = json.loads((await run_async(home, "add", "coder-1", "--json")).stdout)["token"]
    first = running.registry.identify(Identity(), Evidence([f"Bearer {token}"]))
    await run_async(home, "remove", "coder-1")

    assert first == (Agent("coder-1", "proxy-auth"), None)
    assert running.registry.identify(Identity(), Evidence([f"Bearer {token}"])) == (None, Code.IDENTITY_REFUSED)


async def test_in_a_running_governor_the_entry_stands_in_its_own_lane(home, running):
    await run_async(home, "add", "coder-1")

    assert operator_entries(home, "main") == [
        {"act": "agents add", "agent": "coder-1", "reason": "", "operator": ME, "by": "control"}
    ]
    assert not home.paths.lane("cli").exists()


async def test_the_first_token_is_announced_once(home, running):
    said = [(await run_async(home, "add", name)).stderr for name in ("a", "b")]

    assert ["407" in text for text in said] == [True, False]


async def test_when_the_log_cannot_be_written_nobody_is_registered(home, running, monkeypatch):
    async def fails(*arguments, **more):
        raise AuditUnavailable("the disk is full")

    monkeypatch.setattr(running.book, "act", fails)
    result = await run_async(home, "add", "coder-1")

    assert (result.exit_code, result.stderr) == (1, "governor: the disk is full\n")
    assert load(home.paths.agents).agents == {}


async def test_the_list_shows_what_the_running_governor_has_seen(home, running):
    token = json.loads((await run_async(home, "add", "coder-1", "--json")).stdout)["token"]
    before = json.loads((await run_async(home, "list", "--json")).stdout)[0]
    running.registry.identify(Identity(), Evidence([f"Bearer {token}"]))
    after = json.loads((await run_async(home, "list", "--json")).stdout)[0]

    assert list(after) == ["id", "state", "reason", "since", "by", "budgets", "risk", "last_seen"]
    assert (before["last_seen"], after["last_seen"] is None) == (None, False)


async def test_changes_at_the_same_time_are_all_made(home, running):
    def add(number):
        return request(home.paths.folder, "agents", 5.0, act="add", agent=f"a{number}", sha256=f"{number:064x}")

    await asyncio.gather(*(asyncio.to_thread(add, number) for number in range(6)))

    assert len(load(home.paths.agents).agents) == 6


@pytest.mark.parametrize("fields", [
    {}, {"act": "halt", "agent": "a"}, {"act": "rotate"}, {"act": "add", "agent": 7},
    {"act": "add", "agent": "a", "sha256": 7},
    {"act": "add", "agent": "a"}, {"act": "add", "agent": "a", "sha256": "gov_not_a_digest"}, {"act": ["add"]},
])  # fmt: skip
async def test_a_request_that_is_not_right_is_refused_in_words(home, running, fields):
    with pytest.raises(ControlError, match=r"act is list|a new token is needed"):
        await asyncio.to_thread(lambda: request(home.paths.folder, "agents", 5.0, **fields))
