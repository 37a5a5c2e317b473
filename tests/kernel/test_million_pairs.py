"""Index, analyser and slow matcher agree on random pairs of policy and request: on a million of them in the full run.

Requests come from one stock, so that a pair costs little more than its judging.
"""

from __future__ import annotations

from functools import cache
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.analysis.box import Box
from kernel.analysis.language import TooHard
from kernel.analysis.region import Region, kinds
from kernel.decide import address_stage
from kernel.facts import Address, Agent, RequestFacts
from kernel.fields import Fields
from kernel.match import Index
from kernel.normal import host, path
from kernel.verdict import Action
from tests.conftest import SCALE, scaled
from tests.kernel import reference_matcher as reference
from tests.kernel.strategies import (
    ADDRESSES,
    AGENTS,
    BODIES,
    HOSTS,
    LITERALS,
    MOMENTS,
    QUERIES,
    compared_policies,
    crowded_policies,
    policies,
    tiered_policies,
)
from tests.kernel.test_analysis import REFUSED, region_of

PAIRS = 1_000_000 if SCALE >= 10 else scaled(3000)
POLICIES = 250 if SCALE >= 10 else scaled(10)
SEGMENTS = ["a", "b", "ab", "abb", "a%2Fb", "c"]
FORM = b"application/x-www-form-urlencoded"
HEADERS = [(), ((b"content-type", b"application/json"), (b"a", b"5")), ((b"content-type", FORM),)]
EVERY_KIND = policies | crowded_policies | compared_policies | tiered_policies


@cache
def stock() -> tuple[tuple[RequestFacts, Address], ...]:
    """Requests with an address each, aimed at what `strategies.policies` speak of."""
    random = Random(1)
    return tuple(_request(random) for _ in range(10_000))


def _request(random: Random) -> tuple[RequestFacts, Address]:
    name = host(random.choice([*HOSTS, *HOSTS, "z.net", *LITERALS]))
    raw = "/" + "/".join(random.choices(SEGMENTS, k=random.randrange(4))) + random.choice(["", "", "/"])
    query = random.choice(QUERIES)
    facts = RequestFacts(
        Agent(random.choice(AGENTS), "proxy-auth"), random.choice(["GET", "POST"]),
        random.choice(["https", "https", "https", "http", "wss"]), name, random.choice([443, 443, 80, 8443]), path(raw),
        query, fields=Fields(query, random.choice(HEADERS), random.choice(BODIES)), at=random.choice(MOMENTS),
    )  # fmt: skip
    return facts, name.address or random.choice(ADDRESSES)


def all_that_passes(region: Region) -> list[Box] | None:
    """What passes, in boxes; None where that takes too much work for one policy of many."""
    region.boxes.allowance.renew()
    try:
        return [piece for entry in region.grants.entries for piece in region.passing(entry.box)]
    except TooHard:
        return None


@settings(max_examples=POLICIES)
@given(EVERY_KIND, st.integers(0, 2**32))
def test_index_analyser_and_slow_matcher_agree_on_every_pair(policy, seed):
    index, region = Index(policy), region_of(policy)
    boxes, vague = region.boxes, region.shapes.space.addresses.vague
    passing = all_that_passes(region)
    for facts, address in Random(seed).choices(stock(), k=PAIRS // POLICIES):
        wanted = reference.judge(policy, facts, [address], set())

        judged = address_stage(index, facts, [address], frozenset())
        slowed = judged.verdict.action is Action.THROTTLE
        found = reference.Answer(judged.verdict.code, judged.verdict.rule, judged.groups, judged.address, slowed)
        assert found == wanted, (facts, address)
        masks = kinds(region.shapes, facts, address)
        if passing is not None and not masks[1] & vague:
            passes = any(boxes.has(box, masks, facts.agent.id, facts.path.text) for box in passing)
            assert passes is (wanted.code not in REFUSED), (facts, address)
