"""Who sent a flow, from its Proxy-Authorization header."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from kernel.facts import Agent
from kernel.policy import Identity
from kernel.verdict import Code

LOCAL = Agent("local", "none")
ANONYMOUS = Agent("anonymous", "none")
RESERVED_IDS = frozenset({LOCAL.id, ANONYMOUS.id})
MAX_HEADER_CHARACTERS = 1024

_AGENT_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that hold, by the hex SHA-256 of each, and every agent id that ever had one.

    Looking a digest up takes no constant time and need not: whoever learned a digest from it has no token.
    """

    agents: Mapping[str, str] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    known: bool = False


def valid_id(name: str) -> bool:
    """Whether an agent may be registered under this name."""
    return _AGENT_ID.fullmatch(name) is not None and name not in RESERVED_IDS


def digest(token: str) -> str:
    """What is kept of a token. A token has 256 random bits, so its hash needs no salt and no stretching."""
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def identify(tokens: Tokens, policy: Identity, headers: Sequence[str]) -> tuple[Agent, None] | tuple[None, Code]:
    """The agent behind a flow with these Proxy-Authorization values, or the code that refuses it. Total."""
    if not tokens.known and not policy.sources - {ANONYMOUS.id}:
        return LOCAL, None
    if not headers:
        return (ANONYMOUS, None) if policy.anonymous else (None, Code.IDENTITY_REQUIRED)
    credentials = _credentials(headers[0]) if len(headers) == 1 else None
    if credentials is None:
        return None, Code.IDENTITY_REFUSED
    user, token = credentials
    agent = tokens.agents.get(digest(token))
    if agent is None or (user != agent and (user in tokens.ids or user in RESERVED_IDS)):
        return None, Code.IDENTITY_REFUSED
    return Agent(agent, "proxy-auth"), None


def _credentials(header: str) -> tuple[str, str] | None:
    """User name and token; the user name is empty where the scheme has none. None when it cannot be read."""
    if len(header) > MAX_HEADER_CHARACTERS:
        return None
    scheme, _, rest = header.strip(" \t").partition(" ")
    value = rest.strip(" \t")
    match scheme.lower():
        case "bearer":
            return "", value
        case "basic":
            return _basic(value)
        case _:
            return None


def _basic(value: str) -> tuple[str, str] | None:
    try:
        text = b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None
