"""The origin: nginx on loopback with HTTP and TLS + HTTP/2, under a certificate authority made for this run."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BODY = '{"id": 1, "name": "' + "x" * 120 + '", "tags": ["a", "b"]}'
CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; default_type application/json; keepalive_requests 100000000; keepalive_timeout 600s;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ {http} location / {{ return 200 '{body}'; }} }}
    server {{
        {https} ssl_certificate {folder}/origin.pem; ssl_certificate_key {folder}/origin.pem;
        location / {{ return 200 '{body}'; }}
    }}
}}
"""


class NoOrigin(Exception):
    """nginx cannot be had; the text says how to get it."""


@dataclass(frozen=True)
class Origin:
    """A running nginx. `addresses` are all that the name localhost has here; the load generator itself serves events at
    `events_port`."""

    process: subprocess.Popen[bytes]
    http_port: int
    https_port: int
    events_port: int
    authority: Path
    addresses: tuple[str, ...]


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def start_origin(folder: Path) -> Origin:
    """nginx, listening. Raises `NoOrigin`."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin:/usr/bin")
    if nginx is None:
        raise NoOrigin("nginx is not installed: apt-get install nginx-light")
    authority = _write_certificates(folder)
    addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)})
    http_port, https_port, events_port = free_port(), free_port(), free_port()
    configuration = folder / "nginx.conf"
    http, https = _listen(addresses, http_port, ""), _listen(addresses, https_port, "ssl http2")
    configuration.write_text(CONFIGURATION.format(folder=folder, body=BODY, http=http, https=https))
    process = subprocess.Popen([nginx, "-e", str(folder / "nginx.log"), "-p", str(folder), "-c", str(configuration)],
                               stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Origin(process, http_port, https_port, events_port, authority, tuple(addresses))


def _listen(addresses: list[str], port: int, options: str) -> str:
    brackets = [f"[{address}]" if ":" in address else address for address in addresses]
    return " ".join(f"listen {address}:{port} {options};" for address in brackets)


def _write_certificates(folder: Path) -> Path:
    """The authority's certificate; the origin's key and certificate lie beside it."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("bench authority", authority_key, None, authority_key)
    leaf = _certificate("localhost", key, authority, authority_key)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "origin.pem").write_bytes(pem + leaf.public_bytes(serialization.Encoding.PEM))
    path = folder / "authority.pem"
    path.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    return path


def _certificate(name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None,
                 issuer_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signer = issuer_key.public_key()
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
        .add_extension(names, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
