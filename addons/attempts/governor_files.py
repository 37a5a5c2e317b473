"""What Governor keeps, and what it is made of: read, changed, asked."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

from addons.attempts.attempt import Family, Seen, closed, not_here, opened, words, worst
from addons.attempts.mounts import mounted
from addons.attempts.surroundings import Surroundings

FAMILY = Family("governor")
_HIDDEN = "not there, or EACCES"
_UNCHANGED = "read-only, not there, or EACCES"
_CODE = Path(__file__).resolve().parents[2]


def _tried(path: Path, flags: int, what: str) -> Seen:
    try:
        os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as fault:
        return closed(f"{path}: {words(fault)}")
    return opened(f"{path} opens for {what}")


def _in_homes(here: Surroundings, names: tuple[str, ...], flags: int, what: str) -> Seen:
    return worst((_tried(home / name, flags, what) for home in here.homes for name in names), "there is no usual home")


_READ, _WRITE = os.O_RDONLY, os.O_WRONLY
for name, way, names, flags, what in (
    ("root-key", "read the root key of the log", ("keys/root.key",), _READ, "reading"),
    ("lane-keys", "read the keys that sign the log", ("keys/main.key", "keys", "keys/ahead"), _READ, "reading"),
    ("ca-key", "read the key of the CA", ("ca/mitmproxy-ca.pem", "ca/mitmproxy-ca.p12"), _READ, "reading"),
    ("log", "read the log of others", ("audit/lanes", "audit/lanes/main/000000.jsonl", "vault.db"), _READ, "reading"),
    ("log-write", "change the log", ("audit/lanes/main/000000.jsonl", "audit/trust.json", "minimum.json"), _WRITE,
     "writing"),
    ("policy", "change the policy", ("policy.yaml",), _WRITE, "writing"),
    ("tokens", "read or change the agents' tokens", ("agents.json",), os.O_RDWR, "reading and writing"),
):
    FAMILY.add(f"governor-{name}", way, _HIDDEN, partial(_in_homes, names=names, flags=flags, what=what))


@FAMILY.attempt("governor-home", "list Governor's home", "not there, empty, or EACCES")
def home(here: Surroundings) -> Seen:
    return worst(map(_listed, here.homes), "there is no usual home")


def _listed(path: Path) -> Seen:
    try:
        found = os.listdir(path)
    except OSError as fault:
        return closed(f"{path}: {words(fault)}")
    return opened(f"{path} lists {found[0]}") if found else closed(f"{path} is empty")


@FAMILY.attempt("governor-control", "ask Governor over its control socket", _HIDDEN)
def control(here: Surroundings) -> Seen:
    seen = []
    for home in here.homes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(0.5)
            try:
                link.connect(str(home / "control.sock"))
                link.sendall(b'{"verb":"status"}\n')
                seen.append(
                    opened(f"{home / 'control.sock'} answered") if link.recv(64) else closed("it ended the connection")
                )
            except OSError as fault:
                seen.append(closed(f"{home / 'control.sock'}: {words(fault)}"))
    return worst(seen, "there is no usual home")


def _writable(_: Surroundings, paths: tuple[Path, ...]) -> Seen:
    """Whether one of them, or the folder it lies in, can be changed."""
    found = [each for path in paths for each in (path, path.parent) if path.exists()]
    if not found:
        return closed(f"{paths[0]} is not there")
    return worst(
        (
            opened(f"{each} can be changed") if os.access(each, os.W_OK) else closed(f"{each} cannot be changed")
            for each in found
        ),
        "",
    )


FAMILY.add(
    "governor-code", "change Governor's own code", _UNCHANGED,
    partial(_writable, paths=(_CODE / "addons" / "governor.py", _CODE / "kernel" / "decide.py")))
FAMILY.add(
    "governor-pins",
    "change what this user trusts as the root of the log",
    _UNCHANGED,
    partial(
        _writable,
        paths=(Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "governor" / "pins",)),
)


@FAMILY.attempt(
    "resolv-conf", "choose another resolver (/etc/resolv.conf)", "read-only, or a copy of the sandbox's own")
def resolv_conf(_: Surroundings) -> Seen:
    return _system_file("/etc/resolv.conf")


@FAMILY.attempt("hosts-file", "give names other addresses (/etc/hosts)", "read-only, or a copy of the sandbox's own")
def hosts_file(_: Surroundings) -> Seen:
    return _system_file("/etc/hosts")


@FAMILY.attempt("trust-store", "have the whole machine trust another CA", "read-only, or a copy of the sandbox's own")
def trust_store(_: Surroundings) -> Seen:
    return _system_file("/etc/ssl/certs/ca-certificates.crt")


def _system_file(path: str) -> Seen:
    if not os.path.exists(path):
        return not_here(f"{path} is not there")
    if not os.access(path, os.W_OK):
        return closed(f"{path} cannot be changed")
    # What is mounted there alone is the sandbox's, and changing it changes nothing for anybody else.
    if _mounted_alone(os.path.realpath(path)):
        return closed(f"{path} can be changed, and is a copy of this place's own")
    return opened(f"{path} can be changed")


def _mounted_alone(path: str) -> bool:
    return bool({place for place, _ in mounted()} & {path, "/etc", "/etc/ssl", "/etc/ssl/certs"})


@FAMILY.attempt("governor-ca-beside", "find a CA's private key among what the sandbox shows", "none")
def ca_keys(_: Surroundings) -> Seen:
    certificates = [Path(os.environ[name]) for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS") if os.environ.get(name)]
    for path in dict.fromkeys((*certificates, *(each.with_name("mitmproxy-ca.pem") for each in certificates))):
        try:
            if b"PRIVATE KEY" in path.read_bytes():
                return opened(f"{path} holds a private key")
        except OSError:
            continue
    return closed("no private key lies beside the certificates")
