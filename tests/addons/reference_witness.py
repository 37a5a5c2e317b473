"""A C2SP witness over real HTTP, written from tlog-witness and tlog-cosignature alone: it shares no code with ours."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class Refused(Exception):
    """The HTTP status with which the specification has a request answered."""

    def __init__(self, status: int, said: str, kind: str = "text/plain") -> None:
        super().__init__(said)
        self.status, self.said, self.kind = status, said, kind


class Witness:
    """A witness called `name`. What it cosigned lies in `state`, written before it answers."""

    def __init__(self, name: str, state: Path, clock: Callable[[], float] = time.time) -> None:
        self.name, self.clock, self._state = name, clock, state
        self._private = Ed25519PrivateKey.generate()
        public = self._private.public_key().public_bytes_raw()
        self._kid = sha256(name.encode() + b"\n\4" + public).digest()[:4]
        self.key = f"{name}+{self._kid.hex()}+{base64.b64encode(b'\4' + public).decode()}"
        self._logs: dict[str, list[tuple[bytes, Ed25519PublicKey]]] = {}
        self._lock = threading.Lock()
        self.url, self.asked = "", list[bytes]()
        self.before_answer: Callable[[], object] = lambda: None

    def know(self, key: str) -> None:
        """Take a log: the verifier key of whoever may submit its heads, named like its origin."""
        origin, kid, encoded = key.split("+", 2)
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
        self._logs.setdefault(origin, []).append((bytes.fromhex(kid), public))

    def heads(self) -> dict[str, Any]:
        """Origin to [size, root in hex] of the newest checkpoint that was cosigned."""
        return json.loads(self._state.read_text()) if self._state.exists() else {}

    def add_checkpoint(self, request: bytes) -> str:
        """The cosignature line that answers a request, or `Refused`."""
        self.asked.append(request)
        proof_text, _, note = request.decode().partition("\n\n")
        body = note.rpartition("\n\n")[0] + "\n"
        origin, size_line, root_line = body.split("\n")[:3]
        first, *proof_lines = proof_text.split("\n")
        old, size, root = int(first.removeprefix("old ")), int(size_line), base64.b64decode(root_line)
        if not first.startswith("old ") or len(proof_lines) > 63:
            raise Refused(400, "malformed")
        if origin not in self._logs:
            raise Refused(404, "unknown log")
        if not self._is_signed(origin, body, note):
            raise Refused(403, "no signature of a trusted key")
        if old > size:
            raise Refused(400, "old size above the size")
        proof = [base64.b64decode(line) for line in proof_lines]
        # Compared and kept in one step: of two requests at once, the smaller must not win.
        with self._lock:
            self._check(origin, old, size, root, proof)
            self._persist(origin, size, root)
        stamp = int(self.clock())
        signature = self._private.sign(f"cosignature/v1\ntime {stamp}\n{body}".encode())
        encoded = base64.b64encode(self._kid + stamp.to_bytes(8, "big") + signature).decode()
        return f"— {self.name} {encoded}\n"

    def _is_signed(self, origin: str, body: str, note: str) -> bool:
        for line in note.rpartition("\n\n")[2].splitlines():
            name, _, encoded = line.removeprefix("— ").partition(" ")
            data = base64.b64decode(encoded)
            for kid, public in self._logs[origin]:
                if (name, data[:4]) == (origin, kid):
                    with contextlib.suppress(InvalidSignature):
                        public.verify(data[4:], body.encode())
                        return True
        return False

    def _check(self, origin: str, old: int, size: int, root: bytes, proof: list[bytes]) -> None:
        held, held_root = self.heads().get(origin, [0, ""])
        if old != held:
            raise Refused(409, f"{held}\n", "text/x.tlog.size")
        if old == size and held and root.hex() != held_root:
            raise Refused(409, f"{held}\n", "text/x.tlog.size")
        if old in (0, size):
            if proof:
                raise Refused(422, "a proof where none belongs")
        elif not grew(old, size, bytes.fromhex(held_root), root, proof):
            raise Refused(422, "the proof does not hold")

    def _persist(self, origin: str, size: int, root: bytes) -> None:
        beside = self._state.with_suffix(".new")
        with beside.open("w") as file:
            json.dump(self.heads() | {origin: [size, root.hex()]}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._state)


def grew(old: int, size: int, old_root: bytes, root: bytes, proof: list[bytes]) -> bool:
    """RFC 9162, section 2.1.4.2, step by step, for 0 < old < size."""
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        return False
    fn, sn = old - 1, size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = sha256(b"\1" + c + fr).digest(), sha256(b"\1" + c + sr).digest()
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = sha256(b"\1" + sr + c).digest()
        fn, sn = fn >> 1, sn >> 1
    return (fr, sr, sn) == (old_root, root, 0)


@contextlib.contextmanager
def serving(witness: Witness, port: int = 0, chain: Path | None = None) -> Iterator[Witness]:
    """The witness at its `url`, while the block lasts; over TLS with the key and certificate in `chain`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                if self.path != "/add-checkpoint":
                    raise Refused(404, "no such path")
                status, said, kind = 200, witness.add_checkpoint(request), "text/plain"
                witness.before_answer()
            except Refused as refused:
                status, said, kind = refused.status, refused.said, refused.kind
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(said.encode())))
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if chain is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    at = server.server_address[1]
    witness.url = f"http://127.0.0.1:{at}" if chain is None else f"https://localhost:{at}"
    try:
        yield witness
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
