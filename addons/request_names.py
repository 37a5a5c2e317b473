"""A name for what a request asks: the same again has the same name, and nobody can guess from it what was asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blake3 import blake3

from addons import durable
from addons.errors import StartCode, StartRefused

if TYPE_CHECKING:
    from pathlib import Path

    from kernel.facts import RequestFacts

_KEY_BYTES = 32
_NAME_BYTES = 8


class RequestNames:
    """Names under one secret. Without it, what was asked cannot be tried out."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = blake3(key=secret)

    @classmethod
    def of_home(cls, path: Path) -> RequestNames:
        """The names of a home, whose secret is made where it is not there. Raises `StartRefused`."""
        try:
            secret = path.read_bytes() if path.exists() else b""
            if len(secret) != _KEY_BYTES:
                # Another secret only lets counts of repeated requests begin anew.
                secret = os.urandom(_KEY_BYTES)
                durable.replace(path, secret)
        except OSError as fault:
            raise StartRefused(StartCode.HOME_UNWRITABLE, f"{path}: {fault.strerror}; it must be writable") from fault
        return cls(secret)

    def name(self, facts: RequestFacts, body: bytes | None) -> str:
        """16 hex digits. Of a body that is not at hand only the size counts."""
        keyed = self._keyed.copy()
        where = (facts.method, facts.scheme, facts.host.name, str(facts.port), facts.path.text, facts.query)
        keyed.update("\0".join(where).encode("utf-8", "surrogateescape"))
        keyed.update(b"\0" + (str(facts.body_bytes).encode() if body is None else body))
        return keyed.hexdigest(length=_NAME_BYTES)
