"""Whose paths are secrets: a webhook's, a bot's, an address that was signed beforehand. Whoever has the path may act.

Of such a path nothing is kept but which globs of a policy it matched: the commitment in the log tells the path from any
other, to those who know it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.host_set import HostSet, named
from kernel.pattern import path_matches
from kernel.policy import UrlPattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kernel.facts import RequestFacts
    from kernel.policy import HostPattern, PathGlob, Policy, Rule

ANY_PATH = "/**"


class SecretPaths:
    """The secret paths of one policy: at the hosts of a table, and at those and under those rules that say so."""

    def __init__(self, policy: Policy, hosts: Iterable[HostPattern]) -> None:
        said = [rule for rule in policy.rules if rule.secret_paths]
        self._hosts = HostSet((*hosts, *named(said)))
        self._said = frozenset(rule.name for rule in said)
        self._globs = {rule.name: tuple(_globs(rule)) for rule in policy.items}

    def matched(self, facts: RequestFacts, groups: Iterable[str]) -> tuple[str, ...] | None:
        """The globs of the rules in `groups` that the path matches, `/**` where there is none; None for a path that is
        no secret."""
        held = tuple(groups)
        if facts.host.name not in self._hosts and self._said.isdisjoint(held):
            return None
        globs = (glob for name in held for glob in self._globs.get(name, ()))
        found = dict.fromkeys(glob.text for glob in globs if path_matches(glob, facts.path.segments))
        return tuple(found) or (ANY_PATH,)


def _globs(rule: Rule) -> Iterator[PathGlob]:
    yield from rule.where.paths or ()
    for item in rule.where.to or ():
        if isinstance(item, UrlPattern):
            yield item.path
