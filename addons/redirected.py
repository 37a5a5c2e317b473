"""A client that knows no proxy: its connection was redirected here, and where it was going has to fit what it says.

The kernel of the system knows the address that the client dialled. The name is what the client says: in its TLS hello,
else in its Host header. The name is what is judged and dialled, by Governor's own look-up of it; the address only has
to be one that the name may have. So a client that lies about either reaches nothing by it.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Any

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.proxy.mode_specs import TransparentMode

from kernel import normal
from kernel.errors import NonCanonical
from kernel.facts import Address
from kernel.verdict import Code

type Place = tuple[Address, int]


def dialled(client: Client) -> Place | None:
    """Where a redirected client was going; None for one that speaks to a proxy."""
    return _place(client.sockname) if isinstance(client.proxy_mode, TransparentMode) else None


def arrived(writer: Any) -> Place | None:
    """Where a client's connection really ended: at a listener of ours."""
    address = writer.get_extra_info("sockname")
    return _place(address) if address else None


def _place(address: tuple[Any, ...]) -> Place:
    found = ip_address(str(address[0]).partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found, int(address[1])


def aim(flow: http.HTTPFlow, to: Place) -> None:
    """Aim the request at the host that its client names, at the port that it dialled. Raises `NonCanonical`.

    An address literal has to be the address that it dialled. Whether the Host header agrees is told by `extract`.
    """
    address, port = to
    data = flow.request.data
    # Set before anything can fail: a refusal tells of this place where no better one is known.
    data.host, data.port = str(address), port
    named = _named(flow, address)
    host = normal.host(named)
    if host.address is not None and host.address != address:
        raise NonCanonical(Code.DESTINATION_MISMATCH, "it names another address than the one it was sent to")
    data.host = host.name


def _named(flow: http.HTTPFlow, address: Address) -> str:
    """The host as the client names it."""
    if flow.client_conn.tls:
        # Without a name in its hello the client can only have verified the address.
        return flow.client_conn.sni or str(address)
    data = flow.request.data
    authorities = [value for name, value in data.headers.fields if name.lower() == b"host"] or [data.authority]
    if not authorities[0]:
        raise NonCanonical(Code.MALFORMED, "it names no destination")
    return normal.authority(authorities[0].decode("latin-1"), normal.DEFAULT_PORTS["http"])[0].name
