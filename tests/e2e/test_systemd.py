"""The unit in scripts/recipes/systemd: Governor under a real systemd with every restriction of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e.booted import Machine, booted, needs_systemd
from tests.e2e.process import POLICY, ROOT

pytestmark = pytest.mark.e2e
RECIPE = ROOT / "scripts" / "recipes" / "systemd"
UNIT = RECIPE / "governor.service"
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyzed(*arguments: str) -> str:
    done = subprocess.run(["systemd-analyze", *arguments, str(UNIT)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@needs_analyze
def test_the_exposure_is_the_one_that_its_readme_quotes():
    told = re.search(r"exposure level for governor.service: ([0-9.]+) OK", analyzed("security", "--offline=yes"))

    assert told is not None
    assert f"**{told[1]}**" in (RECIPE / "README.md").read_text()
    assert float(told[1]) <= 1.3


@needs_analyze
def test_systemd_has_nothing_to_say_of_the_unit_but_that_governor_is_not_installed():
    said = [line for line in analyzed("verify").splitlines() if "governor" in line]

    assert [line for line in said if "/opt/governor/bin/governor is not executable" not in line] == []


def policy(machine: Machine, text: str) -> None:
    machine.ask("sh", "-c", "cat > /etc/governor/policy.yaml", given=text)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    recipe = "/opt/governor/code/scripts/recipes/systemd"
    with booted() as made:
        made.ask("cp", f"{recipe}/governor.service", "/etc/systemd/system/")
        made.ask("systemd-sysusers", f"{recipe}/governor.sysusers.conf")
        made.ask("systemd-tmpfiles", "--create", f"{recipe}/governor.tmpfiles.conf")
        policy(made, POLICY)
        made.ask("systemctl", "daemon-reload")
        origin = "setsid /usr/bin/python3 -m http.server 8099 --directory /etc >/run/origin 2>&1 </dev/null &"
        made.ask("sh", "-c", origin)
        yield made


@pytest.fixture
def running(machine: Machine) -> Iterator[Machine]:
    machine.run("systemctl", "reset-failed", "governor")
    started = machine.run("systemctl", "start", "governor")
    assert started.returncode == 0, started.stderr + machine.run("sh", "-c", "systemctl status -l governor").stdout
    yield machine
    machine.run("systemctl", "stop", "governor")


def through(machine: Machine, url: str) -> str:
    """The status with which a client that trusts the CA is answered."""
    return machine.run("curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "-x", "http://127.0.0.1:8080",
                       "--cacert", "/var/lib/governor/ca/mitmproxy-ca-cert.pem", url).stdout


@needs_systemd
def test_it_serves_once_it_is_started_and_answers_inside_tls(running):
    assert running.shows("governor", "ActiveState") == "active"
    assert through(running, "http://gist.example.org/") == "403"
    assert through(running, "https://gist.example.org/") == "403"
    assert through(running, "http://localhost:8099/passwd") == "200"


@needs_systemd
def test_it_has_no_capabilities_cannot_gain_any_and_is_filtered(running):
    pid = running.shows("governor", "MainPID")

    status = dict(re.findall(r"(\w+):\s+(\S+)", running.ask("cat", f"/proc/{pid}/status")))
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["Uid"] != "0"
    assert running.ask("stat", "-c", "%U %a", "/var/lib/governor").split() == ["governor", "700"]


@needs_systemd
def test_a_reload_takes_a_good_policy_and_fails_with_a_bad_one(running):
    policy(running, POLICY.replace("gist.example.org", "other.example.org"))
    running.ask("systemctl", "reload", "governor")
    policy(running, "version: 99\n")
    bad = running.run("systemctl", "reload", "governor")
    policy(running, POLICY)

    assert bad.returncode != 0
    assert running.shows("governor", "ActiveState") == "active"


@needs_systemd
def test_asked_to_stop_it_closes_its_log_and_is_not_started_again(running):
    running.ask("systemctl", "stop", "governor")

    assert running.shows("governor", "Result") == "success"
    assert running.shows("governor", "ActiveState") == "inactive"
    assert '"type":"close"' in running.ask("sh", "-c", "tail -n 1 /var/lib/governor/audit/lanes/main/*.jsonl")


@needs_systemd
def test_killed_it_is_started_again(running):
    running.ask("systemctl", "kill", "--signal=KILL", "governor")

    deadline = time.monotonic() + 60
    while through(running, "http://gist.example.org/") != "403":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert running.shows("governor", "NRestarts") == "1"


@needs_systemd
@pytest.mark.parametrize(("spoilt", "status"), [("version: 99\n", "1")])
def test_a_refused_start_is_not_tried_again(machine, spoilt, status):
    policy(machine, spoilt)
    machine.run("systemctl", "reset-failed", "governor")
    started = machine.run("systemctl", "start", "governor")
    time.sleep(4)
    seen = [machine.shows("governor", what) for what in ("ActiveState", "ExecMainStatus", "NRestarts")]
    policy(machine, POLICY)

    assert started.returncode != 0
    assert seen == ["failed", status, "0"]


@needs_systemd
def test_the_gateways_table_is_there_before_the_network_and_stays_when_its_service_is_stopped(machine):
    recipe = "/opt/governor/code/scripts/recipes/gateway"
    machine.ask("cp", f"{recipe}/governor-gateway.service", "/etc/systemd/system/")
    machine.ask("cp", f"{recipe}/governor.nft", "/etc/governor/")
    machine.ask("mkdir", "-p", "/etc/sysctl.d", "/etc/systemd/system/governor.service.d")
    machine.ask("cp", f"{recipe}/60-governor-gateway.conf", "/etc/sysctl.d/")
    machine.ask("cp", f"{recipe}/gateway.conf", "/etc/systemd/system/governor.service.d/")
    machine.ask("sh", "-c", "printf 'LAN=lan\\nWAN=wan\\n' > /etc/governor/gateway")
    machine.ask("systemctl", "daemon-reload")
    started = machine.run("systemctl", "start", "governor-gateway")
    needed = machine.shows("governor", "Requires").split()
    modes = machine.shows("governor", "ExecStart")
    machine.ask("systemctl", "stop", "governor-gateway")
    machine.ask("rm", "-r", "/etc/systemd/system/governor.service.d")
    machine.ask("systemctl", "daemon-reload")

    assert started.returncode == 0, started.stderr
    assert "governor-gateway.service" in needed
    assert "--mode transparent@8080 --mode dns@5353" in modes
    assert "hook forward priority filter; policy drop" in machine.ask("nft", "list", "table", "inet", "governor")
    assert machine.ask("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "0"
    machine.ask("nft", "flush", "ruleset")
