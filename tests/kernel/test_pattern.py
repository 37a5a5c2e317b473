"""What a policy may write, what it means, and what it is told to write instead."""

from __future__ import annotations

from contextlib import suppress
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernel.address import named_ranges
from kernel.errors import PatternError
from kernel.glob import PathSet, Word, joined, words_meet
from kernel.normal import host, path
from kernel.pattern import (
    address_range,
    agent_matches,
    agent_pattern,
    agents_meet,
    destination,
    host_matches,
    host_pattern,
    path_glob,
    path_matches,
    patterns_meet,
    port_range,
    url_pattern,
)
from kernel.policy import AddressRange, AgentPattern, HostPattern, HostReach, PathGlob, PortRange, UrlPattern
from tests.conftest import scaled
from tests.kernel.reference_matcher import glob_matches, word_matches

NAMED = named_ranges(["169.254.169.254"])


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        pytest.param("x.example", "x.example", True, id="the host itself"),
        pytest.param("x.example", "a.x.example", False, id="exactly means no subdomain"),
        pytest.param("*.x.example", "a.x.example", True, id="a subdomain"),
        pytest.param("*.x.example", "b.a.x.example", True, id="a subdomain of a subdomain"),
        pytest.param("*.x.example", "x.example", False, id="a star never means the apex"),
        pytest.param(".x.example", "x.example", True, id="a dot means the apex"),
        pytest.param(".x.example", "b.a.x.example", True, id="and everything below"),
        pytest.param(".x.example", "evilx.example", False, id="a lookalike suffix"),
        pytest.param("*.x.example", "evilx.example", False, id="a lookalike suffix of a star"),
        pytest.param(".X.Example.", "a.x.EXAMPLE", True, id="case and trailing dots do not count"),
        pytest.param("bücher.example", "xn--bcher-kva.example", True, id="letters and their A-label are one name"),
        pytest.param(".1.example", "10.0.0.1", False, id="an address is no name"),
    ],
)
def test_a_host_pattern_reaches_as_far_as_it_says(pattern, name, matches):
    assert host_matches(host_pattern(pattern), host(name)) is matches


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("*", 'leave out "to"'),
        ("", "such as"),
        (" x.example", "such as"),
        ("a*.x.example", 'write "*.x.example"'),
        ("*a.x.example", 'write "*.x.example"'),
        ("*.*.x.example", 'write "*.x.example"'),
        ("a.*.example", 'write "*.example"'),
        ("*example", "list the hosts"),
        (".*.x.example", 'write "*.x.example"'),
        ("x.example:443", 'write x.example and "ports:"'),
        ("x.example/a", 'write a URL pattern: "https://x.example/a"'),
        ("a..example", "as DNS has it"),
        ("faß.example", "write the xn-- form"),
        ("10.0.0.1", "write 10.0.0.1 as an address"),
        ("*.0x7f", "is an address, not a host name"),
        ("user@x.example", "as DNS has it"),
    ],
)
def test_a_bad_host_pattern_says_what_to_write(text, told):
    with pytest.raises(PatternError) as refused:
        host_pattern(text)

    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("x.example", HostPattern),
        ("*.x.example", HostPattern),
        ("1password.example", HostPattern),
        ("metadata.x.example", HostPattern),
        ("metadata", AddressRange),
        ("10.0.0.0/8", AddressRange),
        ("10.1.2.3", AddressRange),
        ("::1", AddressRange),
        ("fe80::/10", AddressRange),
        ("https://x.example/**", UrlPattern),
        ("http://10.1.2.3:8080/a", UrlPattern),
    ],
)
def test_a_destination_is_a_name_a_range_or_a_url(text, kind):
    assert isinstance(destination(text, NAMED), kind)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.1/8", "write 10.0.0.0/8 for the block, or 10.0.0.1 for the one address"),
        ("fe80::1/10", "write fe80::/10 for the block"),
        ("10.0.0.0/33", "write 10.1.0.0/16"),
        ("010.0.0.1", "write 8.0.0.1"),
        ("127.1", "write 127.0.0.1"),
        ("metdata", 'did you mean "metadata"?'),
        ("[::1]", "without brackets"),
        ("fe80::1%eth0", "without a zone"),
        ("::ffff:10.0.0.1", "write the IPv4 form"),
        ("10.0.0.1-10.0.0.9", "write 10.1.0.0/16"),
        ("", "write 10.1.0.0/16"),
    ],
)
def test_a_bad_range_says_what_to_write(text, told):
    with pytest.raises(PatternError) as refused:
        address_range(text, NAMED)

    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("/", ["/"], ["/a"]),
        ("/a", ["/a", "//a", "/%61"], ["/a/", "/", "/A", "/a/b"]),
        ("/a/", ["/a/"], ["/a", "/a/b"]),
        ("/*", ["/", "/a"], ["/a/", "/a/b"]),
        ("/a/*", ["/a/", "/a/b"], ["/a", "/a/b/c"]),
        ("/a*b/c", ["/ab/c", "/axxb/c"], ["/a/b/c", "/abx/c"]),
        ("/*a*b*", ["/ab", "/xaxxbx"], ["/ba", "/a"]),
        ("/ab*ba", ["/abba", "/ab-ba"], ["/aba"]),
        ("/**", ["/", "/a", "/a/b/", "/a%2Fb"], []),
        ("/a/**", ["/a", "/a/", "/a/b/c"], ["/ab", "/b/a", "/"]),
        ("/**/a", ["/a", "/b/a", "/b/c/a"], ["/a/", "/ba"]),
        ("/a/**/b", ["/a/b", "/a/x/b", "/a/b/b"], ["/a", "/b", "/a/bb"]),
        ("/**/a/b/**/c*", ["/a/b/c", "/a/a/b/x/cc"], ["/a/x/b/c", "/a/b"]),
        ("/%7Euser/*", ["/~user/x"], ["/user/x"]),
        ("/é", ["/%C3%A9", "/%c3%a9"], ["/e"]),
    ],
)
def test_a_path_glob_matches_what_it_says(glob, matching, other):
    pattern = path_glob(glob)

    for text in matching:
        assert path_matches(pattern, path(text).segments), text
    for text in other:
        assert not path_matches(pattern, path(text).segments), text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a/b", 'write "/a/b"'),
        ("", 'write "/"'),
        ("/a?b=c", 'write "/a"'),
        ("/a/**b", "whole segment"),
        ("/a**", "whole segment"),
        ("/***", "whole segment"),
        ("/a/../b", "dot segment"),
        ("/a/..;*", "dot segment"),
        ("/a b", "space"),
        ("/a%zz", "hex digits"),
        ("/a\\b", "\\"),
        ("/a#b", "#"),
    ],
)
def test_a_bad_path_glob_says_what_is_wrong(text, told):
    with pytest.raises(PatternError) as refused:
        path_glob(text)

    assert told in str(refused.value)


GLOBS = st.lists(
    st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b", "a*b", "*a*", "a*b*a", "**", ""]), min_size=1, max_size=6
)
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "ba", "aba", "aab", ""]), min_size=1, max_size=6)


@settings(max_examples=scaled(1500))
@given(GLOBS.map(tuple), PATHS.map(tuple))
@example(("**", "a", "**", "b"), ("a", "b", "a"))
@example(("**", "a", "b", "**", "b"), ("a", "a", "b"))
def test_a_glob_matches_like_its_definition(glob, segments):
    assert path_matches(PathGlob(joined(glob), glob), segments) == glob_matches(glob, segments)


@settings(max_examples=scaled(500))
@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "*", "**", "a*"]), max_size=3), min_size=1, max_size=4),
    st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4),
    st.sampled_from(["", "/"]),
)
def test_a_set_of_globs_holds_what_one_of_them_matches(globs, parts, tail):
    patterns = [path_glob("/" + "/".join(segments)) for segments in globs]
    asked = path("/" + "/".join(parts) + tail)

    one_by_one = any(glob_matches(each.segments, asked.segments) for each in patterns)
    assert PathSet(patterns).has(asked.text, asked.segments) == one_by_one


@settings(max_examples=scaled(500))
@given(st.text("ab*", max_size=7), st.text("ab", max_size=7))
def test_an_agent_glob_matches_like_its_definition(glob, agent):
    assert agent_matches(AgentPattern(glob), agent) == word_matches(glob, agent)


def test_a_hostile_path_costs_time_in_proportion_to_its_length():
    glob = path_glob("/**/a/a/b/**/a*a*a*b/**/a/a/c")
    segments = tuple("a" for _ in range(20_000))

    # Trying each place of each ** anew would take longer than the life of the sun.
    assert not path_matches(glob, segments)
    assert not path_matches(path_glob("/**/a*a*a*a*a*a*a*b/**/b"), ("a" * 20_000,))


def test_no_star_reaches_anonymous():
    assert not agent_matches(agent_pattern("*"), "anonymous")
    assert not agent_matches(agent_pattern("anon*"), "anonymous")
    assert agent_matches(agent_pattern("anonymous"), "anonymous")
    assert agent_matches(agent_pattern("*"), "local")


@pytest.mark.parametrize("text", ["", "a b", "-a", "a,b", "é", "a" * 129, "a\n"])
def test_a_bad_agent_pattern_is_refused(text):
    with pytest.raises(PatternError):
        agent_pattern(text)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443), ("ws", 80), ("wss", 443)])
def test_a_url_pattern_has_the_port_of_its_scheme(scheme, port):
    pattern = url_pattern(f"{scheme}://x.example/**", NAMED)

    assert (pattern.scheme, pattern.port) == (scheme, port)


def test_a_url_pattern_is_one_box():
    pattern = url_pattern("HTTPS://*.X.example:8443/a//%7Eb/**", NAMED)

    assert pattern.scheme == "https"
    assert pattern.host == HostPattern("x.example", HostReach.BELOW)
    assert pattern.port == 8443
    assert pattern.path.segments == ("a", "~b", "**")


@pytest.mark.parametrize(
    ("text", "port", "spread"),
    [("http://metadata/**", 80, "metadata"), ("https://[::1]/", 443, "::1"), ("http://10.1.2.3:81/", 81, "10.1.2.3")],
)
def test_a_url_pattern_may_name_an_address(text, port, spread):
    pattern = url_pattern(text, NAMED)

    assert pattern.port == port
    assert pattern.host == address_range(spread, NAMED)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://x.example", '"https://x.example/**" for every path'),
        ("https://x.example/a?b", "ends with its path"),
        ("https://x.example/#a", "ends with its path"),
        ("ftp://x.example/", "https://api.example.org/**"),
        ("https://u@x.example/", "host:port/path"),
        ("https://x.example:0/", "from 1 to 65535"),
        ("https:///a", "such as"),
        ("https://a*.x.example/", 'write "*.x.example"'),
        ("https://x.example/a**", "whole segment"),
        ("https://127.1/", "write 127.0.0.1"),
    ],
)
def test_a_bad_url_pattern_says_what_to_write(text, told):
    with pytest.raises(PatternError) as refused:
        destination(text, NAMED)

    assert told in str(refused.value)


@pytest.mark.parametrize(("text", "ports"), [("443", (443, 443)), ("8000-8999", (8000, 8999)), ("1-65535", (1, 65535))])
def test_ports_are_a_number_or_a_range(text, ports):
    assert port_range(text) == PortRange(*ports)


@pytest.mark.parametrize(
    ("text", "told"),
    [("0", "from 1 to 65535"), ("65536", "from 1 to 65535"), ("9-1", "write 1-9"), ("https", "write 443"),
     ("1-", "write 443"), ("-1", "write 443"), ("", "write 443"), ("٣", "write 443"), ("1 - 2", "write 443")],
)  # fmt: skip
def test_bad_ports_say_what_to_write(text, told):
    with pytest.raises(PatternError) as refused:
        port_range(text)

    assert told in str(refused.value)


@settings(max_examples=scaled(500))
@given(st.text(max_size=20) | st.text("*.:/[]%@?#-_ax09é", max_size=20))
def test_no_text_raises_anything_but_a_pattern_error(text):
    for parse in (lambda: destination(text, NAMED), lambda: path_glob(f"/{text}"), lambda: agent_pattern(text),
                  lambda: port_range(text), lambda: destination(f"https://{text}", NAMED)):  # fmt: skip
        with suppress(PatternError):
            parse()


_globs = st.text("ab*", min_size=1, max_size=5).map(agent_pattern)
_ids = [first + second + third for first in "ab" for second in ("", "a", "b") for third in ("", "a", "b")]


@given(_globs, _globs)
def test_two_patterns_meet_where_an_id_fits_both(one, other):
    words = {word + more for word in _ids for more in [*_ids, ""]}
    shared = any(word_matches(one.text, word) and word_matches(other.text, word) for word in words)

    assert patterns_meet(one, other) >= shared
    assert patterns_meet(one, other) == patterns_meet(other, one)
    if max(len(one.text), len(other.text)) <= 3:
        assert patterns_meet(one, other) == shared


def test_every_short_word_glob_fits_exactly_what_its_definition_does():
    globs = ["".join(letters) for count in range(5) for letters in product("ab*", repeat=count)]
    words = ["".join(letters) for count in range(6) for letters in product("ab", repeat=count)]

    for glob in globs:
        prepared = Word(glob)
        assert [word for word in words if prepared.fits(word)] == [word for word in words if word_matches(glob, word)]


def test_every_two_short_patterns_meet_exactly_where_a_word_fits_both():
    globs = ["".join(letters) for count in range(4) for letters in product("ab*", repeat=count)]
    words = ["".join(letters) for count in range(7) for letters in product("ab", repeat=count)]
    fitting = {glob: {word for word in words if word_matches(glob, word)} for glob in globs}

    for one, other in product(globs, repeat=2):
        assert words_meet(one, other) == bool(fitting[one] & fitting[other]), (one, other)


def test_no_star_meets_anonymous():
    star, anonymous = agent_pattern("*"), agent_pattern("anonymous")

    assert not patterns_meet(star, anonymous)
    assert not patterns_meet(anonymous, star)
    assert patterns_meet(anonymous, anonymous)
    assert agents_meet(None, (star,))
