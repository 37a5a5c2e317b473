"""A real S3 server with Object Lock on loopback: Ceph's object gateway from Debian's packages, not installed.

`GOVERNOR_TEST_RADOSGW=fetch` has apt download them (about 70 MB) into the user's cache; without it, what is
installed or was fetched before is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("radosgw", "ceph-mon", "ceph-osd")
SWITCH = "GOVERNOR_TEST_RADOSGW"
FETCH_SECONDS = 600.0
START_SECONDS = 120.0
PORTS = (20000, 32000)
ACCESS_KEY, SECRET_KEY = "GOVERNORTESTACCESS", "governor-test-secret"


class Unavailable(Exception):
    """The packages are not here, and why."""


@dataclass(frozen=True)
class Gateway:
    """A running gateway, and the way to be its storage operator."""

    endpoint: str
    access_key: str
    secret_key: str
    _ceph: _Ceph

    def admin(self, *arguments: str) -> None:
        """Run `radosgw-admin`: what whoever owns the storage can do."""
        self._ceph.run("radosgw-admin", *arguments)


def programs() -> Path:
    """The folder under which `usr/bin/radosgw` lies; `Unavailable` where there is none."""
    if all(shutil.which(name) for name in PACKAGES):
        return Path("/")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "governor-tests" / "radosgw"
    if (cache / "complete").is_file():
        return cache
    if os.environ.get(SWITCH) != "fetch":
        raise Unavailable(f"no Ceph object gateway: {SWITCH}=fetch downloads Debian's packages, about 70 MB")
    _fetch(cache)
    return cache


def _fetch(folder: Path) -> None:
    """Download what the packages need beyond what is installed, and unpack it."""
    if not all(shutil.which(tool) for tool in ("apt-get", "dpkg-deb")):
        raise Unavailable("no Ceph object gateway: no apt to download it with")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "complete").is_file():
            return
        try:
            if os.geteuid() == 0:
                _tool("apt-get", "update", "-qq")
            listed = _tool("apt-get", "install", "--print-uris", "-qq", "--no-install-recommends", *PACKAGES)
            names = sorted({line.split()[1].partition("_")[0] for line in listed.splitlines()})
            downloads = folder / "packages"
            downloads.mkdir(exist_ok=True)
            _tool("apt-get", "download", "-qq", *names, cwd=downloads)
            for package in sorted(downloads.glob("*.deb")):
                _tool("dpkg-deb", "-x", str(package), str(folder))
        except (subprocess.SubprocessError, OSError) as fault:
            raise Unavailable(f"no Ceph object gateway: apt did not give it ({fault})") from None
        shutil.rmtree(downloads)
        (folder / "complete").touch()


def _tool(*command: str, cwd: Path | None = None) -> str:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True,
                          timeout=FETCH_SECONDS).stdout


class _Ceph:
    """One monitor, one store in memory, one gateway, without authentication between them."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self._usr, self._folder = root, root / "usr", folder
        self._libraries = next(iter(sorted((self._usr / "lib").glob("*-linux-gnu/rados-classes"))), self._usr).parent
        self._configuration, self._fsid, self._monitor = folder / "ceph.conf", str(uuid.uuid4()), ""
        self._processes: list[subprocess.Popen[bytes]] = []

    def configure(self, monitor: int, gateway: int) -> None:
        """Write ceph.conf."""
        self._monitor = f"[v2:127.0.0.1:{monitor}]"
        lines = {
            "fsid": self._fsid,
            "mon host": self._monitor,
            "mon initial members": "a",
            "public addr": "127.0.0.1", "cluster addr": "127.0.0.1",
            **{f"auth {whose} required": "none" for whose in ("cluster", "service", "client")},
            # The default, secure, needs the authentication that is off.
            **{f"ms {whose} mode": "crc" for whose in
               ("cluster", "service", "client", "mon cluster", "mon service", "mon client")},
            "ms bind port min": str(PORTS[0]), "ms bind port max": str(PORTS[1]),
            "osd objectstore": "memstore", "memstore device bytes": str(2**30),
            "osd pool default size": "1", "osd pool default min size": "1", "mon allow pool size one": "true",
            "osd pool default pg num": "1", "osd pool default pgp num": "1", "osd crush chooseleaf type": "0",
            "osd pool default pg autoscale mode": "off", "mon max pg per osd": "1000",
            "rgw frontends": f"beast endpoint=127.0.0.1:{gateway}", "rgw dns name": "127.0.0.1",
            "rgw enable usage log": "false", "rgw thread pool size": "16",
            "plugin dir": str(self._libraries / "ceph"), "osd class dir": str(self._libraries / "rados-classes"),
            "erasure code dir": str(self._libraries / "ceph" / "erasure-code"),
            "run dir": str(self._folder), "admin socket": "", "pid file": "",
            "log file": f"{self._folder}/$name.log", "mon cluster log file": f"{self._folder}/cluster.log",
            "mon data": f"{self._folder}/mon", "osd data": f"{self._folder}/osd", "rgw data": f"{self._folder}/rgw",
            "keyring": "", "osd max object name len": "256", "osd max object namespace len": "64",
        }  # fmt: skip
        self._configuration.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()))

    def start(self) -> None:
        """Monitor, store and gateway, each when the one before answers."""
        monitors = self._folder / "monmap"
        self.run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", self._monitor, str(monitors))
        for name in ("mon", "osd", "rgw"):
            (self._folder / name).mkdir()
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(monitors))
        self._spawn("ceph-mon", "-f", "-i", "a")
        store = str(uuid.uuid4())
        self.run("ceph", "--connect-timeout", "60", "osd", "new", store)
        (self._folder / "osd" / "type").write_text("memstore\n")
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", store)
        self._spawn("ceph-osd", "-f", "-i", "0")
        self._spawn("radosgw", "-f", "-n", "client.admin")

    def run(self, program: str, *arguments: str) -> str:
        """Run one of Ceph's tools to its end; AssertionError with its words where it fails."""
        done = subprocess.run(self._command(program, *arguments), env=self._environment(), capture_output=True,
                              text=True, timeout=START_SECONDS, check=False, cwd=self._folder)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def living(self) -> bool:
        """Whether every process still runs."""
        return all(process.poll() is None for process in self._processes)

    def stop(self) -> None:
        """End what was started, the gateway first."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _spawn(self, program: str, *arguments: str) -> None:
        with (self._folder / f"{program}.out").open("wb") as output:
            self._processes.append(subprocess.Popen(self._command(program, *arguments), env=self._environment(),
                                                    stdout=output, stderr=output, cwd=self._folder))

    def _command(self, program: str, *arguments: str) -> list[str]:
        # Debian's own Python, for which its modules are made.
        python = ["/usr/bin/python3"] if program == "ceph" else []
        return [*python, str(self._usr / "bin" / program), "--conf", str(self._configuration), *arguments]

    def _environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CEPH", "PYTHON"))}
        libraries = (self._libraries, self._libraries / "ceph", self._root / "lib" / self._libraries.name)
        return {**kept, "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
                "PYTHONPATH": str(self._usr / "lib" / "python3" / "dist-packages")}


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Gateway]:
    """A gateway with one user, in `folder`; `Unavailable` where its programs cannot be had."""
    ceph = _Ceph(programs(), folder)
    monitor, port = _free_ports(2)
    ceph.configure(monitor, port)
    try:
        ceph.start()
        ceph.run("radosgw-admin", "user", "create", "--uid=governor", "--display-name=governor",
                 f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")
        _wait(port, ceph)
        yield Gateway(f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY, ceph)
    finally:
        ceph.stop()


def _free_ports(count: int) -> list[int]:
    """Free ports below those that connections take for themselves: Ceph's parts connect to each other at once."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.randrange(*PORTS)))
                found.append(int(probe.getsockname()[1]))
        return found


def _wait(port: int, ceph: _Ceph) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert ceph.living(), "one of Ceph's processes ended"
        assert time.monotonic() < deadline, f"the gateway did not listen within {START_SECONDS:g} s"
        time.sleep(0.2)
