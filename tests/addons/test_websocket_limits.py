"""How many messages a client may send in a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from addons.websocket_limits import RateWindow
from kernel.measures import Rate

SECOND = 1_000_000_000


def test_the_agreed_count_passes_and_the_next_one_does_not() -> None:
    window = RateWindow(Rate(2, 10))

    assert [window.admits(0), window.admits(1), window.admits(10 * SECOND - 1)] == [True, True, False]


def test_room_comes_back_as_the_window_moves_on() -> None:
    window = RateWindow(Rate(2, 10))
    window.admits(0)
    window.admits(5 * SECOND)

    assert window.admits(10 * SECOND)
    assert not window.admits(10 * SECOND)
    assert window.admits(15 * SECOND)


@given(st.integers(1, 5), st.integers(1, 3), st.lists(st.integers(0, SECOND), max_size=60))
def test_no_window_ever_holds_more_than_the_count(count: int, seconds: int, steps: list[int]) -> None:
    window, now, admitted = RateWindow(Rate(count, seconds)), 0, list[int]()
    for step in steps:
        now += step
        if window.admits(now):
            admitted.append(now)

    assert all(later - earlier >= seconds * SECOND for earlier, later in zip(admitted, admitted[count:], strict=False))


@given(st.integers(1, 1000), st.integers(1, 3), st.integers(0, SECOND))
def test_all_room_is_back_after_a_quiet_window(count: int, seconds: int, step: int) -> None:
    window = RateWindow(Rate(count, seconds))
    for number in range(5):
        window.admits(number * step)
    quiet = 4 * step + seconds * SECOND

    assert all(window.admits(quiet) for _ in range(count))
    assert not window.admits(quiet)


def test_a_generous_rate_takes_little_memory() -> None:
    window = RateWindow(Rate(1_000_000, 1))
    for number in range(20_000):
        assert window.admits(number * SECOND // 10_000)

    assert len(window._bursts) <= 1026
