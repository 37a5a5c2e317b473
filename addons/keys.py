"""Ed25519 keys on disk: PKCS#8 PEM, readable by their owner alone."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from addons import durable
from addons.errors import GovernorError, StartCode, StartRefused
from kernel import note

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PLAIN = (b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----")
_ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"-----END ENCRYPTED PRIVATE KEY-----")


class NoKey(GovernorError):
    """Why there is no Ed25519 key in a text, to be said after its place. Nothing of the text is in it."""


class SigningKey:
    """A private key under the name that its signatures carry."""

    __slots__ = ("kid", "name", "public", "sign", "verifier_key")

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.name = name
        self.public = private.public_key().public_bytes_raw()
        self.verifier_key = note.verifier_key(name, self.public)
        # NAME+KEYID+BASE64: the base64 may hold a plus sign, the name never does.
        self.kid = self.verifier_key.split("+", 2)[1]
        self.sign = private.sign

    @property
    def verifier(self) -> note.VerifierKey:
        """The public half."""
        return note.VerifierKey(self.name, self.public)

    def sign_note(self, body: str) -> str:
        """The signed note of `body`."""
        return note.sign(body, self.name, self.public, self.sign)

    @classmethod
    def create(cls, path: Path, name: str) -> Self:
        """Make a key and put it at `path`, durable before it signs anything."""
        return cls.keep(path, name, Ed25519PrivateKey.generate())

    @classmethod
    def keep(cls, path: Path, name: str, private: Ed25519PrivateKey) -> Self:
        """Put a key that was made elsewhere at `path`, durable."""
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        durable.replace(path, pem)
        return cls(name, private)

    @classmethod
    def load(cls, path: Path, name: str) -> Self:
        """The key at `path`, or `StartRefused`: a key that others could read or replace signs nothing."""
        try:
            return cls(name, private_key(read_private(path)))
        except NoKey as problem:
            raise StartRefused(StartCode.HOME_INCOMPLETE, f"{path} {problem}; restore it from a backup") from problem


def is_encrypted(pem: bytes | bytearray) -> bool:
    """Whether it is a key to which a passphrase belongs."""
    return _is_one(pem, _ENCRYPTED)


def private_key(pem: bytes | bytearray, passphrase: bytes | bytearray | None = None) -> Ed25519PrivateKey:
    """The Ed25519 key that is the whole of a PKCS#8 PEM text (RFC 7468), or `NoKey`."""
    if not (_is_one(pem, _PLAIN) or is_encrypted(pem)):
        raise NoKey("is not one private key in PKCS#8 PEM")
    if is_encrypted(pem) and not passphrase:
        raise NoKey("is encrypted, and there is no passphrase")
    if passphrase and not is_encrypted(pem):
        raise NoKey("is not encrypted, and a passphrase was given")
    try:
        # Any bytes-like passphrase is taken, says the library's documentation; its types know bytes alone.
        private = serialization.load_pem_private_key(pem, password=cast("bytes | None", passphrase))
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        problem = "cannot be opened: the passphrase is another, or the file damaged" if passphrase else "is damaged"
        raise NoKey(problem) from fault
    if not isinstance(private, Ed25519PrivateKey):
        raise NoKey("holds a key of another kind than Ed25519")
    return private


def _is_one(pem: bytes | bytearray, label: tuple[bytes, bytes]) -> bool:
    """Whether the text is one key and nothing beside it: of two in a file nobody could say which is meant."""
    text = pem.strip()
    return text.startswith(label[0]) and text.endswith(label[1]) and text.count(b"-----BEGIN ") == 1


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is the holder's of `public` over `message`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_private(path: Path) -> bytes:
    """A key file's content, or `StartRefused` where others could read or replace it."""
    with _private(path) as descriptor:
        return os.read(descriptor, 65536)


def check_private(path: Path) -> None:
    """`StartRefused` where others could read or replace the key file; its content stays where it is."""
    with _private(path):
        return


@contextmanager
def _private(path: Path) -> Iterator[int]:
    try:
        # O_NONBLOCK: a FIFO put in the key's place must not hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        raise _unreadable(path, fault) from fault
    try:
        status = os.fstat(descriptor)
        problem = durable.exposure(status) if stat.S_ISREG(status.st_mode) else "is not a regular file"
        if problem:
            raise StartRefused(StartCode.KEY_PERMISSIONS, f"{path} {problem}; it must be yours with mode 0600")
        yield descriptor
    finally:
        os.close(descriptor)


def _unreadable(path: Path, fault: OSError) -> StartRefused:
    if fault.errno == errno.ENOENT:
        return StartRefused(StartCode.HOME_INCOMPLETE, f"{path} is missing; restore it from a backup")
    why = "is a symbolic link" if fault.errno == errno.ELOOP else f"cannot be read ({fault.strerror})"
    return StartRefused(StartCode.KEY_PERMISSIONS, f"{path} {why}; it must be a regular file of yours with mode 0600")
