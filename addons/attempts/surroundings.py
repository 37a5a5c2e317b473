"""What an attempt finds around it: addresses to try, the way there, and what the sandbox told."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from addons.sandbox.inside import TIER

# Documentation ranges, where nobody lives; two resolvers of the world; the address of cloud metadata.
WELL_KNOWN = ("192.0.2.1", "198.51.100.1", "203.0.113.1", "1.1.1.1", "8.8.8.8", "169.254.169.254")
WELL_KNOWN_6 = ("2001:db8::1", "2606:4700:4700::1111")
# Nobody has these: whatever answers for them answers for every address.
NOBODY = "198.51.100.253"
NOBODY_6 = "2001:db8:ffff::253"
_PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_GATEWAY = 0x0002


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Read once, before the first attempt."""

    targets: tuple[str, ...]
    """IPv4 addresses that must not be reachable but through Governor."""
    targets_6: tuple[str, ...]
    gateways: tuple[str, ...]
    """Who forwards for this place: where one lives, Governor's host is near."""
    proxy: tuple[str, int] | None
    """The proxy that the variables name."""
    tier: str | None
    """What the sandbox says that it is."""
    homes: tuple[Path, ...]
    """Where a home of Governor usually is."""

    @classmethod
    def read(cls, targets: tuple[str, ...] = (), environment: Mapping[str, str] = os.environ) -> Self:
        """What is around here. With `targets` those are tried, and no well-known address."""
        own = [ipaddress.ip_address(target) for target in targets]
        return cls(
            tuple(str(each) for each in own if each.version == 4) if own else WELL_KNOWN,
            tuple(str(each) for each in own if each.version == 6) if own else WELL_KNOWN_6,
            (*_gateways(), *_gateways_6()), _proxy(environment), environment.get(TIER), _homes(environment))


def interfaces() -> tuple[str, ...]:
    """The names of the links here, but for loopback."""
    try:
        return tuple(name for _, name in socket.if_nameindex() if name != "lo")
    except OSError:
        return ()


def _gateways() -> tuple[str, ...]:
    found = [
        socket.inet_ntoa(struct.pack("=I", int(fields[2], 16)))
        for fields in lines("/proc/net/route")[1:]
        if len(fields) > 3 and int(fields[3], 16) & _GATEWAY
    ]
    return tuple(dict.fromkeys(found))


def _gateways_6() -> tuple[str, ...]:
    found = []
    for fields in lines("/proc/net/ipv6_route"):
        if len(fields) > 9 and int(fields[8], 16) & _GATEWAY:
            address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[4]))
            # A link-local address means nothing without its link.
            found.append(f"{address}%{fields[9]}" if address.startswith("fe80") else address)
    return tuple(dict.fromkeys(found))


def _proxy(environment: Mapping[str, str]) -> tuple[str, int] | None:
    for name in _PROXY_VARIABLES:
        if value := environment.get(name):
            try:
                parts = urlsplit(value if "://" in value else f"http://{value}")
                if parts.hostname and parts.port:
                    return parts.hostname, parts.port
            except ValueError:
                continue
    return None


def _homes(environment: Mapping[str, str]) -> tuple[Path, ...]:
    state = environment.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    usual = (environment.get("GOVERNOR_HOME"), "/var/lib/governor", os.path.join(state, "governor"))
    return tuple(dict.fromkeys(Path(path) for path in usual if path))


def lines(path: str) -> list[list[str]]:
    """The fields of each line of a file of the kernel's or the system's; none where it cannot be read."""
    try:
        return [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return []
