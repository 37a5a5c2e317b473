"""The rules of the ledger, which `tests/kernel/test_ledger.py` has for the kernel's tables, in a file and a server."""

from __future__ import annotations

import inspect

import pytest

from addons.pools import in_redis, protocol
from kernel.errors import NotJoined, StillJoined
from tests.addons.pools.ledgers import Clock, clocked_script, subjects
from tests.addons.pools.redis_servers import forgetful, needs_redis  # noqa: F401
from tests.kernel import test_ledger as rules

# They look into the kernel's tables, or ask a thousand times.
_KERNELS_ALONE = {
    "test_the_ledger_grows_with_what_is_open_and_not_with_time",
    "test_whoever_always_wants_more_gets_the_whole_rate",
}


class Elsewhere(rules.Ledger):
    """A ledger that is asked as the tests ask the kernel's."""

    def __init__(self, subject):
        self._subject, self.asks = subject, 0
        subject.clock.now_us = rules.START

    @property
    def now_us(self):
        return self._subject.clock.now_us

    @now_us.setter
    def now_us(self, now_us):
        self._subject.clock.now_us = now_us

    @property
    def server(self):
        return self._subject.ledger.overview().server

    @server.setter
    def server(self, name):
        """The same rows come up in another server."""
        self._subject.save()
        self._subject.put_back()

    def __call__(self, call, *said):
        name = call.__name__
        if name == "beat":
            said = (*said[:3], self.now_us, *said[3:])
        elif name == "tell":
            said = (rules.A, *said)
        try:
            return getattr(self._subject.ledger, name)(*said)
        except protocol.NotJoined as refused:
            raise _told(NotJoined("", ""), refused) from None
        except protocol.LedgerError as refused:
            raise _told(StillJoined([]), refused) from None


def _told(fault, refused):
    fault.args = (str(refused),)
    return fault


@pytest.fixture(params=[pytest.param("file"), pytest.param("redis", marks=needs_redis)])
def ledger(request, tmp_path, monkeypatch):
    monkeypatch.setattr(in_redis, "_script", clocked_script)
    with subjects(request, tmp_path, request.param, Clock()) as subject:
        made = Elsewhere(subject)
        made.join()
        yield made


globals().update({
    name: test for name, test in vars(rules).items()
    if name.startswith("test_") and name not in _KERNELS_ALONE and "ledger" in inspect.signature(test).parameters})
