"""The certificate authority of a home: what clients are asked to trust, and no longer than needed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from mitmproxy import certs

from addons import authority
from addons.errors import StartRefused

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def leaf_life() -> Iterator[None]:
    """mitmproxy's own life of leaves, afterwards."""
    before = certs.CERT_EXPIRY
    yield
    certs.CERT_EXPIRY = before


def read(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / authority.CERTIFICATE_FILE).read_bytes())


def test_the_authority_signs_leaves_for_ninety_days_and_no_further_authority(tmp_path: Path) -> None:
    certificate = authority.ensure(tmp_path, NOW)

    made = read(tmp_path)
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert certificate == tmp_path / "mitmproxy-ca-cert.pem"
    assert (constraints.ca, constraints.path_length) == (True, 0)
    assert made.not_valid_after_utc == NOW + timedelta(days=90) == authority.expiry(tmp_path)
    assert isinstance(made.public_key(), ec.EllipticCurvePublicKey)
    made.verify_directly_issued_by(made)


def test_the_key_is_private_and_the_certificate_is_not(tmp_path: Path) -> None:
    authority.ensure(tmp_path, NOW)

    assert stat.S_IMODE((tmp_path / authority.KEY_FILE).stat().st_mode) == 0o600
    assert b"PRIVATE KEY" not in (tmp_path / authority.CERTIFICATE_FILE).read_bytes()
    assert b"PRIVATE KEY" in (tmp_path / authority.KEY_FILE).read_bytes()


@pytest.mark.parametrize(("later", "renewed"), [(timedelta(days=60), False), (timedelta(days=61), True)])
def test_the_authority_is_renewed_when_a_third_of_its_life_is_left(
        tmp_path: Path, later: timedelta, renewed: bool) -> None:
    authority.ensure(tmp_path, NOW)
    first = read(tmp_path).serial_number

    authority.ensure(tmp_path, NOW + later)

    assert (read(tmp_path).serial_number != first) is renewed


def test_an_authority_without_its_key_is_made_again(tmp_path: Path) -> None:
    authority.ensure(tmp_path, NOW)
    first = read(tmp_path).serial_number
    (tmp_path / authority.KEY_FILE).unlink()

    authority.ensure(tmp_path, NOW)

    assert read(tmp_path).serial_number != first


@pytest.mark.parametrize("content", [None, b"", b"the certificate of before"])
def test_the_certificate_to_trust_is_always_the_one_that_signs(tmp_path: Path, content: bytes | None) -> None:
    certificate = authority.ensure(tmp_path, NOW)
    right = certificate.read_bytes()
    certificate.unlink()
    if content is not None:
        certificate.write_bytes(content)

    authority.ensure(tmp_path, NOW)

    assert certificate.read_bytes() == right


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_can_read_refuses_the_start(tmp_path: Path, mode: int) -> None:
    authority.ensure(tmp_path, NOW)
    (tmp_path / authority.KEY_FILE).chmod(mode)

    with pytest.raises(StartRefused, match="KEY_PERMISSIONS"):
        authority.ensure(tmp_path, NOW)


def damaged(folder: Path) -> list[bytes]:
    key, certificate = (folder / authority.KEY_FILE).read_bytes(), (folder / authority.CERTIFICATE_FILE).read_bytes()
    other = folder / "other"
    other.mkdir()
    others = authority.ensure(other, NOW).read_bytes()
    return [b"", b"no PEM", key[:100], certificate, key.replace(certificate, others)]


@pytest.mark.parametrize("which", range(5))
def test_a_damaged_key_file_refuses_the_start(tmp_path: Path, which: int) -> None:
    authority.ensure(tmp_path, NOW)
    (tmp_path / authority.KEY_FILE).write_bytes(damaged(tmp_path)[which])

    with pytest.raises(StartRefused, match="HOME_INCOMPLETE"):
        authority.ensure(tmp_path, NOW)


def test_mitmproxy_takes_the_authority_and_its_leaves_live_a_week(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority.ensure(tmp_path, now)
    store = certs.CertStore.from_store(tmp_path, "mitmproxy", 2048)

    leaf = store.get_cert("api.example.org", [x509.DNSName("api.example.org")]).cert.to_cryptography()

    leaf.verify_directly_issued_by(read(tmp_path))
    assert leaf.not_valid_after_utc - now < timedelta(days=7, minutes=5)
