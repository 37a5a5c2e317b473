# ruff: noqa: E501 - a policy stands in one line
"""The parts of a request are cut into the fewest kinds that policies tell apart, and each kind has a value to show."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from kernel.address import embedded, named_ranges, network, range_contains
from kernel.analysis.moments import Moments
from kernel.analysis.space import LITERAL_HOST, OTHER_HOST, Hosts, Methods, Space, bits
from kernel.hours import HORIZON_SECONDS, UTC_ZONE, Window
from kernel.pattern import host_pattern
from kernel.policy import AddressRange, Conditions, PortRange
from kernel.vocabulary import READS, WRITES
from tests.kernel.test_analysis_review import policy_of


def space_of(*rules: str) -> Space:
    return Space([policy_of("\n".join(f"  - {rule}" for rule in rules))])


@pytest.mark.parametrize(("named", "all_methods"), [
    ({"GET"}, ("GET", "POST")),
    ({"POST", "GET"}, ("GET", "POST", "PUT")),
    ({"POST", "PUT"}, ("POST", "PUT", "PATCH")),
    ({"POST", "PUT", "PATCH"}, ("PATCH", "POST", "PUT", "DELETE")),
    ({"POST", "PUT", "PATCH", "DELETE"}, ("DELETE", "PATCH", "POST", "PUT", "GET")),
    (READS | WRITES, (*sorted(READS | WRITES), "METHOD0")),
    (READS | WRITES | {"METHOD0"}, (*sorted(READS | WRITES | {"METHOD0"}), "METHOD1")),
    (set(), ("POST",)),
])
def test_methods_are_those_that_policies_name_and_a_usual_one_that_they_do_not(named, all_methods):
    methods = Methods([Conditions(), Conditions(methods=frozenset(named))])
    spare = all_methods[-1]

    assert methods.all == all_methods
    assert [methods.all[bit] for bit in bits(methods.every)] == list(all_methods)
    assert [methods.all[bit] for bit in bits(methods.mask(frozenset(named)))] == sorted(named)
    assert methods.mask(None) == methods.every
    assert methods.kind("QUERY") == methods.kind(spare) == methods.mask_of_named(["QUERY", spare])
    assert methods.mask_of_named([*named, "QUERY"]) == methods.every


def test_ports_are_cut_where_ranges_begin_and_end():
    ports = space_of("{allow: a, to: ['https://x.example/a', 'http://y.example:8080/b'], methods: [GET]}",
                     "{deny: b, ports: [1, 1000-2000, 65535]}").ports

    def firsts(mask: int) -> list[int]:
        return [ports.firsts[bit] for bit in bits(mask)]

    assert firsts(ports.every) == [1, 2, 80, 81, 443, 444, 1000, 2001, 8080, 8081, 65535]
    assert firsts(ports.mask(None)) == firsts(ports.span(1, 65535)) == firsts(ports.every)
    assert firsts(ports.mask((PortRange(1, 1), PortRange(1000, 2000)))) == [1, 1000]
    assert firsts(ports.mask((PortRange(2001, 65534),))) == [2001, 8080, 8081]
    assert [firsts(ports.span(port, port)) for port in (79, 443, 1500, 9000)] == [[2], [443], [1000], [8081]]


NAMES = ["a.example", "b.a.example", "*.example", "x.org", "aa.example", "example.org"]


def hosts_of_names(*names: str) -> Hosts:
    return Hosts([Conditions()], map(host_pattern, names))


@pytest.mark.parametrize(("pattern", "shown"), [
    ("a.example", ["a.example"]),
    ("*.a.example", ["a.a.example", "b.a.example", "a.b.a.example"]),
    (".a.example", ["a.example", "a.a.example", "b.a.example", "a.b.a.example"]),
    ("*.example", ["www.example", "a.example", "a.a.example", "b.a.example", "a.b.a.example", "aa.example",
                   "a.aa.example"]),
    (".x.org", ["x.org", "a.x.org"]),
])
def test_what_lies_below_a_host_is_shown_by_names_that_nobody_speaks_of(pattern, shown):
    hosts = hosts_of_names(*NAMES)

    assert [hosts.shown(bit) for bit in bits(hosts.mask(host_pattern(pattern)))] == shown
    assert [hosts.kind(name) for name in shown] == [1 << bit for bit in bits(hosts.mask(host_pattern(pattern)))]


def test_the_kinds_of_names_are_all_that_there_are_and_lie_under_those_above_them():
    hosts = hosts_of_names(*NAMES)
    bit = {name: hosts.kind(name).bit_length() - 1 for name in ("a.example", "x.b.a.example", "x.example", "x.a.example")}

    assert hosts.every.bit_count() == 2 + 2 * len(NAMES)
    assert [hosts.parent(place) for place in (0, 1, bit["a.example"], bit["x.b.a.example"], bit["x.example"])] == [
        None, None, bit["x.example"], bit["x.a.example"], None]
    assert list(hosts.upwards(0)) == [0]
    assert set(hosts.upwards(bit["x.b.a.example"])) >= {bit["x.b.a.example"], bit["x.a.example"], bit["x.example"]}
    assert bit["a.example"] not in set(hosts.upwards(hosts.kind("aa.example").bit_length() - 1))


def test_a_name_that_nobody_speaks_of_is_shown_though_the_usual_ones_are_spoken_of():
    usual = ["example.org", "example.net", "example.com", "host.test", "host.example"]
    shown = [hosts_of_names(*usual[:count]).shown(1) for count in range(6)]
    below = hosts_of_names(".example.org", "*.example.net", "example.com", ".test", ".example")

    assert shown == [*usual, "unnamed"]
    assert (below.shown(1), below.kind("unnamed")) == ("unnamed", OTHER_HOST)
    assert hosts_of_names(*usual, "unnamed").shown(1) == "unnamed-0"
    assert hosts_of_names(*usual, "unnamed", "*.unnamed-0").shown(1) == "unnamed-1"


@pytest.mark.parametrize(("length", "below"), [(250, True), (251, True), (252, False), (253, False)])
def test_nothing_lies_below_a_name_that_leaves_no_room(length, below):
    name = ".".join([*["a" * 60] * 4, "b" * (length - 244)])
    hosts = hosts_of_names(name)

    assert len(name) == length
    assert bool(hosts.mask(host_pattern(f"*.{name}"))) is below
    assert hosts.every.bit_count() == 3 + below
    assert hosts.every & (LITERAL_HOST | OTHER_HOST) == LITERAL_HOST | OTHER_HOST


def test_among_many_names_one_is_found_that_is_not_among_them():
    labels = ["a", "www", "api", "host", "x1", "h0", "h1"]
    hosts = hosts_of_names("x.org", *(f"{label}.x.org" for label in labels))

    assert hosts.shown(hosts.mask(host_pattern("*.x.org")).bit_length() - 1).endswith(".x.org")
    assert hosts.shown(next(bits(hosts.mask(host_pattern("*.x.org"))))) == "h2.x.org"


HIDING = "{allow: a, to: b.example, address: [10.0.0.0/8, '64:ff9b::/96', '2002::/16', 'fd00::/8'], methods: [GET]}"
ADDRESSES = [
    "0.0.0.0", "1.1.1.1", "9.255.255.255", "10.0.0.0", "10.0.255.255", "10.1.0.0", "10.1.255.255", "10.2.0.0", "11.0.0.0",
    "255.255.255.255", "64:ff9b::a00:1", "64:ff9b::a01:0", "64:ff9b::a01:ffff", "64:ff9b::a02:0", "2002:a00:ffff::",
    "2002:a01::", "2002:a01:ffff:ffff::1", "2002:a02::", "fd00::1", "fe00::", "2600::1", "64:ff9a::a01:0", "64:ff9b:0:1::a01:0",
]  # fmt: skip


@pytest.mark.parametrize("spread", ["10.1.0.0/16", "64:ff9b::/96", "2002:a01::/32", "fd00::/8", "0.0.0.0/0", "::/0"])
@pytest.mark.parametrize("wide", [False, True])
def test_a_range_covers_its_addresses_and_what_hides_one_of_them_where_it_is_read_widely(spread, wide):
    addresses = space_of(HIDING, f"{{deny: d, to: '{spread}'}}").addresses
    where = AddressRange(spread, (network(spread),))
    mask = addresses.mask(where, wide=wide)

    for text in ADDRESSES:
        address = ip_address(text)
        hidden = wide and any(range_contains(where, each) for each in embedded(address))
        assert bool(mask & addresses.kind(address)) is (range_contains(where, address) or hidden), text


def test_addresses_that_hide_others_are_vague_where_no_grant_is_written_for_them():
    addresses = space_of(HIDING, "{deny: d, to: 10.1.0.0/16}").addresses
    vague = ["::10.1.2.3", "::ffff:10.1.2.3", "::ffff:0:10.1.2.3", "64:ff9b:1::1", "64:ff9b:1:ffff::", "2001::1", "2001:0:ffff::"]
    clear = ["64:ff9b::a01:1", "2002:a01::", "10.1.2.3", "64:ff9b:2::", "2001:1::", "2600::1", "::1:0:0:0", "fd00::1"]

    assert [text for text in vague + clear if addresses.kind(ip_address(text)) & addresses.vague] == vague


def test_the_public_internet_is_told_apart_and_every_address_is_of_one_kind():
    addresses = space_of("{deny: d, to: 10.1.0.0/16}").addresses
    public = named_ranges(())["public-internet"]

    assert addresses.public == addresses.mask(public, wide=False)
    assert [addresses.kind(each) for each in addresses.shown] == [1 << bit for bit in bits(addresses.every)]
    assert addresses.every & addresses.kind(ip_address("ffff::"))


DAY = 86_400
EPOCH_DAYS = {day: datetime(1970, 1, day, tzinfo=UTC).toordinal() for day in range(1, 32)}


def day_window(*days: int, without: int | None = None) -> Window:
    """From 1:00 to 2:00 UTC on these days of the week; 3 is the one on which 1970 began."""
    return Window(frozenset(days), 60, 120, UTC_ZONE, frozenset() if without is None else frozenset({EPOCH_DAYS[without]}))


def test_moments_are_told_apart_by_what_holds_and_shown_by_the_first_of_them():
    end, other = Conditions(expires=2 * DAY), Conditions(expires=DAY)
    hours = Conditions(when=day_window(3, 4), expires=2 * DAY)
    moments = Moments([Conditions(), end, other, hours], 0)

    def shown(where: Conditions) -> list[int]:
        return [moments.shown[bit] for bit in bits(moments.mask(where))]

    hour = 3600
    assert shown(Conditions()) == list(moments.shown) == [0, hour, DAY, DAY + hour, 2 * DAY, 7 * DAY + hour]
    assert shown(end) == [0, hour, DAY, DAY + hour]
    assert shown(other) == [0, hour]
    assert shown(hours) == [hour, DAY + hour]
    assert moments.every == (1 << 6) - 1
    assert [moments.kind(at) for at in (0, hour - 1, hour, 2 * hour, DAY, DAY + 2 * hour - 1, 3 * DAY, 8 * DAY + hour)] == [
        1 << bit for bit in (0, 0, 1, 0, 2, 3, 4, 5)]


def test_an_end_that_has_passed_holds_at_no_moment():
    past, later = Conditions(expires=5), Conditions(expires=20)
    moments = Moments([past, later], 10)

    assert (moments.mask(past), moments.shown) == (0, (10, 20))
    assert moments.mask(later) == moments.kind(19) == 1


def test_a_policy_without_times_has_one_moment():
    moments = Moments([Conditions()], 7)

    assert (moments.shown, moments.every, moments.mask(Conditions()), moments.kind(HORIZON_SECONDS)) == ((7,), 1, 1, 1)
