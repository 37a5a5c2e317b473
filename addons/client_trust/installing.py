"""The CA put into the stores of this machine and of this user, and taken out again."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from addons.client_trust import system_store
from addons.client_trust.browsers import NSS_FOLDERS, certutil
from addons.client_trust.certificates import at, mark, pem
from addons.client_trust.readable_files import put
from addons.errors import GovernorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from addons.client_trust.certificates import Der

# Where a distribution takes further CAs from, and the command that then makes its stores anew.
_SYSTEMS = (
    ("usr/local/share/ca-certificates", "update-ca-certificates"),
    ("etc/pki/ca-trust/source/anchors", "update-ca-trust"),
    ("etc/pki/trust/anchors", "update-ca-certificates"),
    ("etc/ca-certificates/trust-source/anchors", "update-ca-trust"),
)
# Without it Debian's command leaves links to what was removed.
_FRESH = {"update-ca-certificates": ("--fresh",)}
_FIREFOX = (".mozilla/firefox/*/cert9.db", "snap/firefox/common/.mozilla/firefox/*/cert9.db")
_COMMAND_SECONDS = 120.0


class Kind(StrEnum):
    """Whose store it is."""

    SYSTEM = "system"
    USER = "user"


class StoreRefused(GovernorError):
    """A store could not be changed; the message says how it can."""


@dataclass(frozen=True, slots=True)
class Store:
    """A place in which a CA can be trusted: a folder of the system's, or an NSS database of the user's."""

    kind: Kind
    folder: Path
    command: str

    def missing(self, authorities: Sequence[Der]) -> list[Der]:
        """Those of the CAs that are not in it."""
        return [der for der in authorities if not self._holds(der)]

    def add(self, authorities: Sequence[Der]) -> None:
        """Have them in it, or `StoreRefused`."""
        if self.kind is Kind.SYSTEM:
            self._change_system({self._file(der): pem([der]) for der in authorities}, ())
            return
        if not (self.folder / "cert9.db").exists():
            self._made()
        for der in authorities:
            self._nss("-A", "-n", _name(der), "-t", "C,,", "-a", certificate=der)

    def remove(self, authorities: Sequence[Der]) -> None:
        """Have them out of it, or `StoreRefused`."""
        if self.kind is Kind.SYSTEM:
            self._change_system({self._file(der): None for der in authorities}, _FRESH.get(self.command, ()))
            return
        for der in authorities:
            self._nss("-D", "-n", _name(der))

    def says(self, verb: str) -> str:
        """What changing it means, in words."""
        run = "then" if self.kind is Kind.SYSTEM else "by"
        return f"{verb} {self.folder}, {run} {self.command}"

    def _holds(self, der: Der) -> bool:
        if self.kind is Kind.SYSTEM:
            return self._file(der).exists()
        return (self.folder / "cert9.db").exists() and certutil("-L", "-d", f"sql:{self.folder}", "-n", _name(der))

    def _file(self, der: Der) -> Path:
        return self.folder / f"{_name(der)}.crt"

    def _change_system(self, changes: Mapping[Path, bytes | None], options: tuple[str, ...]) -> None:
        try:
            for file, content in changes.items():
                if content is None:
                    file.unlink(missing_ok=True)
                else:
                    put(file, content)
            subprocess.run([self.command, *options], check=True, capture_output=True, timeout=_COMMAND_SECONDS,
                           stdin=subprocess.DEVNULL)
        except PermissionError as fault:
            text = f"{self.folder} is root's: run the same command with sudo and --home, or with --user alone"
            raise StoreRefused(text) from fault
        except (OSError, subprocess.SubprocessError) as fault:
            raise StoreRefused(f"{self.command} failed on {self.folder}: {fault}") from fault

    def _made(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._nss("-N", "--empty-password")

    def _nss(self, *arguments: str, certificate: Der | None = None) -> None:
        if not certutil(*arguments, "-d", f"sql:{self.folder}", certificate=certificate):
            raise StoreRefused(f"certutil cannot change {self.folder}: it is not installed (libnss3-tools, nss-tools), "
                               "or the database has a password")


def stores(home: Path, root: Path = Path("/")) -> Iterator[Store]:
    """The system's store, and the user's NSS databases: Chromium's, made where there is none, and each Firefox's."""
    for place, command in _SYSTEMS:
        if (root / place).is_dir():
            yield Store(Kind.SYSTEM, root / place, command)
            break
    found = [home / name for name in NSS_FOLDERS if (home / name / "cert9.db").is_file()]
    for folder in found or [home / NSS_FOLDERS[0]]:
        yield Store(Kind.USER, folder, "certutil")
    for pattern in _FIREFOX:
        for database in sorted(home.glob(pattern)):
            yield Store(Kind.USER, database.parent, "certutil")


def trusted_by(der: Der, home: Path, root: Path = Path("/")) -> list[str]:
    """Where this CA is trusted on this machine."""
    bundles = [root / name for name in system_store.BUNDLES if (root / name).is_file()]
    return [*(str(bundle) for bundle in bundles if der in set(at(bundle))),
            *(str(store.folder) for store in stores(home, root)
              if store.kind is Kind.USER and not store.missing([der]))]


def _name(der: Der) -> str:
    return f"governor-{mark(der)}"
