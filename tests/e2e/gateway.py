"""A gateway made of network namespaces: an agent that knows no proxy, a Governor that all its packets meet, an origin.

The agent's host has one link, to the gateway; there nftables redirects what is governed and refuses everything else
(reference table: a drop policy in every chain, IPv4 and IPv6 alike). Names are those of the gateway's hosts file.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.process import Governor, started

needs_gateway = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(name) for name in ("ip", "nft", "curl", "openssl")),
    reason="a gateway needs root, ip, nft, curl and openssl")

AGENT, GATEWAY, OUTSIDE, ORIGIN, OTHER = "10.61.1.2", "10.61.1.1", "10.61.2.1", "10.61.2.2", "10.61.2.3"
AGENT_6, GATEWAY_6, OUTSIDE_6, ORIGIN_6 = "fd61:1::2", "fd61:1::1", "fd61:2::1", "fd61:2::2"
PROXY_PORT, NAMES_PORT = 8080, 5353
_NUMBERS = itertools.count(1)

TABLE = f"""
table inet governor {{
  counter c_refused {{}}
  chain steer {{
    type nat hook prerouting priority dstnat;
    iifname "ag0" tcp dport {{ 80, 443, 2222 }} ct mark set 0x60 redirect to :{PROXY_PORT}
    iifname "ag0" meta l4proto {{ tcp, udp }} th dport 53 ct mark set 0x61 redirect to :{NAMES_PORT}
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    iifname "ag0" tcp dport {PROXY_PORT} ct mark 0x60 accept
    iifname "ag0" meta l4proto {{ tcp, udp }} th dport {NAMES_PORT} ct mark 0x61 accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    iifname "ag0" counter name c_refused reject with icmpx admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname "ag0" counter name c_refused reject with icmpx admin-prohibited
  }}
}}
"""

SERVER = """
import http.server, socket, ssl, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        told = f"{self.headers['host']} {self.path} at {self.connection.getsockname()[0]}\\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        told = f"{len(body)} bytes\\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def setup(self):
        print(*self.request.getsockname()[:2], flush=True)
        super().setup()

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
servers = [Server(("::", port), Handler) for port in (80, 443, 8443)]
for server in servers[1:]:
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
"""


@dataclass(frozen=True)
class Gateway:
    """The three hosts by their names, the Governor between them, and what has reached the origin."""

    agent: str
    middle: str
    origin: str
    governor: Governor
    hosts: Path
    reached: Path

    def run(self, *command: str, seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
        """A command of the agent's."""
        return subprocess.run(["ip", "netns", "exec", self.agent, *command], capture_output=True, text=True,
                              check=False, timeout=seconds)

    def python(self, text: str, *arguments: str, seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
        """A Python program of the agent's, which has an HTTP or TLS library no say in what it sends."""
        return self.run(sys.executable, "-c", text, *arguments, seconds=seconds)

    def curl(self, *arguments: str) -> tuple[int, str, str]:
        """Status, body and standard error of curl; status 0 where there was no answer."""
        result = self.run("curl", "-sS", "--max-time", "15", "--noproxy", "*", "--cacert", str(self.governor.ca),
                          "-w", "\n%{http_code}", *arguments)
        body, _, status = result.stdout.rpartition("\n")
        return int(status or 0), body, result.stderr

    def names(self, known: Mapping[str, Sequence[str]]) -> None:
        """From here on these are the names that exist, with their addresses."""
        lines = [f"{address} {name}\n" for name, addresses in known.items() for address in addresses]
        # The same file, which is bound over another one: a new one would not be seen.
        self.hosts.write_text("127.0.0.1 localhost\n" + "".join(lines))

    @property
    def connections(self) -> list[str]:
        """Every connection that has reached the origin, as its address and port."""
        return [line for line in self.reached.read_text().splitlines() if line != "ready"]

    @property
    def refused_packets(self) -> int:
        """How many packets of the agent the gateway has sent back."""
        listed = subprocess.run(["ip", "netns", "exec", self.middle, "nft", "-j", "list", "counters"],
                                capture_output=True, text=True, check=True).stdout
        return sum(each["counter"]["packets"] for each in json.loads(listed)["nftables"] if "counter" in each)


@contextlib.contextmanager
def gateway(folder: Path, policy: str, chain: Path, trusted: Path, names: Mapping[str, Sequence[str]],
            modes: Sequence[str], options: Sequence[str] = ()) -> Iterator[Gateway]:
    """A gateway with a Governor in these modes. `chain` is the origin's key and certificate."""
    run = f"A{os.getpid()}n{next(_NUMBERS)}"
    agent, middle, origin = f"{run}a", f"{run}m", f"{run}o"
    hosts, reached = folder / "hosts", folder / "reached"
    with contextlib.ExitStack() as made:
        for name in (agent, middle, origin):
            _run("ip", "netns", "add", name)
            made.callback(_run, "ip", "netns", "del", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _inside(middle, "nft", "-f", "-", content=TABLE)
        # So that it is the table which lets nothing through.
        for family in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            _inside(middle, "tee", f"/proc/sys/net/{family}", content="1")
        _link(middle, "ag0", (GATEWAY, GATEWAY_6), agent, (AGENT, AGENT_6))
        _link(middle, "og0", (OUTSIDE, OUTSIDE_6), origin, (ORIGIN, ORIGIN_6, OTHER))
        for via in (("default", "via", GATEWAY), ("-6", "default", "via", GATEWAY_6)):
            family = [word for word in via if word == "-6"]
            _run("ip", *family, "-n", agent, "route", "add", *[word for word in via if word != "-6"])
        hosts.write_text("127.0.0.1 localhost\n")
        with reached.open("w") as seen:
            server = subprocess.Popen(["ip", "netns", "exec", origin, sys.executable, "-c", SERVER, str(chain)],
                                      stdout=seen)
        made.callback(server.wait)
        made.callback(server.kill)
        while "ready" not in reached.read_text():
            assert server.poll() is None, "the origin did not start"
            time.sleep(0.02)
        wrapper = ["ip", "netns", "exec", middle, "sh", "-c", 'mount --bind "$1" /etc/hosts && shift && exec "$@"',
                   "sh", str(hosts)]
        listening = ["--listen-host", "", *(word for mode in modes for word in ("--mode", mode))]
        governor = made.enter_context(started(folder, policy, [*listening, *options], trust=trusted, wrapper=wrapper))
        place = Gateway(agent, middle, origin, governor, hosts, reached)
        place.names(names)
        yield place


def _link(one: str, name: str, own: Sequence[str], other: str, others: Sequence[str]) -> None:
    _run("ip", "link", "add", name, "netns", one, "type", "veth", "peer", "name", "eth0", "netns", other)
    for host, link, addresses in ((one, name, own), (other, "eth0", others)):
        for address in addresses:
            plain = ["nodad"] if ":" in address else []
            _run("ip", "-n", host, "address", "add", f"{address}/{64 if plain else 24}", "dev", link, *plain)
        _run("ip", "-n", host, "link", "set", link, "up")


def _inside(host: str, *command: str, content: str | None = None) -> None:
    _run("ip", "netns", "exec", host, *command, content=content)


def _run(*command: str, content: str | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, input=content)
