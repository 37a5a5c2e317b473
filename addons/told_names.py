"""What Governor's own look-ups of names gave lately: so that a client may go to an address that it was told.

A name with many servers has other addresses at each look-up. The client that was told one dials it a moment later,
when Governor's own look-up may give another.
"""

from __future__ import annotations

from collections import OrderedDict

from kernel.facts import Address

TTL_SECONDS = 60
"""For how long a client is told that an answer holds."""
# Many clients keep an answer for longer than they are told.
KEPT_SECONDS = 300.0
_NAMES_OF_ONE = 512
_REMEMBERED = 65_536


class ToldNames:
    """The addresses that agents were told of names. What one asks for pushes out nothing that others were told."""

    def __init__(self) -> None:
        self._told: dict[str, OrderedDict[str, dict[Address, float]]] = {}
        self._count = 0

    def note(self, agent: str, name: str, addresses: tuple[Address, ...], now: float) -> None:
        """The agent is told these addresses; `now` is monotonic."""
        own = self._told.setdefault(agent, OrderedDict())
        self._count += name not in own
        known = own.pop(name, {})
        own[name] = {each: at for each, at in known.items() if now - at <= KEPT_SECONDS} | dict.fromkeys(addresses, now)
        if len(own) > _NAMES_OF_ONE:
            own.popitem(last=False)
            self._count -= 1
        if self._count > _REMEMBERED:
            self._told, self._count = {agent: own}, len(own)

    def has(self, agent: str, name: str, address: Address, now: float) -> bool:
        """True when the agent was lately told that the name has this address."""
        own = self._told.get(agent)
        known = None if own is None else own.get(name)
        at = None if known is None else known.get(address)
        return at is not None and now - at <= KEPT_SECONDS
