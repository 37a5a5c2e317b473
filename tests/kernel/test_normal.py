"""One spelling for each destination, and a refusal for what has more than one reading."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel import normal
from kernel.errors import NonCanonical
from kernel.verdict import Code
from tests.conftest import scaled


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.Org.", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.EXAMPLE.", "xn--bcher-kva.example"),
        ("日本.example", "xn--wgv71a.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--strae-oqa.example", "xn--strae-oqa.example"),
        ("my_bucket.s3.example.org", "my_bucket.s3.example.org"),
        ("1password.example", "1password.example"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_a_name_has_one_spelling(text, name):
    host = normal.host(text)

    assert (host.name, host.address) == (name, None)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("127.0.0.1", "127.0.0.1"), ("127.1", "127.0.0.1"), ("2130706433", "127.0.0.1"), ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"), ("0177.0.0.1", "127.0.0.1"), ("127.0.0.1.", "127.0.0.1"), ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"), ("169.254.43518", "169.254.169.254"), ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("::ffff:7f00:1", "127.0.0.1"), ("[::1]", "::1"), ("0:0:0:0:0:0:0:1", "::1"), ("2A00::0001", "2a00::1"),
        ("[64:ff9b::a9fe:a9fe]", "64:ff9b::a9fe:a9fe"),
    ],
)  # fmt: skip
def test_an_address_has_one_spelling(text, name):
    host = normal.host(text)

    assert host.name == name
    assert str(host.address) == name


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a..example", ".example", "example..", "a" * 64 + ".example", ".".join(["a" * 60] * 5), "a" * 5000,
     "user@example.org", "example.org:80", "exa mple.org", "ex%61mple.org", "exa\tmple.org", "example.org/", "a\\b",
     "*", "ex\u00adample.org", "faß.example", "ς.example", "a\u200db.example", "\uff41.example", "日本。example",
     "☕.example", "xn--.example", "xn--a-.example", "xn--abc-.example", "xn--99999999.example",
     "üx--a.example", "\udce9.example", "[::1", "::1]", "[::1]x", "[]", "fe80::1%eth0",
     "[fe80::1%25eth0]", "[v1.a]", "::1.2.3", ":::", "1.2.3.4:80",
     "256.1.1.1", "1.2.3.4.5", "1.2.3.256", "08.1.1.1", "0x1g.1", "a.0x7f", "a.1", "4294967296", "1_0.2", "-1.2.3.4"],
)  # fmt: skip
def test_a_host_with_no_or_several_readings_is_refused(text):
    with pytest.raises(NonCanonical) as refused:
        normal.host(text)

    assert refused.value.code is Code.NON_CANONICAL
    assert refused.value.problem


HOSTISH = st.text(
    alphabet=st.sampled_from(list("abxn-012379.:[]%@_ABCFXüß日İ\u0131\u03c3ς。\u200d\u00ad\udce9 ")), max_size=24
) | st.text(max_size=12)


@settings(max_examples=scaled(500))
@given(HOSTISH)
def test_a_host_is_refused_or_stays_what_it_became(text):
    try:
        host = normal.host(text)
    except NonCanonical:
        return

    assert normal.host(host.name) == host
    assert normal.host(host.name.upper()) == host
    assert host.name.isascii()
    assert host.name == host.name.lower()


@settings(max_examples=scaled(200))
@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "0x{:x}", "0{:o}"]), st.integers(1, 4))
def test_every_spelling_of_an_ipv4_address_is_the_address(number, form, parts):
    octets = [number >> shift & 255 for shift in (24, 16, 8, 0)]
    last = int.from_bytes(bytes(octets[parts - 1 :]), "big")
    spelled = ".".join(form.format(part) for part in (*octets[: parts - 1], last))

    assert normal.host(spelled).name == ".".join(map(str, octets))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("", "/"), ("/", "/"), ("/a/b", "/a/b"), ("/a/", "/a/"), ("//a///b//", "/a/b/"), ("/%61%7E%2D", "/a~-"),
        ("/%c3%a9", "/%C3%A9"), ("/é", "/%C3%A9"), ("/\udcc3\udca9", "/%C3%A9"), ("/\udce9", "/%E9"),
        ("/a%20b", "/a%20b"), ("/%252e%252e/", "/%252e%252e/"), ("/a;b=c", "/a;b=c"), ("/a%3bb", "/a%3Bb"),
        ("/a%2fb", "/a%2Fb"), ("/{x}|[y]^`\"<>", "/%7Bx%7D%7C%5By%5D%5E%60%22%3C%3E"),
        ("/.git/..a/...", "/.git/..a/..."),
        ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="),
    ],
)  # fmt: skip
def test_a_path_has_one_spelling(raw, text):
    assert normal.path(raw).text == text


@pytest.mark.parametrize(
    "raw",
    ["a", "*", "http://x/", "/.", "/..", "/a/./b", "/a/../b", "/a/..", "/%2e", "/%2E%2e/a", "/.%2e/", "/a/..;x/b",
     "/..;", "/.;a", "/..%3bx", "/a%2F..", "/a%2f..%2Fb", "/..%2Fa", "/a%2f.%2fb", "/a%2f..;x", "/%2f%2e%2e", "/a\\b",
     "/a%5Cb", "/a%5cb", "/a%00", "/a\x00", "/a\nb", "/a\x7f", "/a b", "/a#b", "/%", "/%4", "/%zz", "/a%2", "/\ud800"],
)  # fmt: skip
def test_a_path_that_servers_read_differently_is_refused(raw):
    with pytest.raises(NonCanonical) as refused:
        normal.path(raw)

    assert refused.value.code is Code.NON_CANONICAL


@pytest.mark.parametrize(
    ("raw", "segments", "split"),
    [
        ("/", ("",), None),
        ("/a/", ("a", ""), None),
        ("/a%2Fb", ("a%2Fb",), ("a", "b")),
        ("/a%2f%2Fb/c", ("a%2F%2Fb", "c"), ("a", "b", "c")),
        ("/a/%2Fb", ("a", "%2Fb"), ("a", "b")),
        ("/a%2F", ("a%2F",), ("a", "")),
    ],
)
def test_an_encoded_slash_gives_a_path_two_readings(raw, segments, split):
    path = normal.path(raw)

    assert (path.segments, path.split) == (segments, split)


PATHISH = st.lists(
    st.sampled_from(["/", "/", "a", "B", ".", "..", "%2e", "%2F", "%2f", "%61", "%c3%a9", "é", "\udce9", "%", ";",
                     "%3B", "*", "\\", "%5c", " ", "#", "%00", "{", "~", "%25", "%7E", "?"]), max_size=10
).map("".join)  # fmt: skip


@settings(max_examples=scaled(800))
@given(PATHISH.map("/".__add__) | st.text(max_size=12))
def test_a_path_is_refused_or_stays_what_it_became(raw):
    try:
        path = normal.path(raw)
    except NonCanonical:
        return

    assert normal.path(path.text) == path
    assert path.text == "/" + "/".join(path.segments)
    assert "//" not in path.text
    for reading in path.readings:
        assert not {".", ".."} & {segment.partition(";")[0] for segment in reading}
        assert "" not in reading[:-1]


@pytest.mark.parametrize(
    ("raw", "text", "query"),
    [
        ("/a?b=c&d=%zz", "/a", "b=c&d=%zz"),
        ("/a?", "/a", ""),
        ("?x", "/", "x"),
        ("/a?b?c", "/a", "b?c"),
        ("/a?é\\", "/a", "%C3%A9\\"),
        ("/a?../..", "/a", "../.."),
    ],
)
def test_a_target_is_cut_at_its_first_question_mark(raw, text, query):
    path, found = normal.target(raw)

    assert (path.text, found) == (text, query)


@pytest.mark.parametrize("raw", ["/a?b c", "/a?b#c", "/a?b\r\nc", "/a?\x00", "*", "http://x/"])
def test_a_target_that_could_end_the_request_line_is_refused(raw):
    with pytest.raises(NonCanonical):
        normal.target(raw)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://Example.org", ("https", "example.org", 443, "/", "")),
        ("HTTP://example.org:8080/a?b=c", ("http", "example.org", 8080, "/a", "b=c")),
        ("https://[::1]:8443/", ("https", "::1", 8443, "/", "")),
        ("WSS://example.org/a", ("wss", "example.org", 443, "/a", "")),
        ("ws://example.org/", ("ws", "example.org", 80, "/", "")),
        ("http://0x7f.1/", ("http", "127.0.0.1", 80, "/", "")),
        ("https://example.org?x", ("https", "example.org", 443, "/", "x")),
    ],
)
def test_a_url_is_taken_apart(text, expected):
    scheme, host, port, path, query = normal.url(text)

    assert (scheme, host.name, port, path.text, query) == expected


@pytest.mark.parametrize(
    "text",
    ["example.org", "ftp://example.org/", "https:/example.org", "https:///a", "https://u:p@example.org/", "https://@x/",
     "https://x/#f", "https://x:0/", "https://x:65536/", "https://x:080/", "https://x:/", "https://x:a/", "https://::1/",
     "https://x\\@y/", "https://x/a b", " https://x/", "javascript://x/"],
)  # fmt: skip
def test_a_url_with_several_readings_is_refused(text):
    with pytest.raises(NonCanonical):
        normal.url(text)


def test_long_texts_are_not_kept_in_memory():
    before = normal._cached_path.cache_info().currsize
    normal.path("/" + "a" * 5000)

    assert normal._cached_path.cache_info().currsize == before
