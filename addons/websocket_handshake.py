"""The opening of a WebSocket (RFC 6455, section 4): what may ask for one, and what may answer.

Whatever is not exactly this would be another protocol behind a verdict about WebSockets.
"""

from __future__ import annotations

import base64
import hashlib
import re

from mitmproxy import http

_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
_EXTENSIONS = "sec-websocket-extensions"


def asks(request: http.Request) -> bool:
    """True when this is a well-formed request for a WebSocket and for nothing else."""
    return (
        request.data.http_version == b"HTTP/1.1"
        and request.data.method == b"GET"
        and not request.data.content
        and "transfer-encoding" not in request.headers
        and _switches_to_websocket(request.headers)
        and request.headers.get_all("sec-websocket-version") == ["13"]
        and _key(request) is not None
    )


def offer_no_extensions(request: http.Request) -> None:
    """Have the messages sent as they are: compressed ones would be a second form that no verdict has seen.

    A compressed message can be a bomb, and its compressed form can carry what its content does not show.
    """
    if _EXTENSIONS in request.headers:
        del request.headers[_EXTENSIONS]


def accepts(request: http.Request, response: http.Response) -> bool:
    """True when this answer opens the WebSocket that the request asked for."""
    key, headers = _key(request), response.headers
    return (
        response.status_code == 101
        and response.data.http_version == b"HTTP/1.1"
        and key is not None
        and _switches_to_websocket(headers)
        and headers.get_all("sec-websocket-accept") == [_accept(key)]
        and _EXTENSIONS not in headers
        and _chosen(request, headers.get_all("sec-websocket-protocol"))
    )


def _switches_to_websocket(headers: http.Headers) -> bool:
    upgrades = [value.strip().lower() for value in headers.get_all("upgrade")]
    return upgrades == ["websocket"] and "upgrade" in _tokens(headers, "connection")


def _chosen(request: http.Request, protocols: list[str]) -> bool:
    """True when the origin chose no subprotocol, or one of those that it was offered."""
    return not protocols or (len(protocols) == 1 and protocols[0] in _listed(request.headers, "sec-websocket-protocol"))


def _tokens(headers: http.Headers, name: str) -> list[str]:
    return [token.lower() for token in _listed(headers, name)]


def _listed(headers: http.Headers, name: str) -> list[str]:
    return [part.strip() for value in headers.get_all(name) for part in value.split(",")]


def _key(request: http.Request) -> str | None:
    """The key: sixteen bytes in base64, said once."""
    keys = request.headers.get_all("sec-websocket-key")
    return keys[0] if len(keys) == 1 and _KEY.fullmatch(keys[0]) else None


def _accept(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + _ACCEPT, usedforsecurity=False).digest()).decode()
