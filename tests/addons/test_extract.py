"""From a flow to the facts: one canonical destination, and everything refused that an origin may read otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.test import tflow

from addons.extract import connect_target, extract, method_of
from kernel.errors import NonCanonical
from kernel.facts import Agent, RequestFacts
from kernel.verdict import Code

AGENT = Agent("coder-1", "proxy-auth")


def made(url: str = "http://api.example.org/a", method: str = "GET", body: bytes = b"", server_name: str | None = None,
         headers: tuple[tuple[bytes, bytes], ...] | None = None, **data: Any) -> http.HTTPFlow:
    """A flow as mitmproxy hands it over: HTTP/1.1 with the URL's own Host header, where nothing else is said."""
    request = http.Request.make(method, url, body)
    request.data.headers.fields = ((b"Host", request.pretty_host.encode()),) if headers is None else headers
    request.data.authority = b""
    for name, value in data.items():
        setattr(request.data, name, value)
    flow = tflow.tflow(req=request)
    flow.client_conn.sni = server_name
    return flow


def facts(flow: http.HTTPFlow, tunnelled: bool = False) -> RequestFacts:
    return extract(flow, AGENT, tunnelled, len(flow.request.data.content or b"")).facts


def refusal(flow: http.HTTPFlow, tunnelled: bool = False) -> Code:
    with pytest.raises(NonCanonical) as refused:
        extract(flow, AGENT, tunnelled, len(flow.request.data.content or b""))
    return refused.value.code


def over_http_2(**data: Any) -> http.HTTPFlow:
    flow = made("https://api.example.org/a", http_version=b"HTTP/2.0", **data)
    flow.client_conn.alpn = b"h2"
    return flow


def test_a_request_is_read_in_its_canonical_form() -> None:
    read = facts(made("https://API.example.org./a//%62?q=1", "post", b"four",
                      headers=((b"Host", b"api.EXAMPLE.org"), (b"content-type", b"Text/HTML ; charset=utf-8"))))

    assert (read.agent, read.method, read.scheme, read.host.name, read.port) == (
        AGENT, "POST", "https", "api.example.org", 443)
    assert (read.path.text, read.query, read.body_bytes, read.content_type) == ("/a/b", "q=1", 4, "text/html")


@pytest.mark.parametrize(("url", "said"), [
    pytest.param("http://api.example.org/", b"api.example.org", id="the name"),
    pytest.param("http://api.example.org/", b"API.Example.Org.", id="upper case and a trailing dot"),
    pytest.param("http://api.example.org/", b"api.example.org:80", id="the scheme's own port"),
    pytest.param("https://api.example.org/", b"api.example.org:443", id="the port of https"),
    pytest.param("http://api.example.org:8080/", b"api.example.org:8080", id="another port"),
    pytest.param("http://[2001:db8::1]/", b"[2001:DB8:0::1]", id="another spelling of an IPv6 address"),
    pytest.param("http://127.0.0.1/", b"0x7f.1", id="another spelling of an IPv4 address"),
    pytest.param("http://127.0.0.1/", b"[::ffff:127.0.0.1]", id="an IPv4 address inside IPv6"),
])
def test_a_host_header_agrees_in_any_spelling_of_the_destination(url: str, said: bytes) -> None:
    assert facts(made(url, headers=((b"Host", said),)))
    assert facts(made(url, headers=(), authority=said))


@pytest.mark.parametrize("said", [
    pytest.param(b"gist.example.org", id="another name"),
    pytest.param(b"api.example.org.evil.example.net", id="a longer name"),
    pytest.param(b"api.example.org:8080", id="another port"),
    pytest.param(b"api.example.org:443", id="the port of another scheme"),
    pytest.param(b"192.0.2.1", id="an address"),
])
def test_a_host_header_that_names_another_destination_is_refused(said: bytes) -> None:
    assert refusal(made(headers=((b"Host", said),))) is Code.DESTINATION_MISMATCH
    assert refusal(made(authority=said)) is Code.DESTINATION_MISMATCH


@pytest.mark.parametrize("said", [
    b"", b":80", b"api.example.org:", b"api.example.org:080", b"api.example.org:0", b"user@api.example.org",
    b"api.example.org, gist.example.org", b"api.example.org/x", b"http://api.example.org", b"2001:db8::1",
    b"[::1%25lo]", b"api.example.org\tx", b"api.example.org\xc3\xa9",
])
def test_a_host_header_that_is_no_authority_is_refused(said: bytes) -> None:
    assert refusal(made(headers=((b"Host", said),))) in (Code.NON_CANONICAL, Code.DESTINATION_MISMATCH)


def test_two_host_headers_are_refused_even_if_they_agree() -> None:
    said = ((b"Host", b"api.example.org"), (b"hOST", b"api.example.org"))

    assert refusal(made(headers=said)) is Code.DESTINATION_MISMATCH


@pytest.mark.parametrize(("server_name", "code"), [
    pytest.param("api.example.org", None, id="the tunnel's name"),
    pytest.param("API.example.ORG", None, id="in another case"),
    pytest.param(None, None, id="none"),
    pytest.param("gist.example.org", Code.DESTINATION_MISMATCH, id="another name"),
    pytest.param("secret data", Code.NON_CANONICAL, id="no name at all"),
])
def test_the_tls_server_name_must_be_the_tunnels_destination(server_name: str | None, code: Code | None) -> None:
    flow = made("https://api.example.org/", server_name=server_name)

    if code is None:
        assert facts(flow, tunnelled=True).host.name == "api.example.org"
    else:
        assert refusal(flow, tunnelled=True) is code


def test_the_server_name_for_the_proxy_itself_is_no_destination() -> None:
    assert facts(made(server_name="proxy.example.org"))


@pytest.mark.parametrize("value", [b"a\rHost: b", b"a\r\n b", b"a\nb", b"a\0b"])
def test_a_header_that_a_server_may_read_as_two_is_refused(value: bytes) -> None:
    assert refusal(made(headers=((b"Host", b"api.example.org"), (b"X", value)))) is Code.MALFORMED


@pytest.mark.parametrize("method", [b"", b"G\xffT", b"GET /hidden HTTP/1.1", b"GET\t", b"G(T", b"X" * 33, b"GET\n"])
def test_a_method_that_is_no_token_is_refused_and_quoted_nowhere(method: bytes) -> None:
    flow = made(method="GET")
    flow.request.data.method = method

    assert refusal(flow) is Code.MALFORMED
    assert method_of(flow.request) == ""


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/3.0", b"HTTP/1.7", b"HTTP/0.9"])
def test_a_version_that_the_connection_does_not_speak_is_refused(version: bytes) -> None:
    assert refusal(made(http_version=version)) is Code.MALFORMED


def test_http_1_0_and_real_http_2_are_read() -> None:
    assert facts(made(http_version=b"HTTP/1.0", headers=()))
    assert facts(over_http_2(authority=b"api.example.org", headers=()))
    assert facts(over_http_2(authority=b"", headers=((b"host", b"api.example.org"),)))


@pytest.mark.parametrize("path", [
    b"http://gist.example.org/", b"*", b"//x\\..", b"/a b", b"/%zz", b"/a/../b", b"/\xff%00",
])
def test_a_target_that_has_no_one_reading_is_refused(path: bytes) -> None:
    assert refusal(over_http_2(path=path)) is Code.NON_CANONICAL


def test_an_upgrade_is_refused_in_any_spelling() -> None:
    said = ((b"Host", b"api.example.org"), (b"UPGRADE", b"H2C, foo"))

    assert refusal(made(headers=said)) is Code.UPGRADE_REFUSED


def test_request_trailers_are_refused() -> None:
    assert refusal(over_http_2(trailers=http.Headers(x="y"))) is Code.TRAILERS


def test_a_scheme_that_is_not_governed_is_refused() -> None:
    assert refusal(made(scheme=b"ftp")) is Code.PROTOCOL_REFUSED


@pytest.mark.parametrize(("header", "overrides"), [
    (b"X-HTTP-Method-Override", True), (b"x_http_method_override", True), (b"X-Http_Method", True),
    (b"X-Original-URL", True), (b"X-Rewrite-Url", True), (b"X-Forwarded-For", False), (b"Accept", False),
])
def test_a_header_that_overrides_method_or_path_is_noticed(header: bytes, overrides: bool) -> None:
    flow = made(headers=((b"Host", b"api.example.org"), (header, b"DELETE")))

    assert extract(flow, AGENT, False, 0).overrides is overrides


@pytest.mark.parametrize(("query", "overrides"), [
    ("$httpMethod=POST", True), ("a=1&%24http%4dethod=POST", True), ("$req=%7B%7D&alt=sse", True),
    ("$ct=application/x-protobuf", True), ("$httpHeaders=x", True), ("a=$httpMethod", False),
    ("$filter=a&$alt=json&key=k", False), ("", False),
])
def test_a_parameter_with_which_google_reads_another_request_is_noticed(query: str, overrides: bool) -> None:
    assert extract(made(path=f"/v1?{query}".encode()), AGENT, False, 0).overrides is overrides


@pytest.mark.parametrize(("method", "body", "overrides"), [
    ("GET", b"x", True), ("HEAD", b"x", True), ("GET", b"", False), ("POST", b"x", False),
])
def test_a_body_where_none_belongs_counts_as_an_override(method: str, body: bytes, overrides: bool) -> None:
    assert extract(made(method=method, body=body), AGENT, False, len(body)).overrides is overrides


@pytest.mark.parametrize(("said", "kept"), [
    (b"application/json; secret=1", "application/json"), (b"x" * 128, ""), (b"a b", ""), (b"a\xff", ""),
    (b"\x1b[2J", ""),
])
def test_only_a_plain_type_gets_into_the_facts(said: bytes, kept: str) -> None:
    flow = made(headers=((b"Host", b"api.example.org"), (b"Content-Type", said)))

    assert facts(flow).content_type == kept


@pytest.mark.parametrize("authority", [
    b"[api.example.org]:443", b"api.example.org:\xef\xbc\x94\xef\xbc\x94\xef\xbc\x93", b"api.example.org:0443",
])
def test_a_connect_that_mitmproxy_alone_can_read_is_refused(authority: bytes) -> None:
    request = http.Request.make("CONNECT", "https://api.example.org/")
    request.data.authority = authority

    with pytest.raises(NonCanonical):
        connect_target(request)


@pytest.mark.parametrize(("host", "name"), [("API.Example.org.", "api.example.org"), ("2130706433", "127.0.0.1")])
def test_a_connect_names_its_destination_canonically(host: str, name: str) -> None:
    request = http.Request.make("GET", "https://x.example.org:8443/")
    request.data.host = host

    found, port = connect_target(request)

    assert (found.name, port) == (name, 8443)


@pytest.mark.parametrize("port", [0, 65536])
def test_a_tunnel_leads_to_no_port_that_does_not_exist(port: int) -> None:
    request = http.Request.make("CONNECT", "http://api.example.org/")
    request.data.port = port

    with pytest.raises(NonCanonical, match="port"):
        connect_target(request)


@pytest.mark.parametrize(("body", "headers"), [
    pytest.param(b"", [(b"content-length", b"10")], id="a length without a body"),
    pytest.param(b"body and more", [(b"content-length", b"4")], id="a length shorter than the body"),
    pytest.param(b"body", [(b"content-length", b"+4")], id="a length with a sign"),
    pytest.param(b"body", [(b"content-length", b"4"), (b"Content-Length", b"4")], id="two lengths"),
    pytest.param(b"body", [(b"content-length", b"4"), (b"transfer-encoding", b"chunked")], id="a length and chunks"),
    pytest.param(b"", [(b"connection", b"close, Content-Length")], id="a length that may be taken out"),
    pytest.param(b"", [(b"connection", b"host")], id="a Host header that may be taken out"),
])
def test_a_body_whose_end_is_not_certain_is_refused(body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    assert refusal(made(method="POST", body=body, headers=(*headers,))) is Code.MALFORMED


@pytest.mark.parametrize("header", [
    (b"content-length", b"4"), (b"transfer-encoding", b"chunked"), (b"connection", b"keep-alive, x-host, hostage"),
])
def test_a_body_whose_end_is_certain_passes(header: tuple[bytes, bytes]) -> None:
    assert facts(made(method="POST", body=b"body", headers=(header,))).body_bytes == 4
