"""What the kernel is told about a flow. What is here was brought to canonical form at the edge (kernel/normal.py)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from kernel.fields import NOT_LOOKED_AT, Fields

Address = IPv4Address | IPv6Address

# The schemes of a request that asks to become a WebSocket.
UPGRADES = frozenset({"ws", "wss"})
# The host under which an agent asks Governor itself.
OWN_NAME = "governor.internal"


@dataclass(frozen=True, slots=True)
class Agent:
    """Who sent the flow, and by which evidence: proxy-auth, cert, source, port, sandbox or none."""

    id: str
    by: str


@dataclass(frozen=True, slots=True)
class Host:
    """A destination in canonical form: a lower-case A-label name without trailing dot, or an address literal."""

    name: str
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """A path as it is judged and sent, without the query.

    `segments` reads `%2F` as a character of a segment. `split` reads it as a separator; None where that is the same.
    `/a//b` is already `/a/b`; `/` has the one segment "", `/a/` has the two segments "a" and "".
    """

    text: str
    segments: tuple[str, ...]
    split: tuple[str, ...] | None = None

    @property
    def readings(self) -> tuple[tuple[str, ...], ...]:
        return (self.segments,) if self.split is None else (self.segments, self.split)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """One request as a policy can see it. `method` is upper-case, sizes are bytes.

    `scheme` is http or https, and for a request that asks to become a WebSocket ws or wss. `fields` are those of what
    is sent; they are looked at only where the policy compares some.
    `at` is when it is judged, in seconds since 1970.
    """

    agent: Agent
    method: str
    scheme: str
    host: Host
    port: int
    path: Path
    query: str = ""
    body_bytes: int = 0
    content_type: str = ""
    fields: Fields = NOT_LOOKED_AT
    at: int = 0

    @property
    def url_bytes(self) -> int:
        """The length of `scheme://host/path?query` in canonical form, as it is judged and sent.

        The port and the brackets of an IPv6 address do not count, nor does a `?` without a query.
        """
        query = len(self.query) + 1 if self.query else 0
        return len(self.scheme) + len("://") + len(self.host.name) + len(self.path.text) + query
