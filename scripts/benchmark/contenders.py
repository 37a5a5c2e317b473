"""The proxies that are compared: bare mitmdump, its identical control, Governor as a script and as `governor serve`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark.origin import Origin, free_port
from scripts.benchmark.policies import policy

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


class NotStarted(Exception):
    """A proxy that ended or stayed silent instead of listening."""


@dataclass(frozen=True)
class Contender:
    """One running proxy."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    output: Path

    def await_listening(self) -> None:
        """Return once the proxy listens. Raises `NotStarted` with what it said."""
        until = time.monotonic() + START_SECONDS
        while not listens(self.process.pid, self.port):
            if self.process.poll() is not None or time.monotonic() > until:
                said = self.output.read_text(errors="replace")[-2000:]
                raise NotStarted(f"{self.name} does not listen on {self.port}:\n{said}")
            time.sleep(0.05)

    def busy_seconds(self) -> float:
        """CPU time used so far by all threads, of workers, too."""
        return sum(map(_busy_seconds, [self.process.pid, *_children(self.process.pid)]))

    def memory_mib(self) -> float:
        """Resident memory now."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0


def machine_seconds() -> tuple[float, float]:
    """The CPU time that all processors of the machine were in use so far, and all that they had."""
    fields = [int(field) / _TICKS for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def _busy_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def listens(pid: int, port: int) -> bool:
    """Whether a socket listens on the port. Read from the system, so that the proxy sees no probing connection."""
    table = Path(f"/proc/{pid}/net/tcp")
    return table.exists() and any(
        fields[1].endswith(f":{port:04X}") and fields[3] == "0A"
        for fields in map(str.split, table.read_text().splitlines()[1:])
    )


def start_contenders(folder: Path, origin: Origin) -> list[Contender]:
    """All four, listening, in the order bare, control, addon, serve. Raises `NotStarted`."""
    rules = folder / "policy.yaml"
    rules.write_text(policy(origin.addresses, (origin.http_port, origin.https_port, origin.events_port)))
    # The commands of the environment this runs in, wherever it is.
    programs = Path(sys.executable).parent
    mitmdump, governor = str(programs / "mitmdump"), str(programs / "governor")
    script = str(ROOT / "addons" / "governor.py")
    started = [
        _start("bare", [mitmdump, "-q", "--set", f"confdir={folder / 'bare'}"], folder, origin),
        _start("control", [mitmdump, "-q", "--set", f"confdir={folder / 'control'}"], folder, origin),
        _start("addon", [mitmdump, "-s", script, *_governed(folder, "addon", rules)], folder, origin),
        _start("serve", [governor, "serve", *_governed(folder, "serve", rules)], folder, origin),
    ]
    return _listening(started)


def start_governor(folder: Path, origin: Origin, name: str, rules: str, *options: str) -> Contender:
    """One more `governor serve`, on a home `name` in the folder. Raises `NotStarted`."""
    file = folder / f"{name}.yaml"
    file.write_text(rules)
    governor = str(Path(sys.executable).parent / "governor")
    return _listening([_start(name, [governor, "serve", *options, *_governed(folder, name, file)], folder, origin)])[0]


def start_streaming(folder: Path, origin: Origin) -> list[Contender]:
    """Bare mitmdump and its control once more, both passing bodies on as they come. Raises `NotStarted`."""
    mitmdump = str(Path(sys.executable).parent / "mitmdump")
    return _listening([
        _start(name, [mitmdump, "-q", "--set", f"confdir={folder / name}", "--set", "stream_large_bodies=1"],
               folder, origin, f"{name}-streaming")
        for name in ("bare", "control")])


def _listening(started: list[Contender]) -> list[Contender]:
    try:
        for contender in started:
            contender.await_listening()
    except NotStarted:
        stop(started)
        raise
    return started


def _governed(folder: Path, name: str, rules: Path) -> list[str]:
    return ["--set", f"governor_policy={rules}", "--set", f"governor_home={folder / name}",
            "--set", f"governor_metrics=127.0.0.1:{free_port()}"]


def _start(name: str, command: list[str], folder: Path, origin: Origin, log_name: str = "") -> Contender:
    port, output = free_port(), folder / f"{log_name or name}.log"
    command += ["--listen-host", "127.0.0.1", "--listen-port", str(port),
                "--set", f"ssl_verify_upstream_trusted_ca={origin.authority}"]
    # Pins go to the user's configuration; those of a measurement must not stay there.
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    return Contender(name, process, port, output)


def stop(contenders: list[Contender]) -> None:
    """Ask all to stop, then make them."""
    for contender in contenders:
        contender.process.terminate()
    for contender in contenders:
        try:
            contender.process.wait(10)
        except subprocess.TimeoutExpired:
            contender.process.kill()
            contender.process.wait()


def pin(pid: int, cpu: int) -> None:
    """Keep a process, with all its present threads, on one CPU."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {cpu})
