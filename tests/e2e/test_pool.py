"""Budgets and halts over several processes: workers on one host by SQLite, hosts by Redis, whatever dies between."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.addons.pools.redis_servers import KEPT, RedisServer, needs_redis
from tests.conftest import scaled
from tests.e2e import wire
from tests.e2e.crew import Crew, Load, crew, until
from tests.e2e.origins import Origin, serving
from tests.e2e.process import POLICY, Governor, started
from tests.e2e.test_accounts import budget

pytestmark = pytest.mark.e2e

LIMIT = scaled(80)


def limited(end: str = "deny", each: str = "") -> str:
    return budget(each or f"{{requests: {LIMIT}}}", end=end)


def ask_many(crew: Crew, url: str, times: int, clients: int = 4) -> list[int | None]:
    """The statuses of so many requests by several clients at once, each on a connection of its own."""
    statuses: list[int | None] = []

    def client() -> None:
        statuses.extend(crew.ask(url) for _ in range(times // clients))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def balance(governor: Governor, *options: str) -> dict[str, Any]:
    """The ledger's account of the budget."""
    told = json.loads(governor.verb("pool", "status", "--json", *options).stdout)
    [found] = [each for each in told["budgets"] if each["budget"] == "b"]
    return found  # type: ignore[no-any-return]


def whole(governor: Governor) -> None:
    """The log is verified and every decision is made again alike."""
    verified = governor.verify()
    replayed = json.loads(governor.verb("audit", "replay", str(governor.home), "--json").stdout)
    assert (verified["result"], verified["first_failure"]) == ("verified", None)
    assert (replayed["divergent"], replayed["first_divergence"]) == (0, None)


def test_two_workers_spend_one_budget_to_its_end_and_not_beyond(tmp_path: Path) -> None:
    with serving() as origin, crew(tmp_path, policy=limited()) as both:
        statuses = ask_many(both, f"{origin.url}/x", LIMIT + 60)
        # Whoever holds the last units gives them back when it draws on them no more.
        until(lambda: both.ask(f"{origin.url}/x") == 403 and balance(both.governor)["held"] == 0)
        spent = balance(both.governor)
        passed = len(origin.seen.requests)
        shares = {lane: len(both.entries(lane, "lease")) for lane in ("w0", "w1")}
        both.governor.stop()

        assert set(statuses) <= {200, 403, 429}
        assert passed <= LIMIT
        assert statuses.count(200) >= LIMIT * 9 // 10
        assert (spent["limit"], spent["spent"], spent["stranded"]) == (LIMIT, passed, 0)
        assert min(shares.values()) > 0
        whole(both.governor)


def test_a_worker_that_is_killed_takes_no_unit_twice(tmp_path: Path) -> None:
    with serving() as origin, crew(tmp_path, policy=limited()) as both, \
            Load.of(both, f"{origin.url}/x", clients=3) as load:
        for worker in ("w0", "w1"):
            load.more(10)
            both.kill(worker)
            both.until_ready()
        load.more(LIMIT)
        load.ended.set()
        passed = len(origin.seen.requests)
        spent = balance(both.governor)
        both.governor.stop()

        assert passed <= LIMIT
        assert passed <= spent["spent"] + spent["held"] <= LIMIT
        whole(both.governor)


def test_a_halt_that_one_worker_brings_about_cuts_what_is_open_in_the_other(tmp_path: Path) -> None:
    halting = limited("halt", "{requests: 12}")
    with streaming() as origin, crew(tmp_path, policy=halting) as both:
        streams = [Stream(both, f"{origin.url}/stream") for _ in range(6)]
        until(lambda: {lane for lane in ("w0", "w1") if both.entries(lane, "decision")} == {"w0", "w1"})
        until(lambda: all(stream.events for stream in streams))
        while both.ask(f"{origin.url}/x") == 200:
            pass
        until(lambda: all(stream.ended for stream in streams))
        halts = {lane: both.entries(lane, "halt") for lane in ("w0", "w1")}
        first = min((entry["ts"], lane) for lane, found in halts.items() for entry in found)[1]
        print(f"the last of {len(streams)} streams ended "
              f"{1000 * (max(stream.ended for stream in streams) - halted_at(halts[first][0])):.0f} ms after the halt")
        both.governor.stop()

        assert all(len(found) == 1 for found in halts.values())
        assert {entry["agent"] for found in halts.values() for entry in found} == {"local"}
        whole(both.governor)


def test_the_ledger_is_made_anew_from_the_log(tmp_path: Path) -> None:
    with serving() as origin, crew(tmp_path, policy=limited()) as both:
        ask_many(both, f"{origin.url}/x", 20)
        until(lambda: balance(both.governor)["held"] == 0)
        before = balance(both.governor)
        refused = both.governor.verb("pool", "rebuild")
        both.governor.stop()
    for path in tmp_path.glob("home/pool.db*"):
        path.unlink()
    named = f"--pool sqlite:{tmp_path / 'home' / 'pool.db'}"
    lost = both.governor.verb("pool", "rebuild")
    rebuilt = both.governor.verb("pool", "rebuild", *named.split())

    assert refused.returncode == 1
    assert lost.returncode == 1
    assert f"governor pool rebuild {named}" in lost.stderr
    assert (rebuilt.returncode, rebuilt.stderr) == (0, "")
    assert balance(both.governor)["spent"] >= before["spent"] == 20


def test_what_was_drawn_and_who_is_halted_stays_known_when_workers_come_and_go(tmp_path: Path) -> None:
    with serving() as origin, started(tmp_path, limited(), serve=True) as alone:
        for _ in range(20):
            assert asked(alone, f"{origin.url}/x")[0] == 200
        assert alone.verb("agents", "halt", "anonymous", "--reason", "it uploads").returncode == 0
        alone.stop()
        with crew(tmp_path, policy=limited()) as both:
            halted = [both.status()["halted"]]
            ask_many(both, f"{origin.url}/x", 20)
            assert both.governor.verb("agents", "release", "anonymous", "--reason", "fine").returncode == 0
            both.governor.stop()
        with started(tmp_path, limited(), serve=True) as again:
            for _ in range(LIMIT):
                asked(again, f"{origin.url}/x")
            passed = len(origin.seen.requests)
            halted.append(json.loads(again.verb("status", "--json").stdout)["halted"])
            assert again.verb("agents", "halt", "local", "--reason", "enough").returncode == 0
            again.stop()
        with crew(tmp_path, workers=3, policy=limited()) as three:
            halted.append(three.status()["halted"])
            three.governor.stop()

            assert halted == [["anonymous"], [], ["local"]]
            assert LIMIT * 9 // 10 <= passed <= LIMIT
            whole(three.governor)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[RedisServer]:
    folder.mkdir()
    server = RedisServer(folder, *KEPT).start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def hosts(tmp_path: Path, server: RedisServer, policy: str) -> Iterator[tuple[Governor, Governor]]:
    """Two Governors with a home each, as on two hosts."""
    option = ["--set", f"governor_pool={server.url}"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir(exist_ok=True)
    with started(tmp_path / "one", policy, option, serve=True) as one, \
            started(tmp_path / "two", policy, option, serve=True) as two:
        yield one, two


def asked(governor: Governor, url: str) -> tuple[int | None, str | None]:
    answer = wire.ask(governor.port, wire.plain("GET", url))
    return (None, None) if answer is None else (answer.status, answer.code)


@needs_redis
def test_two_hosts_spend_one_budget_and_halt_together(tmp_path: Path) -> None:
    with redis(tmp_path / "r") as server, serving() as origin, \
            hosts(tmp_path, server, limited("halt", "{requests: 30}")) as both:
        codes = [asked(each, f"{origin.url}/x")[1] for _ in range(25) for each in both]
        began = time.monotonic()
        until(lambda: all(asked(each, f"{origin.url}/x")[1] == "AGENT_HALTED" for each in both))
        print(f"halted on both hosts after {1000 * (time.monotonic() - began):.0f} ms")
        passed = len(origin.seen.requests)
        spent = balance(both[0], "--pool", server.url)

        assert 27 <= passed <= 30
        assert spent["spent"] + spent["held"] <= 30
        assert "EXHAUSTION" in codes
        for each in both:
            assert each.stop() == 0
            whole(each)


@needs_redis
def test_without_its_ledger_a_host_refuses_everything_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    with redis(tmp_path / "r") as server, streaming() as origin, \
            hosts(tmp_path, server, limited(each="{requests: 100}")) as (one, _):
        stream = Stream(Crew(one), f"{origin.url}/stream")
        until(lambda: stream.events)
        server.pause()
        paused = time.monotonic()
        until(lambda: asked(one, f"{origin.url}/x")[1] == "POOL_UNREACHABLE")
        until(lambda: stream.ended, 10)
        print(f"the open stream was cut {stream.ended - paused:.1f} s after the ledger fell silent")
        before = len(origin.seen.requests)
        refused = [asked(one, f"{origin.url}/x")[1] for _ in range(5)]
        readiness = one.run("curl", "-s", "--noproxy", "*", one.metrics.replace("metrics", "readyz")).stdout
        server.go_on()
        until(lambda: asked(one, f"{origin.url}/x")[0] == 200)

        assert set(refused) == {"POOL_UNREACHABLE"}
        assert json.loads(readiness)["checks"]["pool"] is False
        assert len(origin.seen.requests) > before
        assert one.stop() == 0
        whole(one)


@needs_redis
def test_a_start_without_its_ledger_is_refused_and_opens_no_port(tmp_path: Path) -> None:
    option = ["--set", f"governor_pool=unix://{tmp_path}/nobody"]
    with pytest.raises(AssertionError, match=r"refused to start: OPTION_REFUSED: governor_pool=unix://"), \
            started(tmp_path, POLICY, option, serve=True):
        pass


def halted_at(entry: dict[str, Any]) -> float:
    """The moment of an entry on the clock of this process' streams."""
    from datetime import datetime

    return time.monotonic() - (time.time() - datetime.fromisoformat(entry["ts"]).timestamp())


class Stream:
    """A client of an event stream: how many events came, and when it ended."""

    def __init__(self, crew: Crew, url: str) -> None:
        self.events, self.ended = 0, 0.0
        self._port, self._url = crew.governor.port, url
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with wire.dial(self._port, 60) as connection:
            connection.sendall(wire.plain("GET", self._url))
            with contextlib.suppress(OSError):
                while chunk := connection.recv(4096):
                    self.events += chunk.count(b"data:")
        self.ended = time.monotonic()


@contextlib.contextmanager
def streaming() -> Iterator[Origin]:
    """An origin whose /stream sends an event every few milliseconds without end."""
    from tests.e2e import origins

    class Handler(origins._Handler):
        def reply(self) -> None:
            if self.path != "/stream":
                super().reply()
                return
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.close_connection = True
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"data: x\n\n")
                    self.wfile.flush()
                    time.sleep(0.01)

    with serving(handler=Handler) as origin:
        yield origin


