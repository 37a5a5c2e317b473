"""Governor is killed in the midst of its work: the log stays whole, and nothing left without its decision."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import scaled
from tests.e2e import wire
from tests.e2e.origins import Origin, serving
from tests.e2e.process import Governor, started

pytestmark = pytest.mark.e2e

KILLS, MOST_KILLS, CLIENTS = 5, 50, 4
MARK = "content-type"


class Load:
    """Clients that never stop asking. Each request has a content type of its own, which its decision shows in clear."""

    def __init__(self, governor: Governor, origins: list[Origin], begun: int) -> None:
        self._governor, self._origins, self._begun = governor, origins, begun
        self._over = threading.Event()
        self.answered = 0
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        yield
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _client(self, client: int) -> None:
        for number in itertools.count():
            origin = self._origins[number % len(self._origins)]
            with contextlib.suppress(OSError, http.client.HTTPException, wire.Refused):
                self._ask(origin, f"{self._begun}-{client}-{number}")
            if self._over.is_set():
                return

    def _ask(self, origin: Origin, mark: str) -> None:
        """Some requests on one connection; the body makes some of them long on their way."""
        with contextlib.closing(through(self._governor, origin)) as connection:
            for step in range(4):
                path = "/denied/x" if step == 2 else "/allowed"
                target = path if origin.scheme == "https" else f"{origin.url}{path}"
                connection.request("POST", target, body=b"x" * 1000 * step, headers={MARK: f"mark/{mark}-{step}"})
                connection.getresponse().read()
                self.answered += 1


def through(governor: Governor, origin: Origin) -> http.client.HTTPConnection:
    if origin.scheme == "http":
        return http.client.HTTPConnection("127.0.0.1", governor.port, timeout=10)
    connection = http.client.HTTPSConnection("127.0.0.1", governor.port, timeout=10, context=wire.trusting(governor.ca))
    connection.set_tunnel("localhost", origin.port)
    return connection


def test_after_every_kill_the_log_is_whole_and_has_all_that_left(tmp_path: Path,
                                                                 certificate: tuple[Path, Path]) -> None:
    moments = random.Random(2)
    with serving() as plain, serving(chain=certificate[0]) as tls:
        for number in range(min(scaled(KILLS), MOST_KILLS)):
            with started(tmp_path, trust=certificate[1]) as governor:
                assert governor.verify()["result"] == "verified"
                load = Load(governor, [plain, tls], number)
                with load.running():
                    threading.Event().wait(moments.uniform(0.1, 1.5))
                    governor.stop(signal.SIGKILL)
                assert load.answered
            assert_decided(governor, plain, tls)
        with started(tmp_path, trust=certificate[1]) as governor:
            assert governor.verify()["result"] == "verified"
            assert_all_closed(governor)
            assert_vault_fits(governor)


def assert_decided(governor: Governor, *origins: Origin) -> None:
    """Whatever an origin saw was allowed by a decision that survived the kill."""
    allowed = {entry["in"]["content_type"] for entry in governor.entries("decision")
               if (entry["verdict"], entry["stage"]) == ("allow", "request")}
    seen = {headers[MARK] for origin in origins for _, _, headers, _ in origin.seen.requests}

    assert seen - allowed == set()
    assert not [mark for mark in seen if mark.endswith("-2")]


def assert_all_closed(governor: Governor) -> None:
    """Every decision that let a request through has its outcome; `unknown` where the crash came between."""
    allowed = [f"main/{entry['seq']}" for entry in governor.entries("decision")
               if (entry["verdict"], entry["stage"]) == ("allow", "request")]
    outcomes = {entry["decision"]: entry["result"] for entry in governor.entries("outcome")}

    assert set(allowed) == set(outcomes)
    assert "unknown" in outcomes.values()


def assert_vault_fits(governor: Governor) -> None:
    """The vault may lag behind a crash; it holds no value of an entry that the log does not have."""
    with contextlib.closing(sqlite3.connect(f"file:{governor.home}/vault.db?mode=ro", uri=True)) as database:
        rows = database.execute('SELECT seq, value FROM "values"').fetchall()
    paths = {entry["seq"]: entry["in"]["path$c"] for entry in governor.entries("decision")}

    assert rows
    assert all(paths.get(seq) for seq, _ in rows)
    assert {json.loads(value) for _, value in rows} <= {"/allowed", "/denied/x"}


def test_a_torn_last_line_is_put_aside_and_the_log_goes_on(tmp_path: Path) -> None:
    with serving() as origin:
        with started(tmp_path) as governor:
            assert governor.curl(f"{origin.url}/before")[0] == 200
            governor.wait_for_entry("outcome")
            governor.stop(signal.SIGKILL)
        with governor.segment.open("ab") as file:
            file.write(b'{"e":{"torn')
        with started(tmp_path) as governor:
            assert governor.curl(f"{origin.url}/after")[0] == 200
            recovered, result = governor.entries("recovery"), governor.verify()["result"]

    assert [entry["bytes"] for entry in recovered] == [len(b'{"e":{"torn')]
    assert result == "verified"
