"""The demo: Governor between two clients and two origins, all on this machine. Every step is checked as it is told."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
START_SECONDS = 20
PLAIN = bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()


class StoryBroken(Exception):
    """A step did not go as it is told."""


def say(text: str = "", style: str = "") -> None:
    codes = {"head": "1", "good": "32", "bad": "31", "dim": "2"}
    print(text if PLAIN or not style else f"\033[{codes[style]}m{text}\033[0m", flush=True)


def expect(holds: bool, told: str, seen: object) -> None:
    if not holds:
        raise StoryBroken(f"expected: {told}\n   seen: {seen}")


class Origin(BaseHTTPRequestHandler):
    """An origin that answers everything and counts what it is asked."""

    protocol_version = "HTTP/1.1"
    served: list[str]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.served.append(f"{self.command} {self.path}")
        body = f"the origin answers {self.command} {self.path}\n".encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """The story is told by the demo alone."""


@dataclass
class Stage:
    """Where the demo plays: a scratch folder, the home, and the origins' ports."""

    scratch: Path
    home: Path
    environment: dict[str, str]
    http_port: int = 0
    https_port: int = 0
    served: list[str] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)

    @property
    def proxy(self) -> str:
        return self.told["proxy"]


@contextlib.contextmanager
def origins(stage: Stage) -> Iterator[None]:
    """An HTTP and an HTTPS origin on loopback, the latter under a CA of its own."""
    handler = type("CountingOrigin", (Origin,), {"served": stage.served})
    plain, tls = (ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_origin_certificate(stage.scratch))
    tls.socket = context.wrap_socket(tls.socket, server_side=True)
    stage.http_port, stage.https_port = plain.server_port, tls.server_port
    for server in (plain, tls):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        plain.shutdown()
        tls.shutdown()


def _origin_certificate(folder: Path) -> Path:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo origin")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256()))
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "origin-ca.pem").write_bytes(pem)
    (folder / "origin.pem").write_bytes(secret + pem)
    return folder / "origin.pem"


@contextlib.contextmanager
def governor(stage: Stage) -> Iterator[None]:
    """Governor with policies/demo.yaml, as `mitmdump -s addons/governor.py` runs it."""
    command = [
        str(BIN / "mitmdump"), "-q", "-s", str(ROOT / "addons" / "governor.py"),
        "--listen-host", "127.0.0.1", "--listen-port", str(_free_port()),
        "--set", f"governor_policy={ROOT / 'policies' / 'demo.yaml'}", "--set", f"governor_home={stage.home}",
        "--set", "governor_metrics=127.0.0.1:0",
        "--set", f"ssl_verify_upstream_trusted_ca={stage.scratch / 'origin-ca.pem'}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=stage.environment)
    try:
        stage.told = _read_banner(process)
        yield
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _read_banner(process: subprocess.Popen[str]) -> dict[str, str]:
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    told: dict[str, str] = {}
    assert process.stdout is not None
    for line in process.stdout:
        word, _, value = line.strip().partition(" ")
        told[word] = value.strip()
        if word == "try":
            watchdog.cancel()
            return told
    watchdog.cancel()
    raise StoryBroken("Governor did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def curl(stage: Stage, *arguments: str) -> tuple[int, str]:
    """Status and body as curl shows them through Governor."""
    shown = " ".join(argument for argument in arguments)
    say(f"$ curl {shown}")
    command = ["curl", "-sS", "--max-time", "15", "--proxy", stage.proxy, "--cacert", stage.told["trust"],
               "-w", "\n%{http_code}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=stage.environment, check=False)
    body, _, status = result.stdout.rpartition("\n")
    expect(result.returncode == 0, f"curl {shown} gets an answer", result.stderr or result.stdout)
    return int(status), body.strip()


def python_post(stage: Stage, url: str) -> tuple[int, str]:
    """The same by Python's own HTTP client."""
    say(f'python: urlopen("{url}", data=b"a note")')
    context = ssl.create_default_context(cafile=stage.told["trust"])
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({"http": stage.proxy, "https": stage.proxy}),
        urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, data=b"a note", timeout=15) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.reason


def allowed(answer: tuple[int, str]) -> None:
    status, body = answer
    expect(status == 200, "status 200", answer)
    say(f"  200  {body}\n", "good")


def refused(answer: tuple[int, str], code: str) -> dict[str, Any]:
    status, body = answer
    expect(status == 403, "status 403", answer)
    problem: dict[str, Any] = json.loads(body)
    expect(problem["code"] == code, f"code {code}", problem)
    say(f"  403  {problem['code']}  {problem['detail']}  ({problem['entry']})\n", "bad")
    return problem


def act_requests(stage: Stage) -> None:
    say("1. What the policy allows passes, over HTTP and HTTPS, unchanged", "head")
    allowed(curl(stage, f"http://localhost:{stage.http_port}/hello"))
    allowed(curl(stage, f"https://localhost:{stage.https_port}/hello"))
    allowed(python_post(stage, f"https://localhost:{stage.https_port}/api/notes"))

    say("2. Everything else is refused before any connection or DNS question, and says why", "head")
    problem = refused(curl(stage, "-d", "@/etc/hostname", "https://gist.github.com/"), "RULE_DENY")
    refused(curl(stage, "http://example.org/"), "DEFAULT_DENY")
    refused(curl(stage, "https://exfiltration.example.com/"), "DEFAULT_DENY")
    refused(curl(stage, "http://169.254.169.254/latest/meta-data/"), "NEVER")
    refused(curl(stage, "-X", "DELETE", f"https://localhost:{stage.https_port}/hello"), "DEFAULT_DENY")

    say("3. What the refused client was told, in full", "head")
    say(json.dumps(problem, indent=2) + "\n", "dim")
    expect(len(stage.served) == 3, "the origins saw the three allowed requests and nothing else", stage.served)
    say(f"The origins saw exactly: {', '.join(stage.served)}\n", "good")


def act_metrics(stage: Stage) -> None:
    say(f"4. Prometheus reads {stage.told['metrics']}", "head")
    with urllib.request.urlopen(stage.told["metrics"], timeout=10) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    chosen = [line for line in lines if line.startswith(("governor_decisions_total{", "governor_rule_hits_total{"))
              and not line.endswith(" 0.0")]
    expect(any('code="NEVER"' in line for line in chosen), "a count of NEVER", chosen)
    say("\n".join(chosen) + "\n", "dim")


def act_audit(stage: Stage) -> None:
    say("5. The log: every verdict, signed and chained, written before it took effect", "head")
    status, shown = _verify(stage, stage.home)
    expect(status == 0 and shown["result"] == "verified", "verified, exit 0", shown)
    say(f"$ governor audit verify {stage.home}\n  verified: {shown['entries']} entries\n", "good")

    say("6. One byte of a copy is flipped", "head")
    copy = stage.scratch / "copy"
    shutil.copytree(stage.home / "audit", copy)
    seq = _flip_a_verdict(copy / "lanes" / "main" / "000000.jsonl")
    status, shown = _verify(stage, copy)
    failure = shown["first_failure"]
    expect(status == 1 and shown["result"] == "tampered", "tampered, exit 1", shown)
    expect(failure["seq"] == seq, f"entry main/{seq} named", failure)
    say(f"$ governor audit verify {copy}\n  tampered: entry {failure['lane']}/{failure['seq']}, "
        f"{failure['segment']}, line {failure['line']}, byte {failure['offset']}: {failure['reason']}\n", "bad")


def _verify(stage: Stage, folder: Path) -> tuple[int, dict[str, Any]]:
    result = subprocess.run([str(BIN / "governor"), "audit", "verify", str(folder), "--json"], capture_output=True,
                            text=True, env=stage.environment, check=False)
    try:
        return result.returncode, json.loads(result.stdout)
    except ValueError:
        raise StoryBroken(f"governor audit verify said: {result.stdout}{result.stderr}") from None


def _flip_a_verdict(segment: Path) -> int:
    """Turn the first `deny` into `denx`; the number of the entry that was changed."""
    lines = segment.read_bytes().split(b"\n")
    changed = next(index for index, line in enumerate(lines) if b'"verdict":"deny"' in line)
    lines[changed] = lines[changed].replace(b'"verdict":"deny"', b'"verdict":"denx"')
    segment.write_bytes(b"\n".join(lines))
    return int(json.loads(lines[changed])["e"]["seq"])


def play(home: Path | None, keep: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="governor-demo-") as folder:
        scratch = Path(folder)
        kept = home or (Path(tempfile.mkdtemp(prefix="governor-home-")) if keep else scratch / "home")
        environment = {name: value for name, value in os.environ.items() if name.lower() not in _PROXY_VARIABLES}
        if not keep:
            # The pin of a home that goes with the demo must not stay behind.
            environment["XDG_CONFIG_HOME"] = str(scratch / "config")
        stage = Stage(scratch, kept, environment)
        try:
            with origins(stage), governor(stage):
                act_requests(stage)
                act_metrics(stage)
            act_audit(stage)
        finally:
            if home and not keep:
                shutil.rmtree(home, ignore_errors=True)
        say(f"Every step went as told.{f' The home is kept in {kept}.' if keep else ''}", "good")


_PROXY_VARIABLES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description="Governor between real clients and real origins on this machine, in under a "
        "minute. No internet is needed. Exits 1 when any step differs from what it tells.")
    parser.add_argument("--home", type=Path, metavar="DIR", help="where Governor keeps keys and log; absent or empty")
    parser.add_argument("--keep", action="store_true", help="leave the home when the demo ends")
    arguments = parser.parse_args()
    home = arguments.home.absolute() if arguments.home else None
    if home and home.exists() and any(home.iterdir()):
        parser.error(f"{home} is not empty")
    try:
        play(home, arguments.keep)
    except (StoryBroken, OSError) as broken:
        say(f"demo: a step went wrong\n{broken}", "bad")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
