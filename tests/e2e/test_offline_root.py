"""The root key elsewhere: a whole life of a log whose root key was on this machine for the ceremony alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e import wire
from tests.e2e.origins import serving
from tests.e2e.process import BIN, POLICY, ROOT, Governor, governor, scratch_environment, started

pytestmark = pytest.mark.e2e

PASSPHRASE = "correct horse battery"


@pytest.fixture
def root(tmp_path: Path) -> Ed25519PrivateKey:
    """A root key made elsewhere; `safe/root.pem` holds it, encrypted, and `safe/passphrase` opens it."""
    private = Ed25519PrivateKey.generate()
    (tmp_path / "safe").mkdir()
    (tmp_path / "safe" / "root.pem").write_bytes(private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSPHRASE.encode())))
    (tmp_path / "safe" / "passphrase").write_text(f"{PASSPHRASE}\n")
    for path in (tmp_path / "safe").iterdir():
        path.chmod(0o600)
    return private


def ceremony(folder: Path) -> dict[str, object]:
    """The home made on this machine, the root key through a pipe."""
    command = [str(BIN / "governor"), "init", "--home", str(folder / "home"), "--root-key", "-", "--root-passphrase",
               str(folder / "safe" / "passphrase"), "--lanes", "2", "--json"]
    with (folder / "safe" / "root.pem").open("rb") as key:
        told = subprocess.run(command, stdin=key, capture_output=True, check=True, env=scratch_environment(folder))
    return json.loads(told.stdout)  # type: ignore[no-any-return]


def passes(running: Governor, url: str) -> bool:
    answer = wire.ask(running.port, wire.plain("GET", url))
    return answer is not None and answer.status == 200


def forms(private: Ed25519PrivateKey) -> list[bytes]:
    """The key as it could lie on a disk."""
    return [private.private_bytes_raw(), private.private_bytes_raw().hex().encode(), *private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).split(b"\n")[1:2]]


def test_a_log_lives_and_verifies_without_its_root_key(tmp_path, root):
    told = ceremony(tmp_path)
    (tmp_path / "safe").rename(tmp_path / "carried away")

    with serving() as origin:
        with started(tmp_path, POLICY, serve=True) as running:
            assert passes(running, f"{origin.url}/one")
            rotated = json.loads(running.verb("audit", "rotate", "--json").stdout)
            assert passes(running, f"{origin.url}/two")
            running.stop(signal.SIGKILL)
        # The verb puts the lane of the killed one in order.
        added = governor("agents", "add", "coder-1", "--home", str(tmp_path / "home"),
                         environment=scratch_environment(tmp_path))
        with started(tmp_path, POLICY) as running:
            status = running.verb("status", "--json")
            running.stop()

    assert added.returncode == 0, added.stderr
    assert json.loads(status.stdout)["ready"] is True
    assert [entry["reason"] for entry in running.entries("close")] == ["adopted", "stopped"]
    assert told["root_key"] is None
    assert told["lanes_ahead"] == ["main", "main-1", "w0", "w1"]
    assert rotated["segment"] == "000001.jsonl"
    verified = governor("audit", "verify", str(tmp_path / "home"), "--trust", str(told["pin"]), "--every-signature",
                        environment=scratch_environment(tmp_path))
    assert verified.returncode == 0, verified.stdout
    alone = subprocess.run([sys.executable, str(ROOT / "scripts" / "verify_log.py"), str(tmp_path / "home" / "audit"),
                            "--trust", str(told["pin"])], capture_output=True, text=True, check=False)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    held = [path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not [form for form in forms(root) for content in held if form in content]


def test_a_home_whose_root_key_was_moved_away_goes_on(tmp_path):
    environment = scratch_environment(tmp_path)
    made = governor("init", "--home", str(tmp_path / "home"), "--lanes", "1", environment=environment)
    key = tmp_path / "home" / "keys" / "root.key"
    assert f"move it off: {key}" in made.stdout
    key.rename(tmp_path / "root.key")

    with started(tmp_path, POLICY, serve=True) as running, serving() as origin:
        assert passes(running, f"{origin.url}/one")
        running.stop()
        assert running.verify()["result"] == "verified"


def test_the_passphrase_is_asked_for_at_the_terminal_and_not_shown(tmp_path, root):
    del root
    ours, theirs = os.openpty()
    # The shell leads a session of its own, so the first terminal that it opens becomes the one to be asked at.
    command = f"exec {BIN}/governor init --home home --root-key safe/root.pem --json < {os.ttyname(theirs)} > told 2>&1"
    with subprocess.Popen(["sh", "-c", command], cwd=tmp_path, env=scratch_environment(tmp_path),
                          start_new_session=True) as asking:
        shown = b""
        while b"Passphrase of safe/root.pem" not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, f"{PASSPHRASE}\n".encode())
        status = asking.wait(60)
    os.set_blocking(ours, False)
    shown += os.read(ours, 1024)
    os.close(ours)
    os.close(theirs)

    assert status == 0, (tmp_path / "told").read_text()
    assert PASSPHRASE.encode() not in shown
    assert (tmp_path / "home" / "keys" / "root.key").stat().st_mode & 0o777 == 0o600
