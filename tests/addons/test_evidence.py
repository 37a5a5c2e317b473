"""What a connection shows of its client: where it came in, whence, and the sandbox that Governor made for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from addons import agents_file
from addons.agents_file import Act, changed
from addons.home import Home
from kernel.identity import digest
from kernel.policy import Identity
from kernel.verdict import Code
from tests.addons.inside import POLICY, Inside, get, inside, until_closed

NOW = "2026-01-02T03:04:05.000006Z"
ME = "http://governor.internal/me"


async def ask_from_sandbox(place: Inside, agent: str, *headers: str) -> bytes:
    """What a client in the sandbox of an agent is told of itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    while len(place.hooks.clients) == 0:
        await asyncio.sleep(0.01)
    ((_, connection),) = place.hooks.clients.items()
    connection.sandbox = agent
    writer.write(get(ME, *headers))
    try:
        return await until_closed(reader)
    finally:
        writer.close()


async def test_a_client_in_a_sandbox_is_the_agent_that_it_was_made_for(home: Home) -> None:
    async with inside(home) as place:
        answer = await ask_from_sandbox(place, "coder-1")

    assert b'"agent":"coder-1","by":"sandbox"' in answer


async def test_the_addresses_and_ports_of_a_sandbox_are_not_those_that_a_policy_names(home: Home) -> None:
    async with inside(home, policy=f"{POLICY}identity: {{source: {{127.0.0.0/8: ci}}}}\n") as place:
        answer = await ask_from_sandbox(place, "coder-1")

    assert b'"agent":"coder-1","by":"sandbox"' in answer


async def test_a_client_in_a_sandbox_cannot_be_another_by_its_token_and_no_agent_is_blamed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents_file.change(
        home.paths.agents, lambda agents: changed(agents, Act.ADD, "ci", digest("gov_1"), "root", NOW))
    counted: list[tuple[str, str]] = []

    def exceeded(source: str, code: Code) -> bool:
        counted.append((source, str(code)))
        return False

    async with inside(home) as place:
        monkeypatch.setattr(place.rate, "exceeded", exceeded)
        answer = await ask_from_sandbox(place, "coder-1", "Proxy-Authorization: Bearer gov_1")
        decisions = place.entries("decision")

    assert answer.startswith(b"HTTP/1.1 403 Forbidden by Governor: IDENTITY_CONFLICT")
    assert [each["agent"] for each in decisions] == [{"id": None, "by": "none"}]
    assert ("127.0.0.1", "IDENTITY_CONFLICT") in counted
    assert not {"ci", "coder-1"} & {source for source, _ in counted}


async def test_who_is_who_changes_at_the_next_request_of_an_open_connection(home: Home) -> None:
    asked = get(ME).replace(b"Connection: close\r\n", b"")
    async with inside(home, policy=f"{POLICY}identity: {{source: {{127.0.0.1: ci}}}}\n") as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)

        async def answer() -> str:
            writer.write(asked)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            return (await reader.readexactly(int(length.split(b":")[1]))).decode()

        before = await answer()
        policy = place.governed.policy
        networks = Identity(frozenset({"port"}), ports={place.port: "coder-1"})
        place.governed = replace(place.governed, policy=replace(policy, identity=networks))
        after = await answer()
        writer.close()

    assert '"agent":"ci","by":"source"' in before
    assert '"agent":"coder-1","by":"port"' in after
