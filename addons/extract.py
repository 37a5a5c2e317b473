"""From a mitmproxy flow to the facts a policy sees: one canonical destination, or what disagrees."""

from __future__ import annotations

from dataclasses import dataclass

from mitmproxy import http

from kernel import normal
from kernel.errors import NonCanonical
from kernel.facts import Agent, Host, RequestFacts
from kernel.verdict import Code

# Headers by which a client asks the origin to act on another method or path than the ones judged.
_OVERRIDES = frozenset({
    b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url",
    b"x-original-uri", b"x-forwarded-uri", b"x-override-url",
})
_BODYLESS = frozenset({"GET", "HEAD"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Extracted:
    """The facts, and whether the request tries to change its own method or path behind the verdict's back."""

    facts: RequestFacts
    overrides: bool


def connect_target(request: http.Request) -> tuple[Host, int]:
    """Where a CONNECT wants to go. Raises `NonCanonical`."""
    return normal.host(request.data.host), request.data.port


def extract(flow: http.HTTPFlow, agent: Agent, tunnelled: bool) -> Extracted:
    """Read the request exactly as it would be sent. Raises `NonCanonical` with the code of the first disagreement."""
    data = flow.request.data
    host = normal.host(data.host)
    scheme, port = data.scheme.decode("ascii", "replace"), data.port
    headers = _Headers(data.headers.fields)
    if scheme not in _DEFAULT_PORTS:
        raise NonCanonical(Code.PROTOCOL_REFUSED, "only http and https are judged")
    _check_protocol(flow, headers)
    for authority in _authorities(flow, headers):
        _agree(authority, host, scheme, port)
    if tunnelled:
        _check_server_name(flow, host)
    path, query = normal.target(data.path.decode("ascii", "surrogateescape"))
    body = data.content or b""
    method = data.method.decode("ascii", "replace").upper()
    facts = RequestFacts(agent, method, scheme, host, port, path, query, len(body), headers.content_type)
    return Extracted(facts, headers.overrides or bool(body and method in _BODYLESS))


class _Headers:
    """One pass over the header fields, keeping what the checks need."""

    __slots__ = ("content_type", "hosts", "overrides", "upgrade")

    def __init__(self, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        self.hosts: list[bytes] = []
        self.content_type, self.overrides, self.upgrade = "", False, False
        for name, value in fields:
            match name.lower():
                case b"host":
                    self.hosts.append(value)
                case b"content-type":
                    self.content_type = value.partition(b";")[0].strip().lower().decode("latin-1")
                case b"upgrade":
                    self.upgrade = True
                case lowered if lowered in _OVERRIDES:
                    self.overrides = True


def _check_protocol(flow: http.HTTPFlow, headers: _Headers) -> None:
    if headers.upgrade:
        raise NonCanonical(Code.UPGRADE_REFUSED, "this version lets no protocol upgrade through")
    if flow.request.data.trailers:
        raise NonCanonical(Code.TRAILERS, "request trailers are refused")
    if len(headers.hosts) > 1:
        raise NonCanonical(Code.DESTINATION_MISMATCH, "more than one Host header")


def _authorities(flow: http.HTTPFlow, headers: _Headers) -> list[bytes]:
    """Every place besides the dialled address in which the request names its destination."""
    authority = flow.request.data.authority
    return [*headers.hosts, authority] if authority else headers.hosts


def _agree(authority: bytes, host: Host, scheme: str, port: int) -> None:
    default = _DEFAULT_PORTS[scheme]
    if authority == host.name.encode() and port == default:
        return
    if normal.authority(authority.decode("latin-1"), default) != (host, port):
        raise NonCanonical(Code.DESTINATION_MISMATCH, "the Host header names another destination than the connection")


def _check_server_name(flow: http.HTTPFlow, host: Host) -> None:
    # The name in the client's hello is what mitmproxy would put into the hello to the origin.
    server_name = flow.client_conn.sni
    if server_name and normal.host(server_name) != host:
        raise NonCanonical(Code.DESTINATION_MISMATCH, "the TLS server name differs from the tunnel's destination")
