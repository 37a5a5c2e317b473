"""Under which CA a process signs: the one that lies in its folder, with leaves that are never old."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mitmproxy import certs

from addons import authority
from addons.signing import Signing

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY_SECONDS = 24 * 3600


@pytest.fixture
def reads() -> list[str]:
    return []


@pytest.fixture
def signing(tmp_path: Path, reads: list[str]) -> Signing:
    authority.ensure(tmp_path, NOW)
    return Signing(tmp_path, lambda: reads.append("read"), 0.0)


def test_nothing_is_read_while_the_same_authority_lies_there(signing: Signing, reads: list[str]) -> None:
    for second in range(0, DAY_SECONDS, 3600):
        signing.look(second)

    assert reads == []


def test_another_authority_is_read_once(signing: Signing, tmp_path: Path, reads: list[str]) -> None:
    authority.rotate(tmp_path, NOW, timedelta())
    signing.look(1.0)
    signing.look(2.0)

    assert reads == ["read"]


def test_a_successor_that_only_waits_changes_nothing(signing: Signing, tmp_path: Path, reads: list[str]) -> None:
    authority.rotate(tmp_path, NOW, timedelta(days=1))
    signing.look(1.0)

    assert reads == []


def test_leaves_begin_anew_once_a_day(signing: Signing, reads: list[str]) -> None:
    for day in (1, 1, 2, 3):
        signing.look(day * DAY_SECONDS)

    assert len(reads) == 3


def test_mitmproxy_is_never_made_to_read_where_it_would_make_a_ca_of_its_own(
        signing: Signing, tmp_path: Path, reads: list[str]) -> None:
    os.unlink(tmp_path / authority.KEY_FILE)
    signing.look(2 * DAY_SECONDS)

    assert reads == []


def test_what_is_due_is_done_to_the_authority_of_the_folder_and_leaves_end_with_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certs, "CERT_EXPIRY", certs.CERT_EXPIRY)
    authority.for_run(tmp_path, "0123abcd", NOW)

    Signing(tmp_path, lambda: None, 0.0).renew(authority.expiry(tmp_path) - timedelta(days=1))

    leaf_life = certs.CERT_EXPIRY - authority.BACKDATED
    assert leaf_life == timedelta(days=1)


def test_a_successor_is_made_where_one_is_due(signing: Signing, tmp_path: Path) -> None:
    signing.renew(NOW + timedelta(days=61))

    standing = authority.standing(tmp_path, NOW + timedelta(days=61))
    assert standing.signs_from == NOW + timedelta(days=68)
