"""The environment of a sandboxed command: the caller's, without what leads out, with what it needs to know; and that of
the processes beside it, without what has them run somebody else's code.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from addons.sandbox.tiers import TOOL_FOLDERS, Tier

if TYPE_CHECKING:
    from collections.abc import Mapping

TIER, AGENT, MARK = "GOVERNOR_TIER", "GOVERNOR_AGENT", "GOVERNOR"
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY",
            "ALL_PROXY", "npm_config_proxy", "npm_config_https_proxy", "PIP_PROXY", "CARGO_HTTP_PROXY")
_EXCEPTIONS = ("no_proxy", "NO_PROXY", "npm_config_noproxy")
# Sockets of the caller's that are not there inside, and Governor's own.
_NOT_INSIDE = ("SSH_AUTH_SOCK", "SSH_AGENT_PID", "DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS",
               "GPG_AGENT_INFO", "WAYLAND_DISPLAY", "TMUX", "STY", "DOCKER_HOST", "CONTAINER_HOST",
               "GOVERNOR_HOME", "GOVERNOR_POOL", "NODE_USE_SYSTEM_CA")
_LOCAL = "localhost,127.0.0.1,::1"
# They name files to be executed, often by a path in the folder where the command works.
_EXECUTED = ("LD_", "PYTHON", "GCONV_PATH")


def governors_own(outside: Mapping[str, str]) -> dict[str, str]:
    """What the processes beside the command find: the caller's, with the system's folders first in PATH."""
    kept = {name: value for name, value in outside.items() if not name.startswith(_EXECUTED)}
    # Who has no entry among the users, as Governor's own has none, knows no other home.
    kept.setdefault("HOME", os.path.expanduser("~"))
    return kept | {"PATH": os.pathsep.join((*TOOL_FOLDERS, outside.get("PATH", os.defpath)))}


def environment(outside: Mapping[str, str], agent: str, tier: Tier, trusting: Mapping[str, str],
                proxy: str) -> dict[str, str]:
    """What the command finds. `trusting` are the variables by which clients trust the CA.

    Where all packets are led to Governor no client needs to know of a proxy, and one that knew of another would not
    reach it.
    """
    kept = {name: value for name, value in outside.items()
            if name not in _NOT_INSIDE and name not in _PROXIES and name not in _EXCEPTIONS}
    told = {MARK: "1", AGENT: agent, TIER: str(tier), **trusting}
    if tier is Tier.NETNS:
        return kept | told
    return kept | _with_java(told, proxy) | dict.fromkeys(_variables(), proxy) | dict.fromkeys(_EXCEPTIONS, _LOCAL) | {
        # Node's own clients look at the others only when they are told to.
        "NODE_USE_ENV_PROXY": "1",
    }


def _variables() -> tuple[str, ...]:
    # ftp is no protocol of ours, and a client that has no such variable fails at once.
    return tuple(name for name in _PROXIES if not name.lower().startswith("ftp"))


def _with_java(told: Mapping[str, str], proxy: str) -> dict[str, str]:
    host, _, port = proxy.rpartition("@")[2].removeprefix("http://").rpartition(":")
    options = " ".join(f"-D{scheme}.proxyHost={host} -D{scheme}.proxyPort={port}" for scheme in ("http", "https"))
    return {**told, "JAVA_TOOL_OPTIONS": f"{told.get('JAVA_TOOL_OPTIONS', '')} {options}".strip()}
