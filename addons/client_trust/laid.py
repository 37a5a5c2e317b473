"""What a command needs to trust the CA: files in one folder, variables that name them, mounts over the stores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from addons.client_trust import browsers, java_stores, own_settings, system_store
from addons.client_trust.certificates import at, content, in_text, once, pem
from addons.client_trust.readable_files import folder_at, put

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from addons.client_trust.certificates import Der

# Each of these replaces what its client trusts, so it names the bundle that has everything.
REPLACING = (
    "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT",
    "npm_config_cafile", "CARGO_HTTP_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
# Clients that nobody has measured: what the user has set for them would not trust the CA, what is not set stays so.
REPLACING_IF_SET = ("NPM_CONFIG_CAFILE", "HTTPLIB2_CA_CERTS", "NIX_SSL_CERT_FILE",
                    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "BUNDLE_SSL_CA_CERT")
_BUNDLE, _EXTRA, _JAVA = "bundle.pem", "extra.pem", "java.p12"
_WGETRC = ("$WGETRC", "~/.wgetrc")
_CURLRC = ("$CURL_HOME/.curlrc", "$XDG_CONFIG_HOME/.curlrc", "~/.config/curlrc", "~/.curlrc")
_CURL_SETTINGS = ("cacert", "capath")


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder to bind over one that is there: no link, and of the same kind."""

    source: Path
    target: Path
    # Chromium does not read a database that it cannot write. What it writes goes into the copy, and with it.
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Laid:
    """What was laid out in the folder. The command must see the folder under the same path."""

    bundle: Path
    variables: Mapping[str, str]
    mounts: tuple[Mount, ...] = ()
    # What will not trust the CA although it is on this machine, in words for a person.
    missing: tuple[str, ...] = ()
    # Variables that are not needed where the mounts are shown, and that their client speaks of on standard error.
    spared: frozenset[str] = frozenset()


def lay_out(folder: Path, certificate_pem: bytes, environment: Mapping[str, str], home: Path,
            root: Path = Path("/")) -> Laid:
    """Write all that clients need in order to trust the CA into `folder`, and say how to show it to them.

    `certificate_pem` holds one certificate, or two while the CA changes. `environment` and `home` are those of the
    user whose command it is: what they trust already is trusted still. The folder must be new and empty. Everybody can
    read what is written, but for copies of the user's NSS databases, which hold their keys.
    """
    laid = lay_variables(folder, certificate_pem, environment, home, root)
    authorities = tuple(in_text(certificate_pem))
    java = dict.fromkeys(java_stores.stores(environment, home, root), folder / _JAVA)
    over = system_store.copies(folder, authorities, laid.bundle, java, root)
    over |= browsers.policies(folder, authorities, root)
    mounts, missing = [Mount(source, target) for target, source in over.items()], []
    for place, copy in browsers.databases(folder, authorities, home):
        if copy is None:
            missing.append(f"{place}: certutil (libnss3-tools) is not there or cannot open it, so NSS's clients "
                           "but Chromium will not trust the CA")
        else:
            mounts.append(Mount(copy, place, writable=True))
    spared = java_stores.OPTIONS if java and not java_stores.chosen_by(environment) else ()
    return Laid(laid.bundle, laid.variables, tuple(mounts), tuple(missing), frozenset(spared))


def lay_variables(folder: Path, certificate_pem: bytes, environment: Mapping[str, str], home: Path,
                  root: Path = Path("/")) -> Laid:
    """The part of it that needs no mounts: what clients read that are told by a variable."""
    authorities = tuple(in_text(certificate_pem))
    added = once(own_settings.added(environment), authorities)
    everything = once(system_store.trusted(root), own_settings.trusted(environment, home, root), added)
    folder_at(folder)
    bundle = put(folder / _BUNDLE, pem(everything))
    variables = {name: str(bundle) for name in (*REPLACING, *REPLACING_IF_SET)
                 if name in REPLACING or environment.get(name)}
    extra = put(folder / _EXTRA, pem(added))
    variables |= {name: str(extra) for name in own_settings.ADDED_TO}
    variables |= _wget(folder, bundle, environment, home, root)
    variables |= _curl(folder, environment, home, root)
    variables |= _php(folder, bundle, environment)
    variables |= java_stores.options(environment, _java(folder, everything, environment, home, root))
    return Laid(bundle, variables)


def renew(folder: Path, before_pem: bytes, now_pem: bytes) -> None:
    """Replace the CAs of before by those of now in what `lay_variables` wrote, for clients that were told of it."""
    before, now = set(in_text(before_pem)), tuple(in_text(now_pem))

    def renewed(held: Iterable[Der]) -> tuple[Der, ...]:
        return once((der for der in held if der not in before), now)

    for name in (_BUNDLE, _EXTRA):
        put(folder / name, pem(renewed(at(folder / name))))
    put(folder / _JAVA, java_stores.written(renewed(java_stores.certificates(content(folder / _JAVA)))))


def _wget(folder: Path, bundle: Path, environment: Mapping[str, str], home: Path, root: Path) -> dict[str, str]:
    theirs = own_settings.first_file(_WGETRC, environment, home, root)
    kept = own_settings.without(content(theirs).decode(errors="surrogateescape"), "ca_certificate") if theirs else ""
    said = f"{kept.rstrip()}\nca_certificate = {bundle}\n".lstrip()
    return {"WGETRC": str(put(folder / "wgetrc", said.encode(errors="surrogateescape")))}


def _curl(folder: Path, environment: Mapping[str, str], home: Path, root: Path) -> dict[str, str]:
    """curl's own file comes before CURL_CA_BUNDLE, so one that names a bundle is replaced by one that does not."""
    theirs = own_settings.first_file(_CURLRC, environment, home, root)
    said = content(theirs).decode(errors="surrogateescape") if theirs else ""
    kept = own_settings.without(said, *_CURL_SETTINGS)
    if kept == said:
        return {}
    put(folder_at(folder / "curl") / ".curlrc", kept.encode(errors="surrogateescape"))
    return {"CURL_HOME": str(folder / "curl")}


def _php(folder: Path, bundle: Path, environment: Mapping[str, str]) -> dict[str, str]:
    put(folder_at(folder / "php") / "governor.ini", f'curl.cainfo="{bundle}"\nopenssl.cafile="{bundle}"\n'.encode())
    # An empty part is the folder that PHP was built with; the last one read wins.
    ours = f"{os.pathsep}{folder / 'php'}"
    return {"PHP_INI_SCAN_DIR": environment.get("PHP_INI_SCAN_DIR", "").removesuffix(ours) + ours}


def _java(folder: Path, everything: tuple[Der, ...], environment: Mapping[str, str], home: Path, root: Path) -> Path:
    stores = java_stores.stores(environment, home, root)
    theirs = (der for store in stores for der in java_stores.certificates(content(store)))
    return put(folder / _JAVA, java_stores.written(once(everything, theirs, java_stores.chosen(environment))))
