"""Browsers: Chromium's managed policy, and the user's NSS database with the CA in a copy of it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from addons.client_trust.certificates import content, mark, pem
from addons.client_trust.readable_files import copied, folder_at, put

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from addons.client_trust.certificates import Der

# Chromium of Debian and others, of Ubuntu, Chrome, Chrome for Testing, Edge, Brave.
POLICY_FOLDERS = ("etc/chromium", "etc/chromium-browser", "etc/opt/chrome", "etc/opt/chrome_for_testing",
                  "etc/opt/edge", "etc/brave")
NSS_FOLDERS = (".pki/nssdb", ".local/share/pki/nssdb")
_MANAGED = "policies/managed"
_POLICY = "CACertificates"
_POLICY_FILE = "governor.json"
_CERTUTIL_SECONDS = 20.0
_SYSTEM_PROGRAMS = "/usr/bin:/bin"


def policies(folder: Path, authorities: Sequence[Der], root: Path) -> dict[Path, Path]:
    """What to mount over the browsers' configuration: a copy whose policy names the CA beside what it named."""
    found = {}
    for number, name in enumerate(POLICY_FOLDERS):
        place = (root / name).resolve()
        if place.is_dir() and place not in found:
            found[place] = _with_policy(place, folder / f"policy-{number}", authorities)
    return found


def databases(folder: Path, authorities: Sequence[Der], home: Path) -> Iterator[tuple[Path, Path | None]]:
    """The user's NSS databases, each with its copy that trusts the CA; None where it could not be made."""
    for number, name in enumerate(NSS_FOLDERS):
        place = (home / name).resolve()
        if place.is_dir():
            copy = folder / f"nss-{number}"
            yield place, copy if _with_authority(place, copy, authorities) else None


def certutil(*arguments: str, certificate: Der | None = None) -> bool:
    """Whether NSS's own command did it, which reads `certificate`; False too where it is not installed."""
    # First where nobody but root can have put it, for root calls it, too.
    program = shutil.which("certutil", path=_SYSTEM_PROGRAMS) or shutil.which("certutil")
    if program is None:
        return False
    try:
        # Without a terminal on its input it cannot wait for a password.
        done = subprocess.run([program, *arguments], capture_output=True, check=False, timeout=_CERTUTIL_SECONDS,
                              input=b"" if certificate is None else pem([certificate]))
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _with_policy(place: Path, copy: Path, authorities: Sequence[Der]) -> Path:
    managed = copied(place, copy)
    for part in Path(_MANAGED).parts:
        managed = folder_at(managed / part)
    named = [base64.b64encode(der).decode() for der in authorities]
    # Of a policy in two files one wins: what the machine's own files name goes into ours, and out of them.
    for file in sorted(managed.glob("*.json")):
        try:
            document = json.loads(content(file))
            theirs = document.pop(_POLICY)
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        named = [*theirs, *named]
        put(file, json.dumps(document).encode())
    put(managed / _POLICY_FILE, json.dumps({_POLICY: list(dict.fromkeys(named))}).encode())
    return copy


def _with_authority(place: Path, copy: Path, authorities: Sequence[Der]) -> bool:
    # The copy stays private: the user's own keys lie in it.
    try:
        shutil.copytree(place, copy)
    except OSError:
        return False
    return all(certutil("-A", "-d", f"sql:{copy}", "-n", f"governor-{mark(der)}", "-t", "C,,", "-a", certificate=der)
               for der in authorities)
