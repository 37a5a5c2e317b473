"""Attempts where everything is open, and where nothing is: one that cannot be found open would say nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.open_place import TARGET, TARGET_6, Place, open_place
from tests.e2e.process import ROOT
from tests.e2e.run_place import GOVERNOR

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft", "bwrap", "openssl"))),
        reason="network namespaces need root, and ip, nft, bwrap and openssl"),
]

DOCTOR = (sys.executable, "-B", "-P", "-c", GOVERNOR, str(ROOT), "doctor", "--inside", "--here", "--json",
          "--target", TARGET, "--target", TARGET_6)
# Whether these are open is up to the kernel, the machine or a filter of system calls, and not to a place.
_OF_THE_MACHINE = {
    "loose-source-route", "strict-source-route", "foreign-source", "sctp", "dccp", "udp-lite", "mptcp", "igmp",
    "dns-own-resolver", "mdns-ipv6", "bind-to-device", "raw-source-route", "raw-record-route",
}
# Root of the machine is the owner of /proc/sys under whatever user it goes by: that folder is shown read-only.
_BWRAP = """
bwrap --unshare-all --unshare-user --uid 1000 --gid 1000 --cap-drop ALL --new-session --die-with-parent
--ro-bind / / --proc /proc --ro-bind /proc/sys /proc/sys --dev /dev
--tmpfs /tmp --tmpfs /run --tmpfs /var/lib --tmpfs /root --setenv HOME /tmp --chdir /
"""
_NETWORK = ("tcp", "web", "dns", "datagrams", "icmp", "ip")
# Without a filter of system calls.
_FOR_A_FILTER = {
    "read-pagemap",  # the machine's root reads it, whatever its capabilities
    "no-filter",
    "io-uring",
    "key-add",
    "key-upcall",
    "vsock-1",
    "vsock-2",
    "vsock-3",
    "bpf",
    "perf",
    "userfaultfd",
    "af-alg",
    "af-bluetooth",
    "af-qipcrtr",
    "af-tipc",
    "af-can",
    "af-kcm",
    "af-llc",
    "af-nfc",
    "af-pppox",
    "af-rds",
    "mptcp",
}


def _by_name(answer: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert answer.stdout, answer.stderr
    return {attempt["name"]: attempt for attempt in json.loads(answer.stdout)["attempts"]}


@contextlib.contextmanager
def _listening(*places: str) -> Iterator[None]:
    """Processes of outside at these sockets."""
    with contextlib.ExitStack() as stack:
        for place in places:
            link = stack.enter_context(socket.socket(socket.AF_UNIX))
            link.bind(place)
            link.listen(64)
        yield


def _planted_home(folder: Path) -> Path:
    """A home that an agent can read, with a Governor that answers."""
    for name in (
        "keys/root.key", "keys/main.key", "ca/mitmproxy-ca.pem", "audit/lanes/main/000000.jsonl", "policy.yaml",
        "agents.json",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("server")) as made:
        yield made


def _state(place: Place) -> str:
    told = place.run("sh", "-c",
                     "ip -d address; ip route show table all; ip rule; nft list ruleset; grep -v nsfs /proc/mounts")
    return "".join(line for line in told.stdout.splitlines(keepends=True) if "valid_lft" not in line)


@pytest.fixture(scope="module")
def before(place: Place) -> str:
    """What the place was before any attempt."""
    return _state(place)


@pytest.fixture(scope="module")
def opened(place: Place, before: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What is found as root of the machine, with all sorts of things left lying about."""
    folder = tmp_path_factory.mktemp("open")
    runtime, home = folder / "run", _planted_home(folder / "home")
    (runtime / "systemd").mkdir(parents=True)
    certificate = folder / "certificate.pem"
    certificate.write_text("-----BEGIN PRIVATE KEY-----\n")
    planted = [
        str(runtime / name)
        for name in ("docker.sock", "bus", "systemd/private", "wayland-0", "agent", "tmux", "editor")
    ]
    with _listening(*planted):
        answer = place.run(
            *DOCTOR, XDG_RUNTIME_DIR=str(runtime), SSH_AUTH_SOCK=str(runtime / "agent"), TMUX=f"{runtime / 'tmux'},1,0",
            NVIM=str(runtime / "editor"), DBUS_SESSION_BUS_ADDRESS=f"unix:path={runtime / 'bus'},guid=1",
            GOVERNOR_HOME=str(home), SSL_CERT_FILE=str(certificate), https_proxy=f"http://{TARGET}:3128",
            HOME=str(folder))
    assert answer.returncode == 1
    return _by_name(answer)


@pytest.fixture(scope="module")
def shut() -> dict[str, dict[str, Any]]:
    """What is found as an ordinary user in a sandbox without a network."""
    shown = (sys.base_prefix, str(ROOT), sys.prefix)
    command = [*_BWRAP.split(), *(part for path in shown for part in ("--ro-bind", path, path)), "--", *DOCTOR]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90, stdin=subprocess.DEVNULL)
    return _by_name(answer)


def test_every_way_over_the_network_is_found_open_where_it_is(opened):
    missed = {
        name: attempt["seen"]
        for name, attempt in opened.items()
        if attempt["family"] in _NETWORK and attempt["result"] != "open" and name not in _OF_THE_MACHINE
    }

    assert missed == {}


@pytest.mark.parametrize(
    "name",
    [
        "tunnel-22", "tunnel-metrics", "proxy-unlisted", "gateway-8080", "gateway-9464", "gateway-22", "neighbours",
        "unix-docker", "unix-dbus-session", "unix-ssh-agent", "unix-systemd", "unix-tmux", "unix-editor",
        "unix-wayland", "link-wireguard", "route", "tables", "conntrack", "ipsec-keys", "tun", "link-down",
        "others-environ", "others-memory", "others-open-files", "others-trace", "others-read-memory",
        "others-take-descriptor", "others-kill", "others-pidfd-kill", "enter-net", "enter-mnt", "first-process",
        "write-forwarding", "write-core-pattern", "write-sysctls", "read-disks", "mount-proc", "mount-bind", "remount",
        "unmount", "chroot", "pivot-root", "open-tree", "file-handles", "mknod-disk", "unshare-network",
        "capabilities-effective", "capabilities-bounding", "new-privileges", "no-filter", "setuid-programs",
        "become-root", "mapped-root", "change-groups", "host-name", "io-uring", "bpf", "perf", "userfaultfd", "reboot",
        "fanotify", "key-add", "key-upcall", "governor-home", "governor-root-key", "governor-lane-keys",
        "governor-ca-key", "governor-log-write", "governor-policy", "governor-tokens", "governor-code",
        "governor-ca-beside", "resolv-conf", "hosts-file", "later-cron", "later-programs", "later-accounts"],
)
def test_every_way_over_the_machine_is_found_open_where_it_is(opened, name):
    assert opened[name]["result"] == "open", opened[name]["seen"]


def test_in_a_sandbox_without_a_network_nothing_is_open_but_what_only_a_filter_closes(shut):
    still = {
        name: attempt["seen"]
        for name, attempt in shut.items()
        if attempt["result"] == "open" and name not in _FOR_A_FILTER
    }

    assert still == {}


def test_no_attempt_fails_of_itself_or_takes_too_long(opened, shut):
    failed = {
        name: attempt["seen"]
        for found in (opened, shut)
        for name, attempt in found.items()
        if "attempt itself failed" in attempt["seen"]
        or "did not end" in attempt["seen"]
        or "without an answer" in attempt["seen"]
    }

    assert failed == {}


def test_nothing_is_closed_by_silence_where_there_is_no_route(shut):
    assert {name for name, attempt in shut.items() if attempt["silent"]} <= {"vsock-1"}


def test_attempts_leave_the_place_as_it_was(place, before, opened):
    assert _state(place) == before
