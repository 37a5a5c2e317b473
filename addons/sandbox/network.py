"""The network of a command: made and kept by a process of its own, which starts the command in it.

Tier netns: a namespace with nothing but a link to the command's, Governor's listening sockets and the table of
`ruleset.py`; the command's own namespace lies behind the link. Tier bwrap: a namespace with its loopback and the
listening socket alone. The sockets go to whoever asked for the network and serve from there; so whatever the command
sends ends at a socket of Governor's or at nothing: there is no route to anywhere, also once Governor is gone.

The process is trusted, has the command as a child, and dies with the one that started it; with it, all of this goes.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from addons.sandbox import covering, ruleset
from addons.sandbox.ruleset import COMMAND, COMMAND_6, GATEWAY, GATEWAY_6

_INSIDE_LINK = "eth0"
_PREFIX, _PREFIX_6 = 29, 64

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_GRANDPARENT_GONE = 70
_FOR_THE_COMMAND = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# No packet says where it goes, and no neighbour where we should.
_SETTINGS = {
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/all/accept_source_route": "0",
    "net/ipv4/conf/all/route_localnet": "0",
    "net/ipv4/ip_forward": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/all/accept_redirects": "0",
    "net/ipv6/conf/all/accept_source_route": "0",
    "net/ipv6/conf/all/forwarding": "0",
    # Each refusal is heard at once: there is nobody here but the command to flood.
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "100000",
    "net/ipv4/icmp_msgs_burst": "10000",
    "net/ipv6/icmp/ratelimit": "0",
}


class NetworkFailed(Exception):
    """A step of making the network failed; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of the process. `ports`: those of TCP, from and to, that lead to the proxy; with none there is no
    link at all.
    """

    ports: tuple[tuple[int, int], ...]

    @property
    def linked(self) -> bool:
        return bool(self.ports)


def main(channel_descriptor: int) -> NoReturn:
    """Make the network, hand the sockets over, start the command when told to, and end with its status.

    Each message is a line of JSON, both ways. First come the wanted network, then `{"run": ARGUMENTS, "keep": [FDS]}`,
    with descriptors beside it. `{"count": true}` is answered with the packets refused so far.
    """
    _die_with_parent()
    # The command's terminal sends its signals to us, too, and so does a command that ends its group with `kill 0`.
    # What is heard here is the default again in what is executed; what the caller has ignored, as nohup does, stays so.
    for each in _FOR_THE_COMMAND:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, lambda *_: None)
    os.set_inheritable(channel_descriptor, False)  # noqa: FBT003
    with socket.socket(fileno=channel_descriptor) as channel:
        try:
            wanted = Wanted(tuple((first, last) for first, last in json.loads(channel.recv(65536))["ports"]))
            made = _made(wanted)
        except (NetworkFailed, OSError, subprocess.SubprocessError) as problem:
            channel.sendall(_line({"failed": str(problem)}))
            sys.exit(1)
        socket.send_fds(channel, [_line({"listening": list(made.sockets), "command": made.command})],
                        [each.fileno() for each in made.sockets.values()])
        for listening in made.sockets.values():
            # Governor alone has them from here on: once it is gone, nobody listens.
            listening.close()
        _serve(channel, made)


@dataclass(slots=True)
class _Made:
    sockets: Mapping[str, socket.socket]
    command: int
    """The process that has the command's network, and the command below it."""
    go: int
    """Where it is told what to execute."""


def _serve(channel: socket.socket, made: _Made) -> NoReturn:
    """Answer until the command has ended, or whoever asked is gone."""
    ended = False
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    # It may have ended before anybody was to be woken.
    os.write(wakes, b"\0")
    pending, handed = b"", list[int]()
    while not ended:
        ready, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            done, status = os.waitpid(made.command, os.WNOHANG)
            if done:
                ended = True
                refused = _refused()
                with suppress(OSError):
                    channel.sendall(_line({"ended": os.waitstatus_to_exitcode(status), "refused": refused}))
        if channel.fileno() in ready and not ended:
            content, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 16)
            if not content:
                break
            pending += content
            # They come with the first part of a long message.
            handed += descriptors
            *lines, pending = pending.split(b"\n")
            for line in lines:
                _answer(channel, made, json.loads(line), handed)
    if not ended:
        os.kill(made.command, signal.SIGKILL)
    sys.exit(0)


def _answer(channel: socket.socket, made: _Made, message: Mapping[str, Any], handed: list[int]) -> None:
    if "run" in message:
        with socket.socket(fileno=made.go) as go:
            hand_over(go, message, handed)
        handed.clear()
    else:
        channel.sendall(_line({"refused": _refused()}))


def hand_over(channel: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Send a message of any length with descriptors, which are closed here."""
    content = _line(message)
    rest = content[socket.send_fds(channel, [content], descriptors):]
    if rest:
        # Who has the whole of it may have gone on already.
        channel.sendall(rest)
    for each in descriptors:
        os.close(each)


def _made(wanted: Wanted) -> _Made:
    if os.geteuid() != 0:
        _own_users()
    os.unshare(os.CLONE_NEWNET)
    _up("lo")
    if wanted.linked:
        _lead_to_us(wanted.ports)
    ours, theirs = socket.socketpair()
    command = os.fork()
    if command == 0:
        ours.close()
        _hold(theirs, linked=wanted.linked)
    theirs.close()
    has_6 = wanted.linked and _linked_to(command, ours)
    if ours.recv(1) != b"r":
        raise NetworkFailed("the command's end of it could not be made")
    sockets = dict(_listeners(has_6)) if wanted.linked else {
        "regular": _tcp(socket.AF_INET, "127.0.0.1", ruleset.PROXY_PORT)}
    return _Made(sockets, command, ours.detach())


def _lead_to_us(ports: Sequence[tuple[int, int]]) -> None:
    _run("nft", "-f", "-", text=ruleset.ruleset(ports))
    for name, value in _SETTINGS.items():
        # A machine without IPv6 has no settings of it, and some of these were the whole machine's once.
        with suppress(FileNotFoundError, PermissionError):
            Path("/proc/sys", name).write_text(value)


def _linked_to(command: int, ours: socket.socket) -> bool:
    """Make the link to a process that has a namespace as soon as it says so; whether it has IPv6."""
    if ours.recv(1) != b"n":
        raise NetworkFailed("the command's namespace could not be made")
    _run("ip", "link", "add", ruleset.LINK, "type", "veth", "peer", "name", _INSIDE_LINK, "netns", str(command))
    _run("ip", "address", "add", f"{GATEWAY}/{_PREFIX}", "dev", ruleset.LINK)
    has_6 = Path("/proc/net/if_inet6").exists()
    if has_6:
        _run("ip", "address", "add", f"{GATEWAY_6}/{_PREFIX_6}", "dev", ruleset.LINK, "nodad")
    _run("ip", "link", "set", ruleset.LINK, "up")
    ours.sendall(b"6" if has_6 else b"4")
    return has_6


def _hold(channel: socket.socket, *, linked: bool) -> NoReturn:
    """In the child: take a network of its own where there is a link, have a child become what the next message says,
    and end as it does.

    That one is the first process of a namespace: however it ends, at whatever moment, the kernel ends all below it.
    Bubblewrap by itself leaves its inner process waiting when it is killed as it begins.
    """
    try:
        _die_with_parent()
        if linked:
            os.unshare(os.CLONE_NEWNET)
            channel.sendall(b"n")
            _set_up_command_end(channel.recv(1) == b"6")
        os.unshare(os.CLONE_NEWPID)
        first = os.fork()
        if first:
            channel.close()
            status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
            os._exit(status if status >= 0 else 128 - status)
        _die_with_parent()
        channel.sendall(b"r")
        _become(channel)
    except BaseException as problem:  # noqa: BLE001
        print(f"governor: the command could not be started: {problem}", file=sys.stderr, flush=True)
        os._exit(125)


def _become(channel: socket.socket) -> NoReturn:
    message, descriptors = _received(channel)
    channel.close()
    covering.cover()
    for each, number in zip(descriptors, message["keep"], strict=True):
        os.dup2(each, number, inheritable=True)
        if each != number:
            os.close(each)
    # Python has these ignored, and the command has not: yes | head -1 ends.
    for each in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(each, signal.SIG_DFL)
    os.execvpe(message["run"][0], message["run"], message["environment"])  # noqa: S606


def _received(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    content, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 16)
    while content and not content.endswith(b"\n"):
        content += channel.recv(1 << 20)
    if not content:
        os._exit(_GRANDPARENT_GONE)
    return json.loads(content), descriptors


def _set_up_command_end(has_6: bool) -> None:
    _run("ip", "address", "add", f"{COMMAND}/{_PREFIX}", "dev", _INSIDE_LINK)
    _up("lo")
    if has_6:
        _run("ip", "address", "add", f"{COMMAND_6}/{_PREFIX_6}", "dev", _INSIDE_LINK, "nodad")
    _run("ip", "link", "set", _INSIDE_LINK, "up")
    _run("ip", "route", "add", "default", "via", GATEWAY)
    if has_6:
        _run("ip", "-6", "route", "add", "default", "via", GATEWAY_6)


def _listeners(has_6: bool) -> Iterator[tuple[str, socket.socket]]:
    """Each socket under the name of the mode that it is for, its protocol and its version of IP."""
    for family, everywhere, version in ((socket.AF_INET, "0.0.0.0", 4), (socket.AF_INET6, "::", 6))[:1 + has_6]:
        yield f"transparent/tcp/{version}", _tcp(family, everywhere, ruleset.PROXY_PORT)
        yield f"dns/tcp/{version}", _tcp(family, everywhere, ruleset.NAMES_PORT)
        yield f"dns/udp/{version}", _udp(family, everywhere, ruleset.NAMES_PORT)


def _tcp(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    made = _bound(socket.socket(family, socket.SOCK_STREAM), host, port)
    made.listen(1024)
    return made


def _udp(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    return _bound(socket.socket(family, socket.SOCK_DGRAM), host, port)


def _bound(made: socket.socket, host: str, port: int) -> socket.socket:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((host, port))
    return made


def _refused() -> Mapping[str, int]:
    """The packets refused so far; none where there is no link."""
    if not Path("/sys/class/net").exists():
        return {}
    found = subprocess.run(["nft", "-j", "list", "counters"], capture_output=True, text=True, check=False)
    return ruleset.refused(found.stdout) if found.returncode == 0 else {}


def _own_users() -> None:
    """A user namespace in which this user may make networks, and is nobody but himself outside."""
    user, group = os.geteuid(), os.getegid()
    try:
        os.unshare(os.CLONE_NEWUSER)
        # As 0, or what is executed from here would lose its capabilities in this namespace.
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as problem:
        raise NetworkFailed(f"no user namespace can be made: {problem.strerror}") from problem
    # New credentials have forgotten it.
    _die_with_parent()


def _up(link: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("16sH14x", link.encode(), 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(asking, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(asking, _SIOCSIFFLAGS, struct.pack("16sH14x", link.encode(), flags | _IFF_UP))


def _run(*command: str, text: str | None = None) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkFailed(f"{' '.join(command)}: {done.stderr.strip() or f'exit status {done.returncode}'}")


def _die_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(_GRANDPARENT_GONE)


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
