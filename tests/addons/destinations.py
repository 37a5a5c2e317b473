# ruff: noqa: RUF001
"""Destinations in every spelling, right and wrong, and what a browser would make of each (WHATWG URL, by Node)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random
from urllib.parse import quote

NAMES = ("api.example.org", "b.example.net", "localhost", "xn--bcher-kva.example.org", "bücher.example.org",
         "straße.example.org", "faß.example.org", "a_b.example.org", "x.0x7f", "1.2.3.example.org", "ｅxample.org",
         "xn--a.example.org", "xn--zca.example.org", "xn--fa-hia.example.org", "a-.example.org", "-a.example.org",
         "ab--c.example.org", "xn--1ch.example.org", "xn--ls8h.example.org", "example。org", "l" * 63 + ".example.org",
         "l" * 64 + ".example.org")
ADDRESSES = ("93.184.216.34", "8.8.8.8", "127.0.0.1", "10.1.2.3", "169.254.169.254", "2606:4700::1111", "::1",
             "fd00:ec2::254", "fe80::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:7f00:1::")
_NASTY = "".join(map(chr, (0, 9, 11, 12, 13, 32, 127))) + "@:/\\?#%[].,;'\"<>^|`{}*$&=+-_~!0xX１。．\xad\u200d\u200bİßſ"
_PORTS = ("", ":", ":80", ":443", ":8080", ":080", ":0", ":65535", ":65536", ":+80", ":８０", ":8 0", ":-1", ":80:80",
          ":0x50", ":4294967376")
_OFTEN = ("", "", "", ":80", ":443", ":8080")


@dataclass(frozen=True)
class Place:
    """One host to be spelled: a name or an address."""

    text: str

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        try:
            return ip_address(self.text)
        except ValueError:
            return None


def place(chance: Random) -> Place:
    if chance.random() < 0.1:
        return Place(str(IPv4Address(chance.getrandbits(32))))
    return Place(chance.choice(chance.choice((NAMES, ADDRESSES))))


def authority(chance: Random, where: Place, port: str, wildness: float) -> str:
    """The place and a port in some spelling; with `wildness` as its likelihood, in one that means nothing or two."""
    text = spelled(chance, where)
    if chance.random() < wildness:
        port = chance.choice(_PORTS)
    text += port
    while chance.random() < wildness:
        text = chance.choice(_MUTATIONS)(chance, text)
    return text


def port(chance: Random) -> str:
    return chance.choice(_OFTEN)


def spelled(chance: Random, where: Place) -> str:
    """The place as a correct host in one of its many forms; an IPv6 address in brackets."""
    match where.address:
        case IPv4Address() as four:
            text = _four(chance, four)
        case IPv6Address() as six:
            text = f"[{_six(chance, six)}]"
        case None:
            text = where.text
    if chance.random() < 0.2:
        text = "".join(chance.choice((letter.upper(), letter.lower())) if letter.isascii() else letter
                       for letter in text)
    return text + "." if chance.random() < 0.1 and not text.endswith("]") else text


_NUMBERS = ("{}", "0x{:x}", "0{:o}", "0x{:08x}", "0X{:X}", "000{:o}")


def _four(chance: Random, address: IPv4Address) -> str:
    if chance.random() < 0.5:
        return str(address)
    octets, count = address.packed, chance.randint(1, 4)
    parts = [*octets[:count - 1], int.from_bytes(octets[count - 1:], "big")]
    return ".".join(chance.choice(_NUMBERS).format(part) for part in parts)


def _six(chance: Random, address: IPv6Address) -> str:
    four = IPv4Address(int(address) & 0xFFFFFFFF)
    return chance.choice((str(address), address.exploded, str(address).upper(),
                          f"{address.exploded.rpartition(':')[0].rpartition(':')[0]}:{four}"))


def _insert(chance: Random, text: str) -> str:
    at = chance.randint(0, len(text))
    return text[:at] + chance.choice(_NASTY) + text[at:]


def _escape(chance: Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + "".join(f"%{byte:02x}" for byte in text[at:at + 1].encode()) + text[at + 1:]


def _delete(chance: Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[at + 1:]


def _swap(chance: Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(_NASTY) + text[at + 1:]


def _double(chance: Random, text: str) -> str:
    return text.replace(".", "..", 1)


def _widen(chance: Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text[at:at + 1]) + text[at + 1:]


def _user(chance: Random, text: str) -> str:
    return f"{chance.choice(('user', 'user:pass', '', 'b.example.net', 'b.example.net:80', '%00', '[::1]'))}@{text}"


def _zone(chance: Random, text: str) -> str:
    return text.replace("]", chance.choice(("%25lo]", "%lo]", "%]", "%1]")))


def _join(chance: Random, text: str) -> str:
    return text + chance.choice((",", ", ", " ", "\\", "@", "#", "?", "/", ";", ":", ".", "%2f", "%00", "\t", "\r",
                                 "&", "|", "%0d%0a")) + spelled(chance, place(chance))


def _bracket(chance: Random, text: str) -> str:
    return f"[{text}]" if chance.random() < 0.5 else text.replace("[", "").replace("]", "")


def _bracket_host(chance: Random, text: str) -> str:
    host, colon, rest = text.partition(":")
    return f"[{host}]{colon}{rest}"


_MUTATIONS: tuple[Callable[[Random, str], str], ...] = (
    _insert, _escape, _delete, _swap, _double, _widen, _user, _zone, _join, _bracket, _bracket_host)


def written(text: str) -> bytes:
    """The text as it may stand on the wire."""
    return text.encode("utf-8", "surrogateescape")


def read(wire: bytes) -> str:
    """What bytes say to a reader of URLs: UTF-8, or else one character a byte."""
    try:
        return wire.decode()
    except UnicodeDecodeError:
        return wire.decode("latin-1")


@dataclass(frozen=True)
class Url:
    """What the WHATWG rules make of a text. IPv4 inside IPv6 is IPv4; a trailing dot is not a part of a name."""

    host: str
    port: int


# One text a line in, one answer a line out.
_PARSER = """
const answers = require("fs").readFileSync(0, "utf8").split("\\n").filter(Boolean).map(line => {
  try { const url = new URL(JSON.parse(line)); return [url.protocol, url.hostname, url.port]; }
  catch { return null; }
});
process.stdout.write(JSON.stringify(answers));
"""
_DEFAULT_PORTS = {"http:": 80, "https:": 443}


def node() -> str | None:
    return shutil.which("node")


def whatwg(texts: Sequence[str]) -> list[Url | None]:
    """The host and port of each absolute URL by Node's `URL`; None where it is none, or of another scheme."""
    lines = "\n".join(json.dumps(text) for text in texts)
    done = subprocess.run([str(node()), "-e", _PARSER], input=lines, capture_output=True, text=True, check=True)
    return [_url(answer) for answer in json.loads(done.stdout)]


def _url(answer: list[str] | None) -> Url | None:
    if answer is None or answer[0] not in _DEFAULT_PORTS:
        return None
    scheme, host, port = answer
    return Url(_plain(host), int(port) if port else _DEFAULT_PORTS[scheme])


def _plain(host: str) -> str:
    if not host.startswith("["):
        return host.removesuffix(".")
    address = IPv6Address(host[1:-1])
    return str(address.ipv4_mapped or address)


def path(chance: Random) -> str:
    """A path, mostly harmless; at times one that names a host itself."""
    if chance.random() < 0.8:
        return chance.choice(("/", "/a", "/a/b?c=d", ""))
    other = spelled(chance, place(chance))
    return chance.choice((f"//{other}/", f"/\\{other}/", f"\\\\{other}", f"http://{other}/", f"@{other}/",
                          f"/..//{other}", f"/?@{other}/", f"/#@{other}", f"/{quote(other)}", f":80@{other}/", "*",
                          f"/%2f{other}", f"/%5c{other}", f"/.//{other}/", f"///{other}", f"/\t/{other}"))
