"""One origin with what tools fetch: an npm registry, a Python index, a Cargo registry, Go modules, Git, a chat API."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any

from tests.e2e.origins import _Handler

GO_MODULE = "example.org/tiny"
GO_FILES = {"go.mod": f"module {GO_MODULE}\n",
            "tiny.go": 'package tiny\n\nfunc Word() string { return "tiny" }\n'}
PIECES = ("It ", "streams ", "at ", "once.")


class Packages(_Handler):
    """`root` is its address by name, `repositories` the folder with its Git repositories. Each piece of a chat's answer
    waits for `released`.
    """

    root = "https://api.example.org"
    repositories: Path
    released: threading.Semaphore

    def reply(self) -> None:
        first, *rest = self.path.strip("/").split("/")
        name = rest[-1] if rest else ""
        match first:
            case "npm":
                self._send(npm_tarball() if name.endswith(".tgz") else npm_document(self.root))
            case "pip":
                self._send(wheel() if name.endswith(".whl") else
                           f'<a href="/pip/files/{WHEEL}">{WHEEL}</a>'.encode(), "text/html")
            case "cargo":
                self._cargo(rest)
            case "go":
                self._go(rest[-1])
            case "git":
                self._git(rest)
            case "v1":
                self._stream()
            case "big":
                self._send(b"x" * int(name))
            case _:
                super().reply()

    def _send(self, content: bytes, kind: str = "application/octet-stream", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json" if content[:1] == b"{" else kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _cargo(self, path: list[str]) -> None:
        match path:
            case [*_, "config.json"]:
                self._send(json.dumps({"dl": f"{self.root}/cargo/crates"}).encode())
            case ["crates", *_]:
                self._send(crate())
            case [*_, "tiny"]:
                checksum = hashlib.sha256(crate()).hexdigest()
                self._send(json.dumps({"name": "tiny", "vers": "1.0.0", "deps": [], "cksum": checksum, "features": {},
                                       "yanked": False}).encode() + b"\n")
            case _:
                self._send(b"none", status=404)

    def _go(self, name: str) -> None:
        match name:
            case "list":
                self._send(b"v1.0.0\n")
            case "v1.0.0.info" | "@latest":
                self._send(b'{"Version": "v1.0.0", "Time": "2026-01-01T00:00:00Z"}')
            case "v1.0.0.mod":
                self._send(f"module {GO_MODULE}\n".encode())
            case "v1.0.0.zip":
                self._send(zipped({f"{GO_MODULE}@v1.0.0/{name}": text for name, text in GO_FILES.items()}))
            case _:
                self._send(b"none", status=404)

    def _git(self, path: list[str]) -> None:
        body = self.seen.requests[-1][3]
        path_info, _, query = "/".join(path).partition("?")
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, check=True, env={
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.repositories), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{path_info}", "QUERY_STRING": query, "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("content-type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", "")})
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in PIECES:
            self.released.acquire(timeout=20)
            choice = {"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}
            self._chunk(json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                                    "choices": [choice]}))
        self._chunk("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, event: str) -> None:
        content = f"data: {event}\n\n".encode()
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()


WHEEL = "tiny-1.0-py3-none-any.whl"


def wheel() -> bytes:
    return zipped({
        "tiny.py": "WORD = 'tiny'\n",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny-1.0.dist-info/RECORD": "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\n"
                                     "tiny-1.0.dist-info/RECORD,,\n"})


def npm_tarball() -> bytes:
    return packed({"package/package.json": '{"name": "tiny", "version": "1.0.0", "main": "index.js"}',
                   "package/index.js": "module.exports = 'tiny'\n"})


def npm_document(root: str) -> bytes:
    content = npm_tarball()
    said = {"tarball": f"{root}/npm/tiny/-/tiny-1.0.0.tgz", "shasum": hashlib.sha1(content).hexdigest(),
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()}
    version: dict[str, Any] = {"name": "tiny", "version": "1.0.0", "main": "index.js", "dist": said}
    return json.dumps({"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}).encode()


def crate() -> bytes:
    return packed({"tiny-1.0.0/Cargo.toml": '[package]\nname = "tiny"\nversion = "1.0.0"\nedition = "2021"\n',
                   "tiny-1.0.0/src/lib.rs": 'pub fn word() -> &\'static str { "tiny" }\n'})


def packed(files: dict[str, str]) -> bytes:
    """A tar.gz of these files, the same each time."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(plain.getvalue(), mtime=0)


def zipped(files: dict[str, str]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return whole.getvalue()
