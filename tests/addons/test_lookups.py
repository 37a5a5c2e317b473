"""Questions for names inside a process: who asks, what is looked up, what is written, and what fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from random import Random
from time import monotonic
from typing import Any

import pytest

from addons import lookups as module
from addons.connections import ClientConnection
from addons.errors import AuditUnavailable
from addons.home import Home
from addons.lookups import Lookups
from addons.mirror import Mirror
from addons.refusal_rate import PER_SECOND
from addons.told_names import ToldNames
from kernel.dns_message import Result
from tests.addons.inside import AT_EASE, Inside, inside, raw_origin
from tests.conftest import scaled

POLICY = """\
version: 1
rules:
  - {allow: api, to: ["*.example.org"], address: 127.0.0.0/8, methods: any}
  - {deny: gone, to: gone.example.org, quiet: yes}
"""
A, AAAA = 1, 28


def question(name: str, kind: int = A, number: int = 1) -> bytes:
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def result(answer: bytes | None) -> tuple[int, int] | None:
    """The code of an answer, and how many records it has; None for no answer."""
    return None if answer is None else (answer[3] & 15, int.from_bytes(answer[6:8]))


class Asking:
    """A process under Governor, and its look-ups."""

    def __init__(self, place: Inside) -> None:
        self.place, self.told, self.now = place, ToldNames(), 0.0
        mirror = Mirror(lambda: place.governed, lambda: 0.0, lambda agent: AT_EASE)
        self.lookups = Lookups(place.judge, place.lane, place.book, place.resolver, place.metrics, place.rate, mirror,
                               self.told, place.hooks.faults, lambda: self.now)

    async def __call__(self, name: str, kind: int = A, *, peer: str = "192.0.2.9") -> tuple[int, int] | None:
        return result(await self.lookups.answer(question(name, kind), ClientConnection(peer), udp=True))

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return self.place.entries("decision")


@contextlib.asynccontextmanager
async def asking(home: Home, policy: str = POLICY) -> AsyncIterator[Asking]:
    async with inside(home, policy=policy) as place:
        yield Asking(place)


async def test_an_answer_has_its_entry_first_and_is_remembered(home: Home) -> None:
    async with asking(home) as ask:
        assert await ask("a.example.org") == (Result.NOERROR, 1)

        (found,) = ask.decisions
        assert (found["stage"], found["verdict"], found["code"]) == ("dns", "allow", "ALLOW")
        assert found["in"]["record"] == "A"
        assert found["in"]["address"] == "127.0.0.1"
        assert ask.told.has("local", "a.example.org", ip_address("127.0.0.1"), monotonic())


async def test_an_answer_is_asked_for_again_once_it_is_no_longer_fresh(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    async with asking(home) as ask:
        await ask("a.example.org")
        await ask("a.example.org", AAAA)
        assert ask.place.asked == ["a.example.org"]
        now += module._FRESH_SECONDS + 1
        await ask("a.example.org")

        assert ask.place.asked == ["a.example.org"] * 2


async def test_who_waits_for_the_same_answer_gets_it_though_the_first_has_left(home: Home) -> None:
    asked, known = asyncio.Event(), asyncio.Event()

    async def slow(_: str) -> list[str]:
        asked.set()
        await known.wait()
        return ["127.0.0.1"]

    async with asking(home) as ask:
        ask.place.resolver._ask = slow  # type: ignore[method-assign]
        first = asyncio.create_task(ask("a.example.org"))
        await asked.wait()
        second = asyncio.create_task(ask("a.example.org"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        known.set()

        assert await second == (Result.NOERROR, 1)


async def test_both_families_and_several_clients_ask_once(home: Home) -> None:
    async with asking(home) as ask:
        answers = await asyncio.gather(*[ask("a.example.org", kind) for kind in (A, AAAA) * 5])

        assert answers == [(Result.NOERROR, 1), (Result.NOERROR, 0)] * 5
        assert ask.place.asked == ["a.example.org"]
        assert [entry["in"]["record"] for entry in ask.decisions] == ["A", "AAAA"]


async def test_no_equal_question_is_answered_before_the_entry_of_the_first_is_durable(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(home) as ask:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        noted = asyncio.Event()

        def note(*_: object) -> tuple[int, asyncio.Future[None]]:
            noted.set()
            return 1, written

        monkeypatch.setattr(ask.place.book, "note", note)
        first = asyncio.create_task(ask("a.example.org"))
        await noted.wait()
        second = asyncio.create_task(ask("a.example.org"))
        written.set_exception(AuditUnavailable("the disk is full"))

        assert await asyncio.gather(first, second) == [(Result.SERVFAIL, 0)] * 2


async def test_a_refused_name_is_asked_of_nobody_and_has_an_entry_each_time(home: Home) -> None:
    async with asking(home) as ask:
        for _ in range(3):
            assert await ask("data.attacker.example") == (Result.REFUSED, 0)

        assert ask.place.asked == []
        assert [entry["code"] for entry in ask.decisions] == ["DEFAULT_DENY"] * 3
        assert {entry["in"]["host"] for entry in ask.decisions} == {"attacker.example"}
        assert all("host$c" in entry["in"] for entry in ask.decisions)


async def test_refusals_beyond_the_rate_are_answered_and_counted(home: Home) -> None:
    async with asking(home) as ask:
        for _ in range(25):
            assert await ask("data.attacker.example") == (Result.REFUSED, 0)

        assert len(ask.decisions) == 20
        assert {source: each.counts for source, each in ask.place.rate.drain().items()} == {
            "local": {"DEFAULT_DENY": 5}}


async def test_refused_names_use_up_no_turn_of_refused_requests(home: Home) -> None:
    async with raw_origin() as raw, asking(home) as ask:
        for _ in range(PER_SECOND + 5):
            await ask("updates.browser.example")

        answer = await ask.place.get(f"{raw.url}/")
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"DEFAULT_DENY" in answer
        assert (ask.decisions[-1]["stage"], ask.decisions[-1]["code"]) == ("request", "DEFAULT_DENY")
        for _ in range(PER_SECOND):
            answer = await ask.place.get(f"{raw.url}/")
        assert answer.startswith(b"HTTP/1.1 429 ")
        # Both stand in the log under the agent's id.
        assert {source: each.counts for source, each in ask.place.rate.drain().items()} == {
            "local": {"DEFAULT_DENY": 5 + 1}}


async def test_an_expected_refusal_is_written_once(home: Home) -> None:
    async with asking(home) as ask:
        for _ in range(3):
            assert await ask("gone.example.org") == (Result.REFUSED, 0)

        assert [entry["rule"] for entry in ask.decisions] == ["gone"]
        assert {source: each.counts for source, each in ask.place.rate.drain().items()} == {
            "local quiet": {"RULE_DENY": 2}}


async def test_a_halted_agent_is_told_no_name(home: Home) -> None:
    async with asking(home) as ask:
        await ask.place.book.act("agents halt", "local", "it ran away", "ann", "control")

        assert await ask("a.example.org") == (Result.REFUSED, 0)
        assert ask.place.asked == []
        assert ask.decisions[-1]["code"] == "AGENT_HALTED"


async def test_whoever_must_say_who_it_is_and_cannot_is_told_no_name(home: Home) -> None:
    async with asking(home, "version: 1\nidentity: {proxy-auth: yes}\n"
                            "rules: [{allow: a, to: .example.org, methods: any}]\n") as ask:
        assert await ask("a.example.org") == (Result.REFUSED, 0)
        assert (ask.decisions[-1]["code"], ask.decisions[-1]["agent"]["id"]) == ("IDENTITY_REQUIRED", None)


@pytest.mark.parametrize(("answers", "code", "expected"), [
    (["10.0.0.1"], "PRIVATE_ADDRESS", (Result.REFUSED, 0)),
    (["8.8.8.8", "127.0.0.1"], "ALLOW", (Result.NOERROR, 1)),
])
async def test_an_answer_that_leads_only_where_nothing_may_go_is_not_told(
        home: Home, answers: list[str], code: str, expected: tuple[Result, int]) -> None:
    async with asking(home) as ask:
        ask.place.answers["a.example.org"] = answers

        assert await ask("a.example.org") == expected
        assert ask.decisions[-1]["code"] == code


@pytest.mark.parametrize(("number", "expected"), [
    pytest.param(socket.EAI_NONAME, Result.NXDOMAIN, id="no such name"),
    pytest.param(socket.EAI_NODATA, Result.NOERROR, id="no addresses"),
    pytest.param(socket.EAI_AGAIN, Result.SERVFAIL, id="no answer"),
])
async def test_a_name_that_cannot_be_looked_up_is_told_as_the_system_tells_it_and_is_no_refusal(
        home: Home, number: int, expected: Result) -> None:
    async with asking(home) as ask:
        async def absent(_: str) -> list[str]:
            raise socket.gaierror(number, "absent")

        ask.place.resolver._ask = absent  # type: ignore[method-assign]

        assert await ask("a.example.org") == (expected, 0)
        assert ask.decisions[-1]["code"] == "RESOLVE_FAILED"


async def test_a_look_up_that_raises_is_answered_as_a_failure(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(home) as ask:
        def broken(*_: object) -> None:
            raise RuntimeError("x")

        monkeypatch.setattr(module.names, "name_verdict", broken)

        assert await ask("a.example.org") == (Result.SERVFAIL, 0)
        (fault,) = await ask.place.wait_for("fault")
        assert (fault["where"], fault["error"]) == ("Question", "RuntimeError")


async def test_a_look_up_without_end_ends_in_a_failure(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.1)
    async with asking(home) as ask:
        async def hang(_: str) -> list[str]:
            await asyncio.sleep(60)
            return []

        ask.place.resolver._ask = hang  # type: ignore[method-assign]

        assert await ask("a.example.org") == (Result.SERVFAIL, 0)


async def test_without_a_log_no_name_is_told(home: Home) -> None:
    async with asking(home) as ask:
        ask.place.lane.close("test")

        assert await ask("a.example.org") == (Result.REFUSED, 0)
        assert ask.place.asked == []


async def test_on_trial_a_name_that_no_rule_allows_is_answered_and_told_as_that(home: Home) -> None:
    async with asking(home, "version: 1\nmode: observe\nuntil: 2039-01-01\nnever: [{to: never.example.org}]\n") as ask:
        ask.place.answers.update({"a.example.org": ["8.8.8.8"], "never.example.org": ["8.8.8.8"]})

        assert await ask("a.example.org") == (Result.NOERROR, 1)
        assert await ask("never.example.org") == (Result.REFUSED, 0)
        assert [(entry["code"], entry["mode"]) for entry in ask.decisions] == [
            ("DEFAULT_DENY", "observe"), ("NEVER", "enforce")]


async def test_governors_own_name_is_answered_without_asking(home: Home) -> None:
    async with asking(home) as ask:
        assert await ask("governor.internal") == (Result.NOERROR, 1)
        assert await ask("governor.internal", AAAA) == (Result.NOERROR, 0)
        assert ask.place.asked == []


async def test_what_is_no_question_stands_in_the_log_as_a_connection(home: Home) -> None:
    async with asking(home) as ask:
        connection = ClientConnection("192.0.2.9")

        assert await ask.lookups.answer(b"x", connection, udp=True) is None
        answer = await ask.lookups.answer(question("a.example")[:-1], connection, udp=True)
        assert result(answer) == (Result.FORMERR, 0)
        found = ask.place.entries("connection")
        assert [(entry["client"], entry["result"]) for entry in found] == [("192.0.2.9", "malformed")] * 2


async def test_questions_that_are_not_even_read_are_counted(home: Home) -> None:
    async with asking(home) as ask:
        for _ in range(3):
            ask.lookups.dropped(ClientConnection("192.0.2.9"))

        assert {source: each.counts for source, each in ask.place.rate.drain().items()} == {"192.0.2.9": {"BUSY": 3}}


async def test_another_policy_has_entries_of_its_own(home: Home) -> None:
    async with asking(home) as ask:
        await ask("a.example.org")
        await ask("a.example.org")
        ask.place.governed = replace(ask.place.governed, policy=replace(ask.place.governed.policy, digest="other"))
        await ask("a.example.org")

        assert len(ask.decisions) == 2


async def test_damaged_questions_are_answered_or_not_and_nothing_fails(home: Home) -> None:
    chance = Random(1)
    async with asking(home) as ask:
        for _ in range(scaled(300)):
            message = bytearray(question("a.example.org", chance.choice((A, AAAA, 65, 255))))
            for _ in range(chance.randrange(4)):
                message[chance.randrange(len(message))] = chance.randrange(256)
            answer = await ask.lookups.answer(bytes(message[:chance.randrange(1, len(message) + 1)]),
                                              ClientConnection("192.0.2.9"), udp=True)
            assert answer is None or (answer[:2] == message[:2] and answer[2] & 0x80)

        assert ask.place.entries("fault") == []
