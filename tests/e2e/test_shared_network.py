"""The table of scripts/recipes/container: of those who share a network, Governor's user alone sends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.e2e.gateway_hosts import ORIGIN, ORIGIN_6, PROXY, PROXY_6, Host, Subnet, needs_gateway, subnet
from tests.e2e.process import ROOT

pytestmark = [pytest.mark.e2e, needs_gateway]
TABLE = ROOT / "scripts" / "recipes" / "container" / "agent.nft"
GOVERNOR, AGENT = "10001", "1000"
SEND = """
import socket, sys
family, kind = (socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET), sys.argv[3]
s = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
s.settimeout(2)
s.bind(("", int(sys.argv[4])))
try:
    s.connect((sys.argv[1], int(sys.argv[2]))); s.send(b"GET / HTTP/1.0\\r\\n\\r\\n"); print(s.recv(4).decode())
except OSError as fault:
    print(type(fault).__name__)
"""
LOOPBACK = """
import http.server, socket, sys
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
server = Server((sys.argv[1], 8080), Handler)
print("ready", flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def listening(host: Host, address: str, uid: str = "0") -> Iterator[None]:
    process = host.started(*as_user(uid), "/usr/bin/python3", "-c", LOOPBACK, address)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subnet]:
    """The gateway's namespace stands for the network that the containers share."""
    with subnet(tmp_path_factory.mktemp("shared")) as made:
        loaded = made.gateway.run("nft", "-f", str(TABLE))
        assert loaded.returncode == 0, loaded.stderr
        yield made


def carried(network: Subnet) -> list[str]:
    """What was seen at the origin to or from this network, but for the kernels' questions who has an address."""
    return [line for line in network.seen() if (PROXY in line or PROXY_6 in line) and "neighbor" not in line]


def as_user(uid: str) -> list[str]:
    """What is put before a command to run it as this user, without capabilities."""
    return ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
            "--no-new-privs"]


def sent(network: Subnet, uid: str, address: str, port: str, kind: str = "tcp", source: str = "0") -> str:
    """What a program of this user gets, from this port of its own."""
    return network.gateway.run(*as_user(uid), "/usr/bin/python3", "-c", SEND, address, port, kind,
                               source).stdout.strip()


@pytest.mark.parametrize("address", [ORIGIN, ORIGIN_6])
def test_governors_user_reaches_the_world(network, address):
    assert sent(network, GOVERNOR, address, "80") == "HTTP"


@pytest.mark.parametrize(("address", "port", "kind", "heard"), [
    (ORIGIN, "80", "tcp", "ConnectionRefusedError"), (ORIGIN, "22", "tcp", "ConnectionRefusedError"),
    (ORIGIN_6, "80", "tcp", "ConnectionRefusedError"),
    (ORIGIN, "443", "udp", "PermissionError"), (ORIGIN, "53", "udp", "PermissionError"),
    (ORIGIN_6, "53", "udp", "PermissionError"),
])
def test_the_agent_hears_that_it_reaches_nothing_and_no_packet_of_it_leaves(network, address, port, kind, heard):
    before = carried(network)

    assert sent(network, AGENT, address, port, kind) == heard
    assert carried(network) == before


def test_the_agent_cannot_ask_from_a_port_that_governor_has_let_go(network):
    assert sent(network, GOVERNOR, ORIGIN, "53", "udp", "40123") == "GET"
    before = carried(network)

    assert sent(network, AGENT, ORIGIN, "53", "udp", "40123") == "PermissionError"
    assert carried(network) == before


def test_nobody_outside_reaches_what_the_agent_listens_on(network):
    with listening(network.gateway, PROXY, AGENT):
        before = carried(network)
        reached = network.origin.run("curl", "-s", "-m", "1", "-o", "/dev/null", "-w", "%{http_code}",
                                     f"http://{PROXY}:8080/").stdout

    assert reached == "000"
    assert [line for line in carried(network)[len(before):] if line.startswith(f"IP {PROXY}.")] == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_agent_reaches_the_proxy_on_the_loopback(network, address):
    with listening(network.gateway, address):
        assert sent(network, AGENT, address, "8080") == "HTTP"


def test_the_agent_does_not_reach_the_engines_own_dns(network):
    with listening(network.gateway, "127.0.0.11"):
        assert sent(network, GOVERNOR, "127.0.0.11", "8080") == "HTTP"
        assert sent(network, AGENT, "127.0.0.11", "8080") != "HTTP"


def test_without_capabilities_the_agent_cannot_touch_the_table_or_become_governor(network):
    assert network.gateway.run(*as_user(AGENT), "nft", "flush", "ruleset").returncode != 0
    assert network.gateway.run(*as_user(AGENT), "setpriv", "--reuid", GOVERNOR, "true").returncode != 0
    assert "skuid 10001" in network.gateway.run("nft", "list", "ruleset").stdout
