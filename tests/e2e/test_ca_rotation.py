"""A CA that is replaced under a running Governor: nobody who reads what is handed out fails, before, while or after."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from addons import authority
from tests.e2e.origins import serving
from tests.e2e.process import Governor, started

pytestmark = pytest.mark.e2e


def issuer(governor: Governor, origin: str, ca: Path) -> str:
    """Who signed the leaf that a client of `ca` is shown through this Governor."""
    status, _, told = governor.curl("-v", "--cacert", str(ca), f"{origin}/wanted")
    assert status == 200, told
    (found,) = [line.partition("issuer: ")[2] for line in told.splitlines() if "issuer: " in line][-1:]
    return found


def wait_for(governor: Governor, origin: str, ca: Path, name: str) -> None:
    """Until this one signs, in each of several workers: a connection goes to any of them."""
    deadline, in_a_row = time.monotonic() + 10, 0
    while in_a_row < 8:
        in_a_row = in_a_row + 1 if name in issuer(governor, origin, ca) else 0
        assert time.monotonic() < deadline, f"{name} does not sign"


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_a_running_governor_signs_under_the_successor_when_it_takes_over(
        tmp_path: Path, certificate: tuple[Path, Path], options: tuple[str, ...]) -> None:
    chain, trusted = certificate
    with (serving(chain=chain) as origin,
          started(tmp_path, trust=trusted, options=options, serve=bool(options)) as governor):
        folder = governor.home / "ca"
        before = tmp_path / "handed-out.pem"
        before.write_bytes(governor.ca.read_bytes())
        old = common_name(authority.standing(folder, datetime.now(UTC)).signing)
        assert old in issuer(governor, origin.url, before)

        waiting = authority.rotate(folder, datetime.now(UTC), timedelta(days=1))
        during = tmp_path / "during.pem"
        during.write_bytes(governor.ca.read_bytes())
        assert waiting.successor is not None
        new = common_name(waiting.successor)
        assert old in issuer(governor, origin.url, before)

        authority.rotate(folder, datetime.now(UTC), timedelta())
        wait_for(governor, origin.url, during, new)

        assert new in issuer(governor, origin.url, governor.ca)
        with pytest.raises(AssertionError):
            issuer(governor, origin.url, before)
        assert governor.entries("fault") == []
        assert ssl.create_default_context(cafile=str(governor.ca)).cert_store_stats()["x509_ca"] == 2
