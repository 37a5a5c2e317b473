"""The ports of TCP that a policy's grants name: what has to come to Governor to be judged at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.policy import PortRange, UrlPattern

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernel.policy import Policy, Rule


def granted(policy: Policy) -> tuple[PortRange, ...]:
    """Every port at which some rule grants something, in order, without overlaps."""
    found = sorted((span for rule in policy.rules if rule.verb.grants for span in _of(rule)),
                   key=lambda span: (span.first, span.last))
    merged: list[PortRange] = []
    for span in found:
        if merged and span.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(span.last, merged[-1].last))
        else:
            merged.append(span)
    return tuple(merged)


def _of(rule: Rule) -> Iterator[PortRange]:
    yield from rule.where.ports or ()
    for destination in rule.where.to or ():
        if isinstance(destination, UrlPattern):
            yield PortRange(destination.port, destination.port)
