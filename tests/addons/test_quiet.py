"""Refusals that a policy calls quiet: counted all, written once an hour, and nobody else's turns used up."""

from __future__ import annotations

from addons.home import Home
from addons.refusal_rate import PER_SECOND, RefusalRate
from tests.addons.inside import inside, raw_origin

POLICY = """\
version: 1
rules:
  - allow: all
    to: localhost
    address: 127.0.0.0/8
    schemes: [http]
    ports: 1-65535
    methods: any
  - {deny: telemetry, paths: [/t], quiet: yes}
  - {deny: loud, paths: [/l]}
"""


async def test_what_is_quiet_is_written_once_and_counted_from_then_on(home: Home) -> None:
    async with raw_origin() as raw, inside(home, policy=POLICY) as place:
        got = [await place.get(f"{raw.url}/t") for _ in range(3)]
        (decision,) = await place.wait_for("decision")

        assert all(answer.startswith(b"HTTP/1.1 403 ") and b"RULE_DENY" in answer for answer in got)
        assert (decision["rule"], decision["code"]) == ("telemetry", "RULE_DENY")
        (source, counted), = place.rate.drain().items()
        assert (source, counted.counts) == ("local quiet", {"RULE_DENY": 2})
        assert 'governor_rule_hits_total{rule="telemetry"} 3.0' in place.metrics.render()[0].decode()


async def test_what_is_quiet_uses_up_no_turn_of_what_is_not(home: Home) -> None:
    async with raw_origin() as raw, inside(home, policy=POLICY) as place:
        for _ in range(PER_SECOND):
            await place.get(f"{raw.url}/t")

        assert (await place.get(f"{raw.url}/l")).startswith(b"HTTP/1.1 403 ")


def test_after_an_hour_a_quiet_refusal_is_written_again() -> None:
    now = [0.0]
    rate = RefusalRate(lambda: now[0])

    assert [rate.is_repeated("a", "r"), rate.is_repeated("a", "r"), rate.is_repeated("b", "r")] == [False, True, False]
    now[0] = 3600.0
    assert not rate.is_repeated("a", "r")
