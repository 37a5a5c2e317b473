"""The control socket: who is answered, with what, and what happens to sockets, lines and clients that are not right."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat

import pytest
from click.testing import CliRunner

from addons import control
from addons.control import ControlError, ControlServer, ControlTimeout, NotRunning, Peer, request
from addons.errors import GovernorError, StartCode, StartRefused
from addons.verbs import control as verbs

STATUS = {
    "ready": True, "mode": "enforce", "policy": "ab" * 32, "lanes": ["main"], "workers": 1, "agents": 2, "halted": [],
    "system": None, "fleet": [], "hints": ["a hint"],
}  # fmt: skip


async def echo(message, peer):
    return {"message": message, "peer": peer.name, "uid": peer.uid}


async def refuse(message, peer):
    raise GovernorError("no: because")


async def break_down(message, peer):
    raise ValueError("gov_secret")


async def stall(message, peer):
    await asyncio.sleep(60)
    return {}


@pytest.fixture
async def server(tmp_path):
    faults = []
    handlers = {"echo": echo, "refuse": refuse, "break": break_down, "stall": stall}
    server = ControlServer(tmp_path / "control.sock", handlers, lambda where, error: faults.append((where, error)))
    server.faults = faults
    await server.start()
    yield server
    await server.stop()


async def ask(home, verb, seconds=5.0, **fields):
    return await asyncio.to_thread(lambda: request(home, verb, seconds, **fields))


async def raw(home, content):
    reader, writer = await asyncio.open_unix_connection(str(home / "control.sock"))
    writer.write(content)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def test_a_verb_is_answered_and_the_kernel_says_who_asked(server, tmp_path):
    assert await ask(tmp_path, "echo", agent="a") == {
        "message": {"verb": "echo", "agent": "a"},
        "peer": control.user_name(os.geteuid()),
        "uid": os.geteuid(),
    }


async def test_the_socket_is_private(server, tmp_path):
    assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600


async def test_another_user_is_not_answered(server, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "_peer", lambda connection: Peer(os.geteuid() + 4711))

    with pytest.raises(ControlError, match="its own user and root alone"):
        await ask(tmp_path, "echo")


async def test_root_is_answered(server, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "_peer", lambda connection: Peer(0))

    assert (await ask(tmp_path, "echo"))["uid"] == 0


async def test_an_unknown_verb_is_told_the_known_ones(server, tmp_path):
    with pytest.raises(ControlError, match="break, echo, refuse, stall"):
        await ask(tmp_path, "halt")


async def test_what_an_adapter_refuses_is_said_in_its_words(server, tmp_path):
    with pytest.raises(ControlError, match="no: because"):
        await ask(tmp_path, "refuse")


async def test_a_fault_is_reported_and_its_text_stays_inside(server, tmp_path):
    with pytest.raises(ControlError, match="ValueError") as refused:
        await ask(tmp_path, "break")
    assert "gov_secret" not in str(refused.value)
    assert [(where, type(error)) for where, error in server.faults] == [("control", ValueError)]


async def test_a_handler_that_takes_too_long_times_out_for_the_client_and_holds_up_nobody(server, tmp_path):
    with pytest.raises(ControlTimeout):
        await ask(tmp_path, "stall", seconds=0.2)
    assert (await ask(tmp_path, "echo"))["uid"] == os.geteuid()


async def test_a_handler_without_end_is_cut_by_the_server(server, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "HANDLER_SECONDS", 0.1)

    with pytest.raises(ControlError, match="TimeoutError"):
        await ask(tmp_path, "stall")


@pytest.mark.parametrize("line", [
    b"\n", b"nonsense\n", b"[]\n", b'"echo"\n', b"null\n", b'{"verb": ["echo"]}\n', b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
])  # fmt: skip
async def test_a_line_that_is_no_request_is_answered_with_an_error(server, tmp_path, monkeypatch, line):
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.2)

    assert "error" in json.loads(await raw(tmp_path, line))


async def test_several_requests_on_one_connection_are_answered_in_turn(server, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.2)
    answers = (await raw(tmp_path, b'{"verb":"echo","n":1}\n{"verb":"echo","n":2}\n')).splitlines()

    assert [json.loads(answer)["message"]["n"] for answer in answers] == [1, 2]


async def test_a_line_without_end_is_cut(server, tmp_path):
    _, writer = await asyncio.open_unix_connection(str(tmp_path / "control.sock"))
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 100 * control.MAX_LINE_BYTES:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
    writer.close()

    assert sent < 3 * control.MAX_LINE_BYTES


async def test_a_client_that_says_nothing_is_let_go(server, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.1)

    assert await raw(tmp_path, b"") == b""


async def test_more_clients_than_the_bound_are_turned_away_and_room_comes_back(server, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "MAX_CONNECTIONS", 2)
    held = [await asyncio.open_unix_connection(str(tmp_path / "control.sock")) for _ in range(2)]
    with pytest.raises(ControlError):
        await ask(tmp_path, "echo")
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.05)

    assert (await ask(tmp_path, "echo"))["uid"] == os.geteuid()


async def test_a_second_governor_on_the_home_is_refused(server, tmp_path):
    with pytest.raises(StartRefused) as refused:
        await ControlServer(tmp_path / "control.sock", {}).start()
    assert refused.value.code is StartCode.LANE_BUSY
    assert (await ask(tmp_path, "echo"))["uid"] == os.geteuid()


async def test_a_socket_that_a_dead_process_left_is_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    server = ControlServer(tmp_path / "control.sock", {"echo": echo})
    await server.start()

    assert (await ask(tmp_path, "echo"))["uid"] == os.geteuid()
    await server.stop()


async def test_a_file_in_the_place_of_the_socket_is_not_deleted(tmp_path):
    (tmp_path / "control.sock").write_text("mine")

    with pytest.raises(StartRefused, match="not a socket"):
        await ControlServer(tmp_path / "control.sock", {}).start()
    assert (tmp_path / "control.sock").read_text() == "mine"


async def test_a_home_deeper_than_a_socket_path_may_be_long_works(tmp_path):
    home = tmp_path.joinpath(*["deep" * 10] * 4)
    home.mkdir(parents=True)
    server = ControlServer(home / "control.sock", {"echo": echo})
    await server.start()

    assert (await ask(home, "echo"))["uid"] == os.geteuid()
    await server.stop()


async def test_a_stop_takes_the_socket_away_and_ends_what_is_under_way(server, tmp_path):
    waiting = asyncio.create_task(ask(tmp_path, "stall"))
    await asyncio.sleep(0.1)
    await server.stop()

    with pytest.raises(ControlError):
        await waiting
    assert not (tmp_path / "control.sock").exists()


def test_without_a_governor_the_client_says_so_and_how_to_start_one(tmp_path):
    with pytest.raises(NotRunning, match="governor serve"):
        request(tmp_path, "status", 1.0)


class Governor:
    """A control server whose answers a test sets."""

    def __init__(self):
        self.status, self.reload, self.seconds = dict(STATUS), {"ok": True, "policy": "cd" * 32, "findings": []}, 0.0

    async def answer_status(self, message, peer):
        return self.status

    async def answer_reload(self, message, peer):
        await asyncio.sleep(self.seconds)
        return self.reload


@pytest.fixture
async def governor(tmp_path):
    governor = Governor()
    handlers = {"status": governor.answer_status, "reload": governor.answer_reload}
    server = ControlServer(tmp_path / "control.sock", handlers)
    await server.start()
    yield governor
    await server.stop()


async def run(command, *arguments):
    return await asyncio.to_thread(lambda: CliRunner().invoke(command, arguments))


async def test_status_prints_the_fields_of_the_contract(governor, tmp_path):
    result = await run(verbs.status, "--home", str(tmp_path), "--json")

    assert (result.exit_code, json.loads(result.stdout)) == (0, STATUS)


async def test_status_tells_people_the_same(governor, tmp_path):
    result = await run(verbs.status, "--home", str(tmp_path))

    assert result.exit_code == 0
    for part in ("ready", "enforce", "ab" * 32, "main", "a hint"):
        assert part in result.stdout


async def test_status_exits_1_when_it_is_not_ready(governor, tmp_path):
    governor.status["ready"] = False
    result = await run(verbs.status, "--home", str(tmp_path))

    assert (result.exit_code, "NOT READY" in result.stdout) == (1, True)


def test_status_without_a_governor_exits_1_with_the_same_fields(tmp_path):
    result = CliRunner().invoke(verbs.status, ["--home", str(tmp_path), "--json"])

    assert result.exit_code == 1
    assert json.loads(result.stdout).keys() == STATUS.keys()
    assert "governor serve" in json.loads(result.stdout)["hints"][0]


@pytest.mark.parametrize("wait", [(), ("--wait",)])
async def test_a_reload_that_was_taken_exits_0(governor, tmp_path, wait):
    result = await run(verbs.reload, "--home", str(tmp_path), *wait)

    assert (result.exit_code, "cd" * 32 in result.stdout) == (0, True)


@pytest.mark.parametrize("finding", [
    "p.yaml:3:5: E101 no such verb",
    {"code": "E101", "file": "p.yaml", "line": 3, "column": 5, "message": "no such verb"},
])  # fmt: skip
async def test_a_reload_that_was_refused_exits_1_with_its_findings(governor, tmp_path, finding):
    governor.reload = {"ok": False, "policy": "ab" * 32, "findings": [finding]}
    result = await run(verbs.reload, "--home", str(tmp_path), "--wait")

    assert result.exit_code == 1
    assert "p.yaml:3:5: E101 no such verb" in result.stderr
    assert f"{'ab' * 32} stays" in result.stderr


@pytest.mark.parametrize(("arguments", "status"), [(("--wait", "--timeout", "0.2"), 4), ((), 0)])
async def test_a_reload_that_takes_long_exits_4_with_wait_and_is_under_way_without(
    governor, tmp_path, monkeypatch, arguments, status
):
    monkeypatch.setattr(verbs, "ASKED_SECONDS", 0.2)
    governor.seconds = 1.0
    told = await run(verbs.reload, "--home", str(tmp_path), *arguments)
    spoken = await run(verbs.reload, "--home", str(tmp_path), "--json", *arguments)

    assert (told.exit_code, spoken.exit_code) == (status, status)
    assert "did not answer within 0.2 s; the policy may still be taken, which governor status shows" in told.stderr
    assert json.loads(spoken.stdout)["ok"] is None


@pytest.mark.parametrize("arguments", [(), ("--wait",)])
def test_a_reload_without_a_governor_exits_1_and_says_how_to_start_one(tmp_path, arguments):
    told = CliRunner().invoke(verbs.reload, ["--home", str(tmp_path), *arguments])
    spoken = CliRunner().invoke(verbs.reload, ["--home", str(tmp_path), "--json", *arguments])

    assert (told.exit_code, spoken.exit_code) == (1, 1)
    assert told.stderr == f"governor: no Governor runs on {tmp_path} (start one with governor serve)\n"
    assert json.loads(spoken.stdout) == {
        "ok": False, "policy": None, "findings": [f"no Governor runs on {tmp_path} (start one with governor serve)"]}
