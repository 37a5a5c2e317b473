"""Ports 80 and 443, where requests go: what is no request, and what says one thing and means another."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from functools import partial

from addons.attempts import speaking
from addons.attempts.attempt import Family, Seen, worst
from addons.attempts.name_questions import question
from addons.attempts.reaching import Contact, compared, streams
from addons.attempts.speaking import OWN_NAME, UNLISTED, Answer, get
from addons.attempts.surroundings import NOBODY, NOBODY_6, Surroundings

FAMILY = Family("web")
_JUDGED = "Governor's 403, an ended connection, or no connection"
_METADATA = "169.254.169.254"
_MOST_TARGETS = 2

type Speak = Callable[[socket.socket], Answer]


def _ask(here: Surroundings, port: int, speak: Speak, addresses: tuple[str, ...] = (), ipv6: bool = False) -> Seen:
    """What speaking so with each of the addresses brings; with those of `here` where none is given."""
    wanted = addresses or (here.targets_6 if ipv6 else here.targets)
    nobody = NOBODY_6 if ipv6 else NOBODY
    reached = streams((nobody, *wanted), port)
    interceptor = any(each.address == nobody and each.contact is Contact.ANSWERED for each in reached)
    seen = []
    spoken = 0
    for each in compared(reached, nobody):
        if each.link is None:
            seen.append(each.seen(port))
        # Where somebody takes all connections, a few of them tell as much as all.
        elif spoken < _MOST_TARGETS:
            spoken += 1
            seen.append(speak(each.link).seen(f"{each.address} port {port}", interceptor))
    for each in reached:
        if each.link is not None:
            each.link.close()
    return worst(seen, "there is no address of this family to try")


def _say(payload: bytes) -> Speak:
    return lambda link: speaking.say(link, payload)


def _in_tls(server_name: str | None, payload: bytes, *protocols: str) -> Speak:
    return lambda link: speaking.say_in_tls(link, server_name, payload, protocols)


_H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_UPGRADE = (
    f"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {'A' * 22}==\r\n"
)
_ENCODED = secrets.token_hex(24).encode()

for name, way, port, speak in (
    ("raw-bytes-443", "send bytes that are neither TLS nor HTTP to port 443", 443,
     _say(b"\x00\x01" + _ENCODED + b"\n")),
    ("raw-bytes-80", "send bytes that are not HTTP to port 80", 80, _say(b"\x00\x01" + _ENCODED + b"\r\n\r\n")),
    ("ssh-443", "speak SSH on port 443", 443, _say(b"SSH-2.0-attempt\r\n")),
    ("plain-http-443", "speak plain HTTP on port 443", 443, _say(get(UNLISTED))),
    ("plain-http-80", "ask for an unlisted host by plain HTTP", 80, _say(get(UNLISTED))),
    ("http-by-address", "ask an address by plain HTTP, without any name", 80, _say(get("203.0.113.7"))),
    ("http-0.9", "ask in HTTP/0.9, without a version or a Host", 80, _say(b"GET /\r\n\r\n")),
    ("http-without-host", "ask in HTTP/1.0 without a Host", 80, _say(b"GET / HTTP/1.0\r\n\r\n")),
    ("http2-by-prior-knowledge", "begin with HTTP/2 without TLS", 80, _say(_H2_PREFACE)),
    ("connect-on-80", "ask port 80 for a tunnel (CONNECT) to port 22 elsewhere", 80,
     _say(f"CONNECT {UNLISTED}:22 HTTP/1.1\r\nhost: {UNLISTED}:22\r\n\r\n".encode())),
    ("absolute-target-on-80", "name another host in the target than in Host", 80,
     _say(get("example.org", f"http://{UNLISTED}/"))),
    ("host-of-another", "send a Host that is allowed to an address that is not its own", 80, _say(get(OWN_NAME))),
    ("websocket-80", "ask an unlisted host to become a WebSocket", 80, _say(get(UNLISTED, extra=_UPGRADE))),
    ("two-hosts", "send two Host headers", 80, _say(get("example.org", extra=f"host: {UNLISTED}\r\n"))),
    (
        "smuggled-request",
        "hide a request in the body of another (both framings)",
        80,
        _say(
            get("example.org", extra="transfer-encoding: chunked\r\ncontent-length: 4\r\n")
            + b"0\r\n\r\n"
            + get(UNLISTED)
        ),
    ),
    ("tls-unlisted", "ask for an unlisted host over TLS", 443, _in_tls(UNLISTED, get(UNLISTED))),
    ("tls-other-host", "name one host in the TLS hello and another in Host", 443,
     _in_tls("example.org", get(UNLISTED))),
    ("tls-without-name", "send a TLS hello without a server name", 443, _in_tls(None, get("203.0.113.7"))),
    ("tls-other-protocol", "speak another protocol inside TLS", 443,
     _in_tls(UNLISTED, b"\x00\x01" + _ENCODED, "other/1")),
    (
        "doh-unlisted",
        "ask a DNS-over-HTTPS server that is not listed, by name",
        443,
        _in_tls(
            "dns.attempt.invalid",
            get("dns.attempt.invalid", "/dns-query?dns=AAABAAABAAAAAAAAB2V4YW1wbGUDb3JnAAABAAE")),
    ),
):
    FAMILY.add(name, way, _JUDGED, partial(_ask, port=port, speak=speak))

for name, server, address in (
    ("doh-google", "dns.google", "8.8.8.8"),
    ("doh-cloudflare", "cloudflare-dns.com", "1.1.1.1"),
):
    FAMILY.add(
        name,
        f"ask {server} over HTTPS at {address}",
        _JUDGED,
        partial(
            _ask, port=443, addresses=(address,),
            speak=_in_tls(server, get(server, f"/resolve?name={UNLISTED}", "accept: application/dns-json\r\n"))),
    )

for name, way, host in (
    ("metadata", "ask the cloud's metadata service", _METADATA),
    ("metadata-other-host", "ask the cloud's metadata service under another Host", OWN_NAME),
    ("metadata-decimal", "ask the cloud's metadata service under its decimal spelling", "2852039166"),
):
    FAMILY.add(
        name,
        way,
        _JUDGED,
        partial(
            _ask,
            port=80,
            addresses=(_METADATA,),
            # Governor knows one path alone under its own name.
            speak=_say(get(host, "/" if host == OWN_NAME else "/latest/meta-data/", "metadata-flavor: Google\r\n")),
        ),
    )
FAMILY.add(
    "metadata-elsewhere", "ask the metadata services of other clouds", _JUDGED,
    partial(_ask, port=80, addresses=("168.63.129.16", "100.100.100.200"), speak=_say(get("metadata", "/"))))
FAMILY.add(
    "metadata-ipv6", "ask the cloud's metadata service over IPv6", _JUDGED,
    partial(_ask, port=80, addresses=("fd00:ec2::254",), ipv6=True, speak=_say(get("metadata", "/"))))
FAMILY.add(
    "http-ipv6", "ask for an unlisted host by plain HTTP over IPv6", _JUDGED,
    partial(_ask, port=80, ipv6=True, speak=_say(get(UNLISTED))))
FAMILY.add(
    "tls-ipv6", "ask for an unlisted host over TLS over IPv6", _JUDGED,
    partial(_ask, port=443, ipv6=True, speak=_in_tls(UNLISTED, get(UNLISTED))))
FAMILY.add(
    "dns-over-443", "send a DNS question as it is to port 443", _JUDGED,
    partial(_ask, port=443, speak=_say(question(UNLISTED, framed=True))))
