"""Which tiers of a policy bind an agent, and which of them have yet to grant what it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.pattern import agent_matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kernel.policy import Rule, Tier


def binds(tier: Tier, agent: str) -> bool:
    """True when what the tier says holds for the agent."""
    return tier.binds is None or any(agent_matches(pattern, agent) for pattern in tier.binds)


def asked(tiers: Sequence[Tier], agent: str) -> frozenset[int]:
    """The numbers of the tiers of which each must grant what the agent asks."""
    return frozenset(number for number, tier in enumerate(tiers) if not tier.passes and binds(tier, agent))


def lacking(needed: frozenset[int], grants: Iterable[Rule]) -> list[int]:
    """Those of the tiers of which none of these grants comes, the first one first."""
    return sorted(needed.difference([rule.tier for rule in grants]))


def suffice(needed: frozenset[int], grants: Sequence[Rule]) -> bool:
    """True when these grants let something pass: there is one, and each tier that must grant has one."""
    return bool(grants) and not lacking(needed, grants)
