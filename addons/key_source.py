"""A root key that lives outside the home: in a file, a mounted secret, a file descriptor or standard input.

It is read to be used once, or to be copied into a home. What it was read into is overwritten afterwards, and the key is
gone with the object that holds it. More cannot be promised: the cryptographic library makes copies of its own, a
passphrase that was typed is a text of Python's that nobody can overwrite, and whoever controls the machine sees its
memory, and what of it was swapped out or dumped.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from addons.errors import GovernorError
from addons.keys import NoKey, SigningKey, is_encrypted, private_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from kernel.note import VerifierKey

STANDARD_INPUT = "-"
MOST_BYTES = 64 * 1024
_DESCRIPTOR = re.compile(r"fd:(0|[1-9][0-9]{0,5})")

type Ask = Callable[[str], str]
"""A question to a person at the terminal; the answer is not shown. `KeySourceError` where nobody can be asked."""
type Warn = Callable[[str], object]


class KeySourceError(GovernorError):
    """No key came from where it was said to be. Nothing secret is in the message."""


def nobody_to_ask(question: str) -> str:
    """The `Ask` of a caller without a terminal."""
    raise KeySourceError(f"{question}: there is no terminal to ask at; name a file or fd:N that holds it")


def warned(text: str) -> None:
    """The `Warn` of a command."""
    print(f"governor: warning: {text}", file=sys.stderr, flush=True)


def read_root(source: str, passphrase: str | None, root: VerifierKey, *, ask: Ask = nobody_to_ask,
              warn: Warn = warned) -> SigningKey:
    """The private half of `root`; `KeySourceError` where it is another key. The rest as `read_key`."""
    private = read_key(source, passphrase, ask=ask, warn=warn)
    key = SigningKey(root.name, private)
    if key.public != root.public:
        raise KeySourceError(f"{named(source)} is not the root key {root.kid} of this log; its public half is another")
    return key


def read_key(source: str, passphrase: str | None = None, *, ask: Ask = nobody_to_ask,
             warn: Warn = warned) -> Ed25519PrivateKey:
    """The Ed25519 key (PKCS#8 PEM, plain or encrypted) that `source` names, or `KeySourceError`.

    `source` is a file, `fd:N` or `-`; `passphrase` is such a source, too, or None to `ask` where one is needed. A file
    may be a mounted secret: a symbolic link, readable by others, which is warned of.
    """
    if passphrase == source and _is_stream(source):
        raise KeySourceError(f"{named(source)} holds either the key or its passphrase; name another place for one")
    with _secret(source, warn) as pem:
        if passphrase is None and is_encrypted(pem):
            asked = bytearray(ask(f"Passphrase of {named(source)}").encode())
            with _overwritten(asked):
                return _opened(source, pem, asked)
        if passphrase is None:
            return _opened(source, pem, None)
        with _secret(passphrase, warn) as given:
            _drop_line_end(given)
            if not given:
                raise KeySourceError(f"{named(passphrase)} holds no passphrase: it is empty")
            return _opened(source, pem, given)


def named(source: str) -> str:
    """The source as messages name it."""
    if source == STANDARD_INPUT:
        return "standard input"
    found = _DESCRIPTOR.fullmatch(source)
    return f"file descriptor {found[1]}" if found else source


def _is_stream(source: str) -> bool:
    return source == STANDARD_INPUT or _DESCRIPTOR.fullmatch(source) is not None


def _opened(source: str, pem: bytearray, passphrase: bytearray | None) -> Ed25519PrivateKey:
    try:
        return private_key(pem, passphrase)
    except NoKey as problem:
        # Its cause quotes what the library has to say of the content.
        raise KeySourceError(f"{named(source)} {problem}") from None


@contextmanager
def _secret(source: str, warn: Warn) -> Iterator[bytearray]:
    """What the source holds, for as long as it is needed."""
    with _overwritten(bytearray(MOST_BYTES + 1)) as content:
        try:
            with _open(source, warn) as descriptor:
                count = _fill(descriptor, content)
        except OSError as fault:
            raise KeySourceError(f"{named(source)}: {fault.strerror or fault}") from None
        if count > MOST_BYTES:
            raise KeySourceError(f"{named(source)} has more than {MOST_BYTES} bytes: that is no key and no passphrase")
        with _overwritten(content[:count]) as secret:
            yield secret


@contextmanager
def _overwritten(content: bytearray) -> Iterator[bytearray]:
    try:
        yield content
    finally:
        content[:] = bytes(len(content))


@contextmanager
def _open(source: str, warn: Warn) -> Iterator[int]:
    """A descriptor to read the source from; closed afterwards, so that no child process finds a secret there."""
    found = _DESCRIPTOR.fullmatch(source)
    if source == STANDARD_INPUT:
        yield 0
        return
    # O_NONBLOCK: a FIFO in the file's place must not hang the command.
    descriptor = int(found[1]) if found else os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode) or not (found or stat.S_ISREG(status.st_mode)):
            raise KeySourceError(f"{named(source)} is not a regular file; give what comes from a pipe as fd:N or -")
        if stat.S_ISREG(status.st_mode):
            _look_at_owner(source, status, warn)
        yield descriptor
    finally:
        os.close(descriptor)


def _look_at_owner(source: str, status: os.stat_result, warn: Warn) -> None:
    """Judged on the open file, so that no link that is turned meanwhile leads elsewhere."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        raise KeySourceError(f"{named(source)} has mode {mode:04o}: others can put another key there; chmod 0600 it")
    if status.st_uid not in (0, os.geteuid()):
        warn(f"{named(source)} belongs to uid {status.st_uid}, who can read and replace it")
    if mode & 0o044:
        warn(f"{named(source)} can be read by others on this machine (mode {mode:04o})")


def _fill(descriptor: int, content: bytearray) -> int:
    """How many bytes came, at most all that fit."""
    count = 0
    with memoryview(content) as view:
        while count < len(content) and (got := os.readv(descriptor, [view[count:]])):
            count += got
    return count


def _drop_line_end(text: bytearray) -> None:
    """An editor and `echo` end a line that holds a passphrase."""
    if text.endswith(b"\n"):
        del text[-1:]
    if text.endswith(b"\r"):
        del text[-1:]
