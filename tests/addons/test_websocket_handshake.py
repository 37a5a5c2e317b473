"""What may ask for a WebSocket, and what may answer."""

from __future__ import annotations

import pytest
from mitmproxy import http

from addons import websocket_handshake

# The example of RFC 6455, 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASKED = {"Host": "example.org", "Upgrade": "websocket", "Connection": "keep-alive, Upgrade", "Sec-WebSocket-Key": KEY,
         "Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": "chat, superchat"}
ANSWERED = {"Upgrade": "WebSocket", "Connection": "upgrade", "Sec-WebSocket-Accept": ACCEPT}


def asked(method: str = "GET", content: bytes = b"", version: str = "HTTP/1.1", **headers: str | None) -> http.Request:
    request = http.Request.make(method, "http://example.org/", content, _changed(ASKED, headers))
    request.http_version = version
    request.headers.pop("content-length", None)
    return request


def answered(status: int = 101, **headers: str | None) -> http.Response:
    return http.Response(b"HTTP/1.1", status, b"", http.Headers(
        [(name.encode(), value.encode()) for name, value in _changed(ANSWERED, headers).items()]), b"", None, 0, 0)


def _changed(headers: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in (headers | named).items() if value is not None}


def test_a_request_as_clients_send_it_asks_for_a_websocket() -> None:
    assert websocket_handshake.asks(asked())


@pytest.mark.parametrize("request_", [
    pytest.param(asked("POST"), id="another method"),
    pytest.param(asked(content=b"x"), id="a body"),
    pytest.param(asked(version="HTTP/1.0"), id="HTTP/1.0"),
    pytest.param(asked(version="HTTP/2.0"), id="HTTP/2"),
    pytest.param(asked(**{"Transfer-Encoding": "chunked"}), id="a chunked body"),
    pytest.param(asked(Upgrade="h2c"), id="another protocol"),
    pytest.param(asked(Upgrade="websocket, h2c"), id="two protocols"),
    pytest.param(asked(Upgrade=None), id="no upgrade"),
    pytest.param(asked(Connection="keep-alive"), id="an upgrade that is not of this connection"),
    pytest.param(asked(Sec_WebSocket_Version="8"), id="another version"),
    pytest.param(asked(Sec_WebSocket_Version="13, 8"), id="two versions"),
    pytest.param(asked(Sec_WebSocket_Key=None), id="no key"),
    pytest.param(asked(Sec_WebSocket_Key="dGhlIHNhbXBsZQ=="), id="a short key"),
    pytest.param(asked(Sec_WebSocket_Key=KEY[:-3] + "R=="), id="a key with bits beyond its bytes"),
])
def test_whatever_asks_for_more_or_less_does_not(request_: http.Request) -> None:
    assert not websocket_handshake.asks(request_)


@pytest.mark.parametrize("name", ["upgrade", "sec-websocket-key", "sec-websocket-version"])
def test_nothing_is_said_twice(name: str) -> None:
    request = asked()
    request.headers.add(name, request.headers[name])

    assert not websocket_handshake.asks(request)


@pytest.mark.parametrize("response", [
    pytest.param(answered(), id="plain"),
    pytest.param(answered(Sec_WebSocket_Protocol="superchat"), id="with a subprotocol that was offered"),
])
def test_an_answer_to_this_very_request_is_accepted(response: http.Response) -> None:
    assert websocket_handshake.accepts(asked(), response)


@pytest.mark.parametrize("response", [
    pytest.param(answered(200), id="another status"),
    pytest.param(answered(Upgrade="foo"), id="another protocol"),
    pytest.param(answered(Upgrade=None), id="no protocol"),
    pytest.param(answered(Connection="close"), id="no upgrade of the connection"),
    pytest.param(answered(Sec_WebSocket_Accept=None), id="no proof"),
    pytest.param(answered(Sec_WebSocket_Accept=ACCEPT.lower()), id="a wrong proof"),
    pytest.param(answered(Sec_WebSocket_Extensions="permessage-deflate"), id="an extension"),
    pytest.param(answered(Sec_WebSocket_Protocol="other"), id="a subprotocol that was not offered"),
])
def test_any_other_answer_is_not(response: http.Response) -> None:
    assert not websocket_handshake.accepts(asked(), response)


def test_no_extension_is_offered_however_often_it_was() -> None:
    request = asked(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    request.headers.add("SEC-websocket-extensions", "x-webkit-deflate-frame")

    websocket_handshake.offer_no_extensions(request)

    assert b"xtensions" not in bytes(request.headers).lower()
    assert websocket_handshake.asks(request)
