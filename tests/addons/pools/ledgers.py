"""Each kind of ledger with a clock that a test moves, and with an older state that it can be put back to."""

from __future__ import annotations

import copy
import itertools
import shutil
from contextlib import closing
from pathlib import Path

import redis

from addons.pools import in_redis
from addons.pools.in_file import FileLedger
from addons.pools.in_redis import RedisLedger
from addons.pools.memory import MemoryLedger
from addons.pools.server import Script

ROOT = Path(__file__).resolve().parents[3]
START_US = 900_000 * 3_600_000_000
"""In 2072: later than the clock of any server, by which Redis would let keys expire."""
_real = in_redis._script
_names = itertools.count()


class Clock:
    def __init__(self):
        self.now_us = START_US

    def __call__(self):
        return self.now_us


class Model:
    """The kernel's tables in memory, without any copy of the rules."""

    def __init__(self, clock):
        self.clock, self.ledger = clock, MemoryLedger(clock)

    def save(self):
        self._saved = copy.deepcopy(self.ledger.tables)

    def put_back(self):
        """As if another server had come up with what was saved."""
        self.ledger.tables = copy.deepcopy(self._saved)
        self.ledger.server += "'"

    def close(self):
        self.ledger.close()


class InFile:
    """A file, for which putting an older one in its place is enough."""

    def __init__(self, clock, folder):
        self.clock, self._path = clock, folder / f"ledger-{next(_names)}.db"
        self.ledger = FileLedger(self._path, clock)

    def save(self):
        # A checkpoint of everything, so that the file alone is the ledger.
        self.ledger._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(self._path, self._path.with_suffix(".saved"))

    def put_back(self):
        self.ledger.close()
        shutil.copy(self._path.with_suffix(".saved"), self._path.with_suffix(".new"))
        self._path.with_suffix(".new").rename(self._path)
        self.ledger = FileLedger(self._path, self.clock)

    def close(self):
        self.ledger.close()


class InRedis:
    """A server whose scripts read the clock of the test, and that takes another id for that of another start."""

    def __init__(self, clock, server):
        self.clock, self._client = clock, redis.Redis(unix_socket_path=str(server.socket))
        self._client.flushall()
        self.ledger = _Clocked(server.url, self)

    def tick(self):
        self._client.set("{governor}:clock", self.clock.now_us)

    def save(self):
        self._saved = {key: self._client.dump(key) for key in self._client.scan_iter() if not key.endswith(b"clock")}

    def put_back(self):
        self._client.flushall()
        for key, value in self._saved.items():
            self._client.restore(key, 0, value)
        self.ledger._server.run_id += "'"

    def close(self):
        self.ledger.close()
        self._client.close()


class _Clocked(RedisLedger):
    def __init__(self, url, place):
        super().__init__(url)
        self._place = place

    def _run(self, call, said, seconds=None):
        self._place.tick()
        return super()._run(call, said, 5.0)


def clocked_script(call):
    """The script as it is, but for the line in which it looks at the time."""
    text = _real(call).text
    assert text.count("local NOW = clock()\n") == 1
    return Script.of(text.replace("local NOW = clock()\n",
                                  "local NOW = tonumber(redis.call('GET', '{governor}:clock'))\n"))


def subjects(request, tmp_path, kind, clock):
    """One ledger of a kind, closed again in the end."""
    if kind == "model":
        subject = Model(clock)
    elif kind == "file":
        subject = InFile(clock, tmp_path)
    else:
        subject = InRedis(clock, request.getfixturevalue("forgetful"))
    return closing(subject)
