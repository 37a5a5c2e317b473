"""Calls of models through a real proxy: what they may cost is held, what they did cost is charged, to the micro-USD."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import brotli
import pytest
import zstandard
from mitmproxy import http

from addons.home import Home
from kernel import entry
from kernel.prices import Price
from kernel.recorded import Judging
from kernel.replay import Replay
from tests.addons.inside import Inside, inside
from tests.addons.logs import KERNEL, entries
from tests.addons.model_provider import Answer, Provider, chunked, post, provider
from tests.kernel.llm_answers import ANTHROPIC, CHAT, GEMINI, RESPONSES, sse

PRICE = Price(3_000_000, 300_000, 3_750_000, 15_000_000, 200_000, 64_000)
HOSTS = ["api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com", "llm.example.org"]
_PRICED = """\
  {}:
    - models: m-*
      input: 3
      cached: 0.3
      written: 3.75
      output: 15
      context: 200k
      longest-output: 64k
"""
MODELS = f"""\
version: 1
rules:
  - allow: models
    to: [{", ".join(HOSTS)}]
    address: 127.0.0.0/8
    schemes: [http]
    ports: 1-65535
    methods: any
prices:
{"".join(map(_PRICED.format, ["openai", "anthropic", "google", "llm.example.org"]))}"""
PURSE = """\
budgets:
  - budget: purse
    each: {usd: %s}
    together: {usd: %s, tokens: 40M}
    every: day
    timezone: UTC
    when-used: {100%%: deny}
"""
BUDGET = MODELS + PURSE % (1, 1)
NAMED = MODELS.replace("    methods: any\n", "    methods: any\n    llm: {models: m-*}\n")
CAPPED = MODELS.replace("    methods: any\n", "    methods: any\n    llm: {models: m-*, max-output-tokens: 1000}\n")
OPENAI = ("api.openai.com", "/v1/chat/completions")
CALLED = {"model": "m-1", "messages": [{"role": "user", "content": "hi"}]}
EACH = [
    pytest.param(OPENAI, CALLED | {"stream": True}, CHAT, (120, 45, 20, 0), id="chat"),
    pytest.param(("api.openai.com", "/v1/responses"), {"model": "m-1", "input": "hi", "stream": True}, RESPONSES,
                 (328, 52, 300, 0), id="responses"),
    pytest.param(("api.anthropic.com", "/v1/messages"), CALLED | {"stream": True, "max_tokens": 2000}, ANTHROPIC,
                 (1072, 503, 600, 400), id="messages"),
    pytest.param(("generativelanguage.googleapis.com", "/v1beta/models/m-1:streamGenerateContent?alt=sse"),
                 {"contents": [{"parts": [{"text": "hi"}]}]}, GEMINI, (40, 95, 8, 0), id="generateContent"),
    pytest.param(("llm.example.org", "/openai/v1/chat/completions"), CALLED | {"stream": True}, CHAT, (120, 45, 20, 0),
                 id="another host"),
]
CODINGS = {
    "gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.ZstdCompressor().compress,
}


def cost(taken: int, given: int, cached: int, written: int) -> int:
    millionths = ((taken - cached - written) * PRICE.input + cached * PRICE.cached + written * PRICE.written
                  + given * PRICE.output)
    return -(-millionths // 10**6)


async def ask(place: Inside, there: Provider, to: tuple[str, str], called: dict[str, Any] | bytes,
              *headers: str) -> bytes:
    place.answers |= {host: ["127.0.0.1"] for host in HOSTS}
    body = called if isinstance(called, bytes) else json.dumps(called).encode()
    return await place.ask(post(to[0], there.port, to[1], body, *headers))


def account(place: Inside, unit: str = "usd", agent: str = "local") -> tuple[int, int]:
    """What is spent and held."""
    found = place.book.state.account(("purse", unit, agent))
    return found.spent, found.held


async def settled(place: Inside, count: int = 1) -> list[dict[str, Any]]:
    """The outcomes once there are so many; what stands in the log then decides again as it did."""
    outcomes = await place.wait_for("outcome", count)
    judging, replay = Judging(place.governed.policy), Replay("main", lambda digest: judging, str(KERNEL["digest"]))
    replay.begin_after([entry.policy_load(judging.policy.digest, (), place.governed.mode(0), KERNEL)])
    for each in entries(place.home):
        replay.take(each)
    assert (replay.found.first_divergence, replay.found.not_replayable) == (None, {})
    return outcomes


def in_pieces(content: bytes, size: int = 7) -> list[bytes]:
    return [content[at:at + size] for at in range(0, len(content), size)]


@pytest.mark.parametrize(("to", "called", "events", "used"), EACH)
@pytest.mark.parametrize("coding", ["", *CODINGS])
async def test_a_stream_costs_what_it_says_and_passes_as_it_came(
        home: Home, to: tuple[str, str], called: dict[str, Any], events: list[Any], used: tuple[int, int, int, int],
        coding: str) -> None:
    content = CODINGS.get(coding, bytes)(sse(events, comments=True))
    async with provider() as there, inside(home, policy=NAMED + PURSE % (1, 1)) as place:
        there.answer = lambda asked: Answer(in_pieces(content), coding=coding)
        answer = await ask(place, there, to, called)
        (outcome,) = await settled(place)

        assert chunked(answer) == content
        usage, tokens = outcome["usage"], used[0] + used[1]
        assert (usage["input"], usage["output"], usage["cached"], usage["written"]) == used
        assert (usage["tokens"], usage["usd"]) == (tokens, cost(*used))
        assert account(place) == account(place, agent="") == (cost(*used), 0)
        assert account(place, "tokens", "") == (tokens, 0)
        assert outcome["tools"]["look_up"] >= 1


async def test_a_host_that_has_prices_costs_what_it_says_by_whatever_rule_it_is_reached(home: Home) -> None:
    async with provider() as there, inside(home, policy=BUDGET) as place:
        there.answer = lambda asked: Answer([sse(CHAT)])
        await ask(place, there, ("llm.example.org", "/v1/chat/completions"), CALLED | {"stream": True})
        await settled(place)
        answer = await ask(place, there, ("llm.example.org", "/v1/batches"), CALLED)

        assert account(place) == (cost(120, 45, 20, 0), 0)
        assert b"x-governor-code: PROTOCOL_REFUSED\r\n" in answer


async def test_an_answer_in_one_short_piece_costs_what_it_says(home: Home) -> None:
    said = {"model": "m-1", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 4}}
    async with provider() as there, inside(home, policy=BUDGET) as place:
        there.answer = lambda asked: Answer([json.dumps(said).encode()], content_type="application/json")
        await ask(place, there, OPENAI, CALLED)
        (outcome,) = await settled(place)

        assert outcome["usage"]["usd"] == cost(10, 4, 0, 0)
        assert account(place) == (cost(10, 4, 0, 0), 0)


@pytest.mark.parametrize(("answer", "share"), [
    pytest.param(Answer([sse(CHAT[:3], done=False)], breaks_off=True), "all", id="it breaks off"),
    pytest.param(Answer([sse(CHAT[:-1])]), "all", id="it says nothing of usage"),
    pytest.param(Answer([b"data: " + b"x" * (2**20 + 1), sse(CHAT)]), "all", id="an event without an end"),
    pytest.param(Answer([sse(CHAT)], coding="gzip"), "all", id="it is not coded as it says"),
    pytest.param(Answer([sse(CHAT)], coding="never-heard-of"), "all", id="a coding that is not known"),
    pytest.param(Answer([b"{}"], 500, "application/json"), "all", id="a failure of the provider"),
    pytest.param(Answer([b'{"error":{}}'], 429, "application/json"), "nothing", id="too many requests"),
    pytest.param(Answer([b'{"error":{}}'], 400, "application/json"), "nothing", id="a bad request"),
])
async def test_what_is_not_reported_costs_the_bound_unless_nothing_was_generated(
        home: Home, answer: Answer, share: str) -> None:
    async with provider() as there, inside(home, policy=BUDGET) as place:
        there.answer = lambda asked: answer
        await ask(place, there, OPENAI, CALLED | {"stream": True, "max_tokens": 100})
        await settled(place)
        (decision,) = place.entries("decision")

        bound = decision["llm"]["bound"]["usd"]
        assert decision["draws"][0]["amount"] == bound > 0
        assert account(place) == (bound if share == "all" else 0, 0)


async def test_a_report_above_the_bound_is_charged_at_the_bound_and_said_to_be_over(home: Home) -> None:
    usage = {"prompt_tokens": 10**6, "completion_tokens": 10**6}
    async with provider() as there, inside(home, policy=BUDGET) as place:
        there.answer = lambda asked: Answer([sse([CHAT[0], {"choices": [], "usage": usage}])])
        await ask(place, there, OPENAI, CALLED | {"stream": True, "max_tokens": 100})
        (outcome,) = await settled(place)
        (decision,), (fault,) = place.entries("decision"), await place.wait_for("fault")

        bound = decision["llm"]["bound"]
        assert account(place) == (bound["usd"], 0)
        assert outcome["usage"]["over"] == {"tokens": 2 * 10**6 - bound["tokens"], "usd": 18 * 10**6 - bound["usd"]}
        assert (fault["where"], fault["error"]) == ("spend", "OverBound")


async def test_a_stream_is_asked_to_tell_and_the_cap_of_the_policy_is_put_in(home: Home) -> None:
    async with provider() as there, inside(home, policy=CAPPED + PURSE % (1, 1)) as place:
        there.answer = lambda asked: Answer([sse(CHAT)])
        await ask(place, there, OPENAI, CALLED | {"stream": True})
        await settled(place)
        (decision,) = place.entries("decision")

        assert there.asked == [CALLED | {"stream": True, "max_completion_tokens": 1000,
                                         "stream_options": {"include_usage": True}}]
        assert decision["llm"]["changed"] == ["max_completion_tokens", "stream_options.include_usage"]
        assert (decision["llm"]["max_output"], decision["llm"]["model"]) == (1000, "m-1")


async def test_without_a_budget_the_cap_of_the_policy_alone_is_put_in(home: Home) -> None:
    async with provider() as there, inside(home, policy=CAPPED) as place:
        there.answer = lambda asked: Answer([sse(CHAT)])
        for cap in (500, 5000):
            await ask(place, there, OPENAI, CALLED | {"stream": True, "max_tokens": cap})
        await settled(place, 2)

        assert [asked["max_tokens"] for asked in there.asked] == [500, 1000]
        assert "stream_options" not in there.asked[0]


@pytest.mark.parametrize("policy", [MODELS, "mode: observe\nuntil: 2099-12-31\n" + BUDGET],
                         ids=["no budget", "on trial"])
async def test_without_a_budget_or_on_trial_every_byte_stays(home: Home, policy: str) -> None:
    body = b' {"model" : "m-1",\n "stream":true, "never_heard_of": [1.50], "messages":[]}\r\n'
    async with provider() as there, inside(home, policy=policy) as place:
        there.answer = lambda asked: Answer([sse(CHAT)])
        await ask(place, there, OPENAI, body)
        (outcome,) = await settled(place)

        assert there.bodies == [body]
        assert outcome["usage"]["usd"] == cost(120, 45, 20, 0)
        assert place.entries("decision")[0]["llm"]["unbounded"] == "it has a member that is not known here"


@pytest.mark.parametrize(("to", "called", "headers", "code"), [
    pytest.param(OPENAI, b'{"model":"m-1","model":"m-2"}', (), "UNDECODABLE", id="two readings"),
    pytest.param(OPENAI, CALLED, ("Content-Type: text/plain",), "UNDECODABLE", id="two content types"),
    pytest.param(OPENAI, CALLED | {"model": "unknown"}, (), "PROTOCOL_REFUSED", id="a model without a price"),
    pytest.param(OPENAI, CALLED | {"tools": [{"type": "web_search"}]}, (), "PROTOCOL_REFUSED", id="a tool of others"),
    pytest.param(("api.openai.com", "/v1/batches"), {"input_file_id": "f"}, (), "PROTOCOL_REFUSED", id="a batch"),
    pytest.param(("api.openai.com", "/v1/chat%2Fcompletions"), CALLED, (), "PROTOCOL_REFUSED", id="an odd path"),
    pytest.param(("api.openai.com", "/v1/models"), {}, ("X-HTTP-Method-Override: GET",), "METHOD_OVERRIDE",
                 id="an override"),
    pytest.param(OPENAI, CALLED, ("Content-Digest: sha-256=:AA==:",), "PROTOCOL_REFUSED", id="a digest of the body"),
    pytest.param(("api.anthropic.com", "/v1/messages"), CALLED | {
        "max_tokens": 9000, "n": 1}, (), "PROTOCOL_REFUSED", id="a member of another language"),
])
async def test_what_has_no_bound_is_refused_under_a_budget(
        home: Home, to: tuple[str, str], called: Any, headers: tuple[str, ...], code: str) -> None:
    async with provider() as there, inside(home, policy=BUDGET) as place:
        answer = await ask(place, there, to, called, *headers)

        assert f"x-governor-code: {code}\r\n".encode() in answer
        assert there.heads == []
        assert account(place) == (0, 0)


@pytest.mark.parametrize("body", [
    pytest.param(b'{"model":"m-1","Model":"dear","messages":[]}', id="in another case"),
    pytest.param(b'{"model":"m-1","model\\u0000":"dear","messages":[]}', id="behind a NUL"),
    pytest.param(b'{"model":"m-1","messages":[],"MODEL":"dear","user":"' + b"x" * 2**20 + b'"}', id="in a long body"),
])
async def test_a_model_that_another_reader_may_not_find_is_not_granted(home: Home, body: bytes) -> None:
    async with provider() as there, inside(home, policy=NAMED) as place:
        answer = await ask(place, there, OPENAI, body)

        assert b"x-governor-code: DEFAULT_DENY\r\n" in answer
        assert there.heads == []


async def test_a_method_that_is_overridden_is_refused_where_it_could_spend(home: Home) -> None:
    path = "/v1beta/models/m-1:generateContent"
    async with provider() as there, inside(home, policy=BUDGET) as place:
        place.answers |= {host: ["127.0.0.1"] for host in HOSTS}
        url = f"http://{HOSTS[2]}:{there.port}{path}"
        answer = await place.get(url, "X-HTTP-Method-Override: POST")

        assert b"x-governor-code: METHOD_OVERRIDE\r\n" in answer
        in_query = await place.get(f"{url}?%24httpMethod=POST&$req=%7B%7D")
        assert b"x-governor-code: METHOD_OVERRIDE\r\n" in in_query
        assert (await place.get(url)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/responses/input_tokens"])
async def test_what_is_free_passes_and_costs_nothing(home: Home, path: str) -> None:
    async with provider() as there, inside(home, policy=BUDGET) as place:
        await ask(place, there, ("api.anthropic.com", path), CALLED)
        await settled(place)

        assert there.asked == [CALLED]
        assert account(place) == (0, 0)


async def test_a_packed_body_is_sent_unpacked_where_it_must_change(home: Home) -> None:
    packed = gzip.compress(json.dumps(CALLED | {"max_tokens": 9000}).encode())
    async with provider() as there, inside(home, policy=CAPPED) as place:
        await ask(place, there, OPENAI, packed, "Content-Encoding: gzip")
        await settled(place)
        (decision,) = place.entries("decision")

        assert there.asked == [CALLED | {"max_tokens": 1000}]
        assert b"content-encoding" not in there.heads[0].lower()
        assert decision["llm"]["changed"] == ["max_tokens", "content-encoding"]


@pytest.mark.parametrize("header", ["Content-Encoding", "content_encoding"])
async def test_under_a_budget_a_packed_body_is_sent_unpacked_though_nothing_in_it_changes(
        home: Home, header: str) -> None:
    """Bytes may be JSON as they are, and other JSON once they are unpacked: an origin must not choose."""
    body = json.dumps(CALLED | {"max_tokens": 100}).encode()
    async with provider() as there, inside(home, policy=BUDGET) as place:
        await ask(place, there, OPENAI, brotli.compress(body), f"{header}: br")
        await settled(place)
        (decision,) = place.entries("decision")

        assert there.bodies == [body]
        assert b"encoding" not in there.heads[0].lower()
        assert decision["llm"]["changed"] == ["content-encoding"]


async def test_a_long_body_that_waits_in_a_file_is_changed_too(home: Home) -> None:
    called = {"model": "m-1", "max_tokens": 9000, "messages": [{"role": "user", "content": "x" * 3 * 2**20}]}
    async with provider() as there, inside(home, policy=CAPPED) as place:
        await ask(place, there, OPENAI, called)
        await settled(place)

        assert there.asked == [called | {"max_tokens": 1000}]


async def test_an_answer_is_cut_down_to_what_is_left_and_then_refused(home: Home) -> None:
    async with provider() as there, inside(home, policy=MODELS + PURSE % ("0.05", 1)) as place:
        # Nothing is told, so each call costs what was held for it.
        there.answer = lambda asked: Answer([b"{}"], content_type="application/json")
        answers = [await ask(place, there, OPENAI, CALLED | {"max_tokens": 1500}) for _ in range(3)]
        await settled(place, 2)
        first, second = (asked["max_tokens"] for asked in there.asked)

        assert first > second >= 256
        assert b"x-governor-code: BUDGET_EXHAUSTED\r\n" in answers[2]
        assert place.entries("decision")[2]["reason"] == "what is left of 0.05 USD in a day does not pay for this"
        assert 50_000 - 15 < account(place)[0] <= 50_000


async def test_a_purse_that_many_streams_share_is_used_and_never_overspent(home: Home) -> None:
    """At most one micro-USD less than a token's price may remain beside what an answer of the least size would cost."""
    used: list[int] = []

    def streamed(asked: dict[str, Any]) -> Answer:
        size = asked["max_completion_tokens"] * (9 + len(used) % 2) // 10
        usage = {"prompt_tokens": 40, "completion_tokens": size}
        used.append(cost(40, size, 0, 0))
        return Answer([sse(CHAT[:1], done=False), sse([{"choices": [], "usage": usage}])], pause=0.002)

    async with provider() as there, inside(home, policy=CAPPED + PURSE % (1, 1)) as place:
        there.answer = streamed

        async def agent() -> None:
            while b" 200 Said" in await ask(place, there, OPENAI, CALLED | {"stream": True}):
                spent, held = account(place)
                assert spent + held <= 10**6

        await asyncio.gather(*(agent() for _ in range(8)))
        await settled(place, len(used))

        assert account(place) == (sum(used), 0)
        assert 900_000 <= sum(used) <= 10**6


async def test_a_call_that_is_cut_costs_its_bound(home: Home) -> None:
    policy = BUDGET.replace("    methods: any\n", "    methods: any\n    max-response: 100\n")
    async with provider() as there, inside(home, policy=policy) as place:
        there.answer = lambda asked: Answer([sse(CHAT[:3], done=False), sse(CHAT)], pause=0.01)
        await ask(place, there, OPENAI, CALLED | {"stream": True, "max_tokens": 100})
        (outcome,) = await settled(place)

        assert (outcome["result"], "usage" in outcome) == ("cut", False)
        assert account(place)[0] == place.entries("decision")[0]["llm"]["bound"]["usd"]


class _Seen:
    """Another addon, which has the flow in its hands."""

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self.flow = flow


async def test_an_edit_while_the_call_is_judged_is_not_hidden_by_its_change(home: Home) -> None:
    seen = _Seen()

    async def edited(name: str) -> list[str]:
        seen.flow.request.path = "/v1/files"
        return ["127.0.0.1"]

    async with provider() as there, inside(home, seen, policy=CAPPED) as place:
        place.resolver._ask = edited  # type: ignore[method-assign]
        answer = await ask(place, there, OPENAI, CALLED)

        assert b"x-governor-code: EDITED\r\n" in answer
        assert there.heads == []


async def test_calls_that_follow_one_another_on_one_connection_are_each_charged(home: Home) -> None:
    async with provider() as there, inside(home, policy=BUDGET) as place:
        there.answer = lambda asked: Answer([sse(CHAT)])
        place.answers |= {host: ["127.0.0.1"] for host in HOSTS}
        call = post(OPENAI[0], there.port, OPENAI[1], json.dumps(CALLED | {"stream": True}).encode())
        answer = await place.ask(call.replace(b"Connection: close\r\n", b"") * 2 + call)
        outcomes = await settled(place, 3)

        assert answer.count(b"HTTP/1.1 200 Said") == 3
        assert [each["usage"]["usd"] for each in outcomes] == [cost(120, 45, 20, 0)] * 3
        assert account(place) == (3 * cost(120, 45, 20, 0), 0)
