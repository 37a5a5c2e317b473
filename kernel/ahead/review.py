"""Everything that is found in the parts of a policy that have no effect yet."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kernel.ahead.cascade_review import cascade_findings
from kernel.findings import Finding
from kernel.policy import Policy


def ahead_findings(policy: Policy, known: Collection[str]) -> Iterator[Finding]:
    """The findings on cascades; none for a policy that was not read ahead. `known` are the registered agents."""
    if policy.ahead is not None:
        yield from cascade_findings(policy, policy.ahead, known)
