"""What passes a proxy that is governed by two tiers."""

from __future__ import annotations

import pytest

from addons.home import Home
from addons.policy_archive import packed
from tests.addons.inside import inside, raw_origin
from tests.addons.test_limits import RULE

TEAM = """\
version: 1
tier: team
for: [{binds}]
rules:
  - {{allow: narrower, to: localhost, address: {address}, schemes: [http], ports: 1-65535, methods: any, paths: [/a]}}
"""


def tiers(binds: str = "local", address: str = "127.0.0.0/8") -> str:
    """Two tiers as one file; the second binds some agents."""
    platform = RULE.replace("version: 1\n", "version: 1\ntier: platform\n")
    return packed([platform.encode(), TEAM.format(binds=binds, address=address).encode()]).decode()


@pytest.mark.parametrize(("policy", "path", "code", "groups", "looked_up"), [
    pytest.param(tiers(), "/a", "ALLOW", ["local", "narrower"], True, id="both grant"),
    pytest.param(tiers(), "/b", "DEFAULT_DENY", [], False, id="the lower does not"),
    pytest.param(tiers("other"), "/b", "ALLOW", ["local"], True, id="the lower is for others"),
    pytest.param(tiers(address="10.0.0.0/8"), "/a", "PRIVATE_ADDRESS", ["local"], True, id="it opens another address"),
])
async def test_nothing_leaves_that_a_tier_does_not_grant(
        home: Home, policy: str, path: str, code: str, groups: list[str], looked_up: bool) -> None:
    async with raw_origin() as origin, inside(home, policy=policy) as place:
        await place.get(f"{origin.url}{path}")
        (decision,) = await place.wait_for("decision")

        assert bool(origin.received) is (code == "ALLOW")
        assert bool(place.asked) is looked_up
    assert (decision["code"], decision["groups"]) == (code, groups)
