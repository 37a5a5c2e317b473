"""Whatever fails or misbehaves beside Governor, nothing passes that should not."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import SCALE
from tests.e2e import wire
from tests.e2e.origins import Origin, counting, serving
from tests.e2e.process import Governor, started
from tests.e2e.tree import copy_of_the_tree

pytestmark = pytest.mark.e2e

# Another script in the same mitmproxy. What it does to a flow, the request says in a header: `x-ahead` is for the one
# loaded before Governor, `x-behind` for the one loaded after it.
UNRULY = '''
import asyncio

from mitmproxy import exceptions, http
from mitmproxy.proxy import layers

class Unruly:
    name = {header!r}

    def __init__(self):
        self.clients = {{}}

    def act(self, flow, hook):
        what, _, where = flow.request.headers.get({header!r}, "").partition("@")
        return what if where == hook else ""

    def requestheaders(self, flow):
        self.spoil(flow, "requestheaders")
        if self.act(flow, "requestheaders") == "stream":
            flow.request.stream = True

    def request(self, flow):
        self.spoil(flow, "request")

    def http_connect(self, flow):
        self.clients[flow.client_conn.id] = flow.request.headers.get({header!r})
        self.spoil(flow, "http_connect")

    def responseheaders(self, flow):
        self.spoil(flow, "responseheaders")

    def response(self, flow):
        self.spoil(flow, "response")

    def next_layer(self, data):
        if self.clients.get(data.context.client.id) == "raw@next_layer" and len(data.context.layers) > 1:
            data.layer = layers.TCPLayer(data.context)

    def tls_clienthello(self, data):
        if self.clients.get(data.context.client.id) == "ignore@tls_clienthello":
            data.ignore_connection = True

    def server_connect(self, data):
        if self.clients.get(data.client.id) == "redirect@server_connect":
            data.server.address = ("127.0.0.1", {elsewhere})

    def spoil(self, flow, hook):
        match self.act(flow, hook):
            case "raise":
                raise RuntimeError("another script fails")
            case "cancel":
                raise asyncio.CancelledError
            case "halt":
                raise exceptions.AddonHalt
            case "clear":
                flow.response = None
            case "answer":
                flow.response = http.Response.make(200, b"answered by another script")
            case "edit":
                flow.request.path = "/denied/edited"
            case "edit-later":
                asyncio.get_running_loop().call_soon(setattr, flow.request, "path", "/denied/edited")
            case "move":
                flow.request.port = {elsewhere}
            case "move-silently":
                flow.request.data.port = {elsewhere}
            case "redirect":
                self.clients[flow.client_conn.id] = "redirect@server_connect"

addons = [Unruly()]
'''


@dataclass(frozen=True)
class Beside:
    """A Governor between two unruly scripts, an origin, and a listener that must never be reached."""

    governor: Governor
    origin: Origin
    https: Origin
    elsewhere: Origin


@pytest.fixture(scope="module", params=["mitmdump", "serve"] if SCALE >= 10 else ["mitmdump"])
def beside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
           certificate: tuple[Path, Path]) -> Iterator[Beside]:
    folder, serve = tmp_path_factory.mktemp("beside"), request.param == "serve"
    with contextlib.ExitStack() as stack:
        origin, https = stack.enter_context(serving()), stack.enter_context(serving(chain=certificate[0]))
        elsewhere = stack.enter_context(counting())
        ahead, behind = (unruly(folder, header, elsewhere.port) for header in ("x-ahead", "x-behind"))
        # `serve` has Governor before all scripts.
        options = ["-s", str(ahead), "-s", str(behind)] if serve else ["-s", str(behind)]
        governor = stack.enter_context(started(folder, POLICY.format(elsewhere=elsewhere.port), options, serve=serve,
                                               trust=certificate[1], ahead=[ahead]))
        yield Beside(governor, origin, https, elsewhere)


def unruly(folder: Path, header: str, elsewhere: int) -> Path:
    script = folder / f"{header}.py"
    script.write_text(UNRULY.format(header=header, elsewhere=elsewhere))
    return script


POLICY = """\
version: 1
rules:
  - allow: read-local
    to: localhost
    address: 127.0.0.0/8
    schemes: [http, https]
    ports: 1-65535
    methods: any
    except: {{paths: ["/denied/**"]}}
  - deny: elsewhere
    to: localhost
    ports: {elsewhere}
"""

HOOKS_OF_A_REFUSED_FLOW = ("requestheaders", "request", "responseheaders", "response")
BOTH = pytest.mark.parametrize("which", ["x-ahead", "x-behind"])


@BOTH
@pytest.mark.parametrize("hook", HOOKS_OF_A_REFUSED_FLOW)
@pytest.mark.parametrize("act", ["raise", "cancel", "halt", "clear", "answer", "stream"])
def test_a_denied_request_stays_refused_whatever_another_script_does(beside: Beside, which: str, act: str,
                                                                     hook: str) -> None:
    answer = wire.ask(beside.governor.port, wire.plain(
        "POST", f"{beside.origin.url}/denied/x", (which, f"{act}@{hook}"), ("Content-Length", "4"), body=b"data"),
        seconds=1 if act == "clear" and "response" in hook else wire.SECONDS)

    # After the verdict a script may spoil the answer's words; the request has not left all the same.
    assert answer is None or answer.body == b"answered by another script" or answer.status in (403, 429, 502)
    if hook in ("requestheaders", "request"):
        assert answer is not None
        assert answer.status in (403, 429)
    assert not any("/denied" in line for line in beside.origin.seen.lines)


@BOTH
@pytest.mark.parametrize(("act", "code"), [
    pytest.param("edit@request", "DEFAULT_DENY", id="edits the path"),
    pytest.param("edit@requestheaders", "DEFAULT_DENY", id="edits the path early"),
    pytest.param("move@request", "RULE_DENY", id="moves the request to a denied port"),
    pytest.param("move-silently@request", "DESTINATION_MISMATCH", id="moves the request and leaves its Host header"),
    pytest.param("edit-later@request", "EDITED", id="edits while the verdict is written"),
    pytest.param("cancel@request", "FAULT", id="raises CancelledError"),
])
def test_an_allowed_request_is_refused_when_another_script(beside: Beside, which: str, act: str, code: str) -> None:
    answer = ask_until_counted(beside, which, act)

    assert (answer.status, answer.code) == (403, code)
    assert not any("/denied" in line for line in beside.origin.seen.lines)
    assert beside.elsewhere.seen.connections == 0


@BOTH
def test_a_redirected_connection_is_not_dialled(beside: Beside, which: str) -> None:
    answer = ask_until_counted(beside, which, "redirect@request")

    assert answer.status == 502
    assert beside.elsewhere.seen.connections == 0


def ask_until_counted(beside: Beside, which: str, act: str) -> wire.Answer:
    """The answer to an allowed request; asked again where too many were refused within this second."""
    while True:
        answer = wire.ask(beside.governor.port, wire.plain("GET", f"{beside.origin.url}/allowed", (which, act)))
        assert answer is not None
        if answer.status != 429:
            return answer
        time.sleep(1)


@BOTH
@pytest.mark.parametrize("act", ["raise@http_connect", "cancel@http_connect", "halt@http_connect", "clear@http_connect",
                                 "ignore@tls_clienthello", "raw@next_layer"])
def test_a_tunnel_leads_nowhere_ungoverned_whatever_another_script_does(beside: Beside, which: str, act: str) -> None:
    authority, before = f"localhost:{beside.https.port}", beside.https.seen.connections
    with contextlib.suppress(wire.Refused, OSError), wire.tunnel(
            beside.governor.port, beside.governor.ca, authority, (which, act)) as inside:
        answer = wire.send(inside, wire.request("GET", "/denied/x", (("Host", authority),)))
        assert answer is None or answer.status in (403, 429)

    assert beside.https.seen.connections == before


def test_other_flows_pass_in_the_midst_of_it(beside: Beside) -> None:
    answer = wire.ask(beside.governor.port, wire.plain("GET", f"{beside.origin.url}/allowed"))

    assert (answer and answer.status, beside.governor.verify()["result"]) == (200, "verified")


# The log is lost


def unlinked(governor: Governor) -> None:
    governor.segment.unlink()


def replaced(governor: Governor) -> None:
    copy = governor.segment.with_suffix(".copy")
    shutil.copy(governor.segment, copy)
    os.rename(copy, governor.segment)


def linked(governor: Governor) -> None:
    os.link(governor.segment, governor.home / "another-name")


def appended_to(governor: Governor) -> None:
    with governor.segment.open("ab") as file:
        file.write(b"{}\n")


@pytest.mark.parametrize("damage", [unlinked, replaced, linked, appended_to])
def test_without_its_log_everything_is_refused(tmp_path: Path, damage: Callable[[Governor], None]) -> None:
    with serving() as origin, started(tmp_path) as governor:
        before = status(governor, origin)
        damage(governor)
        after = [refusal(governor, origin) for _ in range(3)]

        assert before == 200
        assert after == [(403, "AUDIT_UNAVAILABLE")] * 3
        assert len(origin.seen.requests) == 1
        assert readiness(governor) == 503


def test_on_a_full_disk_everything_is_refused_and_the_log_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk, serving() as origin, started(disk) as governor:
        before = status(governor, origin)
        fill(disk)
        after = [refusal(governor, origin) for _ in range(40)]
        seen, ready = len(origin.seen.requests), readiness(governor)
        governor.stop()

        assert before == 200
        assert set(after[-3:]) == {(403, "AUDIT_UNAVAILABLE")}
        assert seen == 1 + after.count((200, None))
        assert ready == 503
        assert [entry["code"] for entry in governor.entries("fault")] == ["AUDIT_UNAVAILABLE"]
        assert governor.entries()[-1]["type"] == "close"
        assert governor.verify()["result"] == "verified"
        (disk / "filler").unlink()
        with started(disk) as again:
            assert status(again, origin) == 200


# A folder is lost, and comes back


def moved_away(folder: Path) -> None:
    (folder / "home" / "audit").rename(folder / "away")


def moved_back(folder: Path) -> None:
    (folder / "away").rename(folder / "home" / "audit")


def locked(folder: Path) -> None:
    (folder / "home" / "audit" / "lanes").chmod(0)


def unlocked(folder: Path) -> None:
    (folder / "home" / "audit" / "lanes").chmod(0o700)


# Root without the power to pass by permissions: as subject to them as anyone.
POWERLESS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@pytest.mark.parametrize(("damage", "repair"), [(moved_away, moved_back), (locked, unlocked)])
def test_what_is_lost_stops_everything_says_so_and_a_restart_takes_it_up_again(
        tmp_path: Path, damage: Callable[[Path], None], repair: Callable[[Path], None]) -> None:
    """A file system cannot be made read-only under an open log; an error of its own stops the lane the same way."""
    wrapper = POWERLESS if damage is locked and os.geteuid() == 0 else ()
    if wrapper and subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("the permissions of root can only be taken away by setpriv")
    with serving() as origin:
        with started(tmp_path, wrapper=wrapper) as governor:
            before = status(governor, origin)
            damage(tmp_path)
            lost = [refusal(governor, origin) for _ in range(3)]
            ready, told = readiness(governor), "\n".join(governor.output)
            faults = lane_faults(governor)
            governor.stop()
        repair(tmp_path)
        seen = len(origin.seen.requests)
        with started(tmp_path, wrapper=wrapper) as governor:
            after, verified = status(governor, origin), governor.verify()["result"]

        assert (before, after, verified) == (200, 200, "verified")
        assert lost == [(403, "AUDIT_UNAVAILABLE")] * 3
        assert (seen, ready, faults) == (1, 503, 1)
        assert "governor: stopped: " in told
        assert "restart" in told


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def status(governor: Governor, origin: Origin) -> int:
    return refusal(governor, origin)[0]


def refusal(governor: Governor, origin: Origin) -> tuple[int, str | None]:
    answer = wire.ask(governor.port, wire.plain("GET", f"{origin.url}/allowed"))
    assert answer is not None
    return answer.status, answer.code


def readiness(governor: Governor) -> int:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                governor.metrics.replace("/metrics", "/readyz"), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def lane_faults(governor: Governor) -> float:
    """How often the metrics say that the log has failed."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(governor.metrics, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('governor_faults_total{where="lane"}'))


def test_the_tree_that_was_copied_is_the_one_that_runs(tmp_path: Path) -> None:
    """Tests with a copy say nothing if it imports the original."""
    tree = copy_of_the_tree(tmp_path)
    program = """import runpy, sys; runpy.run_path(sys.argv[1])
import addons, kernel; print(addons.__file__, kernel.__file__)"""
    told = subprocess.run([sys.executable, "-c", program, str(tree / "addons" / "governor.py")],
                          capture_output=True, text=True, check=True).stdout

    assert told.split() == [str(tree / "addons" / "__init__.py"), str(tree / "kernel" / "__init__.py")]
