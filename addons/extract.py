"""From a mitmproxy flow to the facts a policy sees: one canonical destination, or what disagrees."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from urllib.parse import unquote

from mitmproxy import http

from addons import websocket_handshake
from kernel import normal
from kernel.errors import NonCanonical
from kernel.facts import Agent, Host, RequestFacts
from kernel.verdict import Code

# Headers by which a client asks the origin to act on another method or path than the ones judged.
_OVERRIDES = (
    b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url",
    b"x-original-uri", b"x-forwarded-uri", b"x-override-url",
)
# CGI and what came after it read "_" in a header's name as "-".
_OVERRIDING = frozenset(
    b"".join(parts)
    for name in _OVERRIDES
    for parts in product(*((b"-", b"_") if letter == ord("-") else (bytes((letter,)),) for letter in name)))
# Parameters by which a client asks the same of Google's servers (cloud.google.com/apis/docs/system-parameters).
_PARAMETER = re.compile(r"(?i)(?:^|[&;])\$(?:httpMethod|httpHeaders|ct|req)(?:[=&;]|$)")
BODYLESS = frozenset({"GET", "HEAD"})
"""Methods whose bodies mean nothing: a server that reads one acts on more than its method and path."""
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_BREAK = re.compile(rb"[\r\n\0]")
_CONTENT_TYPE = re.compile(rb"[\x21-\x7e]{0,127}")
_UPGRADED = {"http": "ws", "https": "wss"}
# Fields that whoever stands before the origin must not take out because `Connection` names them.
_NOMINATED = re.compile(rb"(?i)(?:^|[,\s])(?:host|content-length|transfer-encoding)(?:[,\s]|$)")
_HTTP_1, _HTTP_2 = (b"HTTP/1.1", b"HTTP/1.0"), (b"HTTP/2.0",)


@dataclass(frozen=True, slots=True)
class Extracted:
    """The facts, and whether the request tries to change its own method or path behind the verdict's back."""

    facts: RequestFacts
    overrides: bool


def connect_target(request: http.Request) -> tuple[Host, int]:
    """Where a CONNECT wants to go. Raises `NonCanonical`."""
    data = request.data
    found = host, port = normal.host(data.host), data.port
    if not 1 <= port <= 65535:
        raise NonCanonical(Code.NON_CANONICAL, "the port is not a number from 1 to 65535")
    # mitmproxy reads "[example.org]:443" as a name, and digits of any script as a port.
    if data.method == b"CONNECT" and data.authority and _read_authority(data.authority, port) != found:
        raise NonCanonical(Code.DESTINATION_MISMATCH, "the CONNECT can be read as another destination")
    return host, port


def method_of(request: http.Request) -> str:
    """The method in upper case; empty where it is not a token, so that it can be quoted wherever a refusal is told."""
    written = request.data.method
    return written.decode("ascii").upper() if _METHOD.fullmatch(written) else ""


def extract(flow: http.HTTPFlow, agent: Agent, tunnelled: bool, body_bytes: int, at: int = 0) -> Extracted:
    """Read the request exactly as it would be sent, with a body of this size, at this second since 1970.

    Raises `NonCanonical` with the code of the first disagreement.
    """
    data = flow.request.data
    _check_protocol(flow)
    host = normal.host(data.host)
    scheme, port = data.scheme.decode("ascii", "replace"), data.port
    headers = _Headers(data.headers.fields)
    if scheme not in normal.DEFAULT_PORTS:
        raise NonCanonical(Code.PROTOCOL_REFUSED, "only http and https are judged")
    if headers.upgrades:
        scheme = _upgraded(scheme, flow.request, body_bytes)
    for authority in _authorities(flow, headers):
        _agree(authority, host, scheme, port)
    if tunnelled:
        _check_server_name(flow, host)
    path, query = normal.target(data.path.decode("ascii", "surrogateescape"))
    method = data.method.decode("ascii").upper()
    _check_framing(headers.framing, body_bytes)
    facts = RequestFacts(agent, method, scheme, host, port, path, query, body_bytes, headers.content_type, at=at)
    overrides = headers.overrides or _PARAMETER.search(unquote(query)) is not None
    return Extracted(facts, overrides or bool(body_bytes and method in BODYLESS))


class _Headers:
    """One pass over the header fields, keeping what the checks need. Raises `NonCanonical`."""

    __slots__ = ("content_type", "framing", "hosts", "overrides", "upgrades")

    def __init__(self, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        self.hosts: list[bytes] = []
        self.framing: list[tuple[bytes, bytes]] = []
        self.content_type, self.overrides, self.upgrades = "", False, False
        # Some servers end a line at a bare CR, or begin another at a folded one: a field the verdict did not see.
        if _BREAK.search(b"".join([value for _, value in fields])):
            raise NonCanonical(Code.MALFORMED, "a header has a line break or NUL in its value")
        for name, value in fields:
            match name.lower():
                case b"host":
                    self.hosts.append(value)
                case b"content-type":
                    self.content_type = _content_type(value)
                case b"upgrade":
                    self.upgrades = True
                case b"content-length" | b"transfer-encoding" as lowered:
                    self.framing.append((lowered, value))
                case b"connection" if _NOMINATED.search(value):
                    raise NonCanonical(Code.MALFORMED, "the Connection header names a field that must stay")
                case lowered if lowered in _OVERRIDING:
                    self.overrides = True
        if len(self.hosts) > 1:
            raise NonCanonical(Code.DESTINATION_MISMATCH, "more than one Host header")


def _check_framing(framing: list[tuple[bytes, bytes]], body_bytes: int) -> None:
    # An origin that believes another length reads what comes next as the body, or the body as what comes next.
    if len(framing) > 1:
        raise NonCanonical(Code.MALFORMED, "the body's end can be read in two ways")
    for name, value in framing:
        if name == b"content-length" and value != str(body_bytes).encode():
            raise NonCanonical(Code.MALFORMED, "the Content-Length is not that of the body")


def _content_type(value: bytes) -> str:
    kind = value.partition(b";")[0].strip().lower()
    # It stands in the log as it is: no place for more than a type.
    return kind.decode("ascii") if _CONTENT_TYPE.fullmatch(kind) else ""


def _check_protocol(flow: http.HTTPFlow) -> None:
    data = flow.request.data
    # The version that a client writes decides how mitmproxy frames and routes the request.
    if data.http_version not in (_HTTP_2 if flow.client_conn.alpn == b"h2" else _HTTP_1):
        raise NonCanonical(Code.MALFORMED, "the HTTP version is not that of the connection")
    if not _METHOD.fullmatch(data.method):
        raise NonCanonical(Code.MALFORMED, "the method is not a token of at most 32 characters")
    if data.trailers:
        raise NonCanonical(Code.TRAILERS, "request trailers are refused")


def _upgraded(scheme: str, request: http.Request, body_bytes: int) -> str:
    """The scheme of a request that asks to become a WebSocket (RFC 6455 section 4.1), and asks for nothing else."""
    if body_bytes or not websocket_handshake.asks(request):
        raise NonCanonical(Code.UPGRADE_REFUSED, "only a WebSocket handshake may ask for another protocol")
    return _UPGRADED[scheme]


def _authorities(flow: http.HTTPFlow, headers: _Headers) -> list[bytes]:
    """Every place besides the dialled address in which the request names its destination."""
    authority = flow.request.data.authority
    return [*headers.hosts, authority] if authority else headers.hosts


def _agree(authority: bytes, host: Host, scheme: str, port: int) -> None:
    default = normal.OWN_PORTS[scheme]
    if authority == host.name.encode() and port == default:
        return
    if _read_authority(authority, default) != (host, port):
        raise NonCanonical(Code.DESTINATION_MISMATCH, "the Host header names another destination than the connection")


def _read_authority(authority: bytes, default_port: int) -> tuple[Host, int]:
    return normal.authority(authority.decode("latin-1"), default_port)


def _check_server_name(flow: http.HTTPFlow, host: Host) -> None:
    # The name in the client's hello is what mitmproxy would put into the hello to the origin.
    server_name = flow.client_conn.sni
    if server_name and normal.host(server_name) != host:
        raise NonCanonical(Code.DESTINATION_MISMATCH, "the TLS server name differs from the tunnel's destination")
