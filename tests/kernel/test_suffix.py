"""Registrable domains by the rules of the public-suffix list."""

from __future__ import annotations

import pytest

from kernel.errors import NonCanonical
from kernel.normal import host
from kernel.suffix import Suffixes

RULES = ["com", "uk", "co.uk", "*.ck", "!www.ck", "pages.example", "公司.cn", "cn", "*.compute.example.net", "NET"]


@pytest.mark.parametrize(
    ("name", "registrable"),
    [
        pytest.param("example.com", "example.com", id="one label below a suffix"),
        pytest.param("a.b.example.com", "example.com", id="deeper"),
        pytest.param("com", "com", id="a bare suffix"),
        pytest.param("a.shop.co.uk", "shop.co.uk", id="the longest suffix wins"),
        pytest.param("co.uk", "co.uk", id="a bare suffix of two labels"),
        pytest.param("a.b.c.ck", "b.c.ck", id="a wildcard"),
        pytest.param("c.ck", "c.ck", id="a suffix by a wildcard"),
        pytest.param("a.www.ck", "www.ck", id="an exception to a wildcard"),
        pytest.param("www.ck", "www.ck", id="the exception itself"),
        pytest.param("secret.user.pages.example", "user.pages.example", id="a private suffix"),
        pytest.param("x.y.unknown", "y.unknown", id="a top-level domain that no rule names"),
        pytest.param("localhost", "localhost", id="a single label"),
        pytest.param("a.b.公司.cn", "b.xn--55qx5d.cn", id="a rule in letters"),
        pytest.param("a.b.eu.compute.example.net", "b.eu.compute.example.net", id="a wildcard deep down"),
        pytest.param("compute.example.net", "example.net", id="above a wildcard"),
        pytest.param("10.1.2.3", "10.1.2.3", id="an address"),
        pytest.param("[::1]", "::1", id="an IPv6 address"),
    ],
)
def test_the_registrable_domain_is_one_label_more_than_the_suffix(name, registrable):
    assert Suffixes(RULES).registrable(host(name)) == registrable


def test_a_rule_that_is_no_host_is_refused():
    with pytest.raises(NonCanonical):
        Suffixes(["a b.例"])
