"""A network of its own with origins that have names, from which `governor run` is started as a user would.

The origins' sockets and the name server's are made in a network namespace and served by this process; the user has a
home, a working directory and a list of name servers of his own, and trusts the origins' authority.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import name_server
from tests.e2e.process import ROOT, scratch_environment

ADDRESS, OTHER_ADDRESS = "198.18.79.1", "198.18.79.2"
# Of the Internet as far as Governor knows: what rules that name no address lead to.
PUBLIC_ADDRESS = "93.184.215.14"
READS_API = """\
version: 1
rules:
  - allow: the-api
    to: "http://api.example.org/**"
    address: 198.18.79.0/24
    methods: reads
"""
GOVERNOR = ("import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'governor'; "
            "from addons.cli import main; main()")
needs_run_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("bwrap", "nft", "nsenter"))), reason="bwrap, nft or nsenter is not installed")
_IN_NETWORK = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
_CLONE_NEWNET = 0x40000000
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class RunPlace:
    """Where a user works: `user` is his HOME, `work` his directory, `home` Governor's."""

    network: str
    folder: Path
    policy: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def user(self) -> Path:
        return self.folder / "user"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        """The command line of a `governor` verb in this network."""
        return [*self.outside(), sys.executable, "-P", "-c", GOVERNOR, str(ROOT), *arguments]

    def outside(self) -> list[str]:
        """What is put before a command to run it in this network, in no sandbox."""
        return ["nsenter", f"--net=/run/netns/{self.network}", "unshare", "-m", "sh", "-c", _IN_NETWORK, "sh",
                str(self.folder / "resolv.conf")]

    def run(self, *command: str | bytes, options: Sequence[str] = (), env: Mapping[str, str] | None = None,
            timeout: float = 120, policy: bool = True, **more: Any) -> subprocess.CompletedProcess[Any]:
        """`governor run` to its end."""
        said = ["--policy", str(self.policy)] if policy else []
        whole = self.command("run", *said, *options, "--", *command)
        text = {} if "text" in more else {"text": True}
        return subprocess.run(whole, capture_output=True, env={**self.environment, **(env or {})}, check=False,
                              timeout=timeout, **{"cwd": self.work, **text, **more})

    def told(self, *command: str | bytes, options: Sequence[str] = (), **more: Any) -> dict[str, Any]:
        """What `governor run --json` says of a run."""
        done = self.run(*command, options=("--json", *options), **more)
        return summary(done.stderr)


def summary(said: str) -> dict[str, Any]:
    """The object that `--json` prints, behind what the command said itself."""
    told: dict[str, Any] = json.loads(said[said.index("{\n"):])
    return told


@contextlib.contextmanager
def run_place(folder: Path, policy: str, names: Mapping[str, str], trusted: Path) -> Iterator[RunPlace]:
    """A place whose name server knows these names. `trusted` is what the user's SSL_CERT_FILE names."""
    network = f"F{os.getpid()}n{next(_NUMBERS)}"
    for name in ("user", "work"):
        (folder / name).mkdir()
    (folder / "resolv.conf").write_text("nameserver 127.53.0.1\noptions timeout:2\n")
    (folder / "policy.yaml").write_text(policy)
    environment = scratch_environment(folder) | {
        "HOME": str(folder / "user"), "GOVERNOR_HOME": str(folder / "home"), "SSL_CERT_FILE": str(trusted)}
    place = RunPlace(network, folder, folder / "policy.yaml", environment)
    with contextlib.ExitStack() as made:
        _ip("netns", "add", network)
        made.callback(_ip, "netns", "del", network)
        _ip("-n", network, "link", "set", "lo", "up")
        for address in (ADDRESS, OTHER_ADDRESS, PUBLIC_ADDRESS):
            _ip("-n", network, "address", "add", f"{address}/32", "dev", "lo")
        with inside(place):
            made.enter_context(name_server.answering(names))
        yield place


@contextlib.contextmanager
def inside(place: RunPlace) -> Iterator[None]:
    """Sockets that this thread makes meanwhile belong to the network."""
    with open("/proc/thread-self/ns/net") as own, open(f"/run/netns/{place.network}") as theirs:
        _enter(theirs.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
