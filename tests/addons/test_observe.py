"""A policy on trial: what its rules refuse passes and is written down; what is worse than its rules is refused."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from addons.home import Home
from kernel.transition import passes
from tests.addons.inside import get, inside, raw_origin

TRIAL = "version: 1\nmode: observe\nuntil: 2099-12-31\n"
RULES = """\
rules:
  - allow: all
    to: [localhost, "*.example.org"]
    address: 127.0.0.0/8
    schemes: [http]
    ports: 1-65535
    methods: reads
    max-url: 200
    max-request: 100
    max-response: 1
  - {deny: denied, paths: ["/denied/**"], quiet: yes}
never:
  - {paths: ["/never/**"], why: no}
"""


def code(answer: bytes) -> str:
    _, _, after = answer.partition(b"x-governor-code: ")
    return after.split(b"\r\n")[0].decode() or answer.split(b" ")[1].decode()


def modes(decisions: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(each["verdict"], each["code"], each["mode"]) for each in decisions]


@pytest.mark.parametrize(("path", "expected"), [
    ("/denied/x", "RULE_DENY"), (f"/{'x' * 300}", "URL_TOO_LONG"), ("/", "ALLOW"),
])
async def test_what_rules_refuse_passes_and_is_written_down(home: Home, path: str, expected: str) -> None:
    async with raw_origin() as raw, inside(home, policy=TRIAL + RULES) as place:
        answer = await place.get(f"{raw.url}{path}")

        assert answer.endswith(b"\r\nok")
        (decision,) = await place.wait_for("decision")
        assert modes([decision]) == [("allow" if expected == "ALLOW" else "deny", expected, "observe")]
        await place.wait_for("outcome")


async def test_an_inside_address_that_nothing_was_allowed_at_is_refused(home: Home) -> None:
    async with raw_origin() as raw, inside(home, policy=TRIAL + RULES) as place:
        answer = await place.ask(get(f"{raw.url}/", method="DELETE"))

        # The grant for this inside address is one for reading.
        assert code(answer) == "PRIVATE_ADDRESS"
        assert modes(await place.wait_for("decision")) == [("deny", "PRIVATE_ADDRESS", "enforce")]
        assert raw.received == []


async def test_a_deny_hides_no_inside_address(home: Home) -> None:
    policy = TRIAL + "rules: [{deny: everything}]\n"
    async with raw_origin() as raw, inside(home, policy=policy) as place:
        answer = await place.get(f"{raw.url}/")

        assert code(answer) == "PRIVATE_ADDRESS"
        assert modes(await place.wait_for("decision")) == [("deny", "PRIVATE_ADDRESS", "enforce")]
        assert raw.received == []


@pytest.mark.parametrize(("path", "headers", "expected"), [
    ("/never/x", [], "NEVER"), ("/", ["X-HTTP-Method-Override: DELETE"], "METHOD_OVERRIDE"),
    ("/denied/x", ["X-HTTP-Method-Override: DELETE"], "METHOD_OVERRIDE"),
])
async def test_what_is_worse_than_a_rule_is_refused(
    home: Home, path: str, headers: list[str], expected: str
) -> None:
    async with raw_origin() as raw, inside(home, policy=TRIAL + RULES) as place:
        answer = await place.get(f"{raw.url}{path}", *headers)

        assert code(answer) == expected
        assert modes(await place.wait_for("decision")) == [("deny", expected, "enforce")]
        assert raw.received == []


async def test_a_body_larger_than_a_rule_says_passes(home: Home) -> None:
    policy = TRIAL + RULES.replace("methods: reads", "methods: any")
    body = b"x" * 100_000
    head = get("http://localhost:PORT/", f"Content-Length: {len(body)}", method="POST")
    async with raw_origin() as raw, inside(home, policy=policy) as place:
        answer = await place.ask(head.replace(b"PORT", str(raw.port).encode()) + body)

        assert answer.endswith(b"\r\nok")
        assert modes(await place.wait_for("decision")) == [("deny", "BODY_TOO_LARGE", "observe")]
        assert body in raw.received[0]


async def test_a_trial_ends_by_itself(home: Home) -> None:
    async with raw_origin() as raw, inside(home, policy=TRIAL + RULES) as place:
        assert (await place.get(f"{raw.url}/denied/x")).endswith(b"\r\nok")
        place.judge._clock = lambda: datetime(2100, 1, 1, tzinfo=UTC).timestamp()

        assert code(await place.get(f"{raw.url}/denied/x")) == "RULE_DENY"
        assert [mode for *_, mode in modes(await place.wait_for("decision", 2))] == ["observe", "enforce"]


async def test_what_is_open_when_the_trial_ends_is_asked_for_again(home: Home) -> None:
    policy = TRIAL.replace("2099-12-31", _soon()) + RULES
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
    async with raw_origin(head) as raw, inside(home, policy=policy) as place:
        answer = await place.get(f"{raw.url}/denied/x")

        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        (outcome,) = await place.wait_for("outcome")
        assert outcome["code"] == "OUT_OF_HOURS"


def _soon() -> str:
    return datetime.fromtimestamp(int(time.time()) + 3, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_an_option_can_only_be_stricter(home: Home) -> None:
    async with raw_origin() as raw, inside(home, policy=TRIAL + RULES) as place:
        place.governed = replace(place.governed, strict=True)

        assert code(await place.get(f"{raw.url}/denied/x")) == "RULE_DENY"


async def test_an_agent_can_ask_for_the_mode(home: Home) -> None:
    async with inside(home, policy=TRIAL + RULES) as place:
        assert b'"mode":"observe"' in await place.get("http://governor.internal/me")


async def test_a_single_deny_on_trial_refuses_nothing(home: Home) -> None:
    rules = RULES.replace("    max-response: 1\n", "")
    policy = "version: 1\n" + rules.replace("quiet: yes", "observe: yes, expires: 2099-12-31")
    async with raw_origin() as raw, inside(home, policy=policy) as place:
        assert (await place.get(f"{raw.url}/denied/x")).startswith(b"HTTP/1.1 200")

        (decision,) = await place.wait_for("decision")
        assert modes([decision]) == [("allow", "ALLOW", "enforce")]
        assert decision["groups"] == ["all", "denied"]
        assert decision["reason"] == "rule all; observed: denied"


@pytest.mark.parametrize(("mode", "open_after"), [("observe", True), ("enforce", False)])
def test_a_start_after_a_crash_looks_for_the_outcome_of_what_passed(mode: str, open_after: bool) -> None:
    assert passes({"verdict": "deny", "code": "RULE_DENY", "mode": mode}) is open_after
