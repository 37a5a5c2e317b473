"""A subnet whose way out is a gateway, of namespaces: two clients, the recipe's gateway and an origin."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.process import ROOT

needs_gateway = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(tool) is None for tool in ("ip", "nft", "tcpdump", "setpriv", "unshare")),
    reason="a gateway of namespaces needs root, ip, nft, tcpdump and setpriv")
RECIPE = ROOT / "scripts" / "recipes" / "gateway"
NAME = "good.test"
OTHER_NAME = "attacker.test"
CLIENTS = ("10.78.1.11", "10.78.1.12")
CLIENTS_6 = ("fd78:1::11", "fd78:1::12")
GATEWAY, GATEWAY_6 = "10.78.1.1", "fd78:1::1"
PROXY, PROXY_6 = "10.78.2.1", "fd78:2::1"
ORIGIN, ORIGIN_6 = "10.78.2.10", "fd78:2::10"
ATTACKER = "10.78.2.66"
START_SECONDS = 60.0
# A group that nobody listens to, to mark a place in the capture.
_NOBODY = "239.255.78.1"
_NUMBERS = itertools.count(20000)

# Answers on every port of interest: http over TCP, the same again over UDP.
_SERVER = """
import http.server, socket, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"the origin\\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
def echo(port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port))
    while True:
        s.sendto(*s.recvfrom(512))
for port in (53, 123, 443):
    threading.Thread(target=echo, args=(port,)).start()
for port in (80, 22, 8443):
    threading.Thread(target=Server(("::", port), Handler).serve_forever).start()
print("ready", flush=True)
"""
# What runs there runs as nobody, who cannot look into a home: everything it needs is put where it can.
_STAGE = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir /mnt/python /mnt/packages /mnt/code /mnt/home /mnt/bin
mount --rbind "$1" /mnt/python; mount --rbind "$2" /mnt/packages; mount --rbind "$3" /mnt/code
chown nobody /mnt/home; chmod 0700 /mnt/home
cp "$4"/* /mnt/bin/
chmod -R a+rX /mnt/bin
export LD_LIBRARY_PATH=/mnt/python/lib PYTHONPATH=/mnt/code:/mnt/packages PYTHONDONTWRITEBYTECODE=1 HOME=/mnt/home
export XDG_CONFIG_HOME=/mnt/home/config GOVERNOR_USER=nobody
shift 4
exec "$@"
"""


@dataclass(frozen=True)
class Host:
    """One namespace of the network."""

    name: str

    def run(self, *command: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", "netns", "exec", self.name, *command], capture_output=True, text=True, check=False,
                              timeout=seconds)

    def python(self, program: str, *arguments: str) -> str:
        """What a program prints there, its own faults included."""
        done = self.run(sys.executable, "-c", program, *arguments)
        return (done.stdout + done.stderr).strip()

    def started(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)


@dataclass
class Subnet:
    """The whole network, and what its origin sees on the wire."""

    clients: tuple[Host, Host]
    gateway: Host
    origin: Host
    capture: Path
    mark: socket.socket
    kind: str = "mitmproxy"
    """Which proxy its tests start."""

    def seen(self) -> list[str]:
        """Every packet of IP at the origin so far, one a line."""
        # What was captured before the mark was written before it.
        number = next(_NUMBERS)
        self.mark.sendto(b"", (_NOBODY, number))
        deadline = time.monotonic() + START_SECONDS
        while f"> {_NOBODY}.{number}:" not in (told := self.capture.read_text()):
            assert time.monotonic() < deadline, "the capture has ended"
            time.sleep(0.01)
        return [line for line in told.splitlines() if line.startswith("IP") and f"> {_NOBODY}." not in line]

    def counters(self) -> dict[str, int]:
        told = json.loads(self.gateway.run("nft", "-j", "list", "counters", "table", "inet", "governor").stdout)
        return {part["counter"]["name"]: part["counter"]["packets"] for part in told["nftables"] if "counter" in part}

    def status(self, client: Host, *arguments: str) -> str:
        """The status that a client of the subnet gets for a URL, which knows of no proxy."""
        return client.run("curl", "-s", "-m", "8", "-o", "/dev/null", "-w", "%{http_code}", *arguments).stdout

    @contextlib.contextmanager
    def running(self, files: dict[str, str], *command: str) -> Iterator[subprocess.Popen[str]]:
        """The gateway started by its recipe with this proxy, until the end of the block."""
        folder = self.capture.parent / f"bin{time.monotonic_ns()}"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
            (folder / name).chmod(0o755)
        places = [sys.base_prefix, sysconfig.get_path("purelib"), str(ROOT), str(folder)]
        start = [str(RECIPE / "start"), "lan", "wan", *command]
        process = self.gateway.started("sh", "-c", _STAGE, "stage", *places, *start)
        try:
            self._wait(process)
            yield process
        finally:
            process.kill()
            process.wait()

    def _wait(self, process: subprocess.Popen[str]) -> None:
        """Until both of the proxy's ports are open."""
        deadline = time.monotonic() + START_SECONDS
        while not all(f":{port}" in self.gateway.run("ss", "-Htln").stdout for port in (8080, 5353)):
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            assert time.monotonic() < deadline, "the proxy did not open its ports"
            time.sleep(0.1)


@contextlib.contextmanager
def subnet(folder: Path) -> Iterator[Subnet]:
    """The network without a proxy; its links are down on the subnet's side until the recipe puts them up."""
    run = f"E{os.getpid()}"
    switch, gateway, origin, *clients = (f"{run}{part}" for part in ("s", "g", "o", "a", "b"))
    with contextlib.ExitStack() as made:
        for name in (switch, gateway, origin, *clients):
            _ip("netns", "add", name)
            made.callback(_ip, "netns", "del", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _resolving(made, gateway, f"{ORIGIN} {NAME}\n{ATTACKER} {OTHER_NAME}\n")
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        _wired(switch, "pg", gateway, "lan", (f"{GATEWAY}/24", f"{GATEWAY_6}/64"))
        for number, client in enumerate(clients):
            _wired(switch, f"p{number}", client, "eth0", (f"{CLIENTS[number]}/24", f"{CLIENTS_6[number]}/64"))
            _ip("-n", client, "link", "set", "eth0", "up")
            _ip("-n", client, "route", "add", "default", "via", GATEWAY)
            _ip("-n", client, "-6", "route", "add", "default", "via", GATEWAY_6)
            _resolving(made, client, "", "nameserver 203.0.113.53\n")
        _ip("link", "add", f"{run}w", "netns", gateway, "type", "veth", "peer", "name", "eth0", "netns", origin)
        _ip("-n", gateway, "link", "set", f"{run}w", "name", "wan")
        for host, link, addresses in ((gateway, "wan", (f"{PROXY}/24", f"{PROXY_6}/64")),
                                      (origin, "eth0", (f"{ORIGIN}/24", f"{ATTACKER}/24", f"{ORIGIN_6}/64"))):
            _addressed(host, link, addresses)
            _ip("-n", host, "link", "set", link, "up")
        # The way back is there: what is not seen was not sent, and did not fail for want of a route.
        _ip("-n", origin, "route", "add", "10.78.1.0/24", "via", PROXY)
        _ip("-n", origin, "-6", "route", "add", "fd78:1::/64", "via", PROXY_6)
        found = Subnet((Host(clients[0]), Host(clients[1])), Host(gateway), Host(origin), folder / "capture",
                       made.enter_context(_marking(origin)))
        made.enter_context(_background(found.origin, "ready", sys.executable, "-c", _SERVER))
        made.enter_context(_captured(found))
        yield found


def _marking(name: str) -> socket.socket:
    """A socket of this process that sends to `_NOBODY` by the origin's link."""
    with open("/proc/thread-self/ns/net") as own, open(f"/run/netns/{name}") as theirs:
        os.setns(theirs.fileno(), os.CLONE_NEWNET)
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            os.setns(own.fileno(), os.CLONE_NEWNET)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(ORIGIN))
    return made


@contextlib.contextmanager
def _captured(network: Subnet) -> Iterator[None]:
    with network.capture.open("w") as out:
        process = subprocess.Popen(
            ["ip", "netns", "exec", network.origin.name, "tcpdump", "-n", "-l", "-t", "-i", "eth0", "--immediate-mode"],
            stdout=out, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            while "listening" not in (line := process.stderr.readline()):
                assert line, "tcpdump did not start"
            yield
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def _background(host: Host, word: str, *command: str) -> Iterator[None]:
    process = host.started(*command)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == word
        yield
    finally:
        process.kill()
        process.wait()


def _resolving(made: contextlib.ExitStack, name: str, hosts: str, resolver: str = "") -> None:
    """What `ip netns exec` puts over /etc there."""
    folder = Path("/etc/netns") / name
    folder.mkdir(parents=True)
    made.callback(shutil.rmtree, folder)
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
    (folder / "resolv.conf").write_text(resolver)


def _wired(switch: str, port: str, host: str, link: str, addresses: Sequence[str]) -> None:
    _ip("link", "add", port, "netns", switch, "type", "veth", "peer", "name", link, "netns", host)
    _ip("-n", switch, "link", "set", port, "master", "br0", "up")
    _addressed(host, link, addresses)


def _addressed(host: str, link: str, addresses: Sequence[str]) -> None:
    for address in addresses:
        # Another check for twins of this address would only take its two seconds.
        more = ["nodad"] if ":" in address else []
        _ip("-n", host, "address", "add", address, "dev", link, *more)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
