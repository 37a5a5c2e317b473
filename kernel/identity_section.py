"""`identity:`, from text to values: by what clients are known, and who comes from which network or to which port."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_network

from kernel.document import Node, Reader, Scalar, quote
from kernel.errors import PatternError
from kernel.identity import RESERVED_IDS, valid_id
from kernel.pattern import address_range
from kernel.policy import ClientAuthority, Identity
from kernel.source_networks import Block, SourceNetworks
from kernel.vocabulary import CERT, IDENTITY

_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_LAST_PORT = 65535
_LONGEST_FILE_NAME = 1024


def read_identity(reader: Reader, node: Node | None, groups: Collection[str]) -> Identity:
    """The `identity:` section of a file; `groups` are names that stand for several agents, and so for none here."""
    found = {} if node is None else reader.mapping(node, IDENTITY) or {}
    for key, only in (("proxy-auth", "yes"), ("anonymous", "allow"), ("sandbox", "yes")):
        if key in found and reader.text(found[key], key) not in (only, None):
            reader.error("E102", found[key], f"{key} is {only}, or is left out")
    section = _Section(reader, groups)
    return Identity(
        frozenset(found.keys() - {"anonymous"}),
        "anonymous" in found,
        section.authority(found["cert"]) if "cert" in found else None,
        section.networks(found["source"]) if "source" in found else SourceNetworks(),
        section.ports(found["port"]) if "port" in found else {},
    )


class _Section:
    """Reads what stands under the keys of one `identity:`."""

    def __init__(self, reader: Reader, groups: Collection[str]) -> None:
        self._reader, self._groups = reader, groups

    def authority(self, node: Node) -> ClientAuthority | None:
        found = self._reader.mapping(node, CERT) or {}
        file = self._reader.line(found["ca"], "ca", _LONGEST_FILE_NAME) if "ca" in found else None
        return None if file is None else ClientAuthority(file, self._reader.at(found["ca"]))

    def networks(self, node: Node) -> SourceNetworks:
        seen: dict[Block, str] = {}
        said: list[tuple[Block, str]] = []
        for key, agent in self._agents(node, "source", 'write {10.1.0.0/24: coder-1}'):
            block = self._reader.parsed("E202", key, _block)
            if block is None:
                continue
            if block in seen:
                message = f"{quote(key.text)} stands twice in source"
                self._reader.error("E101", key, message, f"the first is written {seen[block]}")
                continue
            seen[block] = key.text
            said.append((block, agent))
        return SourceNetworks(tuple(said))

    def ports(self, node: Node) -> dict[int, str]:
        said = {}
        for key, agent in self._agents(node, "port", "write {8081: coder-1}"):
            port = self._reader.parsed("E206", key, _port)
            if port is not None:
                said[port] = agent
        return said

    def _agents(self, node: Node, what: str, example: str) -> list[tuple[Scalar, str]]:
        """The entries of a mapping to agents, without those whose agent cannot be one."""
        findings = len(self._reader.findings)
        entries = self._reader.entries(node, what)
        if not entries and len(self._reader.findings) == findings:
            self._reader.error("E104", node, f"{what} names nobody", f"{example}, or leave it out")
        named = [(key, self._agent(value, f"the agent of {quote(key.text)}")) for key, value in entries]
        return [(key, agent) for key, agent in named if agent is not None]

    def _agent(self, node: Node, what: str) -> str | None:
        name = self._reader.text(node, what)
        if name is None:
            return None
        if name in self._groups:
            hint = "name one agent: whoever comes that way is this agent"
            self._reader.error("E205", node, f"{quote(name)} is a group, and {what} is one agent", hint)
        elif name in RESERVED_IDS:
            hint = "anonymous: allow is how clients without identity come in"
            self._reader.error("E205", node, f"{quote(name)} is who nobody knows, and cannot be {what}", hint)
        elif not valid_id(name):
            hint = "a-z 0-9 . _ -, at most 64, and a letter or digit first"
            self._reader.error("E205", node, f"{quote(name)} is not the id of an agent", hint)
        else:
            return name
        return None


def _block(text: str) -> Block:
    try:
        block: Block = ip_network(text, strict=False)
    except ValueError:
        problem = f"{quote(text)} is not an address and not a network"
        raise PatternError(problem, "write 10.1.0.0/24, 10.1.0.7 or fd00::/64") from None
    address_range(text, {})
    return block


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > _LAST_PORT:
        raise PatternError(f"{quote(text)} is not a port", f"write one at which Governor listens: 1 to {_LAST_PORT}")
    return int(text)
