"""Which addresses are global, what the named ranges hold, and which IPv4 addresses hide in an IPv6 one."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.address import (
    RangeSet,
    cidrs,
    embedded,
    is_global,
    named_ranges,
    network,
    range_contains,
    wholly_private,
)
from kernel.policy import AddressRange, Network
from tests.conftest import scaled

NAMED = named_ranges(["169.254.169.254", "fd00:ec2::254", "168.63.129.16"])
ADDRESSES = st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address)
# Random IPv6 addresses are nearly all unallocated; these lie where something is decided.
NEAR_2000 = st.integers(0x2000 << 112, 0x4000 << 112).map(IPv6Address)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "168.63.129.16", "169.254.169.254",
        "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::8.8.8.8", "::ffff:8.8.8.8",
        "::ffff:0:8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b:1::808:808", "100::1", "2001::1", "2001:db8::1",
        "2002:808:808::1", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff0e::1",
    ],
)  # fmt: skip
def test_an_address_that_may_lead_inside_is_not_global(text):
    assert not is_global(ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "168.63.129.15", "172.32.0.1", "223.255.255.255",
     "2001:200::1", "2001:4860:4860::8888", "2600::1", "2a00:1450:4001::1", "3ffe::1"],
)  # fmt: skip
def test_an_address_of_the_public_internet_is_global(text):
    assert is_global(ip_address(text))


@settings(max_examples=scaled(300))
@given(ADDRESSES | NEAR_2000)
def test_nothing_is_global_that_the_standard_library_calls_otherwise(address):
    assert address.is_global or not is_global(address)


@settings(max_examples=scaled(300))
@given(ADDRESSES | NEAR_2000)
def test_the_public_internet_is_every_global_address_and_no_other(address):
    assert range_contains(NAMED["public-internet"], address) == is_global(address)


@settings(max_examples=scaled(200))
@given(ADDRESSES | NEAR_2000)
def test_an_address_that_embeds_another_is_never_global(address):
    if embedded(address):
        assert not is_global(address)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        pytest.param("::ffff:169.254.169.254", "169.254.169.254", id="mapped"),
        pytest.param("::169.254.169.254", "169.254.169.254", id="compatible"),
        pytest.param("::ffff:0:169.254.169.254", "169.254.169.254", id="translated"),
        pytest.param("64:ff9b::a9fe:a9fe", "169.254.169.254", id="NAT64"),
        pytest.param("64:ff9b:1::a9fe:a9fe", "169.254.169.254", id="local NAT64, /96"),
        pytest.param("64:ff9b:1:a9fe:a9:fe00::", "169.254.169.254", id="local NAT64, /48"),
        pytest.param("64:ff9b:1:1a9:fe:a9fe::", "169.254.169.254", id="local NAT64, /56"),
        pytest.param("64:ff9b:1:1:a9:fea9:fe00:0", "169.254.169.254", id="local NAT64, /64"),
        pytest.param("2002:a9fe:a9fe::1", "169.254.169.254", id="6to4"),
        pytest.param("2001:0:a9fe:a9fe::1", "169.254.169.254", id="the server of Teredo"),
        pytest.param("2001:0:4136:e378:8000:63bf:5601:5601", "169.254.169.254", id="the client of Teredo"),
    ],
)
def test_the_ipv4_address_inside_an_ipv6_address_is_found(text, inner):
    assert IPv4Address(inner) in embedded(ip_address(text))


def test_an_address_of_local_nat64_is_read_with_each_prefix_that_its_users_may_choose():
    # Byte by byte: the prefix, 1, 2, the byte that RFC 6052 skips, 4 to 9, 11. Read with /48, /56, /64 and /96.
    assert list(map(str, embedded(ip_address("64:ff9b:1:102:304:506:708:90b")))) == [
        "1.2.4.5", "2.4.5.6", "4.5.6.7", "7.8.9.11"]


def test_other_addresses_embed_nothing():
    assert embedded(ip_address("8.8.8.8")) == ()
    assert embedded(ip_address("2a00::808:808")) == ()


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("metadata", "168.63.129.16", "169.254.169.253"),
        ("metadata", "fd00:ec2::254", "fd00:ec2::255"),
        ("loopback", "127.8.8.8", "128.0.0.1"),
        ("loopback", "0.0.0.0", "1.0.0.0"),
        ("loopback", "::1", "::2"),
        ("link-local", "fe80::1", "fec0::1"),
        ("private-networks", "100.64.0.1", "100.128.0.1"),
        ("private-networks", "fec0::1", "ff00::1"),
        ("public-internet", "1.1.1.1", "10.0.0.1"),
    ],
)
def test_named_ranges_end_where_they_should(name, inside, outside):
    assert range_contains(NAMED[name], ip_address(inside))
    assert not range_contains(NAMED[name], ip_address(outside))


@pytest.mark.parametrize(
    ("text", "private"),
    [("10.0.0.0/8", True), ("8.0.0.0/7", False), ("10.0.0.0/7", False), ("0.0.0.0/0", False), ("fc00::/7", True),
     ("::/0", False), ("1.1.1.1", False), ("::/3", True), ("2001:db8::/32", True)],
)  # fmt: skip
def test_a_range_is_private_only_when_all_of_it_is(text, private):
    assert wholly_private(AddressRange(text, (network(text),))) is private


def test_only_the_public_internet_of_the_named_ranges_is_not_private():
    assert {name for name, spread in NAMED.items() if not wholly_private(spread)} == {"public-internet"}


NETWORKS = st.lists(
    st.sampled_from(["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "11.0.0.0/8", "::/8", "fe00::/7", "8.8.8.8"]),
    max_size=5,
)


@settings(max_examples=scaled(200))
@given(NETWORKS, st.sampled_from(["9.255.255.255", "10.0.0.0", "10.127.255.255", "10.200.1.1", "11.255.255.255",
                                  "12.0.0.0", "8.8.8.8", "8.8.8.7", "::1", "100::", "fe00::", "fdff::"]))  # fmt: skip
def test_a_merged_set_holds_what_one_of_its_networks_holds(texts, text):
    networks = [network(each) for each in texts]
    address = ip_address(text)
    one_by_one = any(range_contains(AddressRange("", (each,)), address) for each in networks)

    assert (address in RangeSet(networks)) == one_by_one
    assert (
        any(range_contains(AddressRange("", (gap,)), address) for gap in RangeSet(networks).complement()) != one_by_one
    )


@pytest.mark.parametrize(("held", "asked", "covered"), [
    pytest.param(["10.0.0.0/9", "10.128.0.0/9"], "10.0.0.0/8", True, id="two halves"),
    pytest.param(["10.0.0.0/9", "10.128.0.1/32"], "10.0.0.0/8", False, id="a gap of one address"),
    pytest.param(["10.0.0.0/8", "10.1.0.0/16"], "10.0.0.0/8", True, id="a part of it beside the whole"),
    pytest.param(["10.1.0.0/16", "11.0.0.0/8"], "10.0.0.0/8", False, id="a part of it"),
    pytest.param(["10.0.0.0/9"], "10.0.0.0/8", False, id="its beginning"),
    pytest.param(["10.128.0.0/9"], "10.0.0.0/8", False, id="its end"),
    pytest.param(["11.0.0.0/8"], "10.0.0.0/8", False, id="what lies behind"),
    pytest.param([], "0.0.0.0", False, id="nothing"),
    pytest.param(["::/1", "8000::/1"], "::/0", True, id="two halves of IPv6"),
    pytest.param(["::/0"], "0.0.0.0", False, id="the other family"),
])
def test_a_set_covers_a_network_only_where_it_holds_every_address_of_it(held, asked, covered):
    assert RangeSet(map(network, held)).covers(network(asked)) is covered


ALL_FOUR = ("0.0.0.0", "255.255.255.255")
ALL_SIX = ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")


@pytest.mark.parametrize(("held", "left"), [
    ([], [ALL_FOUR, ALL_SIX]),
    (["0.0.0.0/0"], [ALL_SIX]),
    (["::/0"], [ALL_FOUR]),
    (["0.0.0.0/1", "8000::/1"], [("128.0.0.0", "255.255.255.255"), ("::", ALL_SIX[1].replace("f", "7", 1))]),
    (["128.0.0.0/1", "::/0"], [("0.0.0.0", "127.255.255.255")]),
    (["10.128.0.0/9", "10.0.0.0/9", "12.0.0.0/8", "::/0"],
     [("0.0.0.0", "9.255.255.255"), ("11.0.0.0", "11.255.255.255"), ("13.0.0.0", "255.255.255.255")]),
])
def test_the_complement_of_a_set_is_every_gap_of_it(held, left):
    found = RangeSet(map(network, held)).complement()

    assert [(str(gap.first), str(gap.last)) for gap in found] == left


def test_the_named_ranges_carry_their_names():
    assert {name: spread.text for name, spread in NAMED.items()} == {
        name: name for name in ("metadata", "loopback", "link-local", "private-networks", "public-internet")}


def test_a_network_that_is_no_block_is_the_fewest_blocks():
    spread = Network(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.6"))

    assert list(map(str, cidrs(spread))) == ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]


def test_metadata_that_is_no_address_is_refused():
    with pytest.raises(ValueError, match="metadata"):
        named_ranges(["metadata.example.org"])
