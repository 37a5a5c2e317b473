"""A set of hosts, told by patterns: whether a host is in it takes one look for each of its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.clause import parents
from kernel.policy import HostPattern, HostReach, UrlPattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kernel.policy import Rule


class HostSet:
    """The hosts that at least one of the patterns covers."""

    def __init__(self, patterns: Iterable[HostPattern]) -> None:
        self._exact: set[str] = set()
        self._below: set[str] = set()
        for pattern in patterns:
            if pattern.reach is not HostReach.BELOW:
                self._exact.add(pattern.name)
            if pattern.reach is not HostReach.EXACT:
                self._below.add(pattern.name)

    def __contains__(self, name: str) -> bool:
        return name in self._exact or any(parent in self._below for parent in parents(name))


def named(rules: Iterable[Rule]) -> Iterator[HostPattern]:
    """The hosts that these rules and their exceptions name, alone or in a URL pattern."""
    for rule in rules:
        for conditions in (rule.where, *rule.holes):
            for destination in conditions.to or ():
                match destination:
                    case HostPattern():
                        yield destination
                    case UrlPattern(host=HostPattern() as pattern):
                        yield pattern
                    case _:
                        pass
