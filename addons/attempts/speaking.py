"""Speaking HTTP and TLS over a connection that was taken, to learn whether Governor is at its other end."""

from __future__ import annotations

import secrets
import socket
import ssl
from dataclasses import dataclass

from addons.attempts.attempt import Seen, closed, opened, silent, words

SECONDS = 1.5
UNLISTED = f"governor-attempt-{secrets.token_hex(6)}.invalid"
"""A name that no policy allows. `.invalid` never resolves."""
OWN_NAME = "governor.internal"
"""A name that every policy allows: Governor itself answers."""
_REFUSAL_MARKS = (
    b" by Governor: ", b"x-governor-entry", b"Governor refused", b"Governor allowed", b"Governor ended",
    b"Governor is the network policy here",
)
_CA_MARK = b"Governor CA"
_MOST_BYTES = 16384


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and whether the TLS certificate was one of Governor's."""

    said: bytes
    governed: bool
    problem: str = ""

    def seen(self, where: str, interceptor: bool) -> Seen:
        """`interceptor`: somebody on the way takes connections for every address."""
        if any(mark in self.said for mark in _REFUSAL_MARKS):
            return closed(f"{where}: Governor answered: {first_line(self.said)}")
        if self.governed:
            # What Governor's own policy allows is no way round it.
            then = first_line(self.said) or "the end of the connection"
            return closed(f"{where}: Governor's certificate, and {then}")
        if self.said:
            return opened(f"{where} answered: {first_line(self.said)}")
        if interceptor:
            return silent(f"{where}: taken on the way, and ended without a byte {self.problem}".rstrip())
        return opened(f"{where} took the connection and the bytes {self.problem}".rstrip())


def first_line(said: bytes) -> str:
    """What an answer begins with, for a person: printable, and short."""
    line = said.split(b"\r\n", 1)[0][:80].decode("latin-1")
    return "".join(sign if sign.isprintable() else "." for sign in line)


def get(host: str, target: str = "/", extra: str = "") -> bytes:
    """A GET with that Host."""
    return f"GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{extra}\r\n".encode()


def say(link: socket.socket, payload: bytes) -> Answer:
    """Send bytes as they are, and read what comes."""
    link.settimeout(SECONDS)
    try:
        link.sendall(payload)
    except OSError as fault:
        return Answer(b"", governed=False, problem=words(fault))
    return _read(link, governed=False)


def say_in_tls(link: socket.socket, server_name: str | None, payload: bytes, protocols: tuple[str, ...] = ()) -> Answer:
    """The same inside TLS. The certificate is looked at, and trusted whatever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    link.settimeout(SECONDS)
    try:
        tls = context.wrap_socket(link, server_hostname=server_name)
    except (OSError, ValueError) as fault:
        return Answer(b"", governed=False, problem=f"TLS: {getattr(fault, 'reason', None) or fault}")
    with tls:
        governed = _CA_MARK in (tls.getpeercert(binary_form=True) or b"")
        try:
            tls.sendall(payload)
        except OSError as fault:
            return Answer(b"", governed, words(fault))
        return _read(tls, governed=governed)


def _read(link: socket.socket, *, governed: bool) -> Answer:
    said = b""
    try:
        while len(said) < _MOST_BYTES and (part := link.recv(4096)):
            said += part
    except OSError as fault:
        return Answer(said, governed, words(fault))
    return Answer(said, governed)
