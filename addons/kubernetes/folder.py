"""The folder that is emitted: its files, and what becomes of those that are there already."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from addons import policy_files
from addons.kubernetes import placing, proxy_pod
from addons.kubernetes.workload import Given, ManifestError, Placement
from addons.yaml_nodes import written
from kernel.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

POLICY_FILE = "policy.yaml"
_WORKLOAD, _OBJECTS, _NETWORK, _KUSTOMIZATION = "workload.yaml", "governor.yaml", "network.yaml", "kustomization.yaml"
_MADE = "# Made by governor init --kubernetes; made again by it. "
_IMAGE = "registry.example.org/governor"


class Fate(StrEnum):
    """What became of a file."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"
    KEPT = "kept"
    """The policy is the operator's: it is written once."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """One file of the folder."""

    name: str
    fate: Fate


def files(given: Given, placement: Placement) -> dict[str, bytes]:
    """Every file by its name: the manifest as it was given, and what governs it."""
    patches = placing.patches(given, placement)
    purpose = {
        Placement.GATEWAY: "The agents' pods reach Governor and nothing else, DNS included.",
        Placement.SIDECAR: "ADVICE, NOT ENFORCEMENT: the agent shares its pod's network with Governor, and can send "
                           "past it to where network.yaml lets the pod.",
    }[placement]
    return {
        _WORKLOAD: given.content,
        **{name: _yaml("How the agent reaches Governor and trusts its CA.", patch) for name, patch in patches.items()},
        _OBJECTS: _yaml("Governor itself.", *placing.objects(given, placement)),
        _NETWORK: _yaml(purpose, *placing.network_policies(given, placement)),
        POLICY_FILE: _policy(placement),
        _KUSTOMIZATION: _yaml(f"{purpose} The image's place is below.", _kustomization(given, patches)),
    }


def emit(folder: Path, content: dict[str, bytes], *, overwrite: bool) -> list[Emitted]:
    """Write the files; `ManifestError`, and nothing written, where others of their names are there that differ."""
    try:
        there = {name: (folder / name).read_bytes() for name in content if (folder / name).exists()}
        differing = sorted(name for name, found in there.items() if found != content[name] and name != POLICY_FILE)
        if differing and not overwrite:
            raise ManifestError(str(folder), f"would write over {', '.join(differing)}",
                                "name another --output, or say --overwrite")
        fates = {name: _fate(name, there.get(name), made) for name, made in content.items()}
        folder.mkdir(parents=True, exist_ok=True)
        for name, fate in fates.items():
            if fate in (Fate.WRITTEN, Fate.REPLACED):
                (folder / name).write_bytes(content[name])
    except OSError as fault:
        raise ManifestError(str(fault.filename or folder), str(fault.strerror),
                            "name an --output that can be written") from fault
    return [Emitted(name, fate) for name, fate in fates.items()]


def _fate(name: str, found: bytes | None, made: bytes) -> Fate:
    if found is None:
        return Fate.WRITTEN
    if found == made:
        return Fate.UNCHANGED
    return Fate.KEPT if name == POLICY_FILE else Fate.REPLACED


def _policy(placement: Placement) -> bytes:
    """The shipped policy; at a gateway, which many reach, with tokens from the first request on."""
    shipped = policy_files.shipped_policy("default").read_text()
    if placement is Placement.GATEWAY:
        shipped = shipped.replace("version: 1\n", "version: 1\n\nidentity:\n  proxy-auth: yes\n", 1)
    return shipped.encode()


def _kustomization(given: Given, patches: Iterable[str]) -> dict[str, Any]:
    place = {"namespace": given.namespace} if given.namespace else {}
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [_WORKLOAD, _OBJECTS, _NETWORK],
        "patches": [{"path": name} for name in patches],
        # Named for its content: pods start anew under a changed policy.
        "configMapGenerator": [{"name": proxy_pod.POLICY, **place, "files": [POLICY_FILE]}],
        "images": [{"name": proxy_pod.IMAGE, "newName": _IMAGE, "newTag": VERSION}],
    }


def _yaml(purpose: str, *documents: dict[str, Any]) -> bytes:
    return (f"{_MADE}{purpose}\n" + "---\n".join(written(document) for document in documents)).encode()
