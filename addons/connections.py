"""What Governor remembers of one client connection, from its first byte to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import monotonic

from mitmproxy import connection, http
from mitmproxy.proxy.server import ConnectionHandler

from addons.client_certificates import ClientCertificate
from kernel.facts import Address, Host
from kernel.verdict import Code

# Longer than a verdict may take to reach its connection attempt (the 5 s deadline), so that no flow is dialled at
# addresses that were judged for another one.
PIN_SECONDS = 10.0
# Above this, what is too old to be dialled is forgotten: an agent chooses how many names it asks for.
_REMEMBERED = 64


@dataclass(slots=True)
class Pinned:
    """The addresses at which one destination may be dialled for this client, and when that was last judged."""

    addresses: tuple[Address, ...]
    used: float


def _never_paused(_: float) -> None:
    """A replay has nobody to read from."""


@dataclass(slots=True)
class ClientConnection:
    """One client's TCP connection.

    `tunnel` is the destination of its CONNECT once that was granted. `handshake_failed` says that a client of this
    address rejected our certificate last. `ending` is what the log has to say of a connection beyond its requests,
    `recorded` that it has said it. `begun` are the requests of which the headers have come, and no verdict yet.
    `socks` says that the client speaks SOCKS5 with us: all that it sends lies in a tunnel. `redirected_to` is where a
    client was going that knows no proxy, `arrived_at` where its connection ended instead: at a listener of ours.

    Times are monotonic. `since`: when it was opened, or had its last request or answer. `head_since` and
    `handshake_since`: when the head or the handshake began that is not complete; `head_parts`: in how many reads the
    head has come. `close_at`: when it ends, whatever its client does.
    """

    peer: str
    socks: bool = False
    redirected_to: tuple[Address, int] | None = None
    arrived_at: tuple[Address, int] | None = None
    requests: int = 0
    open_flows: set[str] = field(default_factory=set)
    tunnel: tuple[Host, int] | None = None
    credentials: list[str] = field(default_factory=list)
    handshake_failed: bool = False
    ending: tuple[str, Code | None] | None = None
    pins: dict[tuple[str, int], Pinned] = field(default_factory=dict)
    recorded: bool = False
    begun: dict[str, http.HTTPFlow] = field(default_factory=dict)
    progress: dict[str, tuple[int, float]] = field(default_factory=dict)
    """How much of a body had come, and since when it is no more, by the id of its flow."""
    since: float = field(default_factory=monotonic)
    head_since: float | None = None
    head_parts: int = 0
    handshake_since: float | None = None
    entered: bool = False
    """Something has come through its tunnel."""
    close_at: float | None = None
    pause: Callable[[float], None] = _never_paused
    """Reads nothing from the client for so many seconds."""
    gone: bool = False
    """Its client has left, or was made to leave."""
    agent: str | None = None
    client: str | None = None
    """The product that the client says it is."""
    address: Address | None = None
    """Whence it comes: `peer`, where that is an address."""
    certificate: ClientCertificate | None = None
    """What its client has proved to be in TLS with Governor itself."""
    sandbox: str | None = None
    """The agent for which Governor has made the sandbox that it comes from."""
    fitting: set[str] = field(default_factory=set)
    """Names that were found to have the address to which the client was going."""

    @property
    def for_origins(self) -> bool:
        """True when what comes from here on is meant for an origin: the client does not know that it speaks with us."""
        return self.tunnel is not None or self.redirected_to is not None

    @property
    def listener_port(self) -> int | None:
        """The port at which Governor listened for it."""
        return None if self.arrived_at is None else self.arrived_at[1]

    def fits(self, name: str) -> None:
        """The address to which the client was going is one of this name's."""
        if len(self.fitting) >= _REMEMBERED:
            self.fitting.clear()
        self.fitting.add(name)

    def end(self, result: str, code: Code | None = None) -> None:
        """Say why the connection ends. What is said first stands."""
        if self.ending is None:
            self.ending = (result, code)

    def forget(self, flow: http.HTTPFlow) -> None:
        """A request that has begun has its verdict, or will never have one."""
        self.begun.pop(flow.id, None)
        if self.progress:
            self.progress.pop(flow.id, None)

    def may_end_at(self, name: str, port: int, address: Address) -> bool:
        """True when the last verdict on this destination looked at this address; dialling may have taken long."""
        pinned = self.pins.get((name, port))
        return pinned is not None and address in pinned.addresses

    def judged(self, name: str, port: int, now: float) -> tuple[Address, ...] | None:
        """The addresses judged here within the last seconds, or None when the name has to be asked (again)."""
        pinned = self.pins.get((name, port))
        if pinned is None or now - pinned.used > PIN_SECONDS:
            return None
        return pinned.addresses

    def grant(self, name: str, port: int, addresses: tuple[Address, ...], now: float) -> None:
        """Let connections to this destination be dialled at these addresses."""
        if len(self.pins) >= _REMEMBERED:
            self.pins = {place: pinned for place, pinned in self.pins.items() if now - pinned.used <= PIN_SECONDS}
        self.pins[name, port] = Pinned(addresses, now)


class Clients:
    """The open client connections of this process, by mitmproxy's handler and by its client."""

    def __init__(self) -> None:
        self._of_handlers: dict[ConnectionHandler, ClientConnection] = {}
        # mitmproxy's layers know their client and no handler.
        self._of_clients: dict[str, ConnectionHandler] = {}

    def __len__(self) -> int:
        return len(self._of_handlers)

    def add(self, handler: ConnectionHandler, opened: ClientConnection) -> None:
        self._of_handlers[handler], self._of_clients[handler.client.id] = opened, handler

    def remove(self, handler: ConnectionHandler) -> ClientConnection | None:
        """Forget a connection that has ended, and return it."""
        self._of_clients.pop(handler.client.id, None)
        return self._of_handlers.pop(handler, None)

    def get(self, handler: ConnectionHandler) -> ClientConnection | None:
        """The connection of this handler; None for replays, which have no client."""
        return self._of_handlers.get(handler)

    def known(self, handler: ConnectionHandler) -> ClientConnection:
        """The connection of a handler that must have one. Raises `KeyError`."""
        return self._of_handlers[handler]

    def handler_of(self, client: connection.Client) -> ConnectionHandler | None:
        return self._of_clients.get(client.id)

    def of(self, client: connection.Client) -> ClientConnection | None:
        handler = self.handler_of(client)
        return None if handler is None else self._of_handlers[handler]

    def items(self) -> tuple[tuple[ConnectionHandler, ClientConnection], ...]:
        return tuple(self._of_handlers.items())


def connected_peers(handler: ConnectionHandler, name: str, port: int) -> tuple[Address, ...]:
    """Where this client's open upstream connections to the destination really end: the addresses a reuse goes to."""
    return tuple(dict.fromkeys(_peers(handler.transports, name, port)))


def _peers(transports: Iterable[connection.Connection], name: str, port: int) -> Iterable[Address]:
    for transport in transports:
        if isinstance(transport, connection.Server) and transport.connected and transport.peername:
            address = transport.address
            if address is not None and address[0] == name and address[1] == port:
                yield ip_address(transport.peername[0].partition("%")[0])
