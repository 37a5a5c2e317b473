"""The ports at which this Governor itself listens: no request may reach them through it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from mitmproxy import ctx
from mitmproxy.proxy.mode_specs import ProxyMode, RegularMode, Socks5Mode

from addons import dns_server
from addons.errors import StartCode, StartRefused


def opening() -> bool:
    """Whether mitmproxy has begun to open its ports."""
    server = ctx.master.addons.get("proxyserver")
    return server is not None and len(server.servers) > 0


def tried(host: str, port: int) -> bool:
    """Whether mitmproxy listens there already. Raises `StartRefused` when it tried and could not.

    It opens the port of a literal address before it loads a script, that of a name afterwards. Nothing is served before
    the script has loaded.
    """
    if not opening() or not _is_literal(host):
        return False
    errors = ctx.master.addons.get("errorcheck")
    if errors is not None and errors.logger.has_errored:
        raise StartRefused(StartCode.PORT_BUSY, f"{host}:{port} cannot be listened on; mitmproxy says why above")
    return True


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class Listeners:
    """Asked while flows are judged. mitmproxy's own listeners are known once they are open, and stay as they are."""

    def __init__(self, options: Any, metrics_port: int) -> None:
        web_port = getattr(options, "web_port", None) if "web_port" in options else None
        self._ports = frozenset(port for port in (metrics_port, web_port) if port)

    async def reopen(self) -> None:
        """Take over from mitmproxy what it opened before it was told who answers there."""
        await dns_server.reopen(tuple(ctx.master.addons.get("proxyserver").servers))

    def opened(self) -> None:
        """mitmproxy's ports are open."""
        self._ports |= {port for _, port in self.addresses()}

    def addresses(self) -> list[tuple[str, int]]:
        """Where clients connect."""
        return [(address[0], address[1]) for address in ctx.master.addons.get("proxyserver").listen_addrs()]

    def proxies(self) -> list[tuple[str, str, int]]:
        """Scheme, host and port by which clients are told of each of them; for what is redirected, the mode."""
        servers = ctx.master.addons.get("proxyserver").servers
        return [(scheme_of(server.mode), address[0], address[1])
                for server in servers for address in server.listen_addrs]

    def ports(self) -> frozenset[int]:
        """Every port of ours."""
        return self._ports


def scheme_of(mode: ProxyMode) -> str:
    """How a client writes this kind of proxy; for one that no client is told of, the mode's name."""
    match mode:
        case RegularMode():
            return "http"
        case Socks5Mode():
            return "socks5h"
    return mode.type_name
