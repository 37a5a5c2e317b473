"""A Governor of several workers, and what a test wants of one of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e import wire
from tests.e2e.process import POLICY, Governor, started

SECONDS = 20.0


@dataclass
class Crew:
    """A started supervisor with its workers."""

    governor: Governor

    def pids(self) -> dict[str, int]:
        """The processes of the workers by their names."""
        children = Path(f"/proc/{self.governor.process.pid}/task/{self.governor.process.pid}/children")
        found = {}
        for pid in map(int, children.read_text().split()):
            with contextlib.suppress(OSError):
                told = re.search(rb"GOVERNOR_WORKER=([^\0]+)", Path(f"/proc/{pid}/environ").read_bytes())
                if told is not None:
                    found[f"w{json.loads(told[1])['number']}"] = pid
        return found

    def kill(self, worker: str) -> int:
        """Kill a worker as nothing can prevent; its process."""
        pid = self.pids()[worker]
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.pids().get(worker) != pid)
        return pid

    def entries(self, lane: str, kind: str | None = None) -> list[dict[str, Any]]:
        """The entries of a lane so far, of one type or all."""
        return entries(self.governor.home, lane, kind)

    def status(self) -> dict[str, Any]:
        return json.loads(self.governor.verb("status", "--json").stdout)  # type: ignore[no-any-return]

    def until_ready(self) -> dict[str, Any]:
        """The status once all workers serve."""
        until(lambda: self.readiness()["ready"])
        return self.status()

    def readiness(self) -> dict[str, Any]:
        """What /readyz says."""
        try:
            with urllib.request.urlopen(self.governor.metrics.replace("metrics", "readyz"), timeout=10) as answer:
                return json.loads(answer.read())  # type: ignore[no-any-return]
        except urllib.error.HTTPError as refused:
            return json.loads(refused.read())  # type: ignore[no-any-return]

    def numbers(self) -> dict[str, float]:
        """Every sample of a scrape by its name with its labels."""
        with urllib.request.urlopen(self.governor.metrics, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def ask(self, url: str, method: str = "GET", *headers: tuple[str, str]) -> int | None:
        """The status of one request on a connection of its own; None where it ended without an answer."""
        answer = wire.ask(self.governor.port, wire.plain(method, url))
        return None if answer is None else answer.status


def entries(home: Path, lane: str, kind: str | None = None) -> list[dict[str, Any]]:
    """The entries of a lane of a home, of one type or all."""
    lines = [line for path in sorted((home / "audit" / "lanes" / lane).glob("*.jsonl"))
             for line in path.read_bytes().split(b"\n")]
    found = [json.loads(line)["e"] for line in lines if line.endswith(b"}")]
    return [entry for entry in found if kind is None or entry["type"] == kind]


@contextlib.contextmanager
def crew(folder: Path, workers: int = 2, policy: str = POLICY, options: Sequence[str] = ()) -> Iterator[Crew]:
    """A Governor with so many workers on a home in `folder`, stopped at the end if it still runs."""
    with started(folder, policy, ["--workers", str(workers), *options], serve=True) as governor:
        yield Crew(governor)


def until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait for something that is to come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@dataclass
class Load:
    """Clients that ask again and again, each on a new connection, and what they got."""

    statuses: list[int | None] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextlib.contextmanager
    def of(cls, crew: Crew, url: str, clients: int = 4) -> Iterator[Load]:
        load = cls()

        def client() -> None:
            while not load.ended.is_set():
                with contextlib.suppress(ConnectionRefusedError):
                    load.statuses.append(_status(crew, url))

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield load
        finally:
            load.ended.set()
            for thread in threads:
                thread.join()

    def more(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        wanted = len(self.statuses) + count
        until(lambda: len(self.statuses) >= wanted)


def _status(crew: Crew, url: str) -> int | None:
    try:
        return crew.ask(url)
    except OSError:
        return None
