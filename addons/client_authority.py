"""The CA that signs the certificates of clients: the file that a policy names, read and looked over when it loads."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from addons.errors import GovernorError

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 1024 * 1024
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_HINT = "name a file of PEM certificates of the CA"


class AuthorityError(GovernorError):
    """A file that is no CA's, or no longer. The message says what is wrong with it, `hint` what to do."""

    def __init__(self, problem: str, hint: str = _HINT) -> None:
        self.problem, self.hint = problem, hint
        super().__init__(f"{problem} ({hint})")


@dataclass(frozen=True, slots=True)
class Authority:
    """Certificates of CAs, one after the other in PEM: a chain that ends in one of them is good."""

    pem: bytes

    @property
    def certificates(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self.pem)


def is_authority(content: bytes) -> bool:
    """True for what `read` makes of a file: no policy and no table begins like this."""
    return content.startswith(_BEGIN)


def read(path: Path, now: datetime) -> Authority:
    """The certificates in a file, without what else stands there. Raises `AuthorityError`."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise AuthorityError(f"{path} is not a file")
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as fault:
        raise AuthorityError(f"{path}: {getattr(fault, 'strerror', None) or fault}") from fault
    if len(content) > _MOST_BYTES:
        raise AuthorityError(f"{path} is larger than {_MOST_BYTES} bytes")
    certificates = _certificates(path, content)
    for certificate in certificates:
        if not _signs(certificate):
            raise AuthorityError(f"{path}: {_named(certificate)} is not a CA, and signs nobody's certificate")
    if all(certificate.not_valid_after_utc <= now for certificate in certificates):
        last = max(certificate.not_valid_after_utc for certificate in certificates)
        raise AuthorityError(f"{path} expired on {last:%Y-%m-%d}", "put the certificate of a CA there that still holds")
    return Authority(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates))


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    if b"PRIVATE KEY-----" in content:
        # It would be kept beside the log, and whoever has it is any agent.
        raise AuthorityError(f"{path} holds a private key", "leave only the certificate there, and the key elsewhere")
    try:
        return x509.load_pem_x509_certificates(content)
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise AuthorityError(f"{path} holds no certificate that can be read") from fault


def _signs(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def _named(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:80] or "a certificate without a name"
