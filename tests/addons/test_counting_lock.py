"""One way to keep the accounts of a home at a time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from addons.counting_lock import counting
from addons.errors import StartRefused
from addons.home import Paths
from addons.pools.setting import Kind, Pool

MEMORY, FILE, OTHER = Pool(Kind.MEMORY), Pool(Kind.SQLITE, "/pool.db"), Pool(Kind.REDIS, "redis://cache.example.org")


@pytest.mark.parametrize(("first", "second"), [(MEMORY, MEMORY), (MEMORY, FILE), (FILE, MEMORY), (FILE, OTHER)],
                         ids=["two memories", "a memory and a ledger", "a ledger and a memory", "two ledgers"])
def test_two_ways_at_once_are_refused_with_what_to_do(tmp_path, first, second):
    with counting(Paths(tmp_path), first), pytest.raises(StartRefused, match="another home"), counting(
            Paths(tmp_path), second):
        pass


def test_a_ledger_is_shared_by_all_who_name_it_and_free_for_others_after_the_last(tmp_path):
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(counting(Paths(tmp_path), FILE))
        with pytest.raises(StartRefused, match=r"sqlite:/pool\.db"), counting(Paths(tmp_path), OTHER):
            pass

    for pool in (OTHER, MEMORY, FILE):
        with counting(Paths(tmp_path), pool):
            pass
