"""What a policy may write as host, address, path, URL, port and agent: text in, patterns out, or `PatternError`.

The hint of an error says what to write instead. The meaning of each pattern is here too: `host_matches`,
`path_matches`, `agent_matches`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import IPv6Address, ip_network
from typing import TYPE_CHECKING

from kernel import normal
from kernel.address import network
from kernel.errors import NonCanonical, PatternError
from kernel.glob import prepared, word, words_both, words_meet
from kernel.policy import (
    AddressRange,
    AgentPattern,
    Destination,
    HostPattern,
    HostReach,
    PathGlob,
    PortRange,
    UrlPattern,
)

if TYPE_CHECKING:
    from kernel.facts import Host

NamedRanges = Mapping[str, AddressRange]

_AGENT = re.compile(r"[A-Za-z0-9*](?:[A-Za-z0-9*._:@/+-]{0,126}[A-Za-z0-9*])?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_ADDRESS_LIKE = re.compile(r"\[.*|[^/]*:[^/]*:.*|[0-9][0-9.]*(?:/.*)?")
_HOST_WITH_PORT = re.compile(r"([^:/]+):[0-9]*", re.ASCII)
_HOST_WITH_PATH = re.compile(r"[^:/]+(?::[0-9]+)?/.*")
_URL = re.compile(r"(https?|wss?)://([^/?#]*)([^?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_NO_RANGE = "is not an address, a CIDR block or a named range"


def destination(text: str, named: NamedRanges) -> Destination:
    """The URL pattern, address range or host pattern that an item of `to:` stands for."""
    if "://" in text:
        return url_pattern(text, named)
    if text in named or _ADDRESS_LIKE.fullmatch(text):
        return address_range(text, named)
    return host_pattern(text)


def host_pattern(text: str) -> HostPattern:
    """`x.com`, `*.x.com` or `.x.com`."""
    _check_host_text(text)
    reach, name = _reach(text)
    _check_stars(text, name)
    host = _host(name)
    if host.address is not None:
        raise PatternError(f'"{text}" is an address, not a host name', f"write {host.name} as an address or range")
    return HostPattern(host.name, reach)


def _reach(text: str) -> tuple[HostReach, str]:
    if text.startswith("*."):
        return HostReach.BELOW, text[2:]
    if text.startswith("."):
        return HostReach.SELF_AND_BELOW, text[1:]
    return HostReach.EXACT, text


def _check_host_text(text: str) -> None:
    if text != text.strip() or not text:
        raise PatternError("a host pattern is empty or has spaces around it", 'write a name such as "api.example.org"')
    if text == "*":
        raise PatternError('"*" is not a host pattern', 'leave out "to" to mean every host, or name the hosts')
    if ":" in text and (with_port := _HOST_WITH_PORT.fullmatch(text)):
        raise PatternError(f'"{text}" is a host with a port', f'write {with_port[1]} and "ports:", or a URL pattern')
    if "/" in text and _HOST_WITH_PATH.fullmatch(text):
        raise PatternError(f'"{text}" is a host with a path', f'write a URL pattern: "https://{text}"')


def _check_stars(text: str, name: str) -> None:
    if "*" not in name:
        return
    below = name.rpartition("*")[2].partition(".")[2]
    hint = f'write "*.{below}" for every host below {below}, or list the hosts' if below else "list the hosts"
    raise PatternError(f'"{text}": a star stands only as the whole first label of a host', hint)


def _host(name: str) -> Host:
    try:
        return normal.host(name)
    except NonCanonical as fault:
        raise PatternError(f'"{name}" is not a host: {fault.problem}', "write the name as DNS has it") from None


def address_range(text: str, named: NamedRanges) -> AddressRange:
    """A name from `named`, a CIDR block or a single address."""
    if text in named:
        return named[text]
    if "[" in text or "%" in text:
        raise PatternError(f'"{text}" {_NO_RANGE}', "write an address without brackets and without a zone")
    try:
        spread = AddressRange(text, (network(text),))
    except ValueError:
        raise _range_error(text, named) from None
    first = spread.networks[0].first
    if isinstance(first, IPv6Address) and first.ipv4_mapped is not None:
        raise PatternError(f'"{text}" is IPv4 written as IPv6', "write the IPv4 form: it covers the mapped one too")
    return spread


def _range_error(text: str, named: NamedRanges) -> PatternError:
    try:
        block = ip_network(text, strict=False)
    except ValueError:
        return PatternError(f'"{text}" {_NO_RANGE}', _range_hint(text, named))
    inside = text.partition("/")[0]
    hint = f"write {block} for the block, or {inside} for the one address"
    return PatternError(f'"{text}" has bits set to the right of its prefix', hint)


def _range_hint(text: str, named: NamedRanges) -> str:
    close = get_close_matches(text, named)
    if close:
        return f'did you mean "{close[0]}"?'
    try:
        host = normal.host(text)
    except NonCanonical:
        host = None
    if host is not None and host.address is not None:
        return f"write {host.name}"
    return f"write 10.1.0.0/16, 10.1.2.3 or one of {', '.join(sorted(named))}"


def path_glob(text: str) -> PathGlob:
    """A path in canonical form, in which `*` and `**` are wild."""
    if not text.startswith("/"):
        raise PatternError(f'the path "{text}" does not begin with /', f'write "/{text}"')
    if "?" in text:
        raise PatternError(f'"{text}" has a "?"', f'a path never includes the query: write "{text.partition("?")[0]}"')
    try:
        path = normal.path(text)
    except NonCanonical as fault:
        raise PatternError(f'"{text}": {fault.problem}', "no request with such a path ever passes") from None
    for segment in path.segments:
        if "**" in segment and segment != "**":
            raise PatternError(f'"{text}": ** stands only as a whole segment', "write * inside a segment, /**/ between")
    return PathGlob(path.text, path.segments)


def url_pattern(text: str, named: NamedRanges) -> UrlPattern:
    """`https://host[:port]/path-glob`; the host is a host pattern, an address or the name of a range."""
    parts = _URL.fullmatch(text)
    if parts is None:
        problem = f'"{text}" is not an http://, https://, ws:// or wss:// URL pattern'
        raise PatternError(problem, 'write "https://api.example.org/**"')
    scheme, authority, path, rest = parts[1].lower(), parts[2], parts[3], parts[4]
    if rest:
        raise PatternError(f'"{text}" has a query or a fragment', "a URL pattern ends with its path")
    if not path:
        raise PatternError(f'"{text}" has no path', f'write "{text}/**" for every path, "{text}/" for the root alone')
    try:
        host, port = normal.split_authority(authority)
    except NonCanonical as fault:
        raise PatternError(f'"{text}": {fault.problem}', 'write "https://host:port/path"') from None
    return UrlPattern(text, scheme, _url_host(host, named), port or normal.OWN_PORTS[scheme], path_glob(path))


def _url_host(text: str, named: NamedRanges) -> HostPattern | AddressRange:
    bare = text.removeprefix("[").removesuffix("]")
    if bare in named or _ADDRESS_LIKE.fullmatch(bare):
        return address_range(bare, named)
    return host_pattern(text)


def agent_pattern(text: str) -> AgentPattern:
    """An agent id, or an id glob in which `*` is any run of characters."""
    if not _AGENT.fullmatch(text):
        hint = "letters, digits and . _ : @ / + - inside, at most 128 characters; * for any run of characters"
        raise PatternError(f'"{text}" is not an agent id or an id glob', hint)
    return AgentPattern(text)


def port_range(text: str) -> PortRange:
    """`443` or `8000-8999`."""
    parts = _PORTS.fullmatch(text)
    if parts is None:
        raise PatternError(f'"{text}" is not a port or a range of ports', "write 443 or 8000-8999")
    first, last = int(parts[1]), int(parts[2] or parts[1])
    if not 1 <= first <= 65535 or not 1 <= last <= 65535:
        raise PatternError(f'"{text}": a port is a number from 1 to 65535', "write 443 or 8000-8999")
    if last < first:
        raise PatternError(f'"{text}" runs backwards', f"write {last}-{first}")
    return PortRange(first, last)


def host_matches(pattern: HostPattern, host: Host) -> bool:
    """True when the host is a name within reach of the pattern. An address never is."""
    if host.address is not None:
        return False
    if host.name == pattern.name:
        return pattern.reach is not HostReach.BELOW
    return pattern.reach is not HostReach.EXACT and host.name.endswith(f".{pattern.name}")


def path_matches(glob: PathGlob, segments: tuple[str, ...]) -> bool:
    """True when the glob matches this reading of a path."""
    return prepared(glob.segments).matches(segments)


ANONYMOUS = "anonymous"


def agent_matches(pattern: AgentPattern, agent: str) -> bool:
    """True when the pattern covers the agent. Only the plain word covers `anonymous`: no star reaches it."""
    if "*" not in pattern.text or agent == ANONYMOUS:
        return pattern.text == agent
    return word(pattern.text).fits(agent)


def agents_meet(first: tuple[AgentPattern, ...] | None, second: tuple[AgentPattern, ...] | None) -> bool:
    """True when some agent is covered by both; None covers every agent."""
    return first is None or second is None or any(patterns_meet(one, other) for one in first for other in second)


def patterns_meet(one: AgentPattern, other: AgentPattern) -> bool:
    """True when some agent id fits both patterns."""
    if "*" not in one.text:
        return agent_matches(other, one.text)
    if "*" not in other.text:
        return agent_matches(one, other.text)
    return words_meet(one.text, other.text)


def agents_of_both(
    first: tuple[AgentPattern, ...] | None, second: tuple[AgentPattern, ...] | None
) -> tuple[AgentPattern, ...] | None:
    """Patterns of exactly the agents that both cover; None covers every agent. Raises `PatternError` for too many."""
    if first is None or second is None:
        return second if first is None else first
    found = [pattern for one in first for other in second for pattern in _of_both(one, other)]
    return tuple(dict.fromkeys(found))


def _of_both(one: AgentPattern, other: AgentPattern) -> list[AgentPattern]:
    for plain, pattern in ((one, other), (other, one)):
        if "*" not in plain.text:
            return [plain] if agent_matches(pattern, plain.text) else []
    return [AgentPattern(text) for text in sorted(words_both(one.text, other.text)) if text != ANONYMOUS]
