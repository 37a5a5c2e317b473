"""Which Governor this is: the version of the distribution and the digest of the kernel's sources."""

from __future__ import annotations

from functools import cache

from blake3 import blake3

from addons import shipped
from kernel import entry
from kernel.version import VERSION


@cache
def kernel_digest() -> str:
    """The blake3 of the kernel's files, by name: two processes with one digest give equal verdicts."""
    digest = blake3()
    for name, content in shipped.kernel_sources():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def kernel_identity() -> entry.Body:
    """The `kernel` field of log entries."""
    return entry.kernel_identity(VERSION, kernel_digest())
