"""Certificates out of whatever files hold them, each once, and the PEM text that any client can read."""

from __future__ import annotations

import binascii
import hashlib
import os
import re
import ssl
import stat
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# A damaged block must not swallow the one behind it, so nothing but base64 may stand between the two lines.
_BLOCK = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END (?:X509 )?CERTIFICATE-----")
# The largest bundle seen is a third of a megabyte.
_MOST_BYTES = 16 * 1024 * 1024

type Der = bytes


def in_text(text: bytes) -> Iterator[Der]:
    """The certificates of a PEM text. What is none is left out: OpenSSL refuses a whole bundle for one bad block."""
    for block in _BLOCK.finditer(text):
        try:
            der = binascii.a2b_base64(block[1])
            parsed(der)
        except ValueError:
            continue
        yield der


@contextmanager
def old_roots() -> Iterator[None]:
    """Read what breaks rules of today without a warning: whether it is taken all the same is for the client to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def parsed(der: Der) -> x509.Certificate:
    """The certificate, or `ValueError`."""
    with old_roots():
        return x509.load_der_x509_certificate(der)


def at(place: Path) -> Iterator[Der]:
    """The certificates of a file, or of the files of a folder; none where there is nothing to read."""
    if not place.is_dir():
        yield from in_text(content(place))
        return
    # A hash folder holds each certificate under its name, its hash and often in a bundle as well.
    try:
        files = sorted({entry.resolve() for entry in place.iterdir()})
    except OSError:
        return
    for file in files:
        yield from in_text(content(file))


def content(file: Path) -> bytes:
    """What stands in a regular file of bearable size; nothing where it cannot be had."""
    try:
        status = os.stat(file)
        # A FIFO or a device in a bundle's place would keep the caller waiting.
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            return b""
        return file.read_bytes()
    except OSError:
        return b""


def once(*groups: Iterable[Der]) -> tuple[Der, ...]:
    """All of them in the order they come, each once."""
    return tuple(dict.fromkeys(der for group in groups for der in group))


def mark(der: Der) -> str:
    """What tells this certificate from others in a file's or an entry's name."""
    return hashlib.sha256(der).hexdigest()[:16]


def pem(certificates: Iterable[Der]) -> bytes:
    """The PEM text of these certificates."""
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in certificates).encode()
