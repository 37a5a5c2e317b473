"""Everything that is found in the parts of a policy that have no effect yet."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kernel.ahead.cascade_review import cascade_findings
from kernel.ahead.startup_review import Call, startup_findings
from kernel.findings import Finding
from kernel.policy import Policy


def ahead_findings(
    policy: Policy, calls: Collection[Call], known: Collection[str]
) -> Iterator[Finding]:
    """The findings on cascades and model APIs; none for a policy that was not read ahead.

    `calls` are the harmless ones that are made to model APIs first, `known` the registered agents.
    """
    if policy.ahead is None:
        return
    yield from cascade_findings(policy, policy.ahead, known)
    yield from startup_findings(policy, policy.ahead, calls)
