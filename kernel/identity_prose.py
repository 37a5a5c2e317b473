"""`identity:` in sentences: how clients are known, and who is who."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from kernel.document import joined, printable
from kernel.policy import Identity

_WAYS = {
    "sandbox": "by the sandbox in which governor run has put it",
    "cert": "by the certificate with which it speaks TLS to Governor",
    "proxy-auth": "by its token",
    "port": "by the port to which it comes",
    "source": "by the address from which it comes",
}
"""The keys of the section and what they mean, the strongest first."""


def identity_in_words(identity: Identity) -> Iterator[str]:
    """What the section says, one sentence each; nothing where it says nothing."""
    if identity.anonymous:
        yield "A client without identity is the agent anonymous, and may only what a rule allows anonymous."
    elif identity.sources:
        yield "Every client must say who it is."
    ways = [words for key, words in _WAYS.items() if key in identity.sources]
    if identity.sources - {"proxy-auth"}:
        yield f"A client is known {joined(ways, 'or')}. Where two of these name different agents, it is refused."
    if identity.authority is not None:
        file = printable(identity.authority.file)
        yield f"In TLS with Governor itself a client needs a certificate of the CA in {file}: its name is the agent."
    for port, agent in sorted(identity.ports.items()):
        yield f"Whoever comes to port {port} is {agent}."
    for block, agent in identity.networks.of:
        whence = str(block.network_address) if block.prefixlen == block.max_prefixlen else f"the network {block}"
        yield f"Whoever comes from {whence} is {agent}."
    if _overlapping(identity):
        yield "Of two networks that hold an address the narrower one counts."


def _overlapping(identity: Identity) -> bool:
    # The widest of those that begin at one address comes first.
    blocks = sorted((block.version, int(block.network_address), block.prefixlen, int(block.broadcast_address))
                    for block, _ in identity.networks.of)
    return any(wide[0] == narrow[0] and narrow[1] <= wide[3] for wide, narrow in pairwise(blocks))
