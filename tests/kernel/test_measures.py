"""What applies where several grants and limits hold, and at several addresses."""

from __future__ import annotations

import pytest

from kernel.measures import (
    DEFAULT,
    USUAL_LEAST_OUTPUT,
    Cap,
    Measures,
    Rate,
    Terms,
    WebSocketMeasures,
    combined,
    tightest,
)

MIB = 2**20


def grant(name, **said):
    return name, Terms(**said)


def websocket(frame=None, rate=None):
    return WebSocketMeasures(frame, rate)


def test_where_nothing_is_said_a_request_may_have_16_mib_and_the_rest_any_size():
    assert combined([grant("a")], []) == DEFAULT == Measures(Cap(16 * MIB, None), None, None, None, None, False)


@pytest.mark.parametrize(("grants", "cap"), [
    pytest.param([grant("a", max_request=5)], Cap(5, "a"), id="one"),
    pytest.param([grant("a", max_request=5), grant("b", max_request=9)], Cap(9, "b"), id="the most generous"),
    pytest.param([grant("a", max_request=5), grant("b")], Cap(16 * MIB, None), id="one that says nothing"),
    pytest.param([grant("a", max_request=99 * MIB), grant("b")], Cap(99 * MIB, "a"), id="more than the default"),
    pytest.param([grant("a", max_request=5), grant("b", max_request=5)], Cap(5, "a"), id="the first of equals"),
    pytest.param([grant("a", max_request=0)], Cap(0, "a"), id="no body"),
    pytest.param([], Cap(16 * MIB, None), id="no grant"),
])
def test_of_the_grants_the_most_generous_counts(grants, cap):
    assert combined(grants, []).max_request == cap


@pytest.mark.parametrize(("grants", "cap"), [
    pytest.param([grant("a", max_response=5)], Cap(5, "a"), id="one"),
    pytest.param([grant("a", max_response=5), grant("b")], None, id="one that says nothing means any size"),
])
def test_a_grant_that_says_nothing_of_the_response_means_any_size(grants, cap):
    assert combined(grants, []).max_response == cap


def test_what_an_answer_may_be_cut_down_to_is_the_least_of_grants_and_the_most_of_tiers_and_addresses():
    one, two = (combined([grant("a", min_output_tokens=least), grant("b", min_output_tokens=900)], [])
                for least in (300, 400))

    assert (one.min_output_tokens, two.min_output_tokens, tightest(one, two).min_output_tokens) == (300, 400, 400)
    assert combined([grant("a", min_output_tokens=900), grant("b")], []).min_output_tokens == USUAL_LEAST_OUTPUT


def test_the_smallest_limit_caps_what_the_grants_give():
    grants = [grant("a", max_request=100, max_url=50)]
    limits = [
        grant("limits-1", max_request=200, max_url=20, in_flight=8), grant("limits-2", max_request=40, in_flight=4)]

    found = combined(grants, limits)

    assert (found.max_request, found.max_url, found.max_response, found.in_flight) == (
        Cap(40, "limits-2"), Cap(20, "limits-1"), None, Cap(4, "limits-2"))


def test_a_limit_never_gives_more_than_the_grant():
    assert combined([grant("a", max_request=5)], [grant("limits-1", max_request=50 * MIB)]).max_request == Cap(5, "a")
    assert combined([grant("a")], [grant("limits-1", max_request=50 * MIB)]).max_request == DEFAULT.max_request


@pytest.mark.parametrize(("said", "found"), [
    pytest.param([None], None, id="no grant for it"),
    pytest.param([websocket(5, Rate(1, 1))], websocket(5, Rate(1, 1)), id="one"),
    pytest.param([websocket(5, Rate(9, 1)), websocket(9, Rate(1, 1))], websocket(9, Rate(9, 1)), id="each by itself"),
    pytest.param([websocket(5), websocket(None, Rate(1, 1))], websocket(), id="an unsaid measure is any"),
    pytest.param([websocket(5), None], websocket(5), id="a grant without it has no say"),
    pytest.param([websocket(5, Rate(100, 1)), websocket(5, Rate(3000, 60))], websocket(5, Rate(100, 1)), id="faster"),
    pytest.param([websocket(5, Rate(1, 1)), websocket(5, Rate(60, 60))], websocket(5, Rate(60, 60)), id="longer"),
])  # fmt: skip
def test_of_the_grants_with_websocket_each_measure_is_the_most_generous(said, found):
    grants = [grant(f"r{number}", websocket=each) for number, each in enumerate(said)]

    assert combined(grants, []).websocket == combined(grants[::-1], []).websocket == found


def test_one_grant_that_streams_is_enough():
    assert combined([grant("a"), grant("b", stream_request=True)], []).stream_request


def test_what_is_sent_to_one_of_several_addresses_satisfies_the_measures_at_all_of_them():
    here = Measures(Cap(10, "a"), Cap(5, "a"), None, Cap(3, "limits-1"), websocket(5, Rate(1, 1)), stream_request=True)
    there = Measures(Cap(7, "b"), None, Cap(9, "b"), Cap(4, "limits-2"), websocket(None, Rate(9, 1)))
    both = Measures(Cap(7, "b"), Cap(5, "a"), Cap(9, "b"), Cap(3, "limits-1"), websocket(5, Rate(1, 1)))

    assert tightest(here, there) == tightest(there, here) == both
    assert tightest(here, Measures(Cap(10, "a"))).websocket is None
