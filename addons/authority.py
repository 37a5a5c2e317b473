"""The certificate authority of the home: EC P-256, pathlen 0, 90 days, in the form mitmproxy reads."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from mitmproxy import certs

from addons.errors import StartCode, StartRefused
from addons.keys import read_private

LIFE = timedelta(days=90)
LEAF_LIFE = timedelta(days=7)
# mitmproxy dates its leaves two days back for clients with slow clocks; a CA younger than its leaf is refused by some.
BACKDATED = timedelta(days=2)
KEY_FILE = "mitmproxy-ca.pem"
CERTIFICATE_FILE = "mitmproxy-ca-cert.pem"


def ensure(folder: Path, now: datetime) -> Path:
    """The certificate to trust, made (again) when absent or when less than a third of its life is left.

    Raises `StartRefused` where the key is open to others, or the file holds no key with its certificate.
    """
    certificate = folder / CERTIFICATE_FILE
    if not (folder / KEY_FILE).exists() or _read(folder).not_valid_after_utc - now < LIFE / 3:
        _make(folder, now)
    pem = _read(folder).public_bytes(serialization.Encoding.PEM)
    # A crash between the two files, or a lost one, must not hand out a certificate with which nothing is signed.
    if not certificate.exists() or certificate.read_bytes() != pem:
        _write(certificate, pem, 0o644)
    date_leaves(folder, now)
    return certificate


def date_leaves(folder: Path, now: datetime) -> None:
    """Have the leaves that this process makes end no later than the CA, and live at most a week."""
    # mitmproxy reads this at each issue and adds the offset.
    certs.CERT_EXPIRY = min(LEAF_LIFE, expiry(folder) - now) + BACKDATED


def expiry(folder: Path) -> datetime:
    """When the CA of this folder ends."""
    return x509.load_pem_x509_certificate((folder / CERTIFICATE_FILE).read_bytes()).not_valid_after_utc


def _read(folder: Path) -> x509.Certificate:
    """The certificate that mitmproxy signs under."""
    path = folder / KEY_FILE
    content = read_private(path)
    try:
        certificate = x509.load_pem_x509_certificate(content)
        key = serialization.load_pem_private_key(content, password=None)
        if key.public_key() == certificate.public_key():
            return certificate
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    text = f"{path} holds no key with its certificate; restore it from a backup, or remove it to have another made"
    raise StartRefused(StartCode.HOME_INCOMPLETE, text)


def _make(folder: Path, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key, now)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                               serialization.NoEncryption())
    _write(folder / KEY_FILE, secret + pem)


def _certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Governor"),
                      x509.NameAttribute(NameOID.COMMON_NAME, f"Governor CA {now:%Y-%m-%d}")])
    usage = x509.KeyUsage(digital_signature=False, content_commitment=False, key_encipherment=False,
                          data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
                          encipher_only=False, decipher_only=False)
    return (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(public).serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED).not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace the file at once: a crash leaves the old one or the new one."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)

