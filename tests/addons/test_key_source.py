"""A root key from elsewhere: every place it may come from, and a clear word where it is none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from addons import key_source
from addons.key_source import MOST_BYTES, KeySourceError, read_key, read_root
from kernel.note import VerifierKey

PASSPHRASE = b"correct horse battery"
KEY = ed25519.Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw()


def pem(key: object = KEY, passphrase: bytes | None = None) -> bytes:
    encryption = (serialization.NoEncryption() if passphrase is None
                  else serialization.BestAvailableEncryption(passphrase))
    return key.private_bytes(  # type: ignore[attr-defined,no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def file(folder: Path, content: bytes, name: str = "root.pem", mode: int = 0o600) -> Path:
    path = folder / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def public_of(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def refused(*arguments: str | None, **more: object) -> str:
    with pytest.raises(KeySourceError) as caught:
        read_key(*arguments, **more)  # type: ignore[arg-type]
    assert caught.value.__cause__ is None
    return str(caught.value)


def piped(content: bytes) -> str:
    """A descriptor from which the content comes while it is read."""
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    threading.Thread(target=feed, daemon=True).start()
    return f"fd:{reading}"


def test_a_key_comes_from_a_file_and_from_a_descriptor(tmp_path):
    assert public_of(read_key(str(file(tmp_path, pem())))) == PUBLIC
    assert public_of(read_key(piped(pem()))) == PUBLIC


def test_a_key_comes_from_standard_input():
    program = "from addons.key_source import read_key; print(read_key('-').public_key().public_bytes_raw().hex())"
    told = subprocess.run([sys.executable, "-c", program], input=pem(), capture_output=True, check=True)

    assert told.stdout.decode().strip() == PUBLIC.hex()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_passphrase_comes_from_a_file_or_a_descriptor_with_or_without_its_line_end(tmp_path, end):
    source, passphrase = str(file(tmp_path, pem(KEY, PASSPHRASE))), PASSPHRASE + end

    assert public_of(read_key(source, str(file(tmp_path, passphrase, "passphrase")))) == PUBLIC
    assert public_of(read_key(source, piped(passphrase))) == PUBLIC


def test_a_passphrase_is_asked_for_where_one_is_needed_and_none_is_named(tmp_path):
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return PASSPHRASE.decode()

    locked, plain = file(tmp_path, pem(KEY, PASSPHRASE)), file(tmp_path, pem(), "plain.pem")

    assert public_of(read_key(str(locked), ask=ask)) == public_of(read_key(str(plain), ask=ask)) == PUBLIC
    assert asked == [f"Passphrase of {locked}"]
    assert "no terminal" in refused(str(locked))


def test_a_mounted_secret_is_read_through_its_links_with_a_warning_that_others_can_read_it(tmp_path):
    (tmp_path / "..2026").mkdir()
    file(tmp_path / "..2026", pem(), mode=0o444)
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "root.pem").symlink_to("..data/root.pem")
    warnings: list[str] = []

    assert public_of(read_key(str(tmp_path / "root.pem"), warn=warnings.append)) == PUBLIC
    assert len(warnings) == 1
    assert "0444" in warnings[0]


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o400, 0), (0o440, 1), (0o644, 1), (0o604, 1)])
def test_a_warning_says_that_others_can_read_the_key(tmp_path, capfd, mode, warnings):
    read_key(str(file(tmp_path, pem(), mode=mode)))

    assert capfd.readouterr().err.count("governor: warning: ") == warnings


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_warning_says_that_the_key_belongs_to_somebody_else(tmp_path):
    warnings: list[str] = []
    path = file(tmp_path, pem())
    os.chown(path, 12345, -1)

    read_key(str(path), warn=warnings.append)

    assert "uid 12345" in warnings[0]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_key_that_others_could_replace_is_refused(tmp_path, mode):
    assert f"{mode:04o}" in refused(str(file(tmp_path, pem(), mode=mode)))


def test_a_link_that_is_turned_after_the_file_was_opened_leads_nowhere_else(tmp_path, monkeypatch):
    other = ed25519.Ed25519PrivateKey.generate()
    file(tmp_path, pem(), "mine")
    file(tmp_path, pem(other), "theirs", mode=0o666)
    link = tmp_path / "link"
    link.symlink_to("mine")
    real = os.fstat

    def turning(descriptor: int) -> os.stat_result:
        link.unlink(missing_ok=True)
        link.symlink_to("theirs")
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", turning)

    assert public_of(read_key(str(link))) == PUBLIC


OTHERS: dict[str, Callable[[], object]] = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "EC": lambda: ec.generate_private_key(ec.SECP256R1()),
    "Ed448": ed448.Ed448PrivateKey.generate,
    "DSA": lambda: dsa.generate_private_key(1024),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_key_of_another_kind_is_refused(tmp_path, kind):
    assert "another kind than Ed25519" in refused(str(file(tmp_path, pem(OTHERS[kind]()))))


SECRET_LINE = pem().split(b"\n")[1]


@pytest.mark.parametrize("content", [
    pytest.param(b"", id="empty"),
    pytest.param(b"\0\xff" * 100, id="bytes"),
    pytest.param(b"hello " + pem(), id="something before"),
    pytest.param(pem() + SECRET_LINE, id="something after"),
    pytest.param(pem() + pem(), id="two keys"),
    pytest.param(pem().replace(SECRET_LINE, SECRET_LINE[:-8]), id="cut short"),
    pytest.param(pem().replace(SECRET_LINE, SECRET_LINE[:8] + b"*" + SECRET_LINE[9:]), id="no base64"),
    pytest.param(pem(KEY, PASSPHRASE)[:60], id="half an encrypted one"),
    pytest.param(KEY.public_key().public_bytes(serialization.Encoding.PEM,
                                               serialization.PublicFormat.SubjectPublicKeyInfo), id="the public half"),
    pytest.param(KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH,
                                   serialization.NoEncryption()), id="in the form of OpenSSH"),
    pytest.param(b"x" * (MOST_BYTES + 1), id="huge"),
])
def test_what_is_no_key_is_refused_and_nothing_of_it_is_told(tmp_path, content):
    path = file(tmp_path, content)

    told = refused(str(path))

    assert told.startswith(str(path))
    assert SECRET_LINE.decode()[20:] not in told


def test_a_file_without_end_is_not_read_to_its_end(tmp_path):
    path = file(tmp_path, b"")
    os.truncate(path, 2**40)

    assert "more than" in refused(str(path))
    assert "more than" in refused(piped(b"x" * (MOST_BYTES + 1)))


def test_places_that_hold_no_file_are_named_in_the_refusal(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)

    assert "regular file" in refused(str(tmp_path / "fifo"))
    assert "regular file" in refused(str(tmp_path))
    assert "regular file" in refused("/dev/zero")
    assert "No such file" in refused(str(tmp_path / "absent"))
    assert "file descriptor 9999" in refused("fd:9999")


@pytest.mark.parametrize(("passphrase", "problem"), [
    pytest.param(b"hunter-2", "the passphrase is another", id="another one"),
    pytest.param(PASSPHRASE + b" ", "the passphrase is another", id="a blank more"),
    pytest.param(b"p" * 2000, "the passphrase is another", id="longer than any"),
    pytest.param(b"", "it is empty", id="none"),
    pytest.param(b"\n", "it is empty", id="an empty line"),
])
def test_a_wrong_passphrase_is_refused_and_not_told(tmp_path, passphrase, problem):
    told = refused(str(file(tmp_path, pem(KEY, PASSPHRASE))), str(file(tmp_path, passphrase, "given")))

    assert problem in told
    assert "hunter" not in told


def test_a_passphrase_for_a_key_that_has_none_is_refused(tmp_path):
    assert "not encrypted" in refused(str(file(tmp_path, pem())), piped(PASSPHRASE))


def test_one_stream_does_not_hold_both(tmp_path):
    assert "another place" in refused("-", "-")
    assert "another place" in refused("fd:5", "fd:5")


def test_a_descriptor_is_closed_once_it_was_read(tmp_path):
    source = piped(pem())
    read_key(source)

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(int(source.removeprefix("fd:")))


def test_what_was_read_is_overwritten_whatever_came_of_it(tmp_path, monkeypatch):
    seen: list[bytearray] = []
    real = key_source.private_key

    def keeping(text: bytearray, passphrase: bytearray | None) -> ed25519.Ed25519PrivateKey:
        seen.extend((text, passphrase or bytearray()))
        return real(text, passphrase)

    monkeypatch.setattr(key_source, "private_key", keeping)
    locked = str(file(tmp_path, pem(KEY, PASSPHRASE)))
    read_key(locked, piped(PASSPHRASE))
    read_key(locked, ask=lambda _: PASSPHRASE.decode())
    refused(locked, piped(b"hunter-2"))

    assert len(seen) == 6
    assert all(content == bytes(len(content)) for content in seen)


def test_a_root_is_the_one_that_the_log_names(tmp_path):
    source = str(file(tmp_path, pem()))
    mine = VerifierKey("governor/0123456789abcdef", PUBLIC)
    other = VerifierKey(mine.name, bytes(32))

    assert read_root(source, None, mine).verifier == mine
    with pytest.raises(KeySourceError, match=f"not the root key {other.kid}"):
        read_root(source, None, other)
