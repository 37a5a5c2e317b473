"""The tiers of a sandbox, and what this machine lacks for each: tried, not guessed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from addons.sandbox import tier_trial

TOOL_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
"""Where tools are looked for before PATH: a user's PATH often lacks the first two, and names folders in which a command
that ran in a sandbox could have put a `bwrap` of its own."""
_TRIAL_SECONDS = 20.0
_OS_RELEASE = Path("/etc/os-release")
_SYSCTLS = Path("/proc/sys")

_INSTALL = {
    "apt": "apt install", "dnf": "dnf install", "apk": "apk add", "pacman": "pacman -S", "zypper": "zypper install",
}
_DISTRIBUTIONS = {
    "debian": "apt", "ubuntu": "apt", "fedora": "dnf", "rhel": "dnf", "centos": "dnf", "alpine": "apk",
    "arch": "pacman", "suse": "zypper", "opensuse": "zypper",
}
_PACKAGES = {"nft": "nftables", "ip": "iproute2", "bwrap": "bubblewrap"}
_PACKAGES_ELSEWHERE = {("dnf", "ip"): "iproute"}
# What forbids user namespaces to a user, and the value that allows them.
_FORBIDDING = (
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
)
_ROOMS = {"namespaces": "network namespaces", "bwrap": "namespaces with bwrap"}
_ALLOWING = ("run it as root, or in a container that may make namespaces: "
             "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined")


class Tier(StrEnum):
    """How strongly a sandbox holds what runs inside, the strongest first."""

    NETNS = "netns"
    BWRAP = "bwrap"
    ENV = "env"


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that a tier needs and this machine lacks."""

    what: str
    fix: str
    """A command or a sentence; empty where nothing helps."""


def best() -> Tier | None:
    """The strongest tier that this machine can hold; None where it can hold none and should.

    On Linux never `env`: who could have a sandbox is not given advice in its place.
    """
    if not _on_linux():
        return Tier.ENV
    return next((tier for tier in (Tier.NETNS, Tier.BWRAP) if not possible(tier)), None)


def possible(tier: Tier) -> tuple[Missing, ...]:
    """What is missing for a tier; nothing where it is possible."""
    match tier:
        case Tier.ENV:
            return ()
        case _ if not _on_linux():
            return (Missing("Linux", "run the agent in a Linux machine or container"),)
        case Tier.NETNS:
            return _lacking(tier, ("ip", "nft", "bwrap"))
        case Tier.BWRAP:
            return _lacking(tier, ("bwrap",))


def tool(name: str) -> str | None:
    """Where a tool is, in the system's folders or else on PATH."""
    return shutil.which(name, path=os.pathsep.join(TOOL_FOLDERS)) or shutil.which(name)


def install(name: str) -> str:
    """The command that installs a tool on this distribution."""
    manager = next(filter(None, map(_DISTRIBUTIONS.get, _distributions())), None)
    package = _PACKAGES_ELSEWHERE.get((manager or "", name), _PACKAGES[name])
    return f"{_INSTALL[manager]} {package}" if manager else f"install the package {package}"


def _lacking(tier: Tier, tools: tuple[str, ...]) -> tuple[Missing, ...]:
    absent = tuple(Missing(f"{name} is not installed", install(name)) for name in tools if tool(name) is None)
    return absent or tuple(_denied(tier))


def _denied(tier: Tier) -> Iterator[Missing]:
    """What the kernel, or what this process runs in, does not let it do."""
    outcome = _tried(tier)
    failed, said = outcome.get("failed"), outcome.get("said")
    match failed:
        case None:
            return
        case "namespaces" | "bwrap":
            yield from _forbidden() or [Missing(f"this process may not make {_ROOMS[failed]}: {said}", _ALLOWING)]
        case "nf_tables":
            yield Missing(f"the kernel takes no nftables table: {said}",
                          "modprobe -a nf_tables nft_ct nft_redir nft_reject_inet")
        case "veth":
            yield Missing(f"the kernel makes no veth pair: {said}", "modprobe veth")
        case _:
            yield Missing(f"the trial of tier {tier} failed: {said}", "")


def _forbidden() -> list[Missing]:
    """The settings of the kernel that forbid user namespaces to a user."""
    return [Missing(f"user namespaces are forbidden here: {path.replace('/', '.')} is {forbidding}", f"sysctl -w {fix}")
            for path, forbidding, fix in _FORBIDDING if _sysctl(path) == forbidding]


def _tried(tier: Tier) -> Mapping[str, str | None]:
    path = os.pathsep.join((*TOOL_FOLDERS, os.environ.get("PATH", "")))
    # -I: neither the agent's environment nor its folder has a say in what is imported.
    command = [sys.executable, "-I", tier_trial.__file__, tier]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=True,
                             stdin=subprocess.DEVNULL, env={"PATH": path, "LC_ALL": "C"})
        told: dict[str, str | None] = json.loads(run.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as fault:
        return {"failed": "trial", "said": str(fault)}
    return told


def _sysctl(path: str) -> str | None:
    try:
        return (_SYSCTLS / path).read_text().strip()
    except OSError:
        return None


def _distributions() -> list[str]:
    """This distribution and those that it is like, the nearest first."""
    try:
        lines = _OS_RELEASE.read_text().splitlines()
    except OSError:
        return []
    said = dict(line.partition("=")[::2] for line in lines if "=" in line)
    return " ".join(said.get(name, "").strip("\"'") for name in ("ID", "ID_LIKE")).split()


def _on_linux() -> bool:
    return sys.platform.startswith("linux")
