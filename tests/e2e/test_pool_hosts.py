"""Hosts with a network between them and their ledger: a halt crosses it, and who is cut off lets nothing pass."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.addons.pools.redis_servers import needs_redis
from tests.e2e.crew import entries, until
from tests.e2e.network_hosts import NetworkHost, needs_networks, networked
from tests.e2e.process import POLICY, Governor, started

pytestmark = [pytest.mark.e2e, needs_redis, needs_networks]

ORIGIN_PORT = 18080


@contextlib.contextmanager
def governed(folder: Path, host: NetworkHost, ledger: str) -> Iterator[Governor]:
    """A Governor on a host, with an origin of streams beside it."""
    folder.mkdir()
    option = ["--set", f"governor_pool=redis://{ledger}:6379"]
    with host.streaming(ORIGIN_PORT), started(folder, POLICY, option, serve=True, wrapper=host.inside) as governor:
        yield governor


@contextlib.contextmanager
def stream(host: NetworkHost, governor: Governor) -> Iterator[subprocess.Popen[bytes]]:
    """A client with an open stream."""
    command = ("curl", "-sN", "-x", governor.proxy, f"http://localhost:{ORIGIN_PORT}/")
    with host.running(*command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.read(9) == b"data: x\n\n"
        yield client


def drained(client: subprocess.Popen[bytes]) -> float:
    """When the stream ended."""
    assert client.stdout is not None
    while client.stdout.read1(65536):
        pass
    return time.time()


@contextlib.contextmanager
def two_hosts(tmp_path: Path) -> Iterator[tuple[list[NetworkHost], list[Governor]]]:
    with networked(3) as (one, two, ledger), ledger.running(
            "redis-server", "--bind", ledger.address, "--protected-mode", "no", "--save", "", "--dir", str(tmp_path),
            stdout=subprocess.DEVNULL):
        until(lambda: subprocess.run([*one.inside, "redis-cli", "-h", ledger.address, "PING"], capture_output=True,
                                     check=False).stdout == b"PONG\n")
        with governed(tmp_path / "one", one, ledger.address) as first, \
                governed(tmp_path / "two", two, ledger.address) as second:
            yield [one, two], [first, second]


def test_a_halt_crosses_the_network_and_cuts_what_is_open_there(tmp_path: Path) -> None:
    with two_hosts(tmp_path) as ([_, two], [first, second]), stream(two, second) as client:
        halted = first.verb("agents", "halt", "local", "--reason", "it uploads")
        ended = drained(client)
        said = datetime.fromisoformat(entries(first.home, "main", "operator")[-1]["ts"]).timestamp()
        print(f"the open stream on the other host ended {1000 * (ended - said):.0f} ms after the halt")

        assert halted.returncode == 0
        assert [entry["act"] for entry in entries(second.home, "main", "operator")] == ["agents halt"]
        for each in (first, second):
            assert each.stop() == 0
            assert each.verify()["result"] == "verified"


def test_a_host_that_is_cut_off_lets_nothing_pass_and_takes_what_it_missed(tmp_path: Path) -> None:
    with two_hosts(tmp_path) as ([_, two], [first, second]), stream(two, second) as client:
        two.cut()
        cut = time.time()
        ended = drained(client)
        print(f"the open stream ended {ended - cut:.1f} s after its host was cut off")
        refused = subprocess.run(
            [*two.inside, "curl", "-s", "-m", "5", "-x", second.proxy, "-o", "/dev/null", "-w", "%{http_code}",
             f"http://localhost:{ORIGIN_PORT}/"], capture_output=True, text=True, check=False).stdout
        first.verb("agents", "halt", "local", "--reason", "it uploads")
        two.join()
        until(lambda: entries(second.home, "main", "operator"))

        assert refused == "403"
        assert first.stop() == second.stop() == 0
        assert second.verify()["result"] == "verified"
