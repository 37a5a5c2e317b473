"""Namespaces inside the sandbox: a user is root there, and it must lead nowhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial

from addons.attempts import packets, system_call
from addons.attempts.attempt import Family, Seen, closed, opened, refused, words, worst
from addons.attempts.reaching import datagrams, streams
from addons.attempts.surroundings import Surroundings
from addons.sandbox.tier_trial import own_user_namespace

FAMILY = Family("namespaces")
_NOWHERE = "refused, or a namespace that leads nowhere"


def _inside(here: Surroundings, then: Callable[[Surroundings], Seen]) -> Seen:
    try:
        own_user_namespace()
    except OSError as fault:
        return closed(f"no user namespace: {words(fault)}")
    return then(here)


def _own_network(here: Surroundings) -> Seen:
    try:
        os.unshare(os.CLONE_NEWNET)
    except OSError as fault:
        return refused(fault)
    reached = streams((*here.targets, *here.targets_6), 22)
    for each in reached:
        if each.link is not None:
            each.link.close()
    return worst((each.seen(22) for each in reached), "there is no address to try")


def _raw_there(here: Surroundings) -> Seen:
    """Root of a new user namespace is nobody over the network namespace that it came with."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, packets.ICMP).close()
    except OSError as fault:
        return closed(f"a user namespace is made, and a raw socket in it: {words(fault)}")
    tried = datagrams(here.targets, 0, packets.echo(ipv6=False), kind=socket.SOCK_RAW, protocol=packets.ICMP)
    return worst((each.seen() for each in tried), "there is no IPv4 address to try")


def _mounts_there(_: Surroundings) -> Seen:
    """What covers something stays where it is: mounts that came along are locked together."""
    try:
        os.unshare(os.CLONE_NEWNS)
    except OSError as fault:
        return refused(fault)
    said = "there is none"
    for place in ("/proc", "/sys", "/dev", "/run"):
        try:
            system_call.call("umount2", place.encode() + b"\0", 2)
        except OSError as fault:
            said = words(fault)
        else:
            return opened(f"{place} was taken away in a mount namespace of its own")
    return closed(f"mounts of a new namespace cannot be taken away: {said}")


def _processes_there(_: Surroundings) -> Seen:
    try:
        handle = os.open("/proc/1/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as fault:
        return closed(f"/proc/1/ns/net: {words(fault)}")
    try:
        os.setns(handle)
    except OSError as fault:
        return refused(fault)
    finally:
        os.close(handle)
    return opened("it entered the network namespace of process 1")


for name, way, then in (
    ("nested-network", "make a user and a network namespace (unshare -Urn) and connect from there", _own_network),
    ("nested-raw", "make a user namespace and open a raw socket from it", _raw_there),
    ("nested-mounts", "make a user and a mount namespace (unshare -Urm) and take mounts away", _mounts_there),
    ("nested-enter", "make a user namespace and enter the network namespace of process 1", _processes_there),
):
    FAMILY.add(name, way, _NOWHERE, partial(_inside, then=then))


@FAMILY.attempt("unshare-network", "make a network namespace without a user namespace", "EPERM")
def own_network(_: Surroundings) -> Seen:
    # The kernel asks for the same capability for every other kind.
    try:
        os.unshare(os.CLONE_NEWNET)
    except OSError as fault:
        return refused(fault)
    return opened("it made a namespace, which takes CAP_SYS_ADMIN")
