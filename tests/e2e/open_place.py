"""A place from which everything can be reached, with a server at every port: made of two namespaces."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TARGET, TARGET_6 = "203.0.113.10", "2001:db8:77::10"
# What attempts ask for by themselves beside the targets.
_OTHERS = ("169.254.169.254", "168.63.129.16", "100.100.100.200", "8.8.8.8", "1.1.1.1")
_TABLE = """
table inet everything {
  chain before {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local meta l4proto tcp redirect to :9000
    fib daddr type local meta l4proto udp redirect to :9001
  }
}
"""
# Answers whatever is sent: HTTP in TLS and without, datagrams with the question turned into an answer.
_SERVER = """
import socket, socketserver, ssl, struct, sys, threading

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
ANSWER = b"HTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\n\\r\\nopen"

class Stream(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(3)
        link = self.request
        try:
            first = link.recv(1, socket.MSG_PEEK)
            if first == b"\\x16":
                link = context.wrap_socket(link, server_side=True)
            asked = link.recv(4096)
            if asked[2:4] and len(asked) > 13 and struct.unpack("!H", asked[:2])[0] == len(asked) - 2:
                link.sendall(asked[:4] + bytes((asked[4] | 0x80, 0x80)) + asked[6:])
            else:
                link.sendall(ANSWER)
                if asked.startswith(b"CONNECT") and link.recv(4096):
                    link.sendall(ANSWER)
        except OSError:
            pass

class Streams(socketserver.ThreadingTCPServer):
    address_family, allow_reuse_address, daemon_threads = socket.AF_INET6, True, True
    request_queue_size = 512

def answer(link):
    while True:
        data, who = link.recvfrom(65536)
        if len(data) > 3:
            data = data[:2] + bytes((data[2] | 0x80, 0x80)) + data[4:]
        link.sendto(data, who)

def datagrams(port, group=None):
    link = socket.socket(socket.AF_INET if group else socket.AF_INET6, socket.SOCK_DGRAM)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    link.bind(("", port))
    if group and group != "broadcast":
        link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                        socket.inet_aton(group) + socket.inet_aton(sys.argv[2]))
    threading.Thread(target=answer, args=(link,), daemon=True).start()

datagrams(9001)
for port, group in ((5353, "224.0.0.251"), (5355, "224.0.0.252"), (1900, "239.255.255.250"), (137, "broadcast"),
                    (40002, "broadcast")):
    datagrams(port, group)
streams = Streams(("::", 9000), Stream)
print("ready", flush=True)
streams.serve_forever()
"""


@dataclass(frozen=True)
class Place:
    """Where attempts are made; `beside` is where the servers are."""

    name: str
    beside: str

    def run(self, *command: str, seconds: float = 90, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", "netns", "exec", self.name, *command], capture_output=True, text=True, check=False,
                              timeout=seconds, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                              start_new_session=True)


@contextlib.contextmanager
def open_place(folder: Path) -> Iterator[Place]:
    """Two namespaces and a cable; gone afterwards with all that runs there."""
    run = f"gvd{os.getpid()}"
    place = Place(f"{run}in", f"{run}out")
    with contextlib.ExitStack() as made:
        for name in (place.name, place.beside):
            _ip("netns", "add", name)
            made.callback(_ip, "netns", "del", name)
        _ip("link", "add", "eth0", "netns", place.name, "type", "veth", "peer", "name", "eth0", "netns", place.beside)
        for name, own in ((place.name, 1), (place.beside, 2)):
            _ip("-n", name, "address", "add", f"203.0.113.{own}/28", "dev", "eth0", "broadcast", "+")
            _ip("-n", name, "address", "add", f"2001:db8:77::{own}/64", "dev", "eth0", "nodad")
            # Nobody else has the link's own addresses: they hold at once, and not some time after.
            _ip("netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
            for link in ("lo", "eth0"):
                _ip("-n", name, "link", "set", link, "up")
        for address in (*_OTHERS, TARGET):
            _ip("-n", place.beside, "address", "add", f"{address}/32", "dev", "lo")
        for link, address in (("eth0", TARGET_6), ("lo", "fd00:ec2::254")):
            _ip("-n", place.beside, "address", "add", f"{address}/128", "dev", link, "nodad")
        _ip("-n", place.name, "route", "add", "default", "via", "203.0.113.2")
        _ip("-n", place.name, "route", "add", "default", "via", "2001:db8:77::2")
        subprocess.run(["ip", "netns", "exec", place.beside, "nft", "-f", "-"], input=_TABLE, text=True,
                       check=True)
        # A new namespace lets nobody ping; a host does.
        place.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
        made.enter_context(_server(place, folder))
        yield place


@contextlib.contextmanager
def _server(place: Place, folder: Path) -> Iterator[None]:
    certificate = folder / "server.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "1", "-subj", "/CN=open.example.org", "-keyout", certificate, "-out", folder / "cert.pem"],
                   check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + (folder / "cert.pem").read_bytes())
    process = subprocess.Popen(["ip", "netns", "exec", place.beside, sys.executable, "-c", _SERVER, str(certificate),
                                "203.0.113.2"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.wait()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
