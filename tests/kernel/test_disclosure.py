"""Which host the log shows in clear: no label that an agent thought up in front of a domain."""

from __future__ import annotations

import pytest

from kernel import normal
from kernel.disclosure import _REMEMBERED, Disclosure
from kernel.suffix import Suffixes
from tests.addons.policies import compiled

POLICY = compiled("""
rules:
  - {allow: exact, to: api.example.org, methods: any}
  - {allow: below, to: "*.wild.example.com", methods: any}
  - {deny: both, to: .both.example.net}
  - {allow: url, to: "https://url.example.org/a/**", methods: any, except: {to: hole.example.org}}
never:
  - to: never.example.org
limits:
  - {to: limited.example.org, max-url: 1KB}
""").policy
SUFFIXES = Suffixes(["org", "com", "net", "co.uk", "*.ck"])


@pytest.fixture(scope="module")
def disclosure() -> Disclosure:
    return Disclosure(POLICY, SUFFIXES)


@pytest.mark.parametrize(("host", "shown"), [
    pytest.param("api.example.org", "api.example.org", id="a host that the policy names"),
    pytest.param("secret.api.example.org", "example.org", id="a label below a host that it names exactly"),
    pytest.param("a.wild.example.com", "a.wild.example.com", id="a host that a pattern matches"),
    pytest.param("a.b.wild.example.com", "a.b.wild.example.com", id="deeper below a pattern"),
    pytest.param("wild.example.com", "example.com", id="the apex that a pattern leaves out"),
    pytest.param("both.example.net", "both.example.net", id="the apex that a pattern takes in"),
    pytest.param("x.both.example.net", "x.both.example.net", id="below such an apex"),
    pytest.param("notboth.example.net", "example.net", id="a lookalike"),
    pytest.param("url.example.org", "url.example.org", id="the host of a URL pattern"),
    pytest.param("hole.example.org", "hole.example.org", id="a host in an exception"),
    pytest.param("never.example.org", "never.example.org", id="a host in a never"),
    pytest.param("limited.example.org", "limited.example.org", id="a host in a limit"),
    pytest.param("secret.evil.test.com", "test.com", id="any other host: its registrable domain"),
    pytest.param("a.b.shop.co.uk", "shop.co.uk", id="under a suffix of two labels"),
    pytest.param("a.b.c.ck", "b.c.ck", id="under a wildcard suffix"),
    pytest.param("localhost", "localhost", id="one label"),
    pytest.param("203.0.113.7", "203.0.113.7", id="an address"),
    pytest.param("2001:db8::7", "2001:db8::7", id="an IPv6 address"),
])
def test_a_host_is_shown_as_far_as_the_policy_names_it(disclosure: Disclosure, host: str, shown: str) -> None:
    assert disclosure.shown(normal.host(host)) == shown
    assert disclosure.shown(normal.host(host)) == shown, "asked again"


def test_hosts_that_an_agent_thinks_up_fill_no_memory() -> None:
    disclosure = Disclosure(POLICY, SUFFIXES)
    for number in range(_REMEMBERED + 10):
        disclosure.shown(normal.host(f"{number}.evil.test.com"))

    assert len(disclosure._shown) <= _REMEMBERED
