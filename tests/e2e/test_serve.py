"""`governor serve` in a process: the same traffic as `mitmdump -s`, one Governor a port, honest endings."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.crew import until
from tests.e2e.origins import serving
from tests.e2e.process import POLICY, command_line, scratch_environment, started
from tests.e2e.process import governor as governor_command

pytestmark = pytest.mark.e2e

SCRIPT = """\
import pathlib
def request(flow):
    with pathlib.Path({path!r}).open("a") as seen:
        seen.write(flow.request.path + "\\n")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def other_script(folder):
    script = folder / "other_script.py"
    script.write_text(SCRIPT.format(path=str(folder / "seen")))
    return script


@pytest.fixture(scope="module")
def governor(folder, other_script, certificate):
    with started(folder, options=["-s", str(other_script)], serve=True, trust=certificate[1]) as running:
        yield running


def status_of(governor, url: str) -> str:
    return governor.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url).stdout


def start_beside(governor, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Try to start another `serve`, with a home of its own, until it has ended."""
    command = command_line(folder / "home", None, options, serve=True)
    environment = scratch_environment(folder)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_http_and_https_pass_and_are_refused_as_under_mitmdump(governor, certificate):
    with serving() as plain, serving(chain=certificate[0]) as tls:
        passed = [status_of(governor, f"{origin.url}/ok") for origin in (plain, tls)]
        refused = [status_of(governor, f"{origin.url}/denied/x") for origin in (plain, tls)]

        assert passed == ["200", "200"]
        assert refused == ["403", "403"]
        assert plain.seen.lines == tls.seen.lines == ["GET /ok"]


def test_a_script_beside_governor_sees_the_flows(governor, folder):
    with serving() as origin:
        status_of(governor, f"{origin.url}/for-the-script")

    assert "/for-the-script" in (folder / "seen").read_text().splitlines()


def test_the_fast_dispatch_is_on(governor):
    assert not [line for line in governor.output if "fast dispatch" in line]


def test_a_second_one_on_the_port_refuses_and_makes_no_home(governor, tmp_path):
    second = start_beside(governor, tmp_path, "--listen-port", str(governor.port))

    assert second.returncode == 1
    assert second.stderr.startswith(f"governor: refused to start: PORT_BUSY: 127.0.0.1:{governor.port}: ")
    assert second.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("arguments", "said"), [
    pytest.param(["--no-such-option"], "--no-such-option", id="an unknown option"),
    pytest.param(["--set", "listen_port=abc"], "abc", id="a value of the wrong kind"),
    pytest.param(["~u example.org"], "~u example.org", id="a filter, which would have no effect"),
])
def test_wrong_usage_is_2_and_says_what_is_wrong(arguments, said, tmp_path):
    ended = governor_command("serve", *arguments, environment=scratch_environment(tmp_path))

    assert ended.returncode == 2
    assert said in ended.stderr


def test_asking_for_help_is_no_wrong_usage(tmp_path):
    ended = governor_command("serve", "--", "--help", environment=scratch_environment(tmp_path))

    assert ended.returncode == 0
    assert "--listen-port" in ended.stdout


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_asked_to_stop_it_ends_with_0_and_closes_the_log(tmp_path, asked):
    with started(tmp_path, policy=POLICY, serve=True) as running:
        running.process.send_signal(asked)

        assert running.process.wait(20) == 0
        assert running.entries()[-1]["type"] == "close"


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one process", "workers"])
def test_a_reload_asked_for_during_the_start_is_done_after_it(tmp_path, options):
    policy, output = tmp_path / "policy.yaml", tmp_path / "output"
    policy.write_text(POLICY)
    command = command_line(tmp_path / "home", policy, options, serve=True)
    with output.open("w") as file, subprocess.Popen(
            command, stdout=file, stderr=file, env=scratch_environment(tmp_path)) as process:
        try:
            # Whether or not the policy has been read by now, nobody is served yet.
            until((tmp_path / "home" / "serving").exists)
            process.send_signal(signal.SIGHUP)
            until(lambda: "in force (SIGHUP)" in output.read_text() or process.poll() is not None)
        finally:
            process.terminate()

    assert process.wait(20) == 0, output.read_text()
    assert "in force (SIGHUP)" in output.read_text()


def test_a_lost_log_is_given_up_at_a_start_and_halts_outlive_it(tmp_path):
    with started(tmp_path, serve=True) as before:
        assert before.verb("agents", "halt", "anonymous", "--reason", "it uploads").returncode == 0
        before.stop()
    lines = before.segment.read_bytes().splitlines(keepends=True)
    before.segment.write_bytes(b"".join(lines[:-2]))
    refused = start_beside(before, tmp_path)
    options = ["--accept-loss", "the disk failed", "--operator", "ann"]

    with serving() as origin, started(tmp_path, options=options, serve=True) as again:
        _, said, _ = again.curl(f"{origin.url}/denied/x")
        status = json.loads(again.verb("status", "--json").stdout)
        told = json.loads(again.verb("audit", "verify", "--json").stdout)

        assert (refused.returncode, "ROLLED_BACK" in refused.stderr) == (1, True)
        assert "main-1/" in said
        assert (status["ready"], status["halted"]) == (True, ["anonymous"])
        assert [each["lane"] for each in status["lanes"]] == ["main-1"]
        assert (told["result"], told["losses"][0]["successor"]) == ("rolled_back", "main-1")
        assert again.stop() == 0
    whole = start_beside(again, tmp_path, *options)
    assert (whole.returncode, "nothing is lost" in whole.stderr) == (1, True)
