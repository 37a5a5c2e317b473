"""What `scripts/bench` rests on, without measuring anything."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from addons.policy_files import load_policy
from kernel import normal
from kernel.decide import address_stage
from kernel.facts import Agent, RequestFacts
from kernel.match import Index
from scripts.benchmark import events, report
from scripts.benchmark.codecs import BadAnswer, Http1, Http2
from scripts.benchmark.measure import AXES, Samples
from scripts.benchmark.origin import free_port
from scripts.benchmark.policies import RULES, policy

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


def test_its_policy_has_ten_thousand_rules_and_lets_the_origin_through(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(policy(["127.0.0.1", "::1"], [8001, 8002]))
    compiled = load_policy([file]).policy
    facts = RequestFacts(Agent("local", "none"), "GET", "https", normal.host("localhost"), 8002, normal.path("/"))

    judged = address_stage(Index(compiled), facts, [ip_address("127.0.0.1"), ip_address("::1")], frozenset())

    assert len(compiled.rules) == RULES
    assert judged.verdict.rule == "origin"


def test_its_json_has_the_promised_keys_and_fields():
    samples = {name: Samples(ratios=[0.9, 1.1, 1.0]) for name in ("bare", "control", "addon", "serve")}
    measured = report.as_json(dict.fromkeys(AXES, samples))

    assert set(measured) == {f"{name}.{axis}" for name in ("addon", "serve") for axis in AXES}
    assert measured["serve.h2"] == {"ratio": 1.0, "low": 0.9, "high": 1.1, "control_low": 0.9, "control_high": 1.1}


@pytest.mark.parametrize("cut", range(len(ANSWER)))
def test_an_answer_counts_when_it_is_whole_however_it_arrives(cut):
    codec = Http1(b"")

    assert [codec.feed(ANSWER[:cut]), codec.feed(ANSWER[cut:])] == [False, True]


def test_an_answer_that_is_not_200_ends_the_run():
    with pytest.raises(BadAnswer, match="403"):
        Http1(b"").feed(b"HTTP/1.1 403 Forbidden by Governor\r\n\r\n")


def test_http2_answers_are_read_to_their_end_and_settings_are_acknowledged():
    codec = Http2("localhost:1")
    codec.request()
    settings, headers, data = b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x01\x01\x04\0\0\0\x01\x88", b"\0\0\x01\0\x01\0\0\0\x01x"

    assert [codec.feed(part) for part in (settings, headers, data)] == [False, False, True]
    assert codec.replies() == b"\0\0\0\x04\x01\0\0\0\0"


@pytest.mark.parametrize("model", [False, True])
async def test_the_delay_of_every_event_is_measured_between_its_origin_and_its_client(model):
    port = free_port()
    measured = await events.measure(events.Run(port, port, warm_seconds=0.0, seconds=0.2, model=model))

    assert 0 < measured["p50_ms"] <= measured["p99_ms"] < 1000
    assert measured["requests"] >= events.STREAMS


async def test_a_stream_that_the_proxy_refuses_ends_the_run():
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with proxy:
        measured = await events.measure(events.Run(proxy.sockets[0].getsockname()[1], free_port(), 0.0, 0.2))

    assert "403" in measured["error"]
