"""Where distributions keep what is trusted, and the same places with the CA in them, to be mounted over."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from addons.client_trust.certificates import at, mark, parsed, pem
from addons.client_trust.readable_files import copied, put

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from addons.client_trust.certificates import Der

# In the order in which Go looks: Debian, Fedora, openSUSE, OpenELEC, RHEL, Alpine and macOS.
BUNDLES = (
    "etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem",
    "etc/pki/tls/cacert.pem", "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "etc/ssl/cert.pem",
)
HASHED = ("etc/ssl/certs", "etc/pki/tls/certs", "etc/pki/ca-trust/extracted/pem/directory-hash")
# What the system's own command makes the bundles from, and what p11-kit reads for GnuTLS.
ANCHORS = (
    "usr/local/share/ca-certificates", "etc/pki/ca-trust/source/anchors", "etc/ca-certificates/trust-source/anchors",
    "etc/pki/trust/anchors",
)


def trusted(root: Path) -> Iterator[Der]:
    """What the system trusts: its first bundle."""
    bundle = next((root / name for name in BUNDLES if (root / name).is_file()), None)
    return at(bundle) if bundle else iter(())


def copies(folder: Path, authorities: Sequence[Der], bundle: Path, java: Mapping[Path, Path],
           root: Path) -> dict[Path, Path]:
    """What to mount over which place: {place: copy}. Every place is there already and is the real one, no link."""
    replaced = {file.resolve(): bundle for name in BUNDLES if (file := root / name).is_file()} | dict(java)
    found: dict[Path, Path] = {}
    for number, name in enumerate((*HASHED, *ANCHORS)):
        place = (root / name).resolve()
        if not place.is_dir() or place in found:
            continue
        copy = folder / f"{number}-{place.name}"
        copied(place, copy, replaced)
        for der in authorities:
            _add(der, copy, hashed=name in HASHED)
        found[place] = copy
    return found | {place: source for place, source in replaced.items()
                    if not any(over in place.parents for over in found)}


def subject_hash(der: Der) -> str:
    """The name under which OpenSSL looks for one of our CAs in a folder, without its number."""
    # OpenSSL's canonical form (X509_NAME_hash): UTF-8, lower case, and the sequence's own head left out.
    lower = [x509.NameAttribute(each.oid, str(each.value).lower()) for each in parsed(der).subject]
    name = x509.Name(lower).public_bytes()
    body = name[2 if name[1] < 0x80 else 2 + (name[1] & 0x7F):]
    return f"{int.from_bytes(hashlib.sha1(body, usedforsecurity=False).digest()[:4], 'little'):08x}"


def _add(der: Der, folder: Path, *, hashed: bool) -> None:
    name = f"governor-{mark(der)}.crt"
    put(folder / name, pem([der]))
    if hashed:
        stem = subject_hash(der)
        number = next(n for n in range(len(os.listdir(folder)) + 1) if not os.path.lexists(folder / f"{stem}.{n}"))
        os.symlink(name, folder / f"{stem}.{number}")
