"""Certificate authorities and certificates of clients, made for a test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

CLIENTS = ExtendedKeyUsageOID.CLIENT_AUTH
SERVERS = ExtendedKeyUsageOID.SERVER_AUTH
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and the certificates that lead from it to a CA."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    through: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """The certificate and those behind it."""
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (self.certificate, *self.through))

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def written(self, folder: Path, name: str) -> Path:
        """A file with the certificates, and one with the key beside it."""
        (folder / f"{name}.key").write_bytes(self.key_pem)
        file = folder / f"{name}.pem"
        file.write_bytes(self.pem)
        return file


def authority(name: str = "clients", *, ends: timedelta = DAY, above: Issued | None = None) -> Issued:
    """A CA: its own root, or below another."""
    return _issued([name], above, ends, x509.BasicConstraints(ca=True, path_length=None))


def issued(by: Issued | None, *names: str, use: ObjectIdentifier | None = CLIENTS, ends: timedelta = DAY) -> Issued:
    """A certificate for a client with these common names, signed by a CA or by itself."""
    return _issued(list(names), by, ends, x509.BasicConstraints(ca=False, path_length=None), use)


def _issued(names: list[str], by: Issued | None, ends: timedelta, constraints: x509.BasicConstraints,
            use: ObjectIdentifier | None = None) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder().subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now + min(ends, timedelta()) - DAY).not_valid_after(now + ends)
        .add_extension(constraints, critical=True))
    if use is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    certificate = builder.sign(key if by is None else by.key, hashes.SHA256())
    below_a_root = by is not None and by.certificate.issuer != by.certificate.subject
    return Issued(certificate, key, (by.certificate, *by.through) if by is not None and below_a_root else ())
