"""The one normaliser: text from a request or a policy in, the only form that is judged and sent out.

What has more than one reading raises `NonCanonical`, with one exception: `%2F` in a path stays, and the path has two
readings. The functions are idempotent: what they return comes back unchanged.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NoReturn

from kernel.errors import NonCanonical
from kernel.facts import Host, Path
from kernel.verdict import Code

_CACHED_CHARACTERS = 512  # longer texts are not worth remembering, and an agent chooses how many there are

_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+", re.ASCII)
_PLAIN_PATH = re.compile(r"(?:/(?!\.)[A-Za-z0-9._~!$&'()*+,;=:@-]+)+/?|/")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_FORBIDDEN_RAW = re.compile(r"[\x00-\x20\x7f#\\]")
_TO_ENCODE = re.compile(r"[^!$%&'()*+,\-./0-9:;=@A-Z_a-z~]")
_SLASHES = re.compile(r"//+")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/?#\\]*)([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", re.ASCII)

DEFAULT_PORTS = {"http": 80, "https": 443}
"""The schemes that a request is sent with."""
OWN_PORTS = {**DEFAULT_PORTS, "ws": 80, "wss": 443}
"""The schemes that a policy speaks of: those, and what a request is called that asks to become a WebSocket."""


def _refuse(problem: str) -> NoReturn:
    raise NonCanonical(Code.NON_CANONICAL, problem)


@lru_cache(maxsize=4096)
def host(text: str) -> Host:
    """The host that the text names: a lower-case A-label name without trailing dot, or an address without brackets."""
    if len(text) > 1024:
        _refuse("the host is longer than 253 characters")
    if text.startswith("[") or ":" in text:
        return _ipv6(text)
    name = text.removesuffix(".")
    if not name.isascii():
        name = ".".join(map(_a_label, name.split(".")))
    name = name.lower()
    if not _NAME.fullmatch(name):
        _refuse_name(name)
    if len(name) > 253:
        _refuse("the host is longer than 253 characters")
    if _NUMBER.fullmatch(name, name.rfind(".") + 1):
        return _literal(_ipv4(name))
    if "xn--" in name:
        _check_a_labels(name)
    return Host(name)


def _refuse_name(name: str) -> NoReturn:
    labels = name.split(".")
    if "" in labels:
        _refuse("the host is empty" if labels == [""] else "the host has an empty label")
    if any(len(label) > 63 for label in labels):
        _refuse("a label of the host is longer than 63 characters")
    _refuse("the host has a character that no host name has")


def _literal(address: IPv4Address | IPv6Address) -> Host:
    return Host(str(address), address)


def _ipv6(text: str) -> Host:
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if "%" in inner:
        _refuse("the address has a zone")
    try:
        address = IPv6Address(inner)
    except ValueError:
        _refuse("this is neither a host name nor an IPv6 address")
    return _literal(address.ipv4_mapped or address)


def _ipv4(name: str) -> IPv4Address:
    """The address in any spelling that `inet_aton` or a browser knows: decimal, hex, octal, one to four parts."""
    parts = [_ipv4_part(part) for part in name.split(".")]
    *front, last = parts
    if len(parts) > 4 or any(part > 255 for part in front) or last >= 256 ** (5 - len(parts)):
        _refuse("the host ends in a number and is no IPv4 address")
    return IPv4Address(sum(part << (24 - 8 * place) for place, part in enumerate(front)) + last)


def _ipv4_part(part: str) -> int:
    octal = part[0] == "0" and "x" not in part
    if not _NUMBER.fullmatch(part) or (octal and ("8" in part or "9" in part)):
        _refuse("the host ends in a number and is no IPv4 address")
    if part[:2] == "0x":
        return int(part[2:] or "0", 16)
    return int(part, 8 if octal else 10)


def _a_label(label: str) -> str:
    """The A-label of one Unicode label. Refuses what IDNA 2003, IDNA 2008 and UTS 46 read in different ways."""
    lowered = label.lower()
    if lowered.isascii():
        return lowered
    if any(unicodedata.category(c)[0] not in "LMN" and c != "-" for c in lowered):
        _refuse("the host has a character that no host name has")
    if lowered != unicodedata.normalize("NFKC", label.casefold()) or lowered[0] == "-" or lowered[2:4] == "--":
        _refuse("the host has a character with more than one reading; write the xn-- form")
    try:
        encoded = lowered.encode("idna").decode("ascii")
        back = encoded.encode("ascii").decode("idna")
    except UnicodeError:
        _refuse("the host has a label that is not valid in IDNA; write the xn-- form")
    if back != lowered:
        _refuse("the host has a character with more than one reading; write the xn-- form")
    return encoded


def _check_a_labels(name: str) -> None:
    for label in name.split("."):
        if not label.startswith("xn--"):
            continue
        try:
            decoded = label[4:].encode("ascii").decode("punycode")
            again = decoded.encode("punycode").decode("ascii")
        except UnicodeError:
            _refuse("the host has an xn-- label that is not punycode")
        if decoded.isascii() or again != label[4:]:
            _refuse("the host has an xn-- label that is not punycode")


def path(raw: str) -> Path:
    """The path, given without its query, as it is judged and sent. Non-ASCII is UTF-8 or surrogate-escaped bytes."""
    return _cached_path(raw) if len(raw) <= _CACHED_CHARACTERS else _path(raw)


def _path(raw: str) -> Path:
    if _PLAIN_PATH.fullmatch(raw):
        return Path(raw, tuple(raw[1:].split("/")))
    text = _canonical_path(raw)
    segments = _segments(text)
    if "%2F" not in text:
        return Path(text, segments)
    split = _segments(_SLASHES.sub("/", text.replace("%2F", "/")))
    return Path(text, segments, split)


_cached_path = lru_cache(maxsize=4096)(_path)


def _canonical_path(raw: str) -> str:
    if not raw:
        return "/"
    if raw[0] != "/":
        _refuse("the path does not begin with /")
    if _FORBIDDEN_RAW.search(raw):
        _refuse("the path has a space, a control character, # or \\")
    decoded = _ESCAPE.sub(_decode, raw)
    return _SLASHES.sub("/", _TO_ENCODE.sub(_encode, decoded))


def _decode(escape: re.Match[str]) -> str:
    if escape[1] is None:
        _refuse("the path has a % that two hex digits do not follow")
    value = int(escape[1], 16)
    if value in (0x00, 0x5C):
        _refuse(f"the path has %{value:02X}")
    return chr(value) if value in _UNRESERVED else f"%{value:02X}"


def _encode(found: re.Match[str]) -> str:
    try:
        return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        _refuse("the path has a character that no bytes stand for")


def _segments(text: str) -> tuple[str, ...]:
    segments = tuple(text[1:].split("/"))
    for segment in segments:
        # Servers that cut path parameters read "..;x" as "..".
        if segment[:1] == "." and segment.replace("%3B", ";").partition(";")[0] in (".", ".."):
            _refuse("the path has a dot segment")
    return segments


def target(raw: str) -> tuple[Path, str]:
    """Path and query of an origin-form request target. The query loses nothing but its raw non-ASCII bytes."""
    before, _, query = raw.partition("?")
    if query and (not query.isascii() or _FORBIDDEN_RAW.search(query)):
        query = _query(query)
    return path(before), query


def _query(raw: str) -> str:
    if _FORBIDDEN_RAW.search(raw.replace("\\", "")):
        _refuse("the query has a space, a control character or #")
    return re.sub(r"[^\x00-\x7f]", _encode, raw)


def url(text: str) -> tuple[str, Host, int, Path, str]:
    """Scheme, host, port, path and query of an absolute http, https, ws or wss URL."""
    parts = _URL.fullmatch(text)
    if parts is None or parts[1].lower() not in OWN_PORTS:
        _refuse("this is not an http://, https://, ws:// or wss:// URL")
    if parts[5] is not None:
        _refuse("the URL has a fragment")
    scheme = parts[1].lower()
    name, port = authority(parts[2], OWN_PORTS[scheme])
    where, query = target(parts[3] + ("" if parts[4] is None else f"?{parts[4]}"))
    return scheme, name, port, where, query


def authority(text: str, default_port: int) -> tuple[Host, int]:
    """Host and port of `host`, `host:port` or `[address]:port`."""
    name, port = split_authority(text)
    return host(name), default_port if port is None else port


def split_authority(text: str) -> tuple[str, int | None]:
    """The host text, not yet normalised, and the port of an authority."""
    if "@" in text:
        _refuse("the authority has user information")
    parts = _AUTHORITY.fullmatch(text)
    if parts is None:
        _refuse("the authority is not HOST or HOST:PORT; an IPv6 address needs brackets")
    if parts[2] is None:
        return parts[1], None
    port = int(parts[2])
    if not 1 <= port <= 65535 or parts[2] != str(port):
        _refuse("the port is not a number from 1 to 65535 without leading zeros")
    return parts[1], port
