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


STAR = "a star stands only as the whole first label of a host"
BELOW_X = 'write "*.x.example" for every host below x.example, or list the hosts'
NO_NAME = 'a host pattern is empty or has spaces around it (write a name such as "api.example.org")'
DNS = "write the name as DNS has it"
AMBIGUOUS = "the host has a character with more than one reading; write the xn-- form"
NEITHER = "this is neither a host name nor an IPv6 address"
NO_CHARACTER = "the host has a character that no host name has"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("*", '"*" is not a host pattern (leave out "to" to mean every host, or name the hosts)'),
        ("", NO_NAME),
        (" x.example", NO_NAME),
        ("x.example\n", NO_NAME),
        ("a*.x.example", f'"a*.x.example": {STAR} ({BELOW_X})'),
        ("*a.x.example", f'"*a.x.example": {STAR} ({BELOW_X})'),
        ("*.*.x.example", f'"*.*.x.example": {STAR} ({BELOW_X})'),
        ("a*.b*.x.example", f'"a*.b*.x.example": {STAR} ({BELOW_X})'),
        ("a.*.example", f'"a.*.example": {STAR} (write "*.example" for every host below example, or list the hosts)'),
        ("*example", f'"*example": {STAR} (list the hosts)'),
        (".*.x.example", f'".*.x.example": {STAR} ({BELOW_X})'),
        ("x.example:443", '"x.example:443" is a host with a port (write x.example and "ports:", or a URL pattern)'),
        ("x.example:a", f'"x.example:a" is not a host: {NEITHER} ({DNS})'),
        ("x.example/a", '"x.example/a" is a host with a path (write a URL pattern: "https://x.example/a")'),
        ("x.example:80/a", '"x.example:80/a" is a host with a path (write a URL pattern: "https://x.example:80/a")'),
        ("/x.example", f'"/x.example" is not a host: {NO_CHARACTER} ({DNS})'),
        ("a..example", f'"a..example" is not a host: the host has an empty label ({DNS})'),
        ("faß.example", f'"faß.example" is not a host: {AMBIGUOUS} ({DNS})'),
        ("10.0.0.1", '"10.0.0.1" is an address, not a host name (write 10.0.0.1 as an address or range)'),
        ("*.0x7f", '"*.0x7f" is an address, not a host name (write 0.0.0.127 as an address or range)'),
        ("user@x.example", f'"user@x.example" is not a host: {NO_CHARACTER} ({DNS})'),
    ],
)
def test_a_bad_host_pattern_says_what_to_write(text, told):
    with pytest.raises(PatternError) as refused:
        host_pattern(text)

    assert str(refused.value) == told


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


BITS = "has bits set to the right of its prefix"
NO_RANGE = "is not an address, a CIDR block or a named range"
BARE = "write an address without brackets and without a zone"
NAMES = "link-local, loopback, metadata, private-networks, public-internet"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.1/8", f"{BITS} (write 10.0.0.0/8 for the block, or 10.0.0.1 for the one address)"),
        ("fe80::1/10", f"{BITS} (write fe80::/10 for the block, or fe80::1 for the one address)"),
        ("10.0.0.0/33", f"{NO_RANGE} (write 10.1.0.0/16, 10.1.2.3 or one of {NAMES})"),
        ("010.0.0.1", f"{NO_RANGE} (write 8.0.0.1)"),
        ("127.1", f"{NO_RANGE} (write 127.0.0.1)"),
        ("metdata", f'{NO_RANGE} (did you mean "metadata"?)'),
        ("[::1]", f"{NO_RANGE} ({BARE})"),
        ("fe80::1%eth0", f"{NO_RANGE} ({BARE})"),
        ("::ffff:10.0.0.1", "is IPv4 written as IPv6 (write the IPv4 form: it covers the mapped one too)"),
        ("10.0.0.1-10.0.0.9", f"{NO_RANGE} (write 10.1.0.0/16, 10.1.2.3 or one of {NAMES})"),
        ("x.example", f"{NO_RANGE} (write 10.1.0.0/16, 10.1.2.3 or one of {NAMES})"),
        ("", f"{NO_RANGE} (write 10.1.0.0/16, 10.1.2.3 or one of {NAMES})"),
    ],
)
def test_a_bad_range_says_what_to_write(text, told):
    with pytest.raises(PatternError) as refused:
        address_range(text, NAMED)

    assert str(refused.value) == f'"{text}" {told}'


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("/", ["/"], ["/a"]),
        ("/a", ["/a", "//a", "/%61"], ["/a/", "/", "/A", "/a/b"]),
        ("/a/", ["/a/"], ["/a", "/a/b"]),
        ("/*", ["/", "/a"], ["/a/", "/a/b"]),
        ("/a/*", ["/a/", "/a/b"], ["/a", "/a/b/c"]),
        ("/a*b/c", ["/ab/c", "/axxb/c"], ["/a/b/c", "/abx/c"]),
        ("/*a*b*", ["/ab", "/aba", "/xaxxbx"], ["/ba", "/a"]),
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


NO_PATH = "no request with such a path ever passes"
CHARACTER = "the path has a space, a control character, # or \\"
WHOLE = "** stands only as a whole segment (write * inside a segment, /**/ between)"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a/b", 'the path "a/b" does not begin with / (write "/a/b")'),
        ("", 'the path "" does not begin with / (write "/")'),
        ("/a?b?c", '"/a?b?c" has a "?" (a path never includes the query: write "/a")'),
        ("/a/**b", f'"/a/**b": {WHOLE}'),
        ("/a**", f'"/a**": {WHOLE}'),
        ("/***", f'"/***": {WHOLE}'),
        ("/a/../b", f'"/a/../b": the path has a dot segment ({NO_PATH})'),
        ("/a/..;*", f'"/a/..;*": the path has a dot segment ({NO_PATH})'),
        ("/a b", f'"/a b": {CHARACTER} ({NO_PATH})'),
        ("/a%zz", f'"/a%zz": the path has a % that two hex digits do not follow ({NO_PATH})'),
        ("/a\\b", f'"/a\\b": {CHARACTER} ({NO_PATH})'),
        ("/a#b", f'"/a#b": {CHARACTER} ({NO_PATH})'),
    ],
)
def test_a_bad_path_glob_says_what_is_wrong(text, told):
    with pytest.raises(PatternError) as refused:
        path_glob(text)

    assert str(refused.value) == told


GLOBS = st.lists(
    st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b", "a*b", "*a*", "a*b*a", "**", ""]), min_size=1, max_size=6
)
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "ba", "aba", "aab", ""]), min_size=1, max_size=6)


@settings(max_examples=scaled(500))
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
    with pytest.raises(PatternError) as refused:
        agent_pattern(text)

    allowed = "letters, digits and . _ : @ / + - inside, at most 128 characters; * for any run of characters"
    assert str(refused.value) == f'"{text}" is not an agent id or an id glob ({allowed})'


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


EVERY_PATH = 'write "https://x.example/**" for every path, "https://x.example/" for the root alone'
QUERY = "has a query or a fragment (a URL pattern ends with its path)"
NO_SCHEME = 'is not an http://, https://, ws:// or wss:// URL pattern (write "https://api.example.org/**")'
NO_PORT = "the port is not a number from 1 to 65535 without leading zeros"
AUTHORITY = 'write "https://host:port/path"'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://x.example", f'"https://x.example" has no path ({EVERY_PATH})'),
        ("https://x.example/a?b", f'"https://x.example/a?b" {QUERY}'),
        ("https://x.example/#a", f'"https://x.example/#a" {QUERY}'),
        ("ftp://x.example/", f'"ftp://x.example/" {NO_SCHEME}'),
        ("https://u@x.example/", f'"https://u@x.example/": the authority has user information ({AUTHORITY})'),
        ("https://x.example:0/", f'"https://x.example:0/": {NO_PORT} ({AUTHORITY})'),
        ("https:///a", NO_NAME),
        ("https://a*.x.example/", f'"a*.x.example": {STAR} ({BELOW_X})'),
        ("https://x.example/a**", f'"/a**": {WHOLE}'),
        ("https://127.1/", f'"127.1" {NO_RANGE} (write 127.0.0.1)'),
        ("https://[x.example]/", f'"[x.example]" is not a host: {NEITHER} ({DNS})'),
    ],
)
def test_a_bad_url_pattern_says_what_to_write(text, told):
    with pytest.raises(PatternError) as refused:
        destination(text, NAMED)

    assert str(refused.value) == told


@pytest.mark.parametrize(("text", "ports"), [
    ("443", (443, 443)), ("8000-8999", (8000, 8999)), ("1-65535", (1, 65535)), ("65535-65535", (65535, 65535)),
])
def test_ports_are_a_number_or_a_range(text, ports):
    assert port_range(text) == PortRange(*ports)


@pytest.mark.parametrize(
    ("text", "told"),
    [(text, ": a port is a number from 1 to 65535 (write 443 or 8000-8999)")
     for text in ("0", "65536", "0-5", "1-65536", "65536-65537", "65536-1")]
    + [(text, " is not a port or a range of ports (write 443 or 8000-8999)")
       for text in ("https", "1-", "-1", "", "٣", "1 - 2", "123456")]
    + [("9-1", " runs backwards (write 1-9)")],
)
def test_bad_ports_say_what_to_write(text, told):
    with pytest.raises(PatternError) as refused:
        port_range(text)

    assert str(refused.value) == f'"{text}"{told}'


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
    globs = ["".join(letters) for count in range(6) for letters in product("ab*", repeat=count)]
    words = ["".join(letters) for count in range(6) for letters in product("ab", repeat=count)]

    for glob in globs:
        prepared = Word(glob)
        assert [word for word in words if prepared.fits(word)] == [word for word in words if word_matches(glob, word)]


def test_every_short_path_glob_matches_exactly_what_its_definition_does():
    globs = [glob for count in range(1, 5) for glob in product(("a", "b", "*", "**"), repeat=count)]
    paths = [path for count in range(1, 5) for path in product("ab", repeat=count)]
    paths += [(*path, "") for path in paths]

    for glob in globs:
        pattern = PathGlob(joined(glob), glob)
        alone = PathSet([pattern])
        for segments in paths:
            wanted = glob_matches(glob, segments)
            assert path_matches(pattern, segments) == wanted, (glob, segments)
            assert alone.has(joined(segments), segments) == wanted, (glob, segments)


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
