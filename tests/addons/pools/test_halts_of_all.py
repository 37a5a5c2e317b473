"""The halt of all agents in every kind of ledger: it is put in one order with its releases, and epochs are counted."""

from __future__ import annotations

import pytest

from kernel.leases import Kind, News
from tests.addons.pools.ledgers import Clock, subjects
from tests.addons.pools.redis_servers import forgetful, needs_redis  # noqa: F401

HOLDER = "governor/a/w0"


@pytest.fixture(params=["model", "file", pytest.param("redis", marks=needs_redis)])
def ledger(request, tmp_path):
    with subjects(request, tmp_path, request.param, Clock()) as place:
        place.ledger.join(HOLDER, "r1", {})
        yield place.ledger


def told(ledger, kind, origin, epoch=0, agent=""):
    news = ledger.tell(HOLDER, News(kind, agent, origin, {"type": "operator"}, epoch=epoch))
    return news.number, news.epoch


def test_each_release_of_all_begins_an_epoch_and_a_halt_of_one_that_is_over_is_not_told(ledger):
    assert told(ledger, Kind.HALT_ALL, "a/w0/1") == (1, 0)
    assert told(ledger, Kind.RELEASE_ALL, "a/w0/2") == (2, 1)
    assert told(ledger, Kind.HALT_ALL, "a/w1/7") == (0, 1)
    assert told(ledger, Kind.HALT_ALL, "a/w1/8", epoch=1) == (3, 1)

    kinds = [news.kind for news in ledger.beat(HOLDER, "r1", 0, 0, {}).news]
    assert kinds == [Kind.HALT_ALL, Kind.RELEASE_ALL, Kind.HALT_ALL]


def test_what_is_told_twice_is_told_once(ledger):
    assert [told(ledger, Kind.RELEASE_ALL, "a/w0/2") for _ in range(2)] == [(1, 1), (1, 1)]


@pytest.mark.parametrize(("release", "halt", "agent"), [
    (Kind.RELEASE_ALL, Kind.HALT_ALL, ""), (Kind.RELEASE, Kind.HALT, "ann")])
def test_a_later_epoch_that_a_process_has_counted_is_gone_on_from(ledger, release, halt, agent):
    assert told(ledger, release, "a/w0/1", 5, agent) == (1, 6)
    assert told(ledger, halt, "a/w0/2", 9, agent) == (2, 9)
    assert told(ledger, release, "a/w0/3", 0, agent) == (3, 10)


def test_the_epochs_of_all_are_no_agents(ledger):
    told(ledger, Kind.RELEASE_ALL, "a/w0/1")

    assert told(ledger, Kind.HALT, "a/w0/2", 0, "ann") == (2, 0)
