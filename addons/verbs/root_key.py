"""How a verb is given the root key: its options, and the question for a passphrase."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from addons.key_source import nobody_to_ask, read_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

root_key_option = click.option(
    "--root-key", metavar="SOURCE",
    help="The root key, Ed25519 in PKCS#8 PEM, plain or encrypted: a file, fd:N, or - for standard input.")
root_passphrase_option = click.option(
    "--root-passphrase", metavar="SOURCE",
    help="Where its passphrase is: a file, fd:N or -. Without it you are asked at the terminal.")


def asked_for(source: str | None, passphrase: str | None) -> Ed25519PrivateKey | None:
    """The root key that the options name, None without one; `KeySourceError` where it cannot be had."""
    if passphrase is not None and source is None:
        raise click.UsageError("--root-passphrase is said of a --root-key")
    return None if source is None else read_key(source, passphrase, ask=ask)


def ask(question: str) -> str:
    """The answer of a person, who does not see it; `KeySourceError` where there is no terminal."""
    try:
        # Not standard input: the key itself may come from there.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return nobody_to_ask(question)
    return str(click.prompt(question, hide_input=True, err=True))
