"""What a tier needs of the kernel, tried in a process of its own: run by path, it stops at the first thing that fails.

`python tier_trial.py netns|bwrap`, with the standard library alone. It prints one JSON object, `{"failed": null}` or
`{"failed": STEP, "said": TEXT}`. All that it makes lies in namespaces that end with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

# What the table of the middle namespace is made of: both families, NAT, marks, counters, rejections.
TABLE = """
table inet governor_trial {
  counter refused {}
  chain before {
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto { tcp, udp } th dport 53 ct mark set 0x61 redirect to :5353
  }
  chain through {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    counter name refused reject with icmpx admin-prohibited
  }
}
"""
SECONDS = 5.0
_NOTHING_INSIDE = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "--unshare-user",
                   "--cap-drop", "ALL", "--new-session", "--die-with-parent", "true")

type Step = tuple[str, Callable[[], None]]


def network_namespace() -> None:
    """Into a network namespace: without a user namespace where that is allowed, else as root in a new one."""
    try:
        os.unshare(os.CLONE_NEWNET)
    except PermissionError:
        own_user_namespace()
        os.unshare(os.CLONE_NEWNET)


def own_user_namespace() -> None:
    """Into a user namespace in which this user is root."""
    user, group = os.geteuid(), os.getegid()
    os.unshare(os.CLONE_NEWUSER)
    for name, content in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(content)


def tables() -> None:
    _run("nft", "-f", "-", said=TABLE)


def links() -> None:
    _run("ip", "link", "add", "inner", "type", "veth", "peer", "name", "outer")


def closed_room() -> None:
    _run("bwrap", *_NOTHING_INSIDE)


STEPS: dict[str, tuple[Step, ...]] = {
    "netns": (("namespaces", network_namespace), ("nf_tables", tables), ("veth", links), ("bwrap", closed_room)),
    "bwrap": (("bwrap", closed_room),),
}


def first_failure(tier: str) -> dict[str, str | None]:
    """What does not work of what the tier needs."""
    for name, step in STEPS[tier]:
        try:
            step()
        except (OSError, subprocess.SubprocessError) as fault:
            said = getattr(fault, "stderr", None) or str(fault)
            return {"failed": name, "said": " ".join(said.split())}
    return {"failed": None}


def _run(*command: str, said: str = "") -> None:
    subprocess.run(command, input=said, check=True, capture_output=True, text=True, timeout=SECONDS)


if __name__ == "__main__":
    print(json.dumps(first_failure(sys.argv[1])))
