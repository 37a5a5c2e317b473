"""The proxy that the variables name, asked for what it is not there for."""

from __future__ import annotations

import socket
from functools import partial

from addons.attempts import speaking
from addons.attempts.attempt import Family, Seen, closed, not_here, silent
from addons.attempts.reaching import streams
from addons.attempts.speaking import UNLISTED, Answer, get
from addons.attempts.surroundings import Surroundings

FAMILY = Family("proxy")
_REFUSED = "Governor's 403 or 407, or an ended connection"
_NOT_DONE = (b"HTTP/1.1 407", b"HTTP/1.1 400", b"HTTP/1.1 502", b"\x05\xff")
_LOCAL = {"localhost": "127.0.0.1"}


def _ask(here: Surroundings, payload: bytes, inside: bytes = b"") -> Seen:
    """What the proxy makes of this; `inside` is said in the tunnel that it may grant."""
    if here.proxy is None:
        return not_here("no variable names a proxy")
    host, port = here.proxy
    try:
        (reached,) = streams((_address(host),), port)
    except OSError:
        return not_here(f"the name of the proxy, {host}, has no address here")
    if reached.link is None:
        return not_here(f"the proxy at {host}:{port} takes no connection: {reached.said}")
    with reached.link as link:
        answer = _through(link, payload, inside) if inside else speaking.say(link, payload)
    if answer.said.startswith(_NOT_DONE):
        return closed(f"the proxy answered: {speaking.first_line(answer.said)}")
    if not answer.said:
        return silent(f"the proxy ended the connection without a byte {answer.problem}".rstrip())
    return answer.seen("the proxy", interceptor=True)


def _through(link: socket.socket, payload: bytes, inside: bytes) -> Answer:
    link.settimeout(speaking.SECONDS)
    try:
        link.sendall(payload)
        said = link.recv(4096)
    except OSError:
        return Answer(b"", governed=False)
    # Governor grants a tunnel to refuse inside it, where the refusal can be read.
    return speaking.say(link, inside) if said.startswith(b"HTTP/1.1 200") else Answer(said, governed=False)


def _address(host: str) -> str:
    return str(socket.getaddrinfo(_LOCAL.get(host, host), None, type=socket.SOCK_STREAM)[0][4][0])


def _tunnel(target: str) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n".encode()


for name, way, target, inside in (
    ("tunnel-22", "have the proxy tunnel to port 22 of an unlisted host", "192.0.2.1:22", b"SSH-2.0-attempt\r\n"),
    ("tunnel-metadata", "have the proxy tunnel to the cloud's metadata service", "169.254.169.254:80",
     get("169.254.169.254", "/latest/meta-data/")),
    ("tunnel-raw", "speak neither TLS nor HTTP in a tunnel", f"{UNLISTED}:443", b"\x00\x01\x02attempt\n"),
    ("tunnel-metrics", "have the proxy tunnel to Governor's own metrics", "127.0.0.1:9464",
     get("127.0.0.1", "/metrics")),
    ("tunnel-web", "have the proxy tunnel to mitmweb", "127.0.0.1:8081", get("127.0.0.1")),
    ("tunnel-localhost", "have the proxy tunnel to port 22 of its own host", "localhost:22", b"SSH-2.0-attempt\r\n"),
    ("tunnel-dns", "have the proxy tunnel to a resolver over TLS", "8.8.8.8:853", b"\x00\x01attempt\n"),
    ("tunnel-itself", "have the proxy tunnel to itself", "127.0.0.1:8080", get(UNLISTED)),
):
    FAMILY.add(name, way, _REFUSED, partial(_ask, payload=_tunnel(target), inside=inside))
for name, way, payload in (
    ("proxy-unlisted", "have the proxy fetch from an unlisted host", get(UNLISTED, f"http://{UNLISTED}/")),
    ("proxy-other-host", "name one host in the target and another in Host", get("example.org", f"http://{UNLISTED}/")),
    ("proxy-ftp", "have the proxy fetch by FTP", get(UNLISTED, f"ftp://{UNLISTED}/")),
    ("proxy-file", "have the proxy read a file", get("localhost", "file:///etc/passwd")),
    ("proxy-socks4", "speak SOCKS4 with the proxy", b"\x04\x01\x00\x16\xc0\x00\x02\x01\x00"),
    ("proxy-http2", "speak HTTP/2 with the proxy", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
):
    FAMILY.add(name, way, _REFUSED, partial(_ask, payload=payload))
