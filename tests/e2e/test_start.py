"""Every start that must be refused: one line that says why, exit status 1, and a port that never serves."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import SCALE
from tests.e2e import wire
from tests.e2e.origins import serving
from tests.e2e.process import POLICY, ROOT, command_line, scratch_environment, started
from tests.e2e.tree import copy_of_the_tree, mutant

pytestmark = pytest.mark.e2e


@dataclass
class Attempt:
    """A start that is to fail: what it finds, and what it is told besides."""

    folder: Path
    home: Path
    policy: Path | None
    options: list[str] = field(default_factory=list)
    metrics: str = "127.0.0.1:0"
    root: Path = ROOT
    ahead: list[Path] = field(default_factory=list)
    occupied: bool = False


@dataclass(frozen=True)
class Refused:
    """How a start ended, and what its port did meanwhile."""

    status: int
    errors: str
    opened: int
    answered: int


def existing_home(attempt: Attempt) -> Path:
    """A home that was in use, with its pin beside it."""
    shutil.copytree(_MADE["home"], attempt.home, ignore=shutil.ignore_patterns("control.sock"))
    return attempt.home


_MADE: dict[str, Path] = {}


def missing_policy(attempt: Attempt) -> None:
    attempt.policy = attempt.folder / "absent.yaml"


def invalid_policy(attempt: Attempt) -> None:
    assert attempt.policy
    attempt.policy.write_text("version: 1\nrules:\n  - alow: all\n")


def invalid_policy_on_a_named_host(attempt: Attempt) -> None:
    invalid_policy(attempt)
    attempt.options += ["--listen-host", "localhost"]


def policy_of_later_versions(attempt: Attempt) -> None:
    assert attempt.policy
    attempt.policy.write_text(POLICY + "budgets:\n  - {budget: b, for: all, each: {usd: 5}, every: day}\n")


def home_is_a_file(attempt: Attempt) -> None:
    attempt.home.write_text("")


def home_of_others(attempt: Attempt) -> None:
    existing_home(attempt).chmod(0o755)


def home_without_log(attempt: Attempt) -> None:
    shutil.rmtree(existing_home(attempt) / "audit" / "lanes" / "main")


def home_without_keys(attempt: Attempt) -> None:
    shutil.rmtree(existing_home(attempt) / "keys")
    (attempt.home / "keys").mkdir(mode=0o700)


def home_without_agents(attempt: Attempt) -> None:
    (existing_home(attempt) / "agents.json").unlink()


def readable_key(attempt: Attempt) -> None:
    (existing_home(attempt) / "keys" / "main.key").chmod(0o644)


def edited_log(attempt: Attempt) -> None:
    segment = existing_home(attempt) / "audit" / "lanes" / "main" / "000000.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"seq":1', b'"seq":7', 1))


def shortened_log(attempt: Attempt) -> None:
    segment = existing_home(attempt) / "audit" / "lanes" / "main" / "000000.jsonl"
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:-2]))


def home_in_use(attempt: Attempt) -> None:
    attempt.home = _MADE["live"]


def port_in_use(attempt: Attempt) -> None:
    attempt.occupied = True


def metrics_port_in_use(attempt: Attempt) -> None:
    attempt.metrics = f"127.0.0.1:{_TAKEN.getsockname()[1]}"


def metrics_without_port(attempt: Attempt) -> None:
    attempt.metrics = "9464"


_TAKEN = socket.socket()


def option(*words: str) -> Callable[[Attempt], None]:
    def give(attempt: Attempt) -> None:
        attempt.options += words

    return give


def gate_that_goes_on_after_a_fault(attempt: Attempt) -> None:
    attempt.root = mutant(attempt.folder, "addons/gate.py", "            _refuse(guard, handler, data, reason)\n", "")


def renamed_method(attempt: Attempt) -> None:
    script = attempt.folder / "another_build.py"
    script.write_text("from mitmproxy.proxy.layers.http import HttpStream as Stream\n"
                      "Stream.is_killed = Stream.check_killed\ndel Stream.check_killed\n")
    attempt.ahead = [script]


NAMED_HOST = "an invalid policy, listening on a name"
CASES: dict[str, tuple[str, Callable[[Attempt], None]]] = {
    "a missing policy": ("POLICY_MISSING", missing_policy),
    "an invalid policy": ("POLICY_INVALID", invalid_policy),
    NAMED_HOST: ("POLICY_INVALID", invalid_policy_on_a_named_host),
    "a policy with keys that cannot be enforced": ("POLICY_INVALID", policy_of_later_versions),
    "a home that is a file": ("HOME_UNWRITABLE", home_is_a_file),
    "a home that others can read": ("HOME_UNWRITABLE", home_of_others),
    "a home without its log": ("HOME_INCOMPLETE", home_without_log),
    "a home without its keys": ("HOME_INCOMPLETE", home_without_keys),
    "a home without its agents": ("HOME_INCOMPLETE", home_without_agents),
    "a key that others can read": ("KEY_PERMISSIONS", readable_key),
    "an edited log": ("TAMPERED", edited_log),
    "a shortened log": ("ROLLED_BACK", shortened_log),
    "a home in use": ("LANE_BUSY", home_in_use),
    "a port in use": ("PORT_BUSY", port_in_use),
    "a metrics port in use": ("PORT_BUSY", metrics_port_in_use),
    "a mode that is not governed": ("MODE_REFUSED", option("--mode", "reverse:http://127.0.0.1:1")),
    "hosts that are not intercepted": ("OPTION_REFUSED", option("--set", "ignore_hosts=x")),
    "origins that are not verified": ("OPTION_REFUSED", option("--set", "ssl_insecure=true")),
    "requests that are rewritten": ("OPTION_REFUSED", option("--set", "map_remote=/a/b")),
    "a metrics address without port": ("OPTION_REFUSED", metrics_without_port),
    "an option given twice": ("OPTION_REFUSED", option("--set", "governor_home=/a", "--set", "governor_home=/b")),
    "a gate that does not hold": ("SELF_TEST", gate_that_goes_on_after_a_fault),
    "a mitmproxy with other names": ("SELF_TEST", renamed_method),
}
WAYS = {"mitmdump": False, "serve": True}
# Both ways run the same code from here on: one case for each of its steps.
OF_SERVE = {"an option given twice", "an invalid policy", "a home in use", "a port in use"}
ONLY_AS_A_SCRIPT = {"a gate that does not hold", "a mitmproxy with other names"}
STARTS = [(way, name) for way in WAYS for name in CASES
          if way == "mitmdump" or name in OF_SERVE or (SCALE >= 10 and name not in ONLY_AS_A_SCRIPT)]


@pytest.fixture(scope="module")
def refused(request: pytest.FixtureRequest,
            tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Refused]]:
    """How the start of each selected case ended. They run two by two, and a test waits for its own."""
    selected = [(item.callspec.params["way"], item.callspec.params["name"]) for item in request.session.items
                if isinstance(item, pytest.Function) and item.originalname == "test_a_start_is_refused_over"]
    folder = tmp_path_factory.mktemp("starts")
    made = folder / "made"
    made.mkdir()
    with started(made):
        pass
    _MADE["home"] = made / "home"
    live = folder / "live"
    live.mkdir()
    _TAKEN.bind(("127.0.0.1", 0))
    with started(live), _TAKEN, ThreadPoolExecutor(2) as pool:
        _MADE["live"] = live / "home"
        _TAKEN.listen()
        running: dict[tuple[str, str], Future[Refused]] = {
            (way, name): pool.submit(attempt_start, folder / way / name.replace(" ", "-"), CASES[name][1], WAYS[way])
            for way, name in selected}
        yield lambda way, name: running[way, name].result(120)


@pytest.mark.parametrize(("way", "name"), STARTS)
def test_a_start_is_refused_over(way: str, name: str, refused: Callable[[str, str], Refused]) -> None:
    code = CASES[name][0]
    result = refused(way, name)

    assert (result.status, len(result.errors.splitlines())) == (1, 1), result.errors
    assert result.errors.startswith(f"governor: refused to start: {code}: ")
    assert result.answered == 0
    if way == "serve" or name == NAMED_HOST:
        # Where the listen address is a literal, mitmdump opens the port before it reads a script: the kernel then takes
        # connections that nobody serves, until the process ends.
        assert result.opened == 0


def attempt_start(folder: Path, arrange: Callable[[Attempt], None], serve: bool) -> Refused:
    folder.mkdir(parents=True)
    attempt = Attempt(folder, folder / "home", folder / "policy.yaml")
    assert attempt.policy
    attempt.policy.write_text(POLICY)
    arrange(attempt)
    command = [word.replace("governor_metrics=127.0.0.1:0", f"governor_metrics={attempt.metrics}")
               for word in command_line(attempt.home, attempt.policy, attempt.options, serve, root=attempt.root,
                                        ahead=attempt.ahead)]
    port = int(command[command.index("--listen-port") + 1])
    with contextlib.ExitStack() as stack:
        if attempt.occupied:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   env=scratch_environment(folder))
        knocking = Knocking(port, process)
        if not attempt.occupied:
            knocking.start()
        try:
            errors = process.communicate(timeout=60)[1]
        finally:
            process.kill()
            process.wait()
        if not attempt.occupied:
            knocking.join()
    return Refused(process.returncode, errors, knocking.opened, knocking.answered)


class Knocking(threading.Thread):
    """Connects to a port for as long as a process lives, asks for something, and counts."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.opened = self.answered = 0
        self._port, self._process = port, process

    def run(self) -> None:
        while self._process.poll() is None:
            with contextlib.suppress(OSError), self._connected() as connection:
                self.opened += 1
                connection.sendall(wire.plain("GET", "http://localhost/"))
                self.answered += bool(connection.recv(1))
            threading.Event().wait(0.01)

    def _connected(self) -> socket.socket:
        # From another address: where nobody listens, a connection from the port's own address may meet itself.
        return socket.create_connection(("127.0.0.1", self._port), 30, source_address=("127.0.0.2", 0))


def broken_module(attempt: Attempt) -> None:
    attempt.root = copy_of_the_tree(attempt.folder)
    (attempt.root / "addons" / "hooks.py").write_text("this is no Python")


@pytest.mark.parametrize("arrange", [
    pytest.param(invalid_policy, id="an invalid policy"),
    pytest.param(broken_module, id="a script that cannot be loaded"),
    pytest.param(option("--set", "governor_home=/a", "--set", "governor_home=/b"), id="an option given twice"),
])
def test_who_waits_at_the_port_of_a_refused_start_is_not_served(tmp_path: Path,
                                                                arrange: Callable[[Attempt], None]) -> None:
    """mitmdump listens before it reads its scripts; the tracer holds it there, and all connect that want to."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    hold = ["strace", "-D", "-f", "--seccomp-bpf", "-o", os.devnull, "-e", "trace=listen", "-e",
            "inject=listen:delay_exit=300000"]
    attempt = Attempt(tmp_path, tmp_path / "home", tmp_path / "policy.yaml")
    (tmp_path / "policy.yaml").write_text(POLICY)
    arrange(attempt)
    with serving() as origin:
        command = command_line(attempt.home, attempt.policy, attempt.options, False, root=attempt.root)
        process = subprocess.Popen([*hold, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   env=scratch_environment(tmp_path))
        port = int(command[command.index("--listen-port") + 1])
        waiting = wait_at(port, wire.plain("GET", f"{origin.url}/"), process)
        errors = process.communicate(timeout=60)[1]
        # What was sent before the end may still be on its way to the origin's handler.
        threading.Event().wait(0.5)
        seen = list(origin.seen.lines)

    assert (len(waiting), seen) == (WAITING, [])
    assert (process.returncode, len(errors.splitlines())) == (1, 1), errors
    assert errors.startswith("governor: refused to start: ")


WAITING = 20


def wait_at(port: int, request: bytes, process: subprocess.Popen[str]) -> list[socket.socket]:
    """Connections to the port, as soon as it can be had, each with a request on it."""
    waiting: list[socket.socket] = []
    while process.poll() is None and len(waiting) < WAITING:
        with contextlib.suppress(OSError):
            waiting.append(socket.create_connection(("127.0.0.1", port), 1, source_address=("127.0.0.2", 0)))
            waiting[-1].sendall(request)
    return waiting


def test_a_read_only_home_is_refused_to_who_is_not_root(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    attempt_folder = tmp_path / "attempt"

    def read_only(attempt: Attempt) -> None:
        attempt.folder.joinpath("locked").mkdir(mode=0o500)
        attempt.home = attempt.folder / "locked" / "home"

    result = attempt_start(attempt_folder, read_only, False)

    assert (result.status, result.errors.startswith("governor: refused to start: HOME_UNWRITABLE: ")) == (1, True)
