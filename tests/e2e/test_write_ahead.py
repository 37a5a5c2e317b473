"""The system calls of a running Governor: a decision is on disk before its request's connection is begun."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import scaled
from tests.e2e import wire
from tests.e2e.origins import Origin, serving
from tests.e2e.process import ROOT, Governor, started
from tests.e2e.tree import mutant

pytestmark = pytest.mark.e2e

CLIENTS, REQUESTS = 4, 4
CALLS = "trace=connect,write,sendto,sendmsg,fdatasync"
# Thread, time, and either a call with its result, a call that began, or one that returned.
LINE = re.compile(r"(\d+) +[\d.]+ (?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<call>\w+)\()(?P<rest>.*)")
TARGET = re.compile(r"\d+<(?P<file>[^>]*)>")
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
PORT = re.compile(r"sin_port=htons\((\d+)\)")


@dataclass
class Trace:
    """What a trace shows, read in the order of its lines: how much was durable when something went out."""

    ports: frozenset[int]
    written: list[dict[str, object]] = field(default_factory=list)
    durable: Counter[object] = field(default_factory=Counter)
    began: dict[str, tuple[str, int]] = field(default_factory=dict)
    peers: dict[str, int] = field(default_factory=dict)
    connected: Counter[int] = field(default_factory=Counter)
    sent: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)

    def read(self, line: str) -> None:
        found = LINE.match(line)
        if found is None:
            return
        thread, unfinished = found[1], line.endswith("<unfinished ...>")
        if found["resumed"]:
            self._returned(found["resumed"], *self.began.pop(thread, ("", 0)))
            return
        call, rest = found["call"], found["rest"]
        target = TARGET.match(rest)
        name = target["file"] if target else ""
        self._entered(call, name, rest)
        if unfinished:
            self.began[thread] = (name, len(self.written))
        else:
            self._returned(call, name, len(self.written))

    def _entered(self, call: str, name: str, rest: str) -> None:
        text = TEXT.search(rest)
        if call == "connect" and (port := PORT.search(rest)) and int(port[1]) in self.ports:
            self.peers[name] = int(port[1])
            self.connected[int(port[1])] += 1
            self._need(self.durable["port", int(port[1])] > 0, f"connect to {port[1]}")
        elif call == "write" and name.endswith(".jsonl") and text:
            self.written += entries(text[1])
        elif name in self.peers and text:
            self._need(self.durable["port", self.peers[name]] > 0, f"a byte to {self.peers[name]}")
            for mark in re.findall(r"mark/[\d-]+", text[1]):
                self.sent.add(mark)
                self._need(self.durable["mark", mark] > 0, f"{mark} to {self.peers[name]}")

    def _returned(self, call: str, name: str, written: int) -> None:
        """A sync that returns makes durable what was written before it began."""
        if call == "fdatasync" and name.endswith(".jsonl"):
            done, self.written = self.written[:written], self.written[written:]
            for entry in done:
                facts = entry.get("in")
                if isinstance(facts, dict) and entry["verdict"] == "allow" and entry["stage"] == "request":
                    self.durable["port", facts["port"]] += 1
                    self.durable["mark", facts["content_type"]] += 1

    def _need(self, holds: bool, what: str) -> None:
        if not holds:
            self.violations.append(f"{what} before its decision was durable")


def entries(text: str) -> list[dict[str, object]]:
    content = text.encode("latin-1").decode("unicode_escape").encode("latin-1")
    return [json.loads(line)["e"] for line in content.splitlines()]


@pytest.fixture(scope="module")
def origins(certificate: tuple[Path, Path]) -> Iterator[list[Origin]]:
    """One plain origin and one over TLS for each client, so that every client begins with new connections."""
    if shutil.which("strace") is None or subprocess.run(["strace", "-o", "/dev/null", "true"]).returncode:
        pytest.skip("strace is not installed, or may not trace here")
    with serving() as plain, serving(chain=certificate[0]) as tls, serving() as other:
        yield [plain, tls, other]


def traced(folder: Path, origins: list[Origin], trusted: Path, requests: int, root: Path = ROOT, *,
           serve: bool = False) -> Trace:
    """Drive a traced Governor with several clients at once; what its system calls were."""
    file = folder / "trace"
    # -D: the tracer is the child, so that signals reach Governor.
    strace = ["strace", "-D", "-f", "--seccomp-bpf", "-y", "-ttt", "-s", "1000000", "-e", CALLS, "-o", str(file)]
    with (started(folder, trust=trusted, wrapper=strace, root=root, serve=serve) as governor,
          ThreadPoolExecutor(CLIENTS) as pool):
        answers = list(pool.map(lambda client: drive(governor, origins, client, requests), range(CLIENTS)))
    wait_for_the_end(file)
    trace = Trace(frozenset(origin.port for origin in origins))
    for line in file.read_text("latin-1").splitlines():
        trace.read(line)
    assert sum(statuses.count(200) for statuses in answers) == CLIENTS * requests * 2
    return trace


def drive(governor: Governor, origins: list[Origin], client: int, requests: int) -> list[int]:
    """One client: on each origin in turn a kept connection, with a denied request between two allowed ones."""
    statuses = []
    for number in range(requests):
        origin = origins[(client + number) % len(origins)]
        connection = through(governor, origin)
        for step, path in enumerate(("/allowed", "/denied/x", "/allowed")):
            target = path if origin.scheme == "https" else f"{origin.url}{path}"
            connection.request("GET", target, headers={"content-type": f"mark/{client}-{number}-{step}"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
    return statuses


def through(governor: Governor, origin: Origin) -> http.client.HTTPConnection:
    if origin.scheme == "http":
        return http.client.HTTPConnection("127.0.0.1", governor.port, timeout=60)
    connection = http.client.HTTPSConnection("127.0.0.1", governor.port, timeout=60, context=wire.trusting(governor.ca))
    connection.set_tunnel("localhost", origin.port)
    return connection


def wait_for_the_end(file: Path) -> None:
    deadline = time.monotonic() + 20
    while "+++ exited with" not in file.read_text("latin-1")[-200:].splitlines()[-1]:
        assert time.monotonic() < deadline, "the trace has no end"
        time.sleep(0.05)


@pytest.mark.parametrize("serve", [False, True], ids=["mitmdump", "serve"])
def test_every_decision_is_on_disk_before_anything_leaves(tmp_path: Path, origins: list[Origin], serve: bool,
                                                          certificate: tuple[Path, Path]) -> None:
    requests = scaled(REQUESTS)
    trace = traced(tmp_path, origins, certificate[1], requests, serve=serve)

    assert trace.violations == []
    assert set(trace.connected) == trace.ports
    assert len(trace.sent) > CLIENTS * requests
    assert not any(mark.endswith("-1") for mark in trace.sent)


@pytest.mark.parametrize(("file", "call", "instead"), [
    pytest.param("addons/segment.py", " os.fdatasync(self._descriptor)\n", " pass\n", id="syncs nothing"),
    pytest.param("addons/decision_log.py", "            await durable\n", "", id="does not wait for the sync"),
])
def test_the_trace_of_a_governor_gives_it_away_that(tmp_path: Path, origins: list[Origin], file: str, call: str,
                                                    instead: str, certificate: tuple[Path, Path]) -> None:
    """The check above is one that can fail: with the promise broken in one line it does."""
    trace = traced(tmp_path, origins, certificate[1], REQUESTS, mutant(tmp_path, file, call, instead))

    assert trace.violations != []
