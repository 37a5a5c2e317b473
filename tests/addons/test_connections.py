"""What is remembered of a client connection: where its names may be dialled, and for how long."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import Client, ConnectionState, Server

from addons.connections import _REMEMBERED, PIN_SECONDS, ClientConnection, connected_peers

ONE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")


@pytest.fixture
def connection() -> ClientConnection:
    made = ClientConnection("127.0.0.1")
    made.grant("api.example.org", 443, (ONE,), 100.0)
    return made


def test_a_judged_name_needs_no_second_look_up_for_ten_seconds(connection: ClientConnection) -> None:
    assert connection.judged("api.example.org", 443, 100.0 + PIN_SECONDS) == (ONE,)
    assert connection.judged("api.example.org", 443, 100.1 + PIN_SECONDS) is None


@pytest.mark.parametrize(("name", "port"), [("api.example.org", 80), ("other.example.org", 443)])
def test_a_verdict_is_about_one_name_and_one_port(connection: ClientConnection, name: str, port: int) -> None:
    assert connection.judged(name, port, 100.0) is None
    assert not connection.may_end_at(name, port, ONE)


def test_a_dial_may_take_longer_than_a_pin_lives_and_ends_only_where_it_was_judged(
        connection: ClientConnection) -> None:
    assert connection.may_end_at("api.example.org", 443, ONE)
    assert not connection.may_end_at("api.example.org", 443, OTHER)


def test_the_last_verdict_on_a_name_decides_where_a_dial_may_end(connection: ClientConnection) -> None:
    connection.grant("api.example.org", 443, (OTHER,), 120.0)

    assert not connection.may_end_at("api.example.org", 443, ONE)


def test_names_that_an_agent_thinks_up_are_forgotten(connection: ClientConnection) -> None:
    for number in range(10 * _REMEMBERED):
        connection.grant(f"{number}.example.org", 443, (ONE,), 200.0 + number)

    assert len(connection.pins) <= _REMEMBERED


def test_names_in_use_are_kept_however_many_they_are(connection: ClientConnection) -> None:
    for number in range(2 * _REMEMBERED):
        connection.grant(f"{number}.example.org", 443, (ONE,), 200.0)

    assert all(connection.judged(f"{number}.example.org", 443, 200.0) for number in range(2 * _REMEMBERED))


def server(address: tuple[str, int], peer: tuple[Any, ...] | None, state: ConnectionState) -> Server:
    made = Server(address=address)
    made.peername, made.state = peer, state
    return made


def test_a_reused_connection_ends_where_it_was_opened() -> None:
    place = ("api.example.org", 443)
    transports = [
        Client(peername=("127.0.0.1", 5), sockname=("127.0.0.1", 6)),
        server(place, ("192.0.2.1", 443), ConnectionState.OPEN),
        server(place, ("192.0.2.1", 443), ConnectionState.OPEN),
        server(place, ("fe80::1%eth0", 443, 0, 2), ConnectionState.OPEN),
        server(place, ("192.0.2.2", 443), ConnectionState.CLOSED),
        server(place, None, ConnectionState.OPEN),
        server(("other.example.org", 443), ("192.0.2.3", 443), ConnectionState.OPEN),
        server(("api.example.org", 80), ("192.0.2.4", 80), ConnectionState.OPEN),
    ]
    handler: Any = SimpleNamespace(transports=dict.fromkeys(transports))

    assert connected_peers(handler, *place) == (ONE, ip_address("fe80::1"))
