"""Descriptors that whoever started this left open."""

from __future__ import annotations

import fcntl
import os
import socket
import stat

from addons.attempts.attempt import Family, Seen, closed, opened, worst
from addons.attempts.surroundings import Surroundings

FAMILY = Family("descriptors")


def _inherited() -> list[int]:
    """What came with the start: what was opened since closes when another program begins."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if not fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found.append(int(name))
        except OSError:
            continue
    return [each for each in sorted(found) if each > 2]


@FAMILY.attempt(
    "inherited-descriptors", "use every descriptor above 2 that came with the start", "none, or pipes and files")
def inherited(_: Surroundings) -> Seen:
    descriptors = _inherited()
    return worst((_leads(each) for each in descriptors), "") if descriptors else closed("there is none")


@FAMILY.attempt("standard-descriptors", "use the standard descriptors as sockets", "a terminal, pipes or files")
def standard(_: Surroundings) -> Seen:
    return worst((_leads(each) for each in (0, 1, 2)), "")


def _leads(descriptor: int) -> Seen:
    """Where a descriptor leads: a folder or a socket of outside is a way out, a pipe or a file is not."""
    try:
        mode = os.fstat(descriptor).st_mode
        what = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return closed(f"descriptor {descriptor} is closed")
    if stat.S_ISDIR(mode):
        return opened(f"descriptor {descriptor} is the folder {what}: all below it can be opened")
    if stat.S_ISSOCK(mode):
        with socket.socket(fileno=os.dup(descriptor)) as link:
            if link.family in (socket.AF_INET, socket.AF_INET6, socket.AF_PACKET, socket.AF_NETLINK):
                return opened(f"descriptor {descriptor} is a socket of the network, {link.family.name}")
            return closed(f"descriptor {descriptor} is a socket of family {link.family}")
    if stat.S_ISBLK(mode):
        return opened(f"descriptor {descriptor} is the disk {what}")
    if what.startswith(
        ("anon_inode:[perf", "anon_inode:bpf", "anon_inode:[io_uring", "net:[", "mnt:[", "/dev/net", "/dev/kvm")
    ):
        return opened(f"descriptor {descriptor} is {what}")
    return closed(f"descriptor {descriptor} is {what}")
