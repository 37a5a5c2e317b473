"""The Governor of a run that root started, without root's powers: whoever speaks with agents and origins is nobody.

It runs as the owner of the home. A home that is made for it belongs to a user of Governor's own, who owns nothing else.
Where the home is root's, Governor is root by name alone: in a user namespace, without capabilities, and with a file
system of which it can write the home and nothing else.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from addons import service_user
from addons.client_trust.readable_files import folder_at
from addons.home import Home
from addons.pins import folder as pins_folder
from addons.sandbox.run_folder import locked

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_CAPABILITIES = 64


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns the home, and what Governor becomes."""

    user: int
    group: int


def owner_of(home: Path, folder: Path) -> Owner:
    """The owner of a home that is there, or made here for whom it belongs to from then on. `StartRefused`.

    `folder` is the run's.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    # A home that another run has just made is root's until it is handed over. Not the lock of the folder above the
    # home: whoever may read that could hold it, and no run would begin.
    with locked(folder.parent):
        if not home.exists() or not os.listdir(home):
            owner = Owner(*service_user.chosen())
            Home.open(home)
            _hand_over(home, owner)
            return owner
        status = home.stat()
        owner = Owner(status.st_uid, status.st_gid)
        if service_user.is_one(owner.user):
            # What root's verbs have made in it since.
            _hand_over(home, owner)
        return owner


def arguments(bwrap: str, owner: Owner, home: Path, needed: Sequence[Path]) -> list[str]:
    """What to put before Governor's own command line. `needed` is what it reads beside the home."""
    if owner.user == 0:
        return [
            bwrap, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--cap-drop", "ALL", "--ro-bind", "/", "/",
            "--dev", "/dev", "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys",
            "--bind", str(home), str(home), "--",
        ]  # fmt: skip
    return [bwrap, "--dev-bind", "/", "/", *_reachable(owner, home, needed), "--"]


def demote(user: int, group: int) -> None:
    """Become this user, for good: with no capability, no other group, and nothing to win by executing anything."""
    system = ctypes.CDLL(None, use_errno=True)
    for capability in range(_CAPABILITIES):
        system.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    # Another user has forgotten it, and whoever is to end this ends its parent.
    system.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if system.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no-new-privs was refused")


def needed_by(root: Path, folder: Path, policies: Sequence[Path]) -> tuple[Path, ...]:
    """What Governor reads from elsewhere than the home. `folder` is the run's: TMPDIR may be closed to others."""
    return tuple(path for path in (Path(sys.prefix), Path(sys.base_prefix), root, folder, *policies) if path.exists())


def pins_for(owner: Owner, folder: Path) -> Mapping[str, str]:
    """The variables by which the owner finds root's pins, which are copied into the folder, and a home: he may have no
    entry of his own among the users.
    """
    pins = folder
    for name in ("config", "governor", "pins"):
        pins = folder_at(pins / name)
    # Root has none where another HOME or XDG_CONFIG_HOME has them.
    for pin in pins_folder().iterdir() if pins_folder().is_dir() else ():
        copy = pins / pin.name
        copy.write_bytes(pin.read_bytes())
        os.chown(copy, owner.user, owner.group)
    return {"XDG_CONFIG_HOME": str(folder / "config"), "HOME": str(folder)}


def _hand_over(home: Path, owner: Owner) -> None:
    """Give what is root's in a home to its owner. He may be at work there: no link of his is followed, and a file with
    another name elsewhere may have been root's alone.
    """
    for _, folders, files, descriptor in os.fwalk(home):
        os.fchown(descriptor, owner.user, owner.group)
        for name in (*folders, *files):
            status = os.lstat(name, dir_fd=descriptor)
            if status.st_uid == 0 and (status.st_nlink == 1 or stat.S_ISDIR(status.st_mode)):
                os.chown(name, owner.user, owner.group, dir_fd=descriptor, follow_symlinks=False)


def _reachable(owner: Owner, home: Path, needed: Sequence[Path]) -> Iterator[str]:
    """Mounts by which the owner reaches these paths in folders that are closed to him, and there these alone."""
    paths = [*needed, home]
    closed = {above for path in paths if (above := _closed_above(path.resolve(), owner)) is not None}
    outermost = [folder for folder in closed if not any(other in folder.parents for other in closed)]
    for folder in outermost:
        yield from ("--tmpfs", str(folder))
    for path in sorted(map(Path.resolve, paths)):
        above = next((folder for folder in outermost if folder in path.parents), None)
        if above is not None:
            for folder in reversed(path.parents[: path.parents.index(above)]):
                yield from ("--perms", "0755", "--dir", str(folder))
            yield from ("--bind" if path == home.resolve() else "--ro-bind", str(path), str(path))


def _closed_above(path: Path, owner: Owner) -> Path | None:
    """The outermost folder above the path that the owner may not go through."""
    return next((folder for folder in reversed(path.parents) if not _passes(folder, owner)), None)


def _passes(folder: Path, owner: Owner) -> bool:
    status = folder.stat()
    if status.st_uid == owner.user:
        return bool(status.st_mode & stat.S_IXUSR)
    return bool(status.st_mode & (stat.S_IXGRP if status.st_gid == owner.group else stat.S_IXOTH))
