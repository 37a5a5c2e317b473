"""A loopback of one's own on which clients are redirected to a transparent port, in a network namespace of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

can_redirect = (os.geteuid() == 0 and all(shutil.which(name) for name in ("ip", "nft")) and hasattr(os, "setns"))
_MARK = 0x61
# Above those that Linux chooses by itself, Governor's own among them.
CLIENT_PORTS = "61000-65000"


@contextlib.contextmanager
def redirected_loopback(port: int) -> Iterator[None]:
    """From here on this thread, and all that it starts, lives where marked connections end at this port."""
    name = f"A{os.getpid()}loop"
    table = f"""
table ip steer {{
  chain output {{
    type nat hook output priority -100;
    meta mark {_MARK} tcp dport != {port} redirect to :{port}
    tcp sport {CLIENT_PORTS} tcp dport != {port} redirect to :{port}
  }}
}}
"""
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "netns", "exec", name, "nft", "-f", "-"], check=True, text=True, input=table)
        with Path("/run/netns", name).open() as inside:
            os.setns(inside.fileno(), os.CLONE_NEWNET)
        yield
    finally:
        os.setns(outside, os.CLONE_NEWNET)
        os.close(outside)
        subprocess.run(["ip", "netns", "del", name], check=True)


def marked(port: int, seconds: float) -> socket.socket:
    """A connection of a client that knows no proxy, to this port of localhost."""
    connection = socket.socket()
    connection.settimeout(seconds)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK)
    connection.connect(("127.0.0.1", port))
    return connection
