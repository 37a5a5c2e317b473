"""Hours of a week in local time, held against Python's own reading of the time zones."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.time_zones import find
from kernel.hours import UTC_ZONE, Window, Zone, told
from tests.addons.policies import compiled
from tests.conftest import scaled

# Berlin and Sydney put their clocks forward and back, Lord Howe by half an hour; Casablanca does so for a month each
# year; Kathmandu is off by a quarter; Apia left a day out in 2011.
NAMES = ["UTC", "Europe/Berlin", "Australia/Sydney", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu",
         "Pacific/Apia", "America/New_York"]
EVERY_DAY = frozenset(range(7))
TURNS = [1_774_746_000, 1_792_890_000, 1_325_239_200, 1_791_043_200]  # Berlin 2026 twice, Apia 2011, Lord Howe 2026

zones = st.sampled_from(NAMES)
moments = st.integers(0, 4_000_000_000) | st.builds(
    lambda turn, off: turn + off, st.sampled_from(TURNS), st.integers(-200_000, 200_000))


def zone(name: str) -> Zone:
    found = find(name)
    assert found is not None
    return found


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


windows = st.builds(
    lambda days, first, last, name, off: Window(days, first, last, zone(name), frozenset(off)),
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1440),
    zones,
    st.sets(st.integers(date(2026, 3, 25).toordinal(), date(2026, 4, 2).toordinal()), max_size=2),
)


def inside(window: Window, moment: int) -> bool:
    """The same from the definition, with the standard library's clocks."""
    local = datetime.fromtimestamp(moment, ZoneInfo(window.zone.name))
    minute = local.hour * 60 + local.minute
    today, yesterday = local.date(), local.date() - timedelta(days=1)

    def counts(day: date) -> bool:
        return day.weekday() in window.days and day.toordinal() not in window.not_on

    if window.first_minute < window.last_minute:
        return counts(today) and window.first_minute <= minute < window.last_minute
    return (counts(today) and minute >= window.first_minute) or (counts(yesterday) and minute < window.last_minute)


@settings(max_examples=scaled(200))
@given(windows, moments)
def test_a_window_is_open_when_the_clock_on_the_wall_says_so(window, moment):
    assert window.contains(moment) == inside(window, moment)


@settings(max_examples=scaled(100))
@given(windows, moments, st.integers(1, 400_000), st.lists(st.integers(0, 400_000), max_size=30))
def test_the_spans_are_the_moments_inside_in_order_and_apart(window, start, length, offsets):
    spans = list(window.spans(start, start + length))

    assert all(begin < stop for begin, stop in spans)
    assert all(stop < begin for (_, stop), (begin, _) in pairwise(spans))
    assert not spans or start <= spans[0][0] <= spans[-1][1] <= start + length
    edges = [moment for span in spans for edge in span for moment in (edge - 1, edge)]
    for moment in [*edges, *(start + offset for offset in offsets)]:
        if start <= moment < start + length:
            assert window.contains(moment) == any(begin <= moment < stop for begin, stop in spans)


@settings(max_examples=scaled(100))
@given(windows, moments, st.lists(st.integers(0, 200_000), max_size=30))
def test_nothing_changes_before_the_next_change(window, moment, offsets):
    changes, opens = window.changes(moment), window.opens(moment)

    assert changes > moment
    assert opens is None or window.contains(opens)
    for offset in offsets:
        if moment + offset < changes:
            assert window.contains(moment + offset) == window.contains(moment)
        if opens is None or moment + offset < opens:
            assert not window.contains(moment + offset)


@settings(max_examples=scaled(200))
@given(zones, moments)
def test_a_zone_has_the_offset_that_python_reads(name, moment):
    assert zone(name).offset(moment) == datetime.fromtimestamp(moment, ZoneInfo(name)).utcoffset().total_seconds()


@settings(max_examples=scaled(100))
@given(zones, st.dates(date(1971, 1, 1), date(2099, 1, 1)))
def test_a_day_begins_when_the_clock_first_shows_its_midnight(name, day):
    moment = zone(name).moment(day.toordinal())
    local = datetime.fromtimestamp(moment, ZoneInfo(name))

    # Where midnight is skipped it is the first time after; Apia had no 30 December 2011 at all.
    assert local.date() >= day
    before = datetime.fromtimestamp(moment - 1, ZoneInfo(name))
    assert before.replace(tzinfo=None) < datetime.combine(day, time())


@pytest.mark.parametrize(("when", "moment", "is_open"), [
    pytest.param('hours: "02:00-03:00"', "2026-03-29T01:00:00+00:00", False, id="the hour that is skipped"),
    pytest.param('hours: "02:00-03:00"', "2026-03-29T00:59:59+00:00", False, id="before the skipped hour"),
    pytest.param('hours: "02:00-03:00"', "2026-10-25T00:30:00+00:00", True, id="the first of the repeated hours"),
    pytest.param('hours: "02:00-03:00"', "2026-10-25T01:30:00+00:00", True, id="the second of them"),
    pytest.param('days: fri, hours: "22:00-06:00"', "2026-01-10T05:59:59+01:00", True, id="a night that began Friday"),
    pytest.param('days: fri, hours: "22:00-06:00"', "2026-01-09T05:00:00+01:00", False, id="Friday before dawn"),
    pytest.param('days: fri-mon, not-on: 2026-01-10', "2026-01-11T12:00:00+01:00", True, id="days around the weekend"),
    pytest.param('days: fri-mon, not-on: 2026-01-10', "2026-01-10T12:00:00+01:00", False, id="a day that is taken out"),
    pytest.param('days: [mon, wed]', "2026-01-13T12:00:00+01:00", False, id="a day between two"),
])
def test_hours_are_those_of_the_place(when, moment, is_open):
    policy = compiled(f"rules: [{{deny: x, when: {{{when}, timezone: Europe/Berlin}}}}]").policy
    window = policy.rules[0].where.when

    assert window.contains(at(moment)) is is_open


@pytest.mark.parametrize(("keys", "end"), [
    ("expires: 2026-12-31", "2027-01-01T00:00:00Z"),
    ("expires: 2026-12-31, when: {days: mon-sun, timezone: Europe/Berlin}", "2026-12-31T23:00:00Z"),
    ('expires: "2026-12-31T18:00:00+01:00"', "2026-12-31T17:00:00Z"),
    ('expires: "2026-12-31T18:00:00.5Z"', "2026-12-31T18:00:01Z"),
])
def test_a_rule_ends_with_its_day_in_its_own_zone_or_at_its_moment(keys, end):
    rule = compiled(f"rules: [{{deny: x, {keys}}}]").policy.rules[0]

    assert told(rule.where.expires) == end
    assert rule.where.in_effect(at("2026-01-05T12:00:00+00:00"))
    assert not rule.where.in_effect(rule.where.expires)


def test_a_zone_of_one_offset_has_one_piece():
    assert list(UTC_ZONE.pieces(5, 10)) == [(5, 10, 0)]
    assert list(Zone("z", (0, 7), (0, 3600)).pieces(5, 10)) == [(5, 7, 0), (7, 10, 3600)]
