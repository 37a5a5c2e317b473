"""Which host the log shows in clear: one that the policy itself names; of any other only its registrable domain.

A label in front of a registrable domain can carry data (`secret.attacker.example`), and the log is read by many.
"""

from __future__ import annotations

from kernel.facts import Host
from kernel.host_set import HostSet, named
from kernel.policy import Policy
from kernel.suffix import Suffixes

_REMEMBERED = 4096


class Disclosure:
    """Answers for one policy; remembers the hosts it was asked last."""

    def __init__(self, policy: Policy, suffixes: Suffixes) -> None:
        self._suffixes = suffixes
        self._named = HostSet(named(policy.items))
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
        if host.address is not None or host.name in self._named:
            return host.name
        return self._suffixes.registrable(host) or host.name
