"""Keys: private on disk, and refused when others could have read or replaced them."""

from __future__ import annotations

import os
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from addons import keys
from addons.errors import StartCode, StartRefused
from addons.keys import SigningKey
from kernel import note

NAME = "governor/0123456789abcdef/main"


def test_a_key_signs_the_same_after_it_is_loaded_again(tmp_path):
    made = SigningKey.create(tmp_path / "k", NAME)
    loaded = SigningKey.load(tmp_path / "k", NAME)

    assert loaded.public == made.public
    assert keys.verifies(made.public, loaded.sign(b"message"), b"message")
    assert not keys.verifies(made.public, loaded.sign(b"message"), b"another")


def test_a_key_lies_as_pkcs8_with_mode_0600_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        SigningKey.create(tmp_path / "k", NAME)
    finally:
        os.umask(before)

    assert (tmp_path / "k").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600


def test_the_key_id_is_the_one_of_the_verifier_key(tmp_path):
    key = SigningKey.create(tmp_path / "k", NAME)
    parsed = note.parse_verifier_key(key.verifier_key)

    assert (parsed.name, parsed.public, parsed.kid) == (NAME, key.public, key.kid)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o644, 0o777])
def test_a_key_open_to_others_is_refused(tmp_path, mode):
    SigningKey.create(tmp_path / "k", NAME)
    (tmp_path / "k").chmod(mode)

    assert _refused(tmp_path / "k") is StartCode.KEY_PERMISSIONS


def test_a_symbolic_link_is_refused_even_to_a_good_key(tmp_path):
    SigningKey.create(tmp_path / "real", NAME)
    (tmp_path / "k").symlink_to("real")

    assert _refused(tmp_path / "k") is StartCode.KEY_PERMISSIONS


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_key_of_someone_else_is_refused(tmp_path):
    SigningKey.create(tmp_path / "k", NAME)
    os.chown(tmp_path / "k", 12345, -1)

    assert _refused(tmp_path / "k") is StartCode.KEY_PERMISSIONS


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)

    assert _refused(tmp_path / "fifo") is StartCode.KEY_PERMISSIONS
    assert _refused(tmp_path / "folder") is StartCode.KEY_PERMISSIONS


def test_a_missing_or_unreadable_key_makes_the_home_incomplete(tmp_path):
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for name, content in (("empty", b""), ("garbage", b"\xff\x00"), ("other", other)):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(content)

    for name in ("absent", "empty", "garbage", "other"):
        assert _refused(tmp_path / name) is StartCode.HOME_INCOMPLETE


def test_a_key_that_does_not_fit_its_place_leaves_no_half_file(tmp_path, monkeypatch):
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        SigningKey.create(tmp_path / "k", NAME)

    assert list(tmp_path.iterdir()) == []


def _refused(path) -> StartCode:
    with pytest.raises(StartRefused) as caught:
        SigningKey.load(path, NAME)
    return caught.value.code
