"""What a start would take into force: the policy, and the CA that clients trust."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from addons import agents_file, authority, policy_files
from addons.agents_file import AgentsError
from addons.doctor.check import Check, State
from addons.home import Paths
from addons.policy_files import PolicyMissing
from kernel.errors import PolicyError
from kernel.findings import Severity

NEAR = timedelta(days=14)


def policy_checks(paths: Paths) -> Iterator[Check]:
    """Whether the policy of the home loads."""
    file = paths.policy if paths.policy.exists() else policy_files.shipped_policy("default")
    try:
        known = frozenset(agents_file.load(paths.agents).agents) if paths.agents.exists() else frozenset[str]()
    except AgentsError as fault:
        yield Check("agents", State.FAIL, str(fault), "restore it from a backup")
        known = frozenset()
    try:
        compiled = policy_files.load_policy([file], known)
    except (PolicyMissing, PolicyError) as fault:
        yield Check("policy", State.FAIL, str(fault).splitlines()[0], f"governor policy check {file}")
        return
    doubtful = [finding for finding in compiled.findings if finding.severity is Severity.WARNING]
    if compiled.policy.observed_until is not None:
        yield Check("policy", State.WARN, f"policy {file} only observes: nothing is refused", "mode: enforce")
    elif doubtful:
        yield Check(
            "policy", State.WARN, f"policy {file} loads, with {len(doubtful)} warnings",
            f"governor policy check {file}")
    else:
        yield Check("policy", State.OK, f"policy {file} loads without a warning")


def ca_checks(paths: Paths, now: datetime) -> Iterator[Check]:
    """Until when the CA holds."""
    if not (paths.ca / authority.CERTIFICATE_FILE).exists():
        return
    try:
        left = authority.expiry(paths.ca) - now
    except ValueError:
        yield Check("ca", State.FAIL, f"{paths.ca / authority.CERTIFICATE_FILE} is no certificate", "governor init")
        return
    if left <= timedelta():
        yield Check("ca", State.FAIL, f"the CA ended {-left.days} days ago: no client trusts it", "governor ca rotate")
    elif left < NEAR:
        yield Check("ca", State.WARN, f"the CA ends in {left.days} days", "governor ca rotate")
    else:
        yield Check("ca", State.OK, f"the CA holds for {left.days} days")
