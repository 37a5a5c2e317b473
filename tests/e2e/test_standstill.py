"""What ends while something waits: held flows, a loop that stands still, a suspended process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SCALE
from tests.e2e import wire
from tests.e2e.origins import Origin, serving
from tests.e2e.process import Governor, started
from tests.e2e.tree import copy_of_the_tree

pytestmark = pytest.mark.e2e

ENDED = 70
ONLY_LONG = pytest.mark.skipif(SCALE <= 1, reason="waits the watchdog's real ten seconds: only at scales above 1")

# Holds each request for /held, tells at /count how many, kills them at /kill, and blocks the loop at /blocks.
SCRIPT = '''
import time

from mitmproxy import http

class Script:
    held = []

    def request(self, flow):
        match flow.request.path:
            case "/held":
                flow.intercept()
                self.held.append(flow)
            case "/count":
                flow.response = http.Response.make(200, str(len(self.held)))
            case "/kill":
                for each in self.held:
                    each.kill()
            case "/blocks":
                time.sleep(60)

addons = [Script()]
'''


@contextlib.contextmanager
def beside_a_script(folder: Path, *, root: Path | None = None) -> Iterator[Governor]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    with started(folder, options=["-s", str(script)], **({"root": root} if root else {})) as governor:
        yield governor


@contextlib.contextmanager
def held(governor: Governor, origin: Origin) -> Iterator[socket.socket]:
    """A client whose request is held."""
    with wire.dial(governor.port) as client:
        client.sendall(wire.plain("GET", f"{origin.url}/held"))
        until = time.monotonic() + 10
        while counted(governor, origin) != b"1":
            assert time.monotonic() < until
        yield client


def counted(governor: Governor, origin: Origin) -> bytes | None:
    """How many flows are held, in the script's words."""
    answer = wire.ask(governor.port, wire.plain("GET", f"{origin.url}/count"))
    return answer.body if answer else None


def assert_closed_soon(client: socket.socket, seconds: float = 10.0) -> bytes:
    """What still came before the client's connection was closed."""
    client.settimeout(seconds)
    got = b""
    with contextlib.suppress(ConnectionError):
        while chunk := client.recv(65536):
            got += chunk
    return got


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_held_flow_does_not_outlive_the_process(tmp_path: Path, how: signal.Signals) -> None:
    with serving() as origin, beside_a_script(tmp_path) as governor, held(governor, origin) as client:
        governor.process.send_signal(how)
        got = assert_closed_soon(client)

        assert governor.process.wait(10) == 0
        assert not got.startswith(b"HTTP/1.1 200")
        assert origin.seen.requests == []
        assert governor.entries()[-1]["reason"] == "stopped"
        assert governor.verify()["result"] == "verified"


def test_a_held_flow_does_not_outlive_the_script(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    with (serving() as origin, beside_a_script(tmp_path, root=tree) as governor,
          held(governor, origin) as client):
        script = tree / "addons" / "governor.py"
        os.utime(script, (time.time() + 5,) * 2)
        got = assert_closed_soon(client)

        assert got == b""
        assert governor.process.wait(10) == ENDED
        assert origin.seen.requests == []
        assert governor.entries()[-1]["reason"] == "unloaded"
        assert governor.verify()["result"] == "verified"


def test_a_held_flow_that_is_killed_is_refused_with_an_explanation(tmp_path: Path) -> None:
    with serving() as origin, beside_a_script(tmp_path) as governor, held(governor, origin) as client:
        wire.ask(governor.port, wire.plain("GET", f"{origin.url}/kill"))
        answer = wire.read(client)

        assert answer is not None
        assert (answer.status, answer.code) == (403, "EDITED")
        assert "/held" not in str(origin.seen.lines)


@ONLY_LONG
def test_a_script_that_blocks_the_loop_ends_the_process_and_closes_the_log(tmp_path: Path) -> None:
    with (serving() as origin, beside_a_script(tmp_path) as governor,
          wire.dial(governor.port) as client, wire.dial(governor.port) as waiting):
        client.sendall(wire.plain("GET", f"{origin.url}/blocks"))
        time.sleep(0.5)
        waiting.sendall(wire.plain("GET", f"{origin.url}/waits"))

        assert governor.process.wait(30) == ENDED
        assert (assert_closed_soon(client), assert_closed_soon(waiting)) == (b"", b"")
        assert origin.seen.requests == []
        assert any("stood still for 10 s" in line for line in governor.output)
        assert [(entry["type"], entry.get("where") or entry.get("reason")) for entry in governor.entries()[-2:]] == [
            ("fault", "loop"), ("close", "standstill")]
        assert governor.verify()["result"] == "verified"
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", governor.port)):
            pass


@ONLY_LONG
def test_a_process_that_was_suspended_goes_on(tmp_path: Path) -> None:
    with serving() as origin, started(tmp_path) as governor:
        governor.process.send_signal(signal.SIGSTOP)
        time.sleep(13)
        governor.process.send_signal(signal.SIGCONT)
        answers = [wire.ask(governor.port, wire.plain("GET", f"{origin.url}/allowed")) for _ in range(3)]
        time.sleep(1)

        assert [answer and answer.status for answer in answers] == [200] * 3
        assert governor.process.poll() is None
