"""Clients that do not trust our certificate: who they are, as far as they say, for the operator who is to help them."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A client chooses its name, and its agent may choose many.
_REMEMBERED = 100
_REMEMBERED_ADDRESSES = 10_000
_SHOWN = 5
_PRODUCT = re.compile(r"[A-Za-z0-9._-]{1,32}")


@dataclass(frozen=True, slots=True)
class Refuser:
    """One client: its address, its agent where that is known, and its own name for itself."""

    address: str
    agent: str | None
    name: str | None

    def __str__(self) -> str:
        who = self.name or "a client"
        return f"{who} ({self.agent}) at {self.address}" if self.agent else f"{who} at {self.address}"


@dataclass(slots=True)
class _Times:
    count: int = 0
    last: float = 0.0


def product(user_agent: str) -> str | None:
    """The product that a User-Agent begins with, where it can be shown anywhere."""
    token = user_agent.partition("/")[0].partition(" ")[0]
    return token if _PRODUCT.fullmatch(token) else None


class Rejections:
    """Counts by client, until that client's handshake succeeds."""

    def __init__(self) -> None:
        self._seen: dict[Refuser, _Times] = {}
        # Addresses whose last handshake failed: they cannot be shown a refusal inside a tunnel.
        self._distrusting: dict[str, None] = {}

    def distrusts(self, address: str) -> bool:
        """True when a client of this address did not finish its last handshake."""
        return address in self._distrusting

    def failed(self, address: str) -> None:
        """A client of this address has not finished its handshake."""
        if len(self._distrusting) < _REMEMBERED_ADDRESSES:
            self._distrusting[address] = None

    def note(self, client: Refuser, now: float) -> None:
        """Count one handshake in which the client did not take our certificate."""
        times = self._seen.get(client)
        if times is None:
            if len(self._seen) >= _REMEMBERED:
                del self._seen[min(self._seen, key=lambda each: self._seen[each].last)]
            times = self._seen[client] = _Times()
        times.count += 1
        times.last = now

    def forget(self, client: Refuser) -> None:
        """The client has taken it."""
        self._distrusting.pop(client.address, None)
        if self._seen:
            self._seen.pop(client, None)

    def hints(self) -> list[str]:
        """What an operator is told, the latest first."""
        latest = sorted(self._seen.items(), key=lambda item: -item[1].last)
        told = [f"{client} rejected our certificate {times.count} time{'s' if times.count > 1 else ''}: "
                "see certs/README.md" for client, times in latest[:_SHOWN]]
        more = len(latest) - _SHOWN
        return [*told, f"{more} more clients rejected our certificate"] if more > 0 else told
