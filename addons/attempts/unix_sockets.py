"""Sockets in the file system and abstract ones: whoever is behind them is outside."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import struct
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from addons.attempts import speaking, standing
from addons.attempts.attempt import Family, Result, Seen, closed, opened, refused, words, worst
from addons.attempts.surroundings import Surroundings

FAMILY = Family("unix")
_NOT_THERE = "not there, or refused"
_MOST_ENTRIES = 4000
_MOST_SOCKETS = 100
_WALKED = ("/run", "/var/run", "/tmp", "/var/lib", "/var/tmp", "/dev/shm", "/srv", "/opt")
_SERVICES = {
    "docker": ("/var/run/docker.sock", "/run/docker.sock", "~/.docker/run/docker.sock", "$XDG_RUNTIME_DIR/docker.sock"),
    "podman": ("/run/podman/podman.sock", "$XDG_RUNTIME_DIR/podman/podman.sock"),
    "containerd": ("/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"),
    "crio": ("/run/crio/crio.sock",),
    "dbus-system": ("/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket"),
    "dbus-session": ("$DBUS_SESSION_BUS_ADDRESS", "$XDG_RUNTIME_DIR/bus"),
    "systemd": ("/run/systemd/private", "$XDG_RUNTIME_DIR/systemd/private", "/run/systemd/notify"),
    "systemd-resolved": ("/run/systemd/resolve/io.systemd.Resolve", "/run/systemd/resolve/io.systemd.Resolve.Monitor"),
    "systemd-journal": ("/run/systemd/journal/stdout", "/run/systemd/journal/socket", "/dev/log"),
    "name-service": ("/run/nscd/socket", "/var/run/nscd/socket", "/var/lib/sss/pipes/nss"),
    "ssh-agent": ("$SSH_AUTH_SOCK", "$XDG_RUNTIME_DIR/keyring/ssh", "$XDG_RUNTIME_DIR/gcr/ssh"),
    "gpg-agent": ("$XDG_RUNTIME_DIR/gnupg/S.gpg-agent", "~/.gnupg/S.gpg-agent", "~/.gnupg/S.gpg-agent.ssh"),
    "x11": ("/tmp/.X11-unix/X0", "/tmp/.X11-unix/X1", "\0/tmp/.X11-unix/X0"),
    "wayland": ("$XDG_RUNTIME_DIR/wayland-0", "$XDG_RUNTIME_DIR/wayland-1"),
    "audio": ("$XDG_RUNTIME_DIR/pipewire-0", "$XDG_RUNTIME_DIR/pulse/native"),
    "tmux": ("$TMUX", "/tmp/tmux-$UID/default"),
    "screen": ("/run/screen/S-$USER", "/var/run/screen/S-$USER"),
    "snapd": ("/run/snapd.socket", "/run/snapd-snap.socket"),
    "lxd": ("/var/snap/lxd/common/lxd/unix.socket", "/var/lib/lxd/unix.socket", "/dev/lxd/sock"),
    "libvirt": ("/run/libvirt/libvirt-sock", "/var/run/libvirt/virtqemud-sock"),
    "editor": ("$VSCODE_IPC_HOOK_CLI", "$VSCODE_GIT_IPC_HANDLE", "$NVIM", "$EMACS_SERVER_FILE"),
    "buildkit": ("/run/buildkit/buildkitd.sock", "$XDG_RUNTIME_DIR/buildkit/buildkitd.sock"),
    "database": ("/run/postgresql/.s.PGSQL.5432", "/run/mysqld/mysqld.sock", "/run/redis/redis-server.sock"),
    "cron": ("/run/atd.socket", "/run/fcron.fifo"),
}


def _connected(name: str) -> Seen:
    """What a socket of that name says of itself; `name` begins with a zero byte where it is abstract."""
    shown = name.replace("\0", "@", 1)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as link:
            link.settimeout(0.5)
            try:
                link.connect(name)
            except OSError as fault:
                if fault.errno == errno.EPROTOTYPE:
                    continue
                return refused(fault) if fault.errno == errno.ENOENT else closed(f"{shown}: {words(fault)}")
            except ValueError:
                return closed(f"{shown}: too long a name")
            return _whose(link, shown, kind)
    return closed(f"{shown}: of no kind that can be spoken with")


def _whose(link: socket.socket, shown: str, kind: int) -> Seen:
    """One that listens outside has no process here; the sandbox's own way to Governor gives itself away by its 403."""
    pid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    if pid > 0 and _of_this_place(pid):
        return closed(f"{shown}: process {pid} of this sandbox itself listens")
    if kind == socket.SOCK_STREAM:
        answer = speaking.say(link, speaking.get(speaking.UNLISTED, f"http://{speaking.UNLISTED}/"))
        if answer.said.startswith(b"HTTP/1.") and answer.seen(shown, interceptor=True).result is Result.CLOSED:
            return closed(f"{shown}: Governor answered: {speaking.first_line(answer.said)}")
    return opened(f"{shown}: a process outside took the connection")


def _of_this_place(pid: int) -> bool:
    """Whether the process lives in this network and mount namespace, where that is not the machine's own."""
    known = [(standing.namespace(pid, kind), standing.namespace("self", kind)) for kind in ("net", "mnt")]
    return not standing.in_first_process_namespace() and all(
        theirs is not None and theirs == own for theirs, own in known)


def _service(_: Surroundings, places: tuple[str, ...]) -> Seen:
    seen = [_connected(name) for place in places for name in _name(place)]
    found = [each for each in seen if each.result is not Result.NOT_POSSIBLE]
    return worst(found, "") if found else closed("none of the usual places has it")


def _name(place: str) -> Iterator[str]:
    """The path that a place stands for here; none where its variable is not set."""
    expanded = os.path.expandvars(os.path.expanduser(place.replace("$UID", str(os.getuid()))))
    if "$" in expanded:
        return
    if match := re.search(r"unix:(path|abstract)=([^,;]+)", expanded):
        yield match[2] if match[1] == "path" else f"\0{match[2]}"
    else:
        # $TMUX is a path with two numbers behind it.
        yield expanded.partition(",")[0]


for service, places in _SERVICES.items():
    FAMILY.add(f"unix-{service}", f"speak with {service} over its socket", _NOT_THERE, partial(_service, places=places))


@FAMILY.attempt("abstract-sockets", "connect to every abstract socket that /proc/net/unix names", "none, or refused")
def abstract(_: Surroundings) -> Seen:
    try:
        lines = Path("/proc/net/unix").read_text().splitlines()
    except OSError as fault:
        return refused(fault)
    names = {
        f"\0{fields[7][1:]}" for line in lines if len(fields := line.split(maxsplit=7)) == 8 and fields[7][0] == "@"
    }
    return (
        worst((_connected(name) for name in islice(sorted(names), _MOST_SOCKETS)), "")
        if names
        else closed("this network namespace has no abstract socket")
    )


@FAMILY.attempt("guessed-abstract-sockets", "connect to abstract sockets that hosts usually have", "none, or refused")
def guessed(_: Surroundings) -> Seen:
    usual = (
        "/tmp/.X11-unix/X0", "/tmp/.ICE-unix/1", "/tmp/dbus-system", "/containerd-shim/k8s.io",
        "ISCSIADM_ABSTRACT_NAMESPACE", "/org/kernel/udev/udevd", "/com/ubuntu/upstart", "snap", "/run/multipathd",
    )
    seen = [each for name in usual if (each := _connected(f"\0{name}")).result is Result.OPEN]
    return worst(seen, "") if seen else closed("none of them is there")


@FAMILY.attempt("found-sockets", "connect to every socket found in /run, /tmp and like places", "none, or refused")
def found(_: Surroundings) -> Seen:
    paths = list(islice(_sockets(), _MOST_SOCKETS))
    return worst((_connected(path) for path in paths), "") if paths else closed("no socket lies there")


def _sockets() -> Iterator[str]:
    left = _MOST_ENTRIES
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for root in dict.fromkeys((*_WALKED, runtime, os.path.expanduser("~"))):
        for folder, _, names in os.walk(root) if root else ():
            for name in names:
                left -= 1
                if left <= 0:
                    return
                path = os.path.join(folder, name)
                try:
                    if stat.S_ISSOCK(os.lstat(path).st_mode):
                        yield path
                except OSError:
                    continue
