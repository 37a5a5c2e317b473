"""Names: asked once, by Governor; dialled at judged addresses only."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any

import pytest

from addons import resolver
from addons.home import Home
from addons.resolver import ResolveFailed, Resolver
from tests.addons.inside import get, inside, raw_origin


@pytest.fixture
async def names() -> AsyncIterator[Resolver]:
    taken = Resolver(asyncio.get_running_loop())
    yield taken
    taken.release()


def answering(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def answer(name: str, port: Any, type: int) -> list[Any]:
        return [(socket.AF_INET, type, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


async def test_a_name_resolves_to_each_of_its_addresses_once_and_ipv6_first(
        names: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "192.0.2.1", "2001:db8::1", "192.0.2.1", "fe80::1%eth0")

    assert await names.resolve("api.example.org") == tuple(
        map(ip_address, ("2001:db8::1", "fe80::1", "192.0.2.1")))


async def test_a_name_without_addresses_fails(names: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch)

    with pytest.raises(ResolveFailed):
        await names.resolve("api.example.org")


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), UnicodeError("label too long"), OSError("broken")])
async def test_a_look_up_that_fails_says_so_without_the_name(
        names: Resolver, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    with pytest.raises(ResolveFailed, match=type(error).__name__) as failed:
        await names.resolve("secret.example.org")
    assert "secret" not in str(failed.value)


async def test_look_ups_that_hang_leave_the_loops_other_threads_free(
        names: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: Any, **__: Any) -> None:
        time.sleep(0.5)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(resolver, "SECONDS", 0.05)
    hanging = [names.resolve(f"slow-{number}.example.org") for number in range(30)]
    failures = await asyncio.gather(*hanging, return_exceptions=True)
    started = time.monotonic()
    await asyncio.to_thread(int)

    assert all(isinstance(failure, ResolveFailed) for failure in failures)
    assert time.monotonic() - started < 0.3


async def test_a_sealed_loop_looks_nothing_up_but_what_is_pinned_in_this_task(names: Resolver) -> None:
    loop = asyncio.get_running_loop()
    names.seal()

    async def pinned() -> Any:
        resolver.pin("api.example.org", [ip_address("192.0.2.1"), ip_address("2001:db8::1")])
        with pytest.raises(OSError, match="resolved no address"):
            await loop.getaddrinfo("other.example.org", 443)
        return await loop.getaddrinfo("api.example.org", 443, type=socket.SOCK_STREAM)

    found = await asyncio.create_task(pinned())

    assert [(family, address) for family, _, _, _, address in found] == [
        (socket.AF_INET, ("192.0.2.1", 443)), (socket.AF_INET6, ("2001:db8::1", 443, 0, 0))]
    with pytest.raises(OSError, match="resolved no address"):
        await loop.getaddrinfo("api.example.org", 443)


async def test_an_open_loop_still_resolves_its_own_listeners(names: Resolver) -> None:
    assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)


async def test_a_name_whose_server_is_silent_is_refused_with_a_decision(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(name: str) -> Any:
        await asyncio.sleep(60)

    assert resolver.SECONDS < 5.0, "the verdict's own deadline must not come first"
    monkeypatch.setattr(resolver, "SECONDS", 0.05)
    async with inside(home) as place:
        place.resolver._ask = silent  # type: ignore[method-assign]

        assert b"502 Bad Gateway by Governor: RESOLVE_FAILED" in await place.get("http://localhost/")
        assert [entry["code"] for entry in place.entries("decision")] == ["RESOLVE_FAILED"]
        assert place.entries("fault") == []


async def test_every_answer_of_a_name_is_judged_and_one_bad_one_refuses(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        place.answers["localhost"] = ["127.0.0.1", "169.254.169.254"]

        assert b"Governor: PRIVATE_ADDRESS" in await place.get(origin.url)
        assert origin.received == []


async def test_a_name_that_changes_its_address_is_dialled_where_it_was_judged(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        first = await place.get(origin.url)
        place.answers["localhost"] = ["10.0.0.1"]
        second = await place.get(origin.url)

        assert first.startswith(b"HTTP/1.1 200 ")
        assert b"Governor: PRIVATE_ADDRESS" in second
        assert place.asked == ["localhost", "localhost"]


async def test_one_client_connection_asks_a_name_once(home: Home) -> None:
    async with raw_origin() as origin, inside(home) as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        for _ in range(3):
            writer.write(get(origin.url).replace(b"Connection: close\r\n", b""))
            await reader.readuntil(b"\r\n\r\nok")
        writer.close()

        assert place.asked == ["localhost"]
        assert len(origin.received) == 1


async def test_a_name_that_nothing_allows_is_not_asked(home: Home) -> None:
    async with inside(home) as place:
        assert b"Governor: DEFAULT_DENY" in await place.get("http://secret-data.evil.example.net/")
        assert place.asked == []
