"""Who sent a flow, from everything that tells: credentials, a certificate, a port, an address, a sandbox."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from kernel.facts import Address, Agent
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

    `removed` are the agents that were registered and are no more: nothing names them any longer.
    Looking a digest up takes no constant time and need not: whoever learned a digest from it has no token.
    """

    agents: Mapping[str, str] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    known: bool = False
    removed: frozenset[str] = frozenset()


def valid_id(name: str) -> bool:
    """Whether an agent may be registered under this name."""
    return _AGENT_ID.fullmatch(name) is not None and name not in RESERVED_IDS


def digest(token: str) -> str:
    """What is kept of a token. A token has 256 random bits, so its hash needs no salt and no stretching."""
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to know a client by.

    `credentials` are the values of Proxy-Authorization. `certificate` is the name in a certificate that the client has
    proved to hold and the policy's CA has signed, whatever that name is; None without one. `port` is where Governor
    listened, `source` whence the client came. `sandbox` is the agent for which Governor made the client's sandbox.
    """

    credentials: Sequence[str] = ()
    certificate: str | None = None
    port: int | None = None
    source: Address | None = None
    sandbox: str | None = None


def identify(tokens: Tokens, policy: Identity, evidence: Evidence) -> tuple[Agent, None] | tuple[None, Code]:
    """The agent behind a flow with this evidence, or the code that refuses it. Total.

    What names an agent must be right and must name the same one as everything else; the strongest says by what it is
    known. Sandbox, certificate, credentials, port, source is their order. What the policy does not name is not looked
    at, but for a sandbox, which Governor itself has made.
    """
    known = tokens.known or bool(policy.sources - {ANONYMOUS.id})
    if not known and evidence.sandbox is None:
        return LOCAL, None
    named = list(_named(tokens, policy, evidence, known=known))
    if any(agent is None or agent in tokens.removed for agent, _ in named):
        return None, Code.IDENTITY_REFUSED
    if not named:
        return (ANONYMOUS, None) if policy.anonymous else (None, Code.IDENTITY_REQUIRED)
    strongest, by = named[0]
    if strongest is None or any(agent != strongest for agent, _ in named):
        return None, Code.IDENTITY_CONFLICT
    return Agent(strongest, by), None


def may_come(policy: Identity, agent: str) -> bool:
    """Whether somebody may be this agent without ever having had a token."""
    return agent in policy.agents or (bool(policy.sources & {"cert", "sandbox"}) and valid_id(agent))


def _named(tokens: Tokens, policy: Identity, evidence: Evidence, *, known: bool) -> Iterator[tuple[str | None, str]]:
    """Whom each piece of evidence names, the strongest first; None where it is wrong."""
    if evidence.sandbox is not None:
        # Whoever makes a sandbox may say that its agent is the one of a machine without others.
        yield LOCAL.id if evidence.sandbox == LOCAL.id else _valid(evidence.sandbox), "sandbox"
    if evidence.certificate is not None and "cert" in policy.sources:
        yield _valid(evidence.certificate), "cert"
    if evidence.credentials and known:
        yield _holder(tokens, policy, evidence.credentials), "proxy-auth"
    if policy.ports and (agent := policy.ports.get(evidence.port or 0)) is not None:
        yield agent, "port"
    if policy.networks.of and evidence.source is not None:
        agent = policy.networks.agent_at(evidence.source)
        if agent is not None:
            yield agent, "source"


def _valid(name: str) -> str | None:
    return name if valid_id(name) else None


def _holder(tokens: Tokens, policy: Identity, headers: Sequence[str]) -> str | None:
    """The agent whose token stands in these headers; None where they are not one that holds."""
    credentials = _credentials(headers[0]) if len(headers) == 1 else None
    if credentials is None:
        return None
    user, token = credentials
    agent = tokens.agents.get(digest(token))
    if user not in ("", agent) and (user in tokens.ids or user in RESERVED_IDS or user in policy.agents):
        return None
    return agent


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
