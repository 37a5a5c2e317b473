"""A real Governor in a process of its own, and the ways a test speaks with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
START_SECONDS = 60.0

POLICY = """\
version: 1
contact: "#agent-platform"
rules:
  - allow: read-local
    to: localhost
    address: [127.0.0.0/8, "::1"]
    schemes: [http, https]
    ports: 1-65535
    methods: any
    except: {paths: ["/denied/**"]}
  - deny: no-gists
    to: [gist.example.org]
    tell: publish to the internal snippet store instead
never:
  - to: [metadata, link-local]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Governor:
    """A started Governor: where it listens, and what it wrote."""

    process: subprocess.Popen[str]
    proxy: str
    ca: Path
    metrics: str
    home: Path
    environment: dict[str, str]
    output: list[str]

    @property
    def port(self) -> int:
        return int(self.proxy.rpartition(":")[2])

    @property
    def segments(self) -> list[Path]:
        return sorted((self.home / "audit" / "lanes" / "main").glob("*.jsonl"))

    @property
    def segment(self) -> Path:
        """The one that is written."""
        return self.segments[-1]

    def entries(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The log's entries so far, of one type or all."""
        lines = [line for path in self.segments for line in path.read_bytes().split(b"\n")]
        entries = [json.loads(line)["e"] for line in lines if line.endswith(b"}")]
        return [entry for entry in entries if kind is None or entry["type"] == kind]

    def wait_for_entry(self, kind: str, count: int = 1, seconds: float = 10.0) -> list[dict[str, Any]]:
        """The entries of a type once there are `count` of them."""
        deadline = time.monotonic() + seconds
        while len(found := self.entries(kind)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} {kind} entries came"
            time.sleep(0.02)
        return found

    def run(self, *command: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """A client command in an environment that leads through this Governor and trusts its CA."""
        environment = {**self.environment, **client_environment(self.proxy, self.ca), **more.pop("env", {})}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False,
                              timeout=more.pop("timeout", 60), **more)

    def curl(self, *arguments: str) -> tuple[int, str, str]:
        """Status, body and standard error of curl through this Governor; status 0 where there was no answer."""
        result = self.run("curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", *arguments)
        body, _, status = result.stdout.rpartition("\n")
        return int(status or 0), body, result.stderr

    def verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `governor` command on this home."""
        return governor(*arguments, environment=self.environment | {"GOVERNOR_HOME": str(self.home)})

    def verify(self) -> dict[str, Any]:
        """The result of `governor audit verify --json` on this home."""
        return json.loads(self.verb("audit", "verify", str(self.home), "--json").stdout)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


def client_environment(proxy: str, ca: Path) -> dict[str, str]:
    """The variables by which clients find the proxy and trust its CA."""
    trusted = dict.fromkeys(
        ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "PIP_CERT",
         "npm_config_cafile"), str(ca))
    leading = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy)
    return trusted | leading | {"no_proxy": "", "NO_PROXY": ""}


def governor(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The `governor` command, whatever became of it."""
    return subprocess.run([str(BIN / "governor"), *arguments], capture_output=True, text=True, env=environment,
                          check=False, timeout=120)


def scratch_environment(folder: Path) -> dict[str, str]:
    """This process's environment without proxies, with the user's configuration and state in `folder`."""
    kept = {name: value for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith("GOVERNOR_")}
    return kept | {"XDG_CONFIG_HOME": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state"), "NO_COLOR": "1"}


def command_line(home: Path, policy: Path | None, options: Sequence[str], serve: bool, *,
                 root: Path = ROOT, ahead: Sequence[Path] = (), program: str = "mitmdump") -> list[str]:
    """How Governor is started: as a script of `program`, after those in `ahead`, or by `governor serve`."""
    scripts = [*ahead, root / "addons" / "governor.py"]
    start = [str(BIN / "governor"), "serve"] if serve else [
        str(BIN / program), *(word for script in scripts for word in ("-s", str(script)))]
    chosen = [] if policy is None else ["--set", f"governor_policy={policy}"]
    return [*start, "--listen-host", "127.0.0.1", "--listen-port", str(free_port()), *chosen,
            "--set", f"governor_home={home}", "--set", "governor_metrics=127.0.0.1:0", *options]


@contextlib.contextmanager
def started(folder: Path, policy: str = POLICY, options: Sequence[str] = (), *, serve: bool = False,
            trust: Path | None = None, wrapper: Sequence[str] = (), root: Path = ROOT,
            ahead: Sequence[Path] = (), program: str = "mitmdump") -> Iterator[Governor]:
    """A Governor on a home in `folder` (made there the first time), stopped at the end if it still runs."""
    file = folder / "policy.yaml"
    file.write_text(policy)
    trusting = [] if trust is None else ["--set", f"ssl_verify_upstream_trusted_ca={trust}"]
    command = [*wrapper, *command_line(folder / "home", file, [*trusting, *options], serve, root=root, ahead=ahead,
                                       program=program)]
    environment = scratch_environment(folder)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    output: list[str] = []
    try:
        told = _banner(process, output)
        place = next(told[word] for word in ("proxy", "socks5", "transparent", "dns") if word in told)
        yield Governor(process, place, Path(told["trust"]), told["metrics"],
                       folder / "home", environment, output)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _banner(process: subprocess.Popen[str], output: list[str]) -> dict[str, str]:
    """The start's own lines by their first word; the rest is collected in `output` while the process runs."""
    ready, told = threading.Event(), {}

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line.rstrip("\n"))
            word, _, value = line.strip().partition(" ")
            told.setdefault(word, value.strip())
            if word == "try":
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    ready.wait(START_SECONDS)
    assert "try" in told, "Governor did not start:\n" + "\n".join(output)
    return told
