"""Real processes share a budget while they, and the server, are killed: no more is drawn than there is, and all is."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

from addons.pools.opening import open_ledger
from tests.addons.pools.drawing import Chain
from tests.addons.pools.ledgers import ROOT
from tests.addons.pools.redis_servers import KEPT, RedisServer, needs_redis
from tests.conftest import SCALE

UNITS, PROCESSES = (20_000, 4) if SCALE < 10 else (1_000_000, 8)
KILLS = 12 if SCALE < 10 else 100
SECONDS = 120 if SCALE < 10 else 1200


class Swarm:
    """Processes that draw, each of which is started again whenever it ends before all is drawn."""

    def __init__(self, url, folder):
        self._url, self._folder, self.kills, self._chance = url, folder, 0, random.Random(7)
        self.names = [f"w{number}" for number in range(PROCESSES)]
        self._running = {name: self._start(name) for name in self.names}

    def _start(self, name):
        command = [sys.executable, "-m", "tests.addons.pools.drawing", self._url, self._folder, name, str(UNITS),
                   str(max(50, UNITS // 2500))]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def kill_one(self):
        name = self._chance.choice(self.names)
        if self._running[name].poll() is None:
            self._running[name].kill()
            self._running[name].communicate()
            self.kills += 1
            self._running[name] = self._start(name)

    def all_done(self):
        ended = {name: process.poll() for name, process in self._running.items()}
        failed = [self._running[name].communicate()[1] for name, status in ended.items() if status not in (None, 0)]
        assert not failed, failed[0]
        return None not in ended.values()

    def stop(self):
        for process in self._running.values():
            process.kill()
            process.communicate()


def drawn(folder):
    """What the destination has seen."""
    origin = folder / "origin"
    return origin.stat().st_size if origin.exists() else 0


def share(url, folder, disturb=lambda part: None):
    """Have all drawn while processes are killed; how many were."""
    swarm = Swarm(url, folder)
    deadline = time.monotonic() + SECONDS
    try:
        while not swarm.all_done():
            assert time.monotonic() < deadline, f"{drawn(folder)} of {UNITS} drawn"
            part = drawn(folder) / UNITS
            assert part <= 1
            # At the end the processes are let go, so that all of them come to it.
            if (swarm.kills + 1) / (KILLS + 1) < part:
                swarm.kill_one()
            disturb(part)
            time.sleep(0.01)
    finally:
        swarm.stop()
    return swarm


def check(url, folder, swarm):
    chains = [Chain(folder / f"{name}.chain") for name in swarm.names]
    by_chains = sum(sum(chain.drawn.values()) for chain in chains)
    numbers = Counter(number for chain in chains for number in chain.numbers)
    with closing(open_ledger(url)) as ledger:
        balance, = ledger.overview().balances
    largest = max(max(chain.amounts.values()) for chain in chains)

    assert drawn(folder) <= by_chains <= UNITS
    # A kill loses at most the one draw that was written down and not made.
    assert drawn(folder) >= by_chains - swarm.kills
    assert (balance.spent, balance.held) == (UNITS, 0)
    assert balance.stranded <= largest * PROCESSES
    assert UNITS - by_chains <= balance.stranded
    assert max(numbers.values()) == 1
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    print(f"{len(numbers)} leases, {swarm.kills} kills, {balance.stranded} stranded")


def test_processes_that_are_killed_share_a_file(tmp_path):
    url = f"sqlite:{tmp_path / 'pool.db'}"
    swarm = share(url, tmp_path)

    check(url, tmp_path, swarm)
    assert swarm.kills > KILLS // 2


@needs_redis
def test_processes_that_are_killed_share_a_server_that_is_killed_too(tmp_path):
    server = RedisServer(tmp_path, *KEPT).start()
    due = [0.3, 0.6]

    def disturb(part):
        if due and part > due[0]:
            due.pop(0)
            server.kill()
            time.sleep(0.2)
            server.start()

    try:
        swarm = share(server.url, tmp_path, disturb)
        check(server.url, tmp_path, swarm)
    finally:
        server.stop()

    assert due == []
    assert swarm.kills > KILLS // 2
