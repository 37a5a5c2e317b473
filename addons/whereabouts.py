"""From which client addresses each agent has come lately: what is closed together with it when it is halted."""

from __future__ import annotations

from collections import OrderedDict

ADDRESSES = 16
AGENTS = 10_000


class Whereabouts:
    """The last addresses of each agent of this process, in bounds. A dictionary look-up for each request."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def saw(self, agent: str, address: str) -> None:
        """An agent has shown from this address who it is."""
        addresses = self._seen.get(agent)
        if addresses is None:
            addresses = self._seen[agent] = OrderedDict()
            if len(self._seen) > AGENTS:
                self._seen.popitem(last=False)
        if address not in addresses:
            addresses[address] = None
            if len(addresses) > ADDRESSES:
                addresses.popitem(last=False)

    def of(self, agent: str) -> tuple[str, ...]:
        """The addresses that an agent came from, in order."""
        return tuple(sorted(self._seen.get(agent, ())))
