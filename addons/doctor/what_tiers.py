"""Which sandboxes `governor run` can make here."""

from __future__ import annotations

from collections.abc import Iterator

from addons.doctor.check import Check, State
from addons.sandbox import tiers
from addons.sandbox.tiers import Tier

_HOLDS = {
    Tier.NETNS: "whatever the command sends is judged or refused",
    Tier.BWRAP: "no network but the proxy, which the command must be told of",
}


def checks() -> Iterator[Check]:
    """The two that hold a command, each with what it lacks."""
    lacking = {tier: tiers.possible(tier) for tier in _HOLDS}
    for tier, holds in _HOLDS.items():
        if not lacking[tier]:
            yield Check(f"tier {tier}", State.OK, f"tier {tier} works: {holds}")
            continue
        other = " (tier bwrap works: no transparent mode)" if tier is Tier.NETNS and not lacking[Tier.BWRAP] else ""
        for missing in lacking[tier]:
            yield Check(f"tier {tier}", State.FAIL, f"tier {tier}: {missing.what}{other}", missing.fix)
