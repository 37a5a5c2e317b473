"""Every attempt made inside `governor run`, by root and by a user, with a capture where packets would arrive."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.open_place import TARGET, TARGET_6, Place, open_place
from tests.e2e.process import ROOT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0
        or not all(map(shutil.which, ("ip", "nft", "bwrap", "openssl", "tcpdump", "setpriv", "unshare"))),
        reason="network namespaces need root, and ip, nft, bwrap, openssl, tcpdump, setpriv and unshare",
    ),
]

_CODE = "import sys; sys.path.insert(0, {root!r}); from addons.cli import main; main()"
_GOVERNOR = (sys.executable, "-B", "-c", _CODE.format(root=str(ROOT)))
_POLICY = """\
version: 1
rules:
  - {allow: elsewhere, to: allowed.example.org, methods: [GET]}
"""
_NOBODY = 65534
_AS_NOBODY = """
set -e
mount --bind "$1" "$2"
mount -t tmpfs -o mode=755 tmpfs "$3"
mkdir -p "$1"
mount --bind "$2" "$1"
shift 3
exec setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all "$@"
"""
# What a kernel says by itself on a link: solicitations and reports of its groups.
_BY_ITSELF = (
    "arp or (ip6 dst host ff02::16) or (ip6 dst host ff02::2) or (ip6 dst net ff02::1:ff00:0/104) or "
    "(icmp6 and (ip6[40] == 135 or ip6[40] == 136))"
)
_SENTINEL = "the capture works"
# It waits for the answer: a closed port would send another packet.
_SENDER = f"""
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
    link.sendto({_SENTINEL.encode()!r}, ("{TARGET}", 9))
    link.recv(512)
"""


def _as_nobody(folder: Path) -> list[str]:
    """What runs a command as an ordinary user, to whom this Python is shown where only root could reach it."""
    base = Path(sys.base_prefix)
    hidden = next((path for path in reversed(base.parents) if not path.stat().st_mode & 0o001), None)
    if hidden is None:
        return ["setpriv", "--reuid", str(_NOBODY), "--regid", str(_NOBODY), "--clear-groups", "--bounding-set=-all"]
    if not os.stat(ROOT).st_mode & 0o001 or hidden in ROOT.parents:
        pytest.skip("an ordinary user cannot read this checkout")
    (folder / "python").mkdir()
    return ["unshare", "--mount", "sh", "-c", _AS_NOBODY, "sh", str(base), str(folder / "python"), str(hidden)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("server")) as made:
        yield made


@contextlib.contextmanager
def _captured(place: Place, to: Path) -> Iterator[None]:
    """All that comes from the place, but for what its kernel says by itself."""
    link = place.run("cat", "/sys/class/net/eth0/address").stdout.strip()
    listening = f"ip netns exec {place.beside} tcpdump --immediate-mode -i eth0 -U -n -Z root -w {to}"
    command = [*listening.split(), f"ether src {link} and not ({_BY_ITSELF})"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert b"listening on" in process.stderr.readline()
        yield
        place.run(sys.executable, "-c", _SENDER)
        time.sleep(0.5)
    finally:
        process.terminate()
        process.wait()


def _packets(capture: Path) -> list[str]:
    shown = subprocess.run(["tcpdump", "-n", "-A", "-r", str(capture)], capture_output=True, text=True, check=True)
    packets: list[str] = []
    for line in shown.stdout.splitlines():
        if line[:2].isdigit() and line[2:3] == ":":
            packets.append(line)
        elif packets:
            packets[-1] += line
    return packets


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that an ordinary user can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="governor-captured-") as made:
        os.chmod(made, 0o755)
        yield Path(made)


def _homes(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "GOVERNOR_HOME": str(home / "governor"),
    }


@pytest.mark.parametrize("tier", ["netns", "bwrap"])
@pytest.mark.parametrize("user", ["root", "an ordinary user"])
def test_of_all_attempts_made_in_a_sandbox_not_one_packet_arrives(place, folder, user, tier):
    work, home = folder / "work", folder / "home"
    for made in (work, home):
        made.mkdir()
    (folder / "policy.yaml").write_text(_POLICY)
    before = []
    if user != "root":
        os.chown(work, _NOBODY, _NOBODY)
        os.chown(home, _NOBODY, _NOBODY)
        before = _as_nobody(folder)
    run = (*_GOVERNOR, "run", "--tier", tier, "--quiet", "--policy", str(folder / "policy.yaml"), "--")
    doctor = (*_GOVERNOR, "doctor", "--inside", "--json", "--target", TARGET, "--target", TARGET_6)
    with _captured(place, folder / "capture.pcap"):
        answer = place.run("env", "-C", str(work), *before, *run, *doctor, XDG_RUNTIME_DIR="", **_homes(home))

    packets = _packets(folder / "capture.pcap")
    assert answer.stdout, answer.stderr
    told: dict[str, Any] = json.loads(answer.stdout)
    assert [packet for packet in packets if _SENTINEL not in packet] == []
    assert len(packets) == 1
    assert {each["name"]: each["seen"] for each in told["attempts"] if each["result"] == "open"} == {}
    assert told["tier"] == tier
    assert answer.returncode == 0
