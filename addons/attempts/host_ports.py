"""Ports of Governor, of its host and of whoever else is near."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Callable
from functools import partial

from addons.attempts import packets, speaking
from addons.attempts.attempt import Family, Seen, closed, not_here, opened, refused, silent, worst
from addons.attempts.reaching import Contact, Reached, streams
from addons.attempts.surroundings import Surroundings, interfaces

FAMILY = Family("host")
_REFUSED = "refused, no route, or Governor's 403"
_MOST_NEIGHBOURS = 16
_PORTS = {
    80: "plain HTTP",
    8080: "the proxy's listener",
    5353: "the listener for DNS",
    9464: "Governor's metrics",
    8081: "mitmweb",
    22: "SSH",
    111: "the port mapper",
    631: "the printer service",
    2375: "Docker",
    2376: "Docker over TLS",
    5432: "PostgreSQL",
    6379: "Redis",
    6443: "Kubernetes",
    9090: "Prometheus",
    10250: "the kubelet",
    11434: "a model server",
}


def _near(here: Surroundings) -> tuple[str, ...]:
    return here.gateways


def _loopback(_: Surroundings) -> tuple[str, ...]:
    return "127.0.0.1", "::1", "127.0.0.53"


def _port(here: Surroundings, port: int, where: Callable[[Surroundings], tuple[str, ...]]) -> Seen:
    # The one listener that a sandbox without transparent mode is given.
    skipped = here.proxy is not None and here.proxy[1] == port
    addresses = tuple(each for each in where(here) if not (skipped and where is _loopback))
    if not addresses:
        return not_here("the proxy's own listener is here" if skipped else "there is no gateway")
    return worst((_answered(each, port) for each in streams(addresses, port)), "there is no address to try")


def _answered(each: Reached, port: int) -> Seen:
    """Near by, a refused port is a closed one; one that is taken is Governor's judgement, or open."""
    if each.link is None:
        if each.contact is Contact.ARRIVED:
            return closed(f"{each.address} port {port}: {each.said}")
        return each.seen(port)
    with each.link as link:
        answer = speaking.say(link, speaking.get(speaking.UNLISTED, "/metrics" if port == 9464 else "/"))
    return answer.seen(f"{each.address} port {port}", interceptor=False)


for number, what in _PORTS.items():
    FAMILY.add(
        f"gateway-{number}", f"connect to the gateway's port {number} ({what})", _REFUSED,
        partial(_port, port=number, where=_near))
for number in (8080, 9464, 8081, 22, 2375, 6379, 631):
    FAMILY.add(
        f"loopback-{number}", f"connect to loopback's port {number} ({_PORTS[number]})", _REFUSED,
        partial(_port, port=number, where=_loopback))


@FAMILY.attempt("loopback-through-proxy", "ask for loopback by port 80 of the gateway", _REFUSED)
def loopback_through(here: Surroundings) -> Seen:
    seen = []
    for each in streams(here.gateways, 80):
        if each.link is None:
            seen.append(closed(f"{each.address} port 80: {each.said}"))
            continue
        with each.link as link:
            seen.append(
                speaking.say(link, speaking.get("127.0.0.1:9464", "/metrics")).seen(each.address, interceptor=False)
            )
    return worst(seen, "there is no gateway")


@FAMILY.attempt("neighbours", "connect to ports of every address on this network", _REFUSED)
def neighbours(_: Surroundings) -> Seen:
    addresses = _on_this_network()
    seen = [_answered(each, port) for port in (22, 8080, 9464) for each in streams(addresses, port)]
    return worst(seen, "no other address is on this network")


def _on_this_network() -> tuple[str, ...]:
    """Those beside ours that /proc names, the nearest first."""
    found = []
    for name in interfaces():
        own = _address(name)
        if own is None:
            continue
        around = ipaddress.ip_network(f"{own}/28", strict=False)
        found += [str(each) for each in around.hosts() if str(each) != own]
    return tuple(found[:_MOST_NEIGHBOURS])


def _address(name: str) -> str | None:
    """The IPv4 address of a link."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        try:
            told = fcntl.ioctl(link, 0x8915, struct.pack("256s", name.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(told[20:24])


@FAMILY.attempt(
    "own-link-neighbours", "find whoever is on this link by an echo to all nodes", "no route, or nobody answers")
def all_nodes(_: Surroundings) -> Seen:
    seen = []
    for name in interfaces()[:2]:
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, packets.ICMP6) as link:
                link.settimeout(0.6)
                link.sendto(packets.echo(ipv6=True), ("ff02::1", 0, 0, socket.if_nametoindex(name)))
                who = link.recvfrom(512)[1]
        except TimeoutError:
            seen.append(silent(f"sent on {name}, and nobody answered"))
        except OSError as fault:
            seen.append(refused(fault))
        else:
            seen.append(
                closed(f"only this place itself answered on {name}") if _own(who[0]) else opened(f"{who[0]} answered")
            )
    return worst(seen, "there is no link but loopback")


def _own(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as link:
            link.bind((address.partition("%")[0], 0, 0, socket.if_nametoindex(address.partition("%")[2] or "lo")))
    except OSError:
        return False
    return True
