"""Java's trust stores: read in either form, written as a PKCS#12 that Java takes with or without a password."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs12

from addons.client_trust.certificates import content, old_roots, parsed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from addons.client_trust.certificates import Der

# Later ones win over earlier: the JVM reads the first, the `java` command puts the second on its own line.
OPTIONS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
_OPTION = r"-Djavax\.net\.ssl\.{}=(\"[^\"]*\"|'[^']*'|\S+)"
_JKS = 0xFEEDFEED, 0xCECECECE
_TRUSTED = 2
_STORES = (
    "etc/ssl/certs/java/cacerts", "etc/pki/ca-trust/extracted/java/cacerts", "etc/pki/java/cacerts",
    "usr/lib/jvm/*/lib/security/cacerts", "usr/lib/jvm/*/jre/lib/security/cacerts", "opt/*/lib/security/cacerts",
)
_OF_HOME = ".sdkman/candidates/java/*/lib/security/cacerts"


def stores(environment: Mapping[str, str], home: Path, root: Path) -> list[Path]:
    """The trust stores of the Javas on this machine, where they really lie."""
    named = Path(environment["JAVA_HOME"], "lib/security/cacerts") if environment.get("JAVA_HOME") else None
    found = [*(file for pattern in _STORES for file in sorted(root.glob(pattern))), *home.glob(_OF_HOME),
             *([named] if named else [])]
    return list(dict.fromkeys(file.resolve() for file in found if file.is_file()))


def chosen(environment: Mapping[str, str]) -> Iterator[Der]:
    """What lies in the trust stores that the user has Java use."""
    for name in OPTIONS:
        said = environment.get(name, "")
        passwords = [_unquoted(value) for value in re.findall(_OPTION.format("trustStorePassword"), said)]
        for value in re.findall(_OPTION.format("trustStore"), said):
            yield from certificates(content(Path(_unquoted(value))), passwords[-1] if passwords else None)


def chosen_by(environment: Mapping[str, str]) -> bool:
    """Whether the user has Java use a store of his own."""
    return any("trustStore" in environment.get(name, "") for name in OPTIONS)


def options(environment: Mapping[str, str], store: Path) -> dict[str, str]:
    """The variables by which every Java takes `store`; what the user has in them stays in front."""
    ours = f'-Djavax.net.ssl.trustStore="{store}" -Djavax.net.ssl.trustStoreType=PKCS12'
    # In the variable that wins the user's choice would win over ours.
    names = [name for name in OPTIONS if name == OPTIONS[0] or "trustStore" in environment.get(name, "")]
    return {name: f"{environment.get(name, '').removesuffix(ours).rstrip()} {ours}".lstrip() for name in names}


def certificates(store: bytes, password: str | None = None) -> Iterator[Der]:
    """The trusted certificates of a JKS or PKCS#12 file; none of one that cannot be read."""
    try:
        if len(store) >= 4 and struct.unpack_from(">I", store)[0] in _JKS:
            yield from _of_jks(store)
            return
        # What Java calls a store without a password may have none, an empty one, or the one everybody knows.
        for each in (password.encode(),) if password is not None else (None, b"changeit", b""):
            found = _of_pkcs12(store, each)
            if found:
                yield from found
                return
    except (struct.error, UnicodeDecodeError):
        return


def written(trusted: Iterable[Der]) -> bytes:
    """The trust store with these certificates, without a password: Java opens it so, and no secret is in it."""
    entries = []
    for number, der in enumerate(trusted):
        try:
            entries.append(pkcs12.PKCS12Certificate(parsed(der), f"ca-{number}".encode()))
        except ValueError:
            continue
    return pkcs12.serialize_java_truststore(entries, NoEncryption())


def _of_pkcs12(store: bytes, password: bytes | None) -> list[Der]:
    try:
        with old_roots():
            read = pkcs12.load_pkcs12(store, password)
        held = [*([read.cert] if read.cert else []), *read.additional_certs]
        return [each.certificate.public_bytes(Encoding.DER) for each in held]
    except ValueError:
        return []


def _of_jks(store: bytes) -> Iterator[Der]:
    _, version, count = struct.unpack_from(">III", store)
    place = 12
    for _ in range(count):
        (kind,) = struct.unpack_from(">I", store, place)
        if kind != _TRUSTED:
            # A private key among them: what is behind it is left out, and Java's own stores have none.
            return
        place = _behind_text(store, place + 4) + 8
        place = _behind_text(store, place) if version > 1 else place
        (size,) = struct.unpack_from(">I", store, place)
        yield store[place + 4:place + 4 + size]
        place += 4 + size


def _behind_text(store: bytes, place: int) -> int:
    (length,) = struct.unpack_from(">H", store, place)
    return place + 2 + int(length)


def _unquoted(value: str) -> str:
    return value.strip("\"'")
