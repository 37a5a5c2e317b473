"""The gate: whatever other addons, operators and faults do, no request leaves but the one that was judged."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from time import monotonic
from typing import Any

import pytest
from mitmproxy import exceptions, http

from addons import refusal
from addons.home import Home
from tests.addons.inside import get, inside, raw_origin


class Keeping:
    """An addon that keeps the flows it saw, as mitmweb does."""

    def __init__(self) -> None:
        self.flows: list[http.HTTPFlow] = []

    def request(self, flow: http.HTTPFlow) -> None:
        self.flows.append(flow)


async def test_a_request_that_is_edited_while_its_name_is_looked_up_does_not_leave(home: Home) -> None:
    seen = Keeping()
    async with raw_origin() as origin, inside(home, seen) as place:
        look_up = place.resolver._ask

        async def slow(name: str) -> Any:
            await asyncio.sleep(0.05)
            seen.flows[0].request.path = "/denied/secret"
            return await look_up(name)

        place.resolver._ask = slow  # type: ignore[method-assign]
        answer = await place.get(f"{origin.url}/wanted")

        assert b"Governor: EDITED" in answer
        assert origin.received == []
        assert (await place.wait_for("outcome"))[0]["result"] == "not_sent"


class Raising:
    """An addon with one hook, which raises."""

    def __init__(self, hook: str, error: BaseException) -> None:
        self._error = error
        setattr(self, hook, self._fail)

    def _fail(self, *_: Any) -> None:
        raise self._error


# OptionsError and CancelledError are what mitmproxy's own catch-all lets through.
ERRORS = [pytest.param(exceptions.OptionsError("broken"), id="an error"),
          pytest.param(asyncio.CancelledError(), id="a cancellation")]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("hook", ["requestheaders", "request"])
async def test_a_hook_that_fails_refuses_the_request_with_an_explanation(
        home: Home, hook: str, error: BaseException) -> None:
    async with raw_origin() as origin, inside(home, Raising(hook, error)) as place:
        answer = await place.get(origin.url)

        assert b"403 Forbidden by Governor: FAULT" in answer
        assert b'"code":"FAULT"' in answer
        assert origin.received == []


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("hook", ["client_connected", "next_layer"])
async def test_a_hook_that_fails_before_a_request_closes_the_connection(
        home: Home, hook: str, error: BaseException) -> None:
    async with raw_origin() as origin, inside(home, Raising(hook, error)) as place:
        assert await place.get(origin.url) == b""
        assert origin.received == []


@pytest.mark.parametrize("error", ERRORS)
async def test_a_hook_that_fails_before_the_origin_is_dialled_stops_the_dialling(
        home: Home, error: BaseException) -> None:
    async with raw_origin() as origin, inside(home, Raising("server_connect", error)) as place:
        assert (await place.get(origin.url)).startswith(b"HTTP/1.1 502 ")
        assert origin.received == []


@pytest.mark.parametrize("error", ERRORS)
async def test_a_hook_that_fails_once_the_origin_is_connected_lets_no_byte_go_there(
        home: Home, error: BaseException) -> None:
    async with raw_origin() as origin, inside(home, Raising("server_connected", error)) as place:
        assert (await place.get(origin.url)).startswith(b"HTTP/1.1 502 ")
        assert origin.received == [b""]


async def test_an_origin_at_an_address_that_was_not_judged_gets_no_byte(home: Home) -> None:
    class Moving:
        def server_connected(self, data: Any) -> None:
            """The last verdict on this name looked at another address while this one was dialled."""
            ((_, connection),) = place.hooks.clients.items()
            connection.grant("localhost", origin.port, (IPv4Address("127.0.0.9"),), monotonic())

    async with raw_origin() as origin, inside(home, Moving()) as place:
        assert (await place.get(origin.url)).startswith(b"HTTP/1.1 502 ")
        assert origin.received == [b""]


async def test_a_refusal_that_itself_fails_ends_the_connection(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no refusal today")

    monkeypatch.setattr(refusal, "response", fail)
    async with raw_origin() as origin, inside(home) as place:
        assert await place.get(f"{origin.url}/denied/x") == b""
        assert origin.received == []


async def test_a_request_whose_method_is_no_text_is_refused_with_an_explanation(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        answer = await place.ask(get(origin.url, method="G\xffT"))

        assert answer.startswith(b"HTTP/1.1 400 Bad Request by Governor: MALFORMED\r\n")
        assert place.entries("decision")[0]["in"]["method"] is None
        assert origin.received == []


async def test_the_method_is_sent_as_it_was_judged(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        await place.ask(get(origin.url, method="get"))

        assert origin.received[0].startswith(b"GET / HTTP/1.1\r\n")


async def test_a_tunnel_to_a_port_of_another_protocol_is_closed(home: Home) -> None:
    async with inside(home) as place:
        answer = await place.ask(b"CONNECT localhost:53 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: localhost:53\r\n\r\n")

        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n"
        assert (await place.wait_for("connection"))[0]["code"] == "PROTOCOL_REFUSED"
        assert place.entries("fault") == []


async def test_a_request_that_is_edited_while_its_origin_is_dialled_does_not_leave(home: Home) -> None:
    class Editing(Keeping):
        def server_connect(self, _: Any) -> None:
            self.flows[0].request.path = "/denied/secret"

    async with raw_origin() as origin, inside(home, Editing()) as place:
        assert (await place.get(origin.url)).startswith(b"HTTP/1.1 502 ")
        assert origin.received == [b""]
        assert (await place.wait_for("fault"))[0]["error"] == "Edited"
