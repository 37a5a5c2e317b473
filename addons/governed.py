"""The policy in force, with everything that was prepared from it. Replaced as one value at a reload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from addons import policy_files
from addons.client_authority import Authority
from kernel.bounds import Bounds
from kernel.disclosure import Disclosure
from kernel.findings import Finding
from kernel.host_set import HostSet, named
from kernel.match import Index
from kernel.pattern import host_pattern
from kernel.policy import HostPattern, HostReach, Policy, Rule, UrlPattern
from kernel.secret_paths import SecretPaths
from kernel.suffix import Suffixes
from kernel.trial import Mode, mode_at


@dataclass(frozen=True, slots=True)
class Governed:
    """One policy, ready to judge."""

    policy: Policy
    index: Index
    bounds: Bounds
    disclosure: Disclosure
    secret_paths: SecretPaths
    llm_hosts: HostSet
    files: tuple[Path, ...]
    findings: tuple[Finding, ...]
    constrains_method_or_path: bool
    model_rules: frozenset[str] = frozenset()
    """The grants with `llm:`: what they let pass are calls of models, wherever they go."""
    strict: bool = False
    """Whether this start enforces whatever the policy says."""
    client_authority: Authority | None = None
    """The CA that signs the certificates of clients; None where they are not asked for one."""

    @property
    def observed_until(self) -> int | None:
        """The end of the trial, in seconds since 1970; None where there is none."""
        return None if self.strict else self.policy.observed_until

    def mode(self, at: float) -> Mode:
        """The mode at a moment, in seconds since 1970."""
        return mode_at(self.observed_until, int(at))


def prepare(files: Sequence[Path], known_agents: frozenset[str], *, strict: bool = False,
            contents: Sequence[bytes] | None = None) -> Governed:
    """Check and index the policy in files, read here unless their `contents` are given; behind those of the files
    may stand what was kept with them: the CA of clients, and prices.

    Raises `PolicyError`, or `PolicyMissing` when a file is not there.
    """
    if contents is None:
        contents = [policy_files.read_file(file) for file in files]
    kept = (f"kept with the policy #{number}" for number in range(len(contents) - len(files)))
    sources = list(zip((*map(str, files), *kept), contents, strict=True))
    compiled, client_authority = policy_files.with_authority(
        policy_files.read_policy(sources, known_agents), contents)
    suffixes = Suffixes(policy_files.public_suffixes())
    secret_paths = SecretPaths(compiled.policy, policy_files.secret_path_hosts())
    models = [rule for rule in compiled.policy.rules if rule.verb.grants and rule.where.llm is not None]
    priced = (HostPattern(host, HostReach.EXACT) for host in compiled.policy.prices.hosts)
    llm_hosts = HostSet((*map(host_pattern, policy_files.llm_hosts()), *named(models), *priced))
    return Governed(compiled.policy, Index(compiled.policy), Bounds(compiled.policy),
                    Disclosure(compiled.policy, suffixes), secret_paths, llm_hosts,
                    tuple(files), tuple(compiled.findings),
                    any(_constrains(rule) for rule in compiled.policy.items),
                    frozenset(rule.name for rule in models), strict, client_authority)


def _constrains(rule: Rule) -> bool:
    return any(
        conditions.methods is not None or conditions.paths is not None or conditions.llm is not None
        or any(isinstance(destination, UrlPattern) for destination in conditions.to or ())
        for conditions in (rule.where, *rule.holes))
