"""Names are asked once, by Governor, and only judged answers are dialled.

mitmproxy dials `server.address`, which stays the name (so that TLS verification, connection reuse and mitmweb work by
name). The addresses judged for it travel in a context variable to the event loop's `getaddrinfo`, which answers from it
and from nothing else.
"""

from __future__ import annotations

import asyncio
import contextvars
import ipaddress
import socket
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from addons.errors import GovernorError
from kernel.facts import Address

# Less than a verdict may take: a name whose server does not answer is refused with a decision, not with a fault.
SECONDS = 4.0
# A look-up that is given up goes on in its thread for as long as the system waits. It must cost nobody else a thread,
# least of all an operator who reloads the policy.
_LOOKUPS = 32

Resolved = list[tuple[int, int, int, str, tuple[Any, ...]]]
Lookup = Callable[..., Coroutine[Any, Any, Resolved]]


class ResolveFailed(GovernorError):
    """The name has no address, or the resolver did not answer in time.

    `number` is what the system says of it (`socket.EAI_*`); None where it said nothing.
    """

    def __init__(self, problem: str, number: int | None = None) -> None:
        self.number = number
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Pin:
    """The judged addresses of one name, in the order in which they may be dialled."""

    name: str
    addresses: tuple[Address, ...]


_PINNED: contextvars.ContextVar[Pin | None] = contextvars.ContextVar("governor_pinned", default=None)


def pin(name: str, addresses: Sequence[Address]) -> None:
    """From here on this task can dial `name` at these addresses and can look up no other name."""
    _PINNED.set(Pin(name, tuple(addresses)))


class Resolver:
    """The event loop's resolver, taken over: `resolve` asks the system, everyone else gets pinned answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._own: Lookup = loop.getaddrinfo  # type: ignore[assignment]
        self._threads = ThreadPoolExecutor(_LOOKUPS, "resolver")
        self._sealed = False
        loop.getaddrinfo = self._answer  # type: ignore[method-assign,assignment]

    def seal(self) -> None:
        """Stop answering unpinned look-ups. Before this, mitmproxy may still resolve its own listeners' names."""
        self._sealed = True

    def release(self) -> None:
        """Give the loop its own resolver back."""
        self._loop.getaddrinfo = self._own  # type: ignore[method-assign,assignment]
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def resolve(self, name: str) -> tuple[Address, ...]:
        """Every address of the name, IPv6 first. Raises `ResolveFailed`."""
        try:
            answers = await asyncio.wait_for(self._ask(name), SECONDS)
        except (OSError, UnicodeError, TimeoutError) as error:
            number = error.errno if isinstance(error, socket.gaierror) else None
            raise ResolveFailed(f"the name could not be resolved: {type(error).__name__}", number) from error
        found = dict.fromkeys(ipaddress.ip_address(answer.partition("%")[0]) for answer in answers)
        if not found:
            raise ResolveFailed("the name has no address")
        return tuple(sorted(found, key=lambda address: -address.version))

    async def _ask(self, name: str) -> list[str]:
        return await self._loop.run_in_executor(self._threads, _look_up, name)

    async def _answer(self, host: Any, port: Any, **hints: Any) -> Resolved:
        pinned = _PINNED.get()
        if pinned is None and not self._sealed:
            return await self._own(host, port, **hints)
        if pinned is None or host != pinned.name:
            raise OSError(f"Governor resolved no address for {host!r} in this connection")
        return [_as_answer(address, int(port), hints) for address in pinned.addresses]


def _look_up(name: str) -> list[str]:
    return [str(answer[4][0]) for answer in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


def _as_answer(address: Address, port: int, hints: dict[str, Any]) -> tuple[int, int, int, str, tuple[Any, ...]]:
    kind, protocol = hints.get("type") or socket.SOCK_STREAM, hints.get("proto") or socket.IPPROTO_TCP
    if address.version == 4:
        return socket.AF_INET, kind, protocol, "", (str(address), port)
    return socket.AF_INET6, kind, protocol, "", (str(address), port, 0, 0)
