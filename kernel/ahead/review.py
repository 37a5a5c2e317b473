"""Everything that is found in the parts of a policy that have no effect yet."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kernel.ahead.startup_review import Call, startup_findings
from kernel.findings import Finding
from kernel.policy import Policy


def ahead_findings(policy: Policy, calls: Collection[Call]) -> Iterator[Finding]:
    """The findings on model APIs; none for a policy that was not read ahead.

    `calls` are the harmless ones that are made to model APIs first.
    """
    if policy.ahead is not None:
        yield from startup_findings(policy, policy.ahead, calls)
