"""Where this machine's pip, npm, cargo and apt fetch packages from: their configuration, and what they say themselves.

No registry's name stands here. A URL is read for its scheme, host and port alone: what else is in it, a password above
all, goes nowhere.
"""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel import normal
from kernel.address import is_global
from kernel.document import printable
from kernel.errors import NonCanonical
from kernel.facts import Host

Ask = Callable[[Sequence[str]], str | None]

_ASK_SECONDS = 20
_LARGEST_BYTES = 1024 * 1024
_PIP_DEFAULT = (
    "from pip._internal.models.index import PyPI as index\n"
    "print(index.url, 'https://' + index.file_storage_domain)"
)
_PIP_KEYS = frozenset({"index-url", "extra-index-url", "find-links"})
_APT_LINE = re.compile(r"deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)")
_CARGO_INDEX = re.compile(r"(.+)-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Source:
    """One host that a tool fetches from. `place` is the file, variable or command that says so."""

    tool: str
    scheme: str
    host: Host
    port: int
    place: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What is asked: the environment, the user's home folder, the root of the file system, and how a tool is run."""

    environment: Mapping[str, str]
    home: Path
    root: Path
    ask: Ask


def this_machine(environment: Mapping[str, str]) -> Machine:
    return Machine(environment, Path(environment.get("HOME") or Path.home()), Path("/"), ask)


def ask(command: Sequence[str]) -> str | None:
    """What a command prints; None where it is not here, fails or takes too long."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ASK_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return done.stdout


def search(machine: Machine) -> tuple[Source, ...]:
    """Every host that the four tools are set up to fetch from, each once, with the first place that names it."""
    found: dict[tuple[str, str, Host, int], Source] = {}
    for tool, look in (("pip", _pip), ("npm", _npm), ("cargo", _cargo), ("apt", _apt)):
        for url, place in look(machine):
            source = _source(tool, url, place)
            if source is not None:
                found.setdefault((tool, source.scheme, source.host, source.port), source)
    return tuple(found.values())


def _source(tool: str, url: str, place: str) -> Source | None:
    """The host of a URL; None for what is not fetched over HTTP."""
    bare = re.sub(r"^[a-z]+\+(?=https?://)", "", url.strip().strip("\"'"))
    parts = re.match(r"(https?)://(?:[^/?#]*@)?([^/?#@]*)", bare)
    if parts is None:
        return None
    try:
        host, port = normal.authority(parts[2], normal.DEFAULT_PORTS[parts[1]])
    except NonCanonical:
        return None
    return Source(tool, parts[1], host, port, place)


Places = Iterator[tuple[str, str]]


def _text(path: Path) -> str:
    """The text of a configuration file; nothing where there is none to read."""
    try:
        return path.read_bytes()[:_LARGEST_BYTES].decode("utf-8", "replace")
    except OSError:
        return ""


def _pip(machine: Machine) -> Places:
    """pip's files in its own order, its variables, and its built-in index where nothing replaces that."""
    said = [*_pip_variables(machine), *(each for path in _pip_files(machine) for each in _pip_file(path))]
    yield from ((url, place) for _, url, place in said)
    if any(key == "index-url" for key, _, _ in said):
        return
    for python in ("python3", sys.executable):
        answer = machine.ask([python, "-c", _PIP_DEFAULT])
        if answer:
            yield from ((url, "pip's own default") for url in answer.split())
            return


def _pip_files(machine: Machine) -> Iterator[Path]:
    environment, home = machine.environment, machine.home
    if environment.get("PIP_CONFIG_FILE"):
        yield Path(environment["PIP_CONFIG_FILE"])
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield home / ".pip" / "pip.conf"
    for folder in ("etc", "etc/xdg/pip", "Library/Application Support/pip"):
        yield machine.root / folder / "pip.conf"


def _pip_file(path: Path) -> Iterator[tuple[str, str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(_text(path))
    except configparser.Error:
        return
    for section in parser.sections():
        for name, value in parser.items(section):
            key = name.replace("_", "-")
            if key in _PIP_KEYS:
                yield from ((key, url, str(path)) for url in value.split())


def _pip_variables(machine: Machine) -> Iterator[tuple[str, str, str]]:
    for key in sorted(_PIP_KEYS):
        name = f"PIP_{key.upper().replace('-', '_')}"
        yield from ((key, url, f"${name}") for url in machine.environment.get(name, "").split())


def _npm(machine: Machine) -> Places:
    """The registries of every scope in npm's files and variables, and the one that npm itself would use."""
    for name, value in machine.environment.items():
        if name.lower().startswith("npm_config_") and name.lower().endswith("registry"):
            yield value, f"${name}"
    own = machine.environment.get("NPM_CONFIG_USERCONFIG")
    for path in (Path(own) if own else machine.home / ".npmrc", *(
            machine.root / folder / "npmrc" for folder in ("etc", "usr/etc", "usr/local/etc"))):
        for line in _text(path).splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "registry" or (key.strip().startswith("@") and key.strip().endswith(":registry")):
                yield value, str(path)
    yield machine.ask(["npm", "config", "get", "registry"]) or "", "npm config get registry"


def _cargo(machine: Machine) -> Places:
    """The registries of cargo's configuration, and the indexes that it has fetched before; it names no default."""
    folder = Path(machine.environment.get("CARGO_HOME") or machine.home / ".cargo")
    for name in ("config.toml", "config"):
        yield from ((url, str(folder / name)) for url in _cargo_urls(_text(folder / name)))
    for name, value in machine.environment.items():
        if name.startswith("CARGO_REGISTRIES_") and name.endswith("_INDEX"):
            yield value, f"${name}"
    index = folder / "registry" / "index"
    for fetched in _names(index):
        if host := _CARGO_INDEX.fullmatch(fetched):
            yield f"https://{host[1]}", str(index)


def _names(folder: Path) -> list[str]:
    """What lies in a folder; nothing where it is absent, or another user's: HOME may be the one of who called."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _cargo_urls(text: str) -> Iterator[str]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    for table, key in (("registries", "index"), ("source", "registry")):
        for entry in _values(document.get(table)):
            url = entry.get(key) if isinstance(entry, dict) else None
            if isinstance(url, str):
                yield url


def _values(table: Any) -> Iterable[Any]:
    return table.values() if isinstance(table, dict) else ()


def _apt(machine: Machine) -> Places:
    folder = machine.root / "etc" / "apt"
    parts = folder / "sources.list.d"
    for path in (folder / "sources.list", *sorted(parts.glob("*.list"))):
        for line in _text(path).splitlines():
            if found := _APT_LINE.match(line.strip()):
                yield found[1], str(path)
    for path in sorted(parts.glob("*.sources")):
        yield from ((url, str(path)) for url in _deb822_urls(_text(path)))


def _deb822_urls(text: str) -> Iterator[str]:
    """The URIs of the stanzas that are not switched off."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif not line.startswith("#"):
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() not in ("no", "false", "0"):
            yield from fields.get("uris", "").split()


def found_rules(sources: Sequence[Source]) -> str:
    """The rules that let each tool read from where it is set up to, as items of `rules:`. Nothing found: no text."""
    tools = dict.fromkeys(source.tool for source in sources)
    return "".join(_rule(tool, [source for source in sources if source.tool == tool]) for tool in tools)


def _rule(tool: str, sources: Sequence[Source]) -> str:
    lines = [f"  # Found on this machine: what {tool} is set up to fetch from.", f"  - allow: found-{tool}", "    to:"]
    lines += [f"      - {_target(source)}  # {printable(source.place)}{_remark(source)}" for source in sources]
    return "\n".join([*lines, "    methods: [GET, HEAD]", ""]) + "\n"


def _target(source: Source) -> str:
    """The host where the defaults of an allow fit it, else a URL pattern."""
    if (source.scheme, source.port) == ("https", normal.DEFAULT_PORTS["https"]):
        return f'"{source.host.name}"'
    name = source.host.name if ":" not in source.host.name else f"[{source.host.name}]"
    port = "" if source.port == normal.DEFAULT_PORTS[source.scheme] else f":{source.port}"
    return f'"{source.scheme}://{name}{port}/**"'


def _remark(source: Source) -> str:
    if source.host.name == "localhost" or (source.host.address is not None and not is_global(source.host.address)):
        return "; an inside address: see `address:` and `never:`"
    return ""


def with_found_rules(policy: str, sources: Sequence[Source]) -> str:
    """The text of a policy with the found rules at the end of its `rules:` section."""
    rules = found_rules(sources)
    head, mark, tail = policy.partition("\nnever:\n")
    return f"{head.rstrip()}\n\n{rules.rstrip()}\n{mark}{tail}" if rules and mark else policy
