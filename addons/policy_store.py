"""Which policy governs: found at a start, read again at a reload, kept beside the log it judged for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blake3 import blake3

from addons import durable, policy_files
from addons.errors import ReloadRefused, StartCode, StartRefused
from addons.governed import Governed, prepare
from addons.home import Paths
from addons.identity import Registry
from addons.policy_archive import unpacked
from kernel.errors import PolicyError


def first(asked: Sequence[Path], paths: Paths, registry: Registry, *, strict: bool = False) -> Governed:
    """The policy of a start: what was asked for, else the home's, else the shipped one. Raises `StartRefused`."""
    files = tuple(asked) or ((paths.policy,) if paths.policy.exists() else (policy_files.shipped_policy("default"),))
    try:
        return prepare(files, registry.tokens.ids, strict=strict)
    except PolicyError as error:
        raise StartRefused(StartCode.POLICY_INVALID, _first_line(error)) from error
    except policy_files.PolicyMissing as error:
        raise StartRefused(StartCode.POLICY_MISSING, str(error)) from error


def kept(digest: str, files: Sequence[Path], paths: Paths, registry: Registry, *, strict: bool = False) -> Governed:
    """The policy that was kept under this digest, by the names of its files. Raises `StartRefused`."""
    target = _copy(paths, digest)
    try:
        content = policy_files.read_file(target)
        if blake3(content).hexdigest() == digest:
            return prepare(files, registry.tokens.ids, strict=strict, contents=unpacked(content))
    except policy_files.PolicyMissing as error:
        raise StartRefused(StartCode.POLICY_MISSING, str(error)) from error
    except PolicyError as error:
        raise StartRefused(StartCode.POLICY_INVALID, _first_line(error)) from error
    raise StartRefused(StartCode.TAMPERED, f"{target} is not the policy that was kept there; restore it from a backup")


def again(governed: Governed, paths: Paths, registry: Registry) -> Governed:
    """The same files, read again and kept. Raises `PolicyError`, or `ReloadRefused` where that cannot be done."""
    try:
        changed = prepare(governed.files, registry.tokens.ids, strict=governed.strict)
        keep(changed, paths)
    except policy_files.PolicyMissing as error:
        text = f"{error}; put it back, or restart Governor with other files"
        raise ReloadRefused(f"{StartCode.POLICY_MISSING}: {text}") from error
    except StartRefused as error:
        raise ReloadRefused(f"{error.code}: {error.text}") from error
    return changed


def keep(governed: Governed, paths: Paths) -> None:
    """Put a copy of the policy where an auditor finds it by its digest. Raises `StartRefused` where that fails."""
    target = _copy(paths, governed.policy.digest)
    if target.exists():
        return
    try:
        contents = [policy_files.read_file(file) for file in governed.files]
        if governed.client_authority is not None:
            contents.append(governed.client_authority.pem)
        content = policy_files.kept(contents, governed.policy)
        if blake3(content).hexdigest() != governed.policy.digest:
            text = f"{', '.join(map(str, governed.files))}: it changed while it was read; try again"
            raise StartRefused(StartCode.POLICY_INVALID, text)
        durable.replace(target, content)
    except policy_files.PolicyMissing as error:
        raise StartRefused(StartCode.POLICY_MISSING, str(error)) from error
    except OSError as error:
        text = f"{target}: {error.strerror}; the log must be writable"
        raise StartRefused(StartCode.HOME_UNWRITABLE, text) from error


def _copy(paths: Paths, digest: str) -> Path:
    return paths.policies / f"{digest}.yaml"


def _first_line(error: PolicyError) -> str:
    more = len(error.findings) - 1
    rest = f" (and {more} more: governor policy check)" if more > 0 else ""
    return f"{error.findings[0]}{rest}"
