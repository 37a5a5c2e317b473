"""What a policy says that this version cannot enforce yet, read in full: `governor policy check --ahead` keeps it.

A policy that holds any of this never governs. Times are in seconds. Amounts of money and tokens stand in its budgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Mcp:
    """`mcp:` of a rule: tool names, and what their arguments must be, as it was written."""

    tools: tuple[str, ...] | None
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Git:
    """`git:` of a rule: globs of repositories that may be fetched and pushed, and of the references of a push."""

    fetch: tuple[str, ...]
    push: tuple[str, ...]
    refs: tuple[str, ...] | None
    force: bool
    delete: bool


@dataclass(frozen=True, slots=True)
class GraphQl:
    """`graphql:` of a rule: kinds of operations, and globs of the fields at their root."""

    operations: frozenset[str] | None
    fields: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Clause:
    """What one rule or never item says that has no effect yet. None and empty: nothing said."""

    mcp: Mcp | None = None
    git: Git | None = None
    graphql: GraphQl | None = None
    contains: frozenset[str] = frozenset()
    credentials: frozenset[str] = frozenset()
    redact: frozenset[str] = frozenset()
    add_headers: tuple[tuple[str, str], ...] = ()
    tunnel: bool = False
    approvers: tuple[str, ...] = ()
    hold_seconds: int | None = None
    valid_seconds: int | None = None

    @property
    def is_open(self) -> bool:
        """True where the rule has a condition that this version cannot judge."""
        judged_later = (self.mcp, self.git, self.graphql)
        return any(each is not None for each in judged_later) or bool(self.contains or self.credentials)


@dataclass(frozen=True, slots=True)
class Ahead:
    """Everything of a policy that this version cannot enforce. `clauses` are by the name of their rule."""

    clauses: Mapping[str, Clause] = field(default_factory=dict)

    @property
    def open_rules(self) -> frozenset[str]:
        """The rules with a condition that this version cannot judge."""
        return frozenset(name for name, clause in self.clauses.items() if clause.is_open)
