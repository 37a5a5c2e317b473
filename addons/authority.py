"""The certificate authority that mitmproxy signs under, and how it gives way to its successor.

EC P-256, pathlen 0, 90 days, in the form mitmproxy reads. A successor is handed out for a while before it signs, and
the certificate that signed before is handed out until its end: who trusts what is handed out is never surprised.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from mitmproxy import certs

from addons import durable
from addons.client_trust import laid
from addons.errors import StartCode, StartRefused
from addons.keys import read_private

LIFE = timedelta(days=90)
# Nothing trusts it but the command of the run, and its key goes with the run: it only has to last as long.
RUN_LIFE = timedelta(days=365)
LEAF_LIFE = timedelta(days=7)
OVERLAP = timedelta(days=7)
# mitmproxy dates its leaves two days back for clients with slow clocks; a CA younger than its leaf is refused by some.
BACKDATED = timedelta(days=2)
# What is handed out is public; the folder, which is private, is not what keeps it.
_HANDED_OUT_MODE = 0o644
KEY_FILE = "mitmproxy-ca.pem"
CERTIFICATE_FILE = "mitmproxy-ca-cert.pem"
# What `governor ca env` has clients read: it follows the CA.
TRUST_FOLDER = "trust"
_NEXT_FILE = "next.pem"
_PREVIOUS_FILE = "previous.pem"
_LOCK_FILE = ".lock"
_RUN_NAME = "Governor run "
_SIGNS_FROM = re.compile(rb"# signs from (\S+)\n")


@dataclass(frozen=True, slots=True)
class Standing:
    """Which certificates clients are to trust: the one that signs, the one that will from a time on, those that did."""

    signing: x509.Certificate
    successor: x509.Certificate | None
    signs_from: datetime | None
    previous: tuple[x509.Certificate, ...]

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """All of them, the one that signs first."""
        return (self.signing, *([self.successor] if self.successor else []), *self.previous)


def ensure(folder: Path, now: datetime) -> Path:
    """The certificates to trust, made where there are none. Does what is due: a successor is made, or takes over.

    Raises `StartRefused` where the key is open to others, or the file holds no key with its certificate.
    """
    with durable.locked(folder / _LOCK_FILE):
        return _settled(folder, now)


def rotate(folder: Path, now: datetime, overlap: timedelta = OVERLAP, *, withdraw: bool = False) -> Standing:
    """Have a successor made that signs after `overlap`. One that waits already is the one, and at the earlier time.

    `withdraw`: what there was before is not handed out any more, since somebody else may have its key. The key of one
    that waits has lain beside it, so another is made.
    """
    with durable.locked(folder / _LOCK_FILE):
        _settled(folder, now)
        if withdraw:
            (folder / _NEXT_FILE).unlink(missing_ok=True)
        successor, signs_from = _waiting(folder) or (_made(_new_name(now), now, LIFE), now + overlap)
        _put_next(folder, successor, min(signs_from, now + overlap))
        _settled(folder, now)
        if withdraw:
            (folder / _PREVIOUS_FILE).unlink(missing_ok=True)
            _hand_out(folder, now)
        return _standing(folder, now)


def standing(folder: Path, now: datetime) -> Standing:
    """What clients are to trust at this time. `StartRefused` where there is no CA yet."""
    with durable.locked(folder / _LOCK_FILE):
        return _standing(folder, now)


def for_run(folder: Path, run: str, now: datetime) -> Path:
    """The certificate to trust of a CA for one run, which lives a year and has no successor."""
    if not (folder / KEY_FILE).exists():
        durable.replace(folder / KEY_FILE, _made(f"{_RUN_NAME}{run}", now, RUN_LIFE))
    return ensure(folder, now)


def _settled(folder: Path, now: datetime) -> Path:
    if not (folder / KEY_FILE).exists() and not (folder / _NEXT_FILE).exists():
        durable.replace(folder / KEY_FILE, _made(_new_name(now), now, LIFE))
    waiting = _waiting(folder)
    if waiting is None and _is_due(_read(folder), now):
        signs_from = min(now + OVERLAP, max(now, _read(folder).not_valid_after_utc - LEAF_LIFE))
        waiting = _made(_new_name(now), now, LIFE), signs_from
        _put_next(folder, *waiting)
    if waiting is not None and (waiting[1] <= now or not (folder / KEY_FILE).exists()):
        _take_over(folder, waiting[0])
    handed_out = _hand_out(folder, now)
    date_leaves(folder, now)
    return handed_out


def _hand_out(folder: Path, now: datetime) -> Path:
    handed_out = folder / CERTIFICATE_FILE
    pem = b"".join(_pem(each) for each in _standing(folder, now).trusted)
    before = handed_out.read_bytes() if handed_out.exists() else b""
    # A crash between the two files, or a lost one, must not hand out a certificate with which nothing is signed.
    if before != pem:
        # The copies first: after a crash between, the file still differs, and the next call does both.
        if (folder / TRUST_FOLDER).exists():
            laid.renew(folder / TRUST_FOLDER, before, pem)
        durable.replace(handed_out, pem)
    handed_out.chmod(_HANDED_OUT_MODE)
    return handed_out


def _is_due(signing: x509.Certificate, now: datetime) -> bool:
    """Whether less than a third of its life is left. Of a run's nobody would hear who comes after it."""
    return not _common_name(signing).startswith(_RUN_NAME) and signing.not_valid_after_utc - now < LIFE / 3


def _take_over(folder: Path, successor: bytes) -> None:
    """The successor signs from here on. A crash at any line leaves what the next call completes."""
    if (folder / KEY_FILE).exists():
        signed = _read(folder)
        if _pem(signed) not in successor:
            durable.replace(folder / _PREVIOUS_FILE, b"".join(map(_pem, dict.fromkeys([signed, *_previous(folder)]))))
    durable.replace(folder / KEY_FILE, successor)
    (folder / _NEXT_FILE).unlink()
    durable.sync_folder(folder)


def _standing(folder: Path, now: datetime) -> Standing:
    signing, waiting = _read(folder), _waiting(folder)
    successor = x509.load_pem_x509_certificate(waiting[0]) if waiting else None
    previous = tuple(each for each in _previous(folder) if each.not_valid_after_utc > now)
    return Standing(signing, successor, waiting[1] if waiting else None, previous)


def _previous(folder: Path) -> list[x509.Certificate]:
    file = folder / _PREVIOUS_FILE
    return x509.load_pem_x509_certificates(file.read_bytes()) if file.exists() else []


def _put_next(folder: Path, key_and_certificate: bytes, signs_from: datetime) -> None:
    durable.replace(folder / _NEXT_FILE, b"# signs from %s\n" % signs_from.isoformat().encode() + key_and_certificate)


def _waiting(folder: Path) -> tuple[bytes, datetime] | None:
    """The successor's key with its certificate, and from when on it signs."""
    path = folder / _NEXT_FILE
    if not path.exists():
        return None
    content = read_private(path)
    said = _SIGNS_FROM.match(content)
    if said is None:
        raise _damaged(path)
    held = content[said.end():]
    _checked(path, held)
    return held, datetime.fromisoformat(said[1].decode())


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
    return _checked(path, read_private(path))


def _checked(path: Path, content: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(content)
        key = serialization.load_pem_private_key(content, password=None)
        if key.public_key() == certificate.public_key():
            return certificate
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    raise _damaged(path)


def _damaged(path: Path) -> StartRefused:
    text = f"{path} holds no key with its certificate; restore it from a backup, or remove it to have another made"
    return StartRefused(StartCode.HOME_INCOMPLETE, text)


def _new_name(now: datetime) -> str:
    # Clients that look an issuer up by its name must not find the one before it, so two of a day differ.
    return f"Governor CA {now:%Y-%m-%d} {secrets.token_hex(3)}"


def _made(name: str, now: datetime, life: timedelta) -> bytes:
    """A new key with its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                               serialization.NoEncryption())
    return secret + _pem(_certificate(key, name, now, life))


def _certificate(key: ec.EllipticCurvePrivateKey, named: str, now: datetime, life: timedelta) -> x509.Certificate:
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Governor"),
                      x509.NameAttribute(NameOID.COMMON_NAME, named)])
    usage = x509.KeyUsage(digital_signature=False, content_commitment=False, key_encipherment=False,
                          data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
                          encipher_only=False, decipher_only=False)
    return (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(public).serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED).not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
