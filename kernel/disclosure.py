"""Which host the log shows in clear: one that the policy itself names; of any other only its registrable domain.

A label in front of a registrable domain can carry data (`secret.attacker.example`), and the log is read by many.
"""

from __future__ import annotations

from collections.abc import Iterable

from kernel.facts import Host
from kernel.policy import HostPattern, HostReach, Policy, Rule, UrlPattern
from kernel.suffix import Suffixes

_REMEMBERED = 4096


class Disclosure:
    """Answers for one policy; remembers the hosts it was asked last."""

    def __init__(self, policy: Policy, suffixes: Suffixes) -> None:
        self._suffixes = suffixes
        self._exact: set[str] = set()
        self._below: set[str] = set()
        for pattern in _host_patterns(policy.items):
            if pattern.reach is not HostReach.BELOW:
                self._exact.add(pattern.name)
            if pattern.reach is not HostReach.EXACT:
                self._below.add(pattern.name)
        self._shown: dict[str, str] = {}

    def shown(self, host: Host) -> str:
        """The text that stands for this host in the log."""
        shown = self._shown.get(host.name)
        if shown is None:
            if len(self._shown) >= _REMEMBERED:
                self._shown.clear()
            shown = self._shown[host.name] = self._decide(host)
        return shown

    def _decide(self, host: Host) -> str:
        if host.address is not None or host.name in self._exact or self._is_below(host.name):
            return host.name
        return self._suffixes.registrable(host) or host.name

    def _is_below(self, name: str) -> bool:
        labels = name.split(".")
        return any(".".join(labels[start:]) in self._below for start in range(1, len(labels)))


def _host_patterns(rules: Iterable[Rule]) -> Iterable[HostPattern]:
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
