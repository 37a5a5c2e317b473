"""Origins for the end-to-end tests: real servers on loopback that remember every connection and every request."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAMES = ("localhost", "*.example.org")


@dataclass
class Seen:
    """What reached an origin: connections, and requests as (method, path, headers, body)."""

    connections: int = 0
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.requests]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: Seen

    def setup(self) -> None:
        super().setup()
        self.seen.connections += 1

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self) -> None:
        body = self._body()
        self.seen.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.reply()

    def reply(self) -> None:
        """200 with the request line; a test may serve something else by overriding this."""
        content = b"" if self.command == "HEAD" else f"{self.command} {self.path}\n".encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """The tests ask `seen`."""


@dataclass(frozen=True)
class Origin:
    """A running origin. `url` has no trailing slash and names it `localhost`."""

    scheme: str
    port: int
    seen: Seen

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what many tests are about."""


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler] = _Handler, chain: Path | None = None,
            place: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[Origin]:
    """An origin on a free port or at a given place; over TLS where `chain` (key and certificate) is given."""
    seen = Seen()
    server = _Server(place, type("SeeingHandler", (handler,), {"seen": seen}))
    if chain is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Origin("http" if chain is None else "https", server.server_port, seen)
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def counting() -> Iterator[Origin]:
    """A listener that counts connections and answers nothing: for destinations that must never be reached."""
    seen = Seen()

    class Count(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            seen.connections += 1

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Count)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield Origin("tcp", server.server_address[1], seen)
    finally:
        server.shutdown()
        server.server_close()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for `NAMES`: the file with its key, and the file to trust."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test origin")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256()))
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain, trusted = folder / "origin.pem", folder / "origin-ca.pem"
    chain.write_bytes(secret + pem)
    trusted.write_bytes(pem)
    return chain, trusted
