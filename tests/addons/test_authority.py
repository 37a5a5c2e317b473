"""The certificate authority of a home: what clients are asked to trust, and no longer than needed."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from mitmproxy import certs

from addons import authority, durable
from addons.client_trust.laid import lay_variables
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


DAY = timedelta(days=1)


@pytest.fixture
def handed_out(tmp_path: Path) -> Callable[[datetime], str]:
    """What is handed out at a time after `ensure`, the one that signs first: "a" is the first CA, "b" the second."""
    known: dict[int, str] = {}

    def letters(now: datetime) -> str:
        authority.ensure(tmp_path, now)
        trusted = x509.load_pem_x509_certificates((tmp_path / authority.CERTIFICATE_FILE).read_bytes())
        return "".join(known.setdefault(each.serial_number, "abcdefgh"[len(known)]) for each in trusted)

    return letters


def test_a_successor_is_handed_out_a_week_before_it_signs_and_the_old_one_until_its_end(
        handed_out: Callable[[datetime], str]) -> None:
    days = (0, 59, 61, 67, 69, 89, 91)

    assert [handed_out(NOW + day * DAY) for day in days] == ["a", "a", "ab", "ab", "ba", "ba", "b"]


@pytest.mark.parametrize(("late", "then"), [(80, "ab"), (84, "ba"), (91, "b")])
def test_a_start_after_long_has_the_successor_sign_before_the_leaves_would_be_cut_short(
        handed_out: Callable[[datetime], str], late: int, then: str) -> None:
    handed_out(NOW)

    assert handed_out(NOW + late * DAY) == then


def test_what_expires_is_told_of_the_one_that_signs(tmp_path: Path) -> None:
    authority.ensure(tmp_path, NOW)
    authority.rotate(tmp_path, NOW + DAY, 2 * DAY)
    waiting = authority.expiry(tmp_path)
    authority.ensure(tmp_path, NOW + 3 * DAY)

    assert (waiting, authority.expiry(tmp_path)) == (NOW + 90 * DAY, NOW + 91 * DAY)


def test_a_rotation_asked_for_twice_makes_one_successor_and_the_earlier_time_holds(tmp_path: Path) -> None:
    authority.ensure(tmp_path, NOW)
    first = authority.rotate(tmp_path, NOW, 5 * DAY)
    later = authority.rotate(tmp_path, NOW + DAY, 7 * DAY)
    at_once = authority.rotate(tmp_path, NOW + 2 * DAY, 0 * DAY)

    assert (later.successor, later.signs_from) == (first.successor, NOW + 5 * DAY)
    assert (at_once.signing, at_once.successor, at_once.previous) == (first.successor, None, (first.signing,))


def test_where_somebody_else_may_have_the_key_a_successor_that_lay_beside_it_never_signs(tmp_path: Path) -> None:
    authority.ensure(tmp_path, NOW)
    waited = authority.rotate(tmp_path, NOW, DAY).successor

    fresh = authority.rotate(tmp_path, NOW, 0 * DAY, withdraw=True)

    assert waited not in (None, fresh.signing)
    assert (trusted(tmp_path), fresh.trusted) == ([fresh.signing], (fresh.signing,))


def test_two_that_rotate_at_once_make_one_successor(tmp_path: Path) -> None:
    authority.ensure(tmp_path, NOW)

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: authority.rotate(tmp_path, NOW, DAY), range(8)))

    assert len({each.successor for each in told}) == 1


@pytest.mark.parametrize("overlap", [DAY, 0 * DAY])
def test_a_crash_at_any_step_of_a_rotation_leaves_a_key_and_nobody_without_it(
        tmp_path: Path, overlap: timedelta) -> None:
    for step in range(count_steps(tmp_path / "whole", overlap)):
        folder = tmp_path / str(step)
        folder.mkdir()
        bundle = with_clients(folder)
        before = read(folder)
        rotate_and_crash(folder, step, overlap)
        at_the_crash = set(trusted(folder))

        authority.ensure(folder, NOW)

        read_by_clients = x509.load_pem_x509_certificates(bundle.read_bytes())
        assert (set(read_by_clients), len(read_by_clients)) == (set(trusted(folder)), len(trusted(folder)))
        assert {before} | at_the_crash <= set(trusted(folder))
        assert trusted(folder)[0] == read(folder)
        assert len(trusted(folder)) == len(set(trusted(folder))) <= 2
        assert (folder / "next.pem").exists() is (overlap > 0 * DAY and step > 0)


def trusted(folder: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates((folder / authority.CERTIFICATE_FILE).read_bytes())


def with_clients(folder: Path) -> Path:
    """A CA in the folder, and the bundle that clients were told to read."""
    certificate = authority.ensure(folder, NOW).read_bytes()
    return lay_variables(folder / authority.TRUST_FOLDER, certificate, {}, folder, folder).bundle


def rotate_and_crash(folder: Path, step: int, overlap: timedelta) -> None:
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, step)
        with pytest.raises(Crash):
            authority.rotate(folder, NOW, overlap)


class Crash(BaseException):
    """The process ends here."""


def crash_at(patch: pytest.MonkeyPatch, step: int | None) -> list[str]:
    """Have the change to the disk with this number fail as if the process had ended before it."""
    seen: list[str] = []
    write, unlink = durable.write_whole, Path.unlink

    def stepped(path: Path) -> None:
        if len(seen) == step:
            raise Crash
        seen.append(path.name)

    def writing(path: Path, content: bytes, mode: int, *, synced: bool) -> None:
        stepped(path)
        write(path, content, mode, synced=synced)

    def unlinking(path: Path, missing_ok: bool = False) -> None:
        stepped(path)
        unlink(path, missing_ok)

    patch.setattr(durable, "write_whole", writing)
    patch.setattr(Path, "unlink", unlinking)
    return seen


def count_steps(folder: Path, overlap: timedelta) -> int:
    folder.mkdir()
    with_clients(folder)
    with pytest.MonkeyPatch.context() as patch:
        seen = crash_at(patch, None)
        authority.rotate(folder, NOW, overlap)
    return len(seen)


def test_a_successor_takes_over_where_the_key_was_lost(tmp_path: Path) -> None:
    authority.ensure(tmp_path, NOW)
    successor = authority.rotate(tmp_path, NOW, DAY).successor
    (tmp_path / authority.KEY_FILE).unlink()

    authority.ensure(tmp_path, NOW)

    assert read(tmp_path) == successor


def test_a_damaged_successor_refuses_the_start_and_says_which_file(tmp_path: Path) -> None:
    authority.ensure(tmp_path, NOW)
    authority.rotate(tmp_path, NOW, DAY)
    (tmp_path / "next.pem").write_bytes((tmp_path / "next.pem").read_bytes().partition(b"\n")[2])

    with pytest.raises(StartRefused, match=r"next\.pem"):
        authority.ensure(tmp_path, NOW)


def test_what_clients_were_told_to_read_follows_the_authority(tmp_path: Path) -> None:
    certificate = authority.ensure(tmp_path, NOW)
    clients = lay_variables(tmp_path / authority.TRUST_FOLDER, certificate.read_bytes(), {}, tmp_path, tmp_path)

    standing = authority.rotate(tmp_path, NOW, DAY)

    followed = x509.load_pem_x509_certificates(clients.bundle.read_bytes())
    authority.ensure(tmp_path, NOW + 90 * DAY)
    assert followed == list(standing.trusted)
    assert x509.load_pem_x509_certificates(clients.bundle.read_bytes()) == [standing.successor]


def test_the_authority_of_a_run_lives_a_year_bears_its_name_and_has_no_successor(tmp_path: Path) -> None:
    certificate = authority.for_run(tmp_path, "0123abcd", NOW)
    again = authority.for_run(tmp_path, "0123abcd", NOW + timedelta(days=364))

    made = read(tmp_path)
    assert made.subject.rfc4514_string() == "CN=Governor run 0123abcd,O=Governor"
    assert made.not_valid_after_utc == NOW + timedelta(days=365)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert stat.S_IMODE((tmp_path / authority.KEY_FILE).stat().st_mode) == 0o600
    assert x509.load_pem_x509_certificates(again.read_bytes()) == [made]
    assert certificate.read_bytes().count(b"BEGIN") == 1


def test_the_leaves_of_a_run_do_not_outlive_its_authority(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority.for_run(tmp_path, "0123abcd", now - 364 * DAY)
    authority.ensure(tmp_path, now)
    store = certs.CertStore.from_store(tmp_path, "mitmproxy", 2048)

    leaf = store.get_cert("api.example.org", [x509.DNSName("api.example.org")]).cert.to_cryptography()

    assert leaf.not_valid_after_utc <= read(tmp_path).not_valid_after_utc + timedelta(seconds=2)


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
