"""The numbers of leases: as sets would have them, and in bounded memory whatever a log says."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import entry, lease_numbers
from kernel.errors import ChainError
from kernel.lease_numbers import LeaseNumbers, Number, granted
from scripts import verify_log

BIG = 2**53 - 1
BLOCK = lease_numbers._BITS
numbers = st.integers(1, 40) | st.sampled_from((BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, BIG))
leases = st.builds(Number, st.sampled_from("pq"), numbers)


def noted(of: Any) -> LeaseNumbers:
    found = LeaseNumbers()
    found.take(sorted(of))
    return found


def lease(number: Any, pool: Any = "p", act: str = "granted") -> Any:
    return entry.lease(act, pool, number, ("team", "requests", ""), 4, 64, 0)


def missing(of: set[Number]) -> int | None:
    had = {number for _, number in of}
    return next((number for number in range(1, 2 * BLOCK) if number not in had and number < max(had, default=0)), None)


@given(st.sets(leases), st.sets(leases))
def test_numbers_are_kept_as_in_sets(one: set[Number], other: set[Number]) -> None:
    both = noted(one)
    twice = both.add(noted(other))

    assert twice == min(one & other, default=None)
    assert {each for each in one | other | {Number("p", 2), Number("q", BLOCK)} if each in both} == one | other
    assert both.missing() == missing(one | other)
    assert both.newest == max((number for _, number in one | other), default=0)


@given(st.sets(leases, min_size=1), st.data())
def test_a_number_is_taken_once_and_with_one_that_is_not_none_is_taken(of: set[Number], data: st.DataObject) -> None:
    found = noted(of)
    before = copy.deepcopy(vars(found))
    again = data.draw(st.sampled_from(sorted(of)))

    for asked in ([again], [Number("r", 1), again], [Number("r", 1), Number("r", 1)]):
        with pytest.raises(ChainError, match="was granted before"):
            found.take(asked)
        assert vars(found) == before


@pytest.mark.parametrize("numbered", [range(1, 2 * BLOCK), range(1, BLOCK), range(1, BLOCK + 1), [1], []])
def test_of_numbers_without_a_gap_none_is_missing(numbered: Any) -> None:
    assert noted(Number("p", each) for each in numbered).missing() is None
    assert noted(Number("pq"[each % 2], each) for each in numbered).missing() is None


@pytest.mark.parametrize("gap", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 2])
def test_one_number_is_missed_wherever_it_was(gap: int) -> None:
    found = noted(Number("p", each) for each in range(1, 2 * BLOCK) if each != gap)

    assert found.missing() == gap


@pytest.mark.parametrize("number", [0, -1, True, False, 1.0, "1", [1], 2**53 * -1])
def test_what_is_no_number_is_said(number: Any) -> None:
    with pytest.raises(ChainError, match="a number from 1 on"):
        granted(lease(number))


@pytest.mark.parametrize("pool", [None, 7, ["p"], "p" * 65])
def test_what_is_no_ledger_is_said(pool: Any) -> None:
    with pytest.raises(ChainError, match="the id of its ledger"):
        granted(lease(1, pool))


@pytest.mark.parametrize("said", [
    pytest.param(lease(None), id="a turn or a known item"),
    pytest.param(lease(0, None, "settled"), id="settled"),
    pytest.param(lease(0, None, "lost"), id="lost"),
    pytest.param(lease(0, None, "refused"), id="refused"),
    pytest.param({"type": "lease"}, id="a lease that says nothing"),
    pytest.param({"type": "anchor", "act": "granted", "proof": {"type": "lease"}}, id="of another type"),
    pytest.param([], id="no entry"),
])
def test_what_grants_nothing_has_no_number(said: Any) -> None:
    assert granted(said) is None


def test_a_granted_lease_has_its_number() -> None:
    assert granted(lease(BIG)) == Number("p", BIG)


def flood(found: LeaseNumbers, leap: Callable[[int], Number]) -> None:
    for at in range(2 * lease_numbers._MOST_BLOCKS):
        found.take([leap(at)])


@pytest.mark.parametrize("leap", [
    pytest.param(lambda at: Number("p", 1 + at * BLOCK), id="numbers that leap"),
    pytest.param(lambda at: Number("p", BIG - at * BLOCK), id="from the end"),
    pytest.param(lambda at: Number(f"{at:064d}", BIG), id="ledgers without number"),
])
def test_a_flood_of_leases_is_refused_in_bounded_memory(leap: Any) -> None:
    found = LeaseNumbers()
    tracemalloc.start()

    with pytest.raises(ChainError, match="leap"):
        flood(found, leap)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 40 * 2**20
    assert found.missing() in {1, 2}


def test_a_lane_of_hundreds_may_have_any_number_of_leases() -> None:
    found = LeaseNumbers()
    for block in range(2 * lease_numbers._MOST_BLOCKS):
        found.take([Number("p", block * BLOCK + at) for at in range(1, 9)])

    assert found.missing() == 9


@pytest.mark.parametrize(("each", "leaps"), [(8, []), (7, [(1, "the numbers of leases leap")])])
def test_the_other_verifier_has_the_same_bound(
    monkeypatch: pytest.MonkeyPatch, each: int, leaps: list[tuple[int, str]]
) -> None:
    assert verify_log.MAX_BLOCKS == lease_numbers._MOST_BLOCKS
    monkeypatch.setattr(verify_log, "MAX_BLOCKS", 16)
    numbers = {("p", block * BLOCK + at): 0 for block in range(9 * 16) for at in range(each)}
    blocks = {(pool, number // BLOCK) for pool, number in numbers}
    lane = SimpleNamespace(name="main", leases=numbers, blocks=blocks, broken=True)

    assert list(verify_log.lease_problems([lane])) == leaps


def test_lanes_that_leap_together_are_refused_too() -> None:
    half = lease_numbers._MOST_BLOCKS * 4 // 7 + 1
    one, other = (noted(Number(pool, at * BLOCK) for at in range(1, half)) for pool in "pq")

    assert one.add(other) is None
    with pytest.raises(ChainError, match="leap"):
        one.add(noted([Number("r", 1), Number("r", BLOCK)]))


def test_numbers_go_from_one_process_to_another() -> None:
    found = pickle.loads(pickle.dumps(noted([Number("p", 1), Number("p", BLOCK)])))

    assert (Number("p", BLOCK) in found, found.newest, found.missing()) == (True, BLOCK, 2)
