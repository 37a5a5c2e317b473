"""The two sides of a comparison: a policy file, a folder whose policies are the tiers, or either at a git revision.

A revision is read from git's store with `REV:PATH`, as git itself writes it. The work tree is not looked at.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from addons.errors import GovernorError
from addons.policy_files import is_policy, read, read_policy
from kernel.policy import Policy

_SECONDS = 60


class SideMissing(GovernorError):
    """A side that is not there, or has no policy in it."""


@dataclass(frozen=True, slots=True)
class Side:
    """A side as it was named, and the bytes of its files by their names."""

    name: str
    sources: tuple[tuple[str, bytes], ...]

    def policy(self) -> Policy:
        """The policy. Raises `PolicyError` where it does not load."""
        return read_policy(self.sources).policy


def side(text: str) -> Side:
    """The side that is meant: a path where there is one, else a revision. Raises `SideMissing` or `PolicyMissing`."""
    path = Path(text)
    if path.exists():
        files = sorted(file for file in path.iterdir() if is_policy(file.name)) if path.is_dir() else [path]
        return _with_policies(text, [(str(file), read(file)) for file in files])
    revision, colon, inside = text.partition(":")
    if not colon:
        raise SideMissing(f"{text}: there is no such file or folder; a revision is written REV:PATH")
    if not revision:
        raise SideMissing(f"{text}: a revision is written REV:PATH")
    return _with_policies(text, _at_revision(revision, inside))


def _with_policies(name: str, sources: list[tuple[str, bytes]]) -> Side:
    if not sources:
        raise SideMissing(f"{name}: there is no policy in this folder")
    return Side(name, tuple(sources))


def _at_revision(revision: str, path: str) -> list[tuple[str, bytes]]:
    shown = f"{revision}:{path}"
    commit = _git(shown, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").strip()
    found = f"{commit.decode()}:{path}"
    if _git(shown, "cat-file", "-t", found).strip() != b"tree":
        return [(shown, _git(shown, "cat-file", "blob", found))]
    names = os.fsdecode(_git(shown, "ls-tree", "-z", "--name-only", found)).split("\0")
    folder = path if not path or path.endswith("/") else f"{path}/"
    return [(f"{revision}:{folder}{name}", _git(shown, "cat-file", "blob", f"{commit.decode()}:{folder}{name}"))
            for name in sorted(names) if is_policy(name)]


def _git(asked: str, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False, timeout=_SECONDS)
    except OSError:
        raise SideMissing(f"{asked}: there is no such file, and no git here to ask for a revision") from None
    except subprocess.TimeoutExpired:
        raise SideMissing(f"{asked}: git did not answer within {_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise SideMissing(f"{asked}: git does not know it{f' ({said[-1]})' if said else ''}")
    return done.stdout
