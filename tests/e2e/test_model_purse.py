"""One purse of money for agents that stream answers of a model through several processes: used, never overspent."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import origins, wire
from tests.e2e.crew import crew, until
from tests.e2e.origins import serving
from tests.e2e.test_pool import whole

pytestmark = pytest.mark.e2e

INPUT_USD, OUTPUT_USD = 3, 15
"""Of a million tokens; so of a token in micro-USD."""
POLICY = f"""\
version: 1
rules:
  - allow: models
    to: 127.0.0.1
    schemes: [http]
    ports: 1-65535
    methods: [POST]
    llm: {{models: m-*, max-output-tokens: 1000}}
prices:
  127.0.0.1:
    - {{models: m-*, input: {INPUT_USD}, output: {OUTPUT_USD}, context: 200k, longest-output: 64k}}
budgets:
  - {{budget: purse, together: {{usd: 1}}, every: day, timezone: UTC, when-used: {{100%: deny}}}}
"""
AGENTS = 8


class Model(origins._Handler):
    """A model that uses nine tenths of what it may, or all of it, in turns, and says so at the end of its stream."""

    used: list[int]

    def _answer(self) -> None:
        asked = json.loads(self._body())
        size = asked["max_tokens"] * (9 + len(self.used) % 2) // 10
        self.used.append(40 * INPUT_USD + size * OUTPUT_USD)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        events: list[dict[str, Any]] = [{"choices": [{"delta": {"content": "hi"}}]} for _ in range(5)]
        events.append({"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": size}})
        for event in events:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    do_POST = _answer


def test_a_dollar_that_eight_streaming_agents_share_in_two_processes(tmp_path: Path) -> None:
    used: list[int] = []
    called = json.dumps({"model": "m-1", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
    with serving(handler=type("Told", (Model,), {"used": used})) as origin, crew(tmp_path, policy=POLICY) as both:
        request = wire.plain("POST", f"http://127.0.0.1:{origin.port}/v1/chat/completions",
                             ("Content-Type", "application/json"), ("Content-Length", str(len(called))),
                             ("Connection", "close"), body=called)
        codes: list[str | None] = []

        def agent() -> None:
            refused = 0
            # Others may still hold what they will not use.
            while refused < 3:
                answer = wire.ask(both.governor.port, request)
                assert answer is not None
                codes.append(answer.code)
                refused += answer.status != 200

        with ThreadPoolExecutor(AGENTS) as agents:
            for each in [agents.submit(agent) for _ in range(AGENTS)]:
                each.result()
        until(lambda: purse(both.governor)["held"] == 0)
        spent = purse(both.governor)["spent"]
        shares = {lane: len(both.entries(lane, "decision")) for lane in ("w0", "w1")}
        both.governor.stop()
        print(f"{len(used)} answers cost {sum(used)} micro-USD of 1000000; decisions: {shares}")

        assert spent == sum(used)
        assert 900_000 <= sum(used) <= 1_000_000
        assert min(shares.values()) > 0
        assert {code for code in codes if code} <= {"BUDGET_EXHAUSTED", "REFUSAL_RATE"}
        whole(both.governor)


def purse(governor: Any) -> dict[str, Any]:
    told = json.loads(governor.verb("pool", "status", "--json").stdout)
    return next(each for each in told["budgets"] if each["budget"] == "purse")  # type: ignore[no-any-return]
