"""What the user's own variables and configuration files say is trusted, so that a variable of ours does not drop it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from addons.client_trust.certificates import at, content, in_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from addons.client_trust.certificates import Der

VARIABLES = (
    "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH", "PIP_CERT", "npm_config_cafile", "NPM_CONFIG_CAFILE", "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "HTTPLIB2_CA_CERTS", "NIX_SSL_CERT_FILE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "BUNDLE_SSL_CA_CERT",
)
ADDED_TO = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
# The setting that names a bundle, and the files in which each client looks for it. "$" is a variable that moves one.
_FILES = (
    ("cafile", ("$NPM_CONFIG_USERCONFIG", "$npm_config_userconfig", "$NPM_CONFIG_GLOBALCONFIG", "~/.npmrc",
                "/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc")),
    ("sslCAInfo", ("$GIT_CONFIG_GLOBAL", "~/.gitconfig", "~/.config/git/config", "/etc/gitconfig")),
    ("cert", ("$PIP_CONFIG_FILE", "~/.pip/pip.conf", "~/.config/pip/pip.conf", "/etc/xdg/pip/pip.conf",
              "/etc/pip.conf")),
    ("ca_bundle", ("$AWS_CONFIG_FILE", "~/.aws/config")),
    ("cainfo", ("$CARGO_HOME/config.toml", "$CARGO_HOME/config", "~/.cargo/config.toml", "~/.cargo/config")),
    ("ca_certificate", ("$WGETRC", "~/.wgetrc", "/etc/wgetrc")),
    ("cacert", ("$CURL_HOME/.curlrc", "$XDG_CONFIG_HOME/.curlrc", "~/.config/curlrc", "~/.curlrc")),
)
_PHP_FILES = ("etc/php/*/*/php.ini", "etc/php/*/*/conf.d/*.ini", "etc/php.ini", "etc/php.d/*.ini")
_PHP_SETTINGS = ("curl.cainfo", "openssl.cafile")


def trusted(environment: Mapping[str, str], home: Path, root: Path) -> Iterator[Der]:
    """All certificates that the variables and the configuration of this user and machine name."""
    # SSL_CERT_DIR is a list of folders. Most of these name the same file where they are set at all.
    parts = (part for name in VARIABLES for part in environment.get(name, "").split(":") if part)
    for place in dict.fromkeys(parts):
        yield from at(Path(place))
    for setting, places in _FILES:
        for file in _files(places, environment, home, root):
            yield from _named(file, setting, home)
    for file in (*(found for pattern in _PHP_FILES for found in root.glob(pattern)), *_scanned(environment)):
        for setting in _PHP_SETTINGS:
            yield from _named(file, setting, home)


def added(environment: Mapping[str, str]) -> Iterator[Der]:
    """What the user's variables add to the roots that Node and Deno bring along."""
    for name in ADDED_TO:
        if environment.get(name):
            yield from at(Path(environment[name]))


def without(text: str, *settings: str) -> str:
    """The lines of a wgetrc or curlrc that do not say which bundle is trusted."""
    names = "|".join(re.escape(setting).replace("_", "[_-]?") for setting in settings)
    line = re.compile(rf"\s*-*(?:{names})\b", re.IGNORECASE)
    return "".join(kept for kept in text.splitlines(keepends=True) if not line.match(kept))


def first_file(names: tuple[str, ...], environment: Mapping[str, str], home: Path, root: Path) -> Path | None:
    """The first of these files that is there: what the client itself would read."""
    return next((file for file in _files(names, environment, home, root) if file.is_file()), None)


def _files(names: tuple[str, ...], environment: Mapping[str, str], home: Path, root: Path) -> Iterator[Path]:
    for name in names:
        if name.startswith("$"):
            variable, _, rest = name[1:].partition("/")
            if environment.get(variable):
                yield Path(environment[variable], rest)
        elif name.startswith("~/"):
            yield home / name[2:]
        else:
            yield root / name[1:]


def _scanned(environment: Mapping[str, str]) -> Iterator[Path]:
    for folder in environment.get("PHP_INI_SCAN_DIR", "").split(":"):
        if folder:
            yield from Path(folder).glob("*.ini")


def _named(file: Path, setting: str, home: Path) -> Iterator[Der]:
    text = content(file).decode(errors="replace")
    # npm takes certificates in its own file, with \n for a line's end.
    yield from in_text(text.replace("\\n", "\n").encode())
    line = rf"^[ \t]*-*{re.escape(setting)}\b[ \t]*[=: \t][ \t]*(.+?)[ \t]*$"
    for said in re.findall(line, text, re.IGNORECASE | re.MULTILINE):
        value = said.strip("\"'")
        path = home / value[2:] if value.startswith("~/") else Path(value)
        # Cargo counts from the folder that holds .cargo, others from where their file lies.
        for place in [path] if path.is_absolute() else [file.parent / path, file.parent.parent / path]:
            yield from at(place)
