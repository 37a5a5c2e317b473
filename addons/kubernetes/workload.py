"""The workloads in a user's manifest, as far as they have to be known to be governed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from addons.errors import GovernorError
from addons.yaml_nodes import LARGEST_BYTES, Manifest, NotYaml, manifests
from kernel.identity import valid_id

if TYPE_CHECKING:
    from pathlib import Path

PROXY_PORT = 15080
METRICS_PORT = 9464
GOVERNOR = "governor"
"""What every container, volume and object of ours begins with."""

API = {
    "Pod": "v1", "Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "ReplicaSet": "apps/v1",
    "Job": "batch/v1", "CronJob": "batch/v1",
}
# Where the pod stands in each kind.
_POD_AT: dict[str, tuple[str, ...]] = {"Pod": (), "CronJob": ("spec", "jobTemplate", "spec", "template")}
_TEMPLATE = ("spec", "template")
# What a name becomes part of has at most 63 letters.
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,42}[a-z0-9])?")
_PROXY_NAMES = re.compile(r"(?:https?|all|no)_proxy", re.IGNORECASE)


class ManifestError(GovernorError):
    """A manifest cannot be governed as it stands: where, what, and what to do."""

    def __init__(self, where: str, problem: str, hint: str) -> None:
        self.where, self.problem, self.hint = where, problem, hint
        super().__init__(f"{where}: {problem} ({hint})")


class Placement(StrEnum):
    """Where Governor stands."""

    GATEWAY = "gateway"
    """In pods of its own, and the agents' pods reach nothing else."""
    SIDECAR = "sidecar"
    """In the agent's own pod, whose network the agent shares: advice, not enforcement."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of the agent's."""

    name: str
    variables: frozenset[str]
    referring: frozenset[str]
    """Those of its variables whose values come from elsewhere (`valueFrom`)."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Something with a pod in it, under the name by which the policy and the log know its agent."""

    kind: str
    name: str
    namespace: str | None
    containers: tuple[Container, ...]
    preparing: tuple[Container, ...]
    """Its init containers."""
    dangers: tuple[str, ...]
    """What of it gets round Governor, for people."""

    @property
    def api(self) -> str:
        return API[self.kind]

    @property
    def pod_at(self) -> tuple[str, ...]:
        """The keys that lead to its pod."""
        return _POD_AT.get(self.kind, _TEMPLATE)


@dataclass(frozen=True, slots=True)
class Given:
    """A file of manifests."""

    content: bytes
    workloads: tuple[Workload, ...]
    has_budget: bool
    """Whether it has a PodDisruptionBudget of its own: two for one pod are an error when the pod is to move."""
    warnings: tuple[str, ...]

    @property
    def namespace(self) -> str | None:
        """That of all its workloads."""
        return self.workloads[0].namespace


def read(path: Path, placement: Placement) -> Given:
    """The file, with at least one workload, all of which can be governed; `ManifestError` where it is not so."""
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise ManifestError(str(path), str(fault.strerror), "name a file that holds a Deployment") from fault
    documents = _documents(str(path), content)
    found = [_workload(_Place(str(path), number, document), placement)
             for number, document in enumerate(documents, 1) if _kind(document.value) in API]
    if not found:
        raise ManifestError(str(path), f"holds none of {', '.join(API)}", "name the file that runs the agent")
    _check_together(str(path), found)
    kinds = [_kind(document.value) for document in documents]
    warnings = [danger for workload in found for danger in workload.dangers]
    if "NetworkPolicy" in kinds:
        warnings.append(f"{path} has a NetworkPolicy of its own: what any of them allows is allowed, so see that none "
                        "of them lets these pods out")
    return Given(content, tuple(found), "PodDisruptionBudget" in kinds, tuple(warnings))


def _documents(where: str, content: bytes) -> list[Manifest]:
    if len(content) > LARGEST_BYTES:
        raise ManifestError(where, f"has more than {LARGEST_BYTES} bytes", "name a file of manifests")
    try:
        documents = manifests(content.decode())
    except UnicodeDecodeError as fault:
        raise ManifestError(where, "is not UTF-8", "save it as UTF-8") from fault
    except NotYaml as refused:
        hint = "of a chart, give what helm template prints" if b"{{" in content else "see that kubectl reads it"
        raise ManifestError(f"{where}:{refused.line}", f"not YAML: {refused.problem}", hint) from refused
    for number, document in enumerate(documents, 1):
        if not isinstance(document.value, dict):
            raise ManifestError(f"{where}: document {number}, line {document.line}", "is no object",
                                "write apiVersion, kind, metadata and spec")
        if _kind(document.value).endswith("List"):
            raise ManifestError(f"{where}: document {number}, line {document.line}", "is a list",
                                "write each of its items as a document, with --- between them")
    return documents


def _kind(document: dict[str, Any]) -> str:
    return str(document.get("kind"))


class _Place:
    """A document, and how a refusal names it."""

    def __init__(self, file: str, number: int, document: Manifest) -> None:
        self.value: dict[str, Any] = document.value
        self.kind = _kind(self.value)
        metadata = self.value.get("metadata")
        self.metadata: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
        self.name = str(self.metadata.get("name") or "")
        told = " ".join(filter(None, (self.kind, self.name)))
        self._where = f"{file}: document {number}, line {document.line} ({told})"

    def refused(self, problem: str, hint: str) -> ManifestError:
        return ManifestError(self._where, problem, hint)

    def warned(self, problem: str) -> str:
        return f"{self._where}: {problem}"


def _workload(place: _Place, placement: Placement) -> Workload:
    _check_names(place)
    pod = _pod(place)
    _check_labels(place, pod)
    spec = _pod_spec(place, pod)
    containers = tuple(_containers(place, spec, "containers"))
    if not containers:
        raise place.refused("has no containers", "give its pod a container")
    workload = Workload(place.kind, place.name, place.metadata.get("namespace"), containers,
                        tuple(_containers(place, spec, "initContainers")), tuple(_dangers(place, spec)))
    _check_governable(place, spec, placement)
    return workload


def _check_names(place: _Place) -> None:
    api = place.value.get("apiVersion")
    if api != API[place.kind]:
        raise place.refused(f"apiVersion {api} is not known for it", f"write apiVersion: {API[place.kind]}")
    if not place.name:
        raise place.refused("has no metadata.name", "give it one: patches find it by its name")
    if not _NAME.fullmatch(place.name):
        raise place.refused("the name cannot become part of the names of a Service and a NetworkPolicy",
                            "take at most 44 lowercase letters, digits and hyphens, a letter first")
    if not isinstance(place.metadata.get("namespace"), str | None):
        raise place.refused("metadata.namespace is no text", "write its name, in quotes where it is a number")
    if not valid_id(place.name):
        raise place.refused(f"{place.name} is a name that Governor keeps for itself", "give it another name")


def _pod(place: _Place) -> dict[str, Any]:
    at: Any = place.value
    for key in _POD_AT.get(place.kind, _TEMPLATE):
        at = at.get(key) if isinstance(at, dict) else None
    return at if isinstance(at, dict) else {}


def _check_labels(place: _Place, pod: dict[str, Any]) -> None:
    """No label of ours: one makes the agent's pod the gateway's to the network policies, which let that out."""
    metadata = pod.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    for label in labels if isinstance(labels, dict) else ():
        if str(label).startswith(f"{GOVERNOR}/"):
            raise place.refused(f"has a label {label}", "take it out of its pod: Governor's own begin so")


def _pod_spec(place: _Place, pod: dict[str, Any]) -> dict[str, Any]:
    spec = pod.get("spec")
    if not isinstance(spec, dict):
        path = ".".join((*_POD_AT.get(place.kind, _TEMPLATE), "spec"))
        raise place.refused(f"has no {path}", "write the pod that it runs")
    return spec


def _containers(place: _Place, spec: dict[str, Any], key: str) -> Iterator[Container]:
    for container in _objects(spec.get(key)):
        name = container.get("name")
        if not isinstance(name, str) or not name:
            raise place.refused(f"one of its {key} has no name", "give it one")
        if name.startswith(GOVERNOR):
            raise place.refused(f"has a container {name}", "give the manifest as it is without Governor, or rename it")
        variables = _objects(container.get("env"))
        yield Container(name, frozenset(str(one.get("name")) for one in variables),
                        frozenset(str(one.get("name")) for one in variables if one.get("valueFrom")))


def _check_governable(place: _Place, spec: dict[str, Any], placement: Placement) -> None:
    if spec.get("hostNetwork"):
        raise place.refused("has hostNetwork: true, and no NetworkPolicy holds for the network of a node",
                            "take hostNetwork out")
    for volume in _objects(spec.get("volumes")):
        if str(volume.get("name")).startswith(GOVERNOR):
            raise place.refused(f"has a volume {volume['name']}", "rename it: Governor's own begin so")
    if placement is Placement.GATEWAY:
        return
    for key in ("shareProcessNamespace", "hostPID"):
        if spec.get(key):
            raise place.refused(f"has {key}: true, so that the agent sees Governor's processes and their files",
                                f"take {key} out, or use --placement gateway")
    for container in _all_containers(spec):
        for port in _objects(container.get("ports")):
            if port.get("containerPort") in (PROXY_PORT, METRICS_PORT):
                raise place.refused(f"container {container.get('name')} listens on {port['containerPort']}, which is "
                                    "Governor's in a pod that both share", "move it, or use --placement gateway")


def _dangers(place: _Place, spec: dict[str, Any]) -> Iterator[str]:
    """What of the pod makes its container's walls thin, so that its network is not its only way out."""
    for key in ("hostPID", "hostIPC"):
        if spec.get(key):
            yield place.warned(f"{key}: true shows the agent what else runs on its node")
    for volume in _objects(spec.get("volumes")):
        if volume.get("hostPath"):
            yield place.warned(f"volume {volume.get('name')} is a path of the node, sockets in it are ways out")
    for container in _all_containers(spec):
        context = container.get("securityContext")
        context = context if isinstance(context, dict) else {}
        name = container.get("name")
        if context.get("privileged"):
            yield place.warned(f"container {name} is privileged: it can leave its pod, and the network policy with it")
        capabilities = context.get("capabilities")
        added = capabilities.get("add") if isinstance(capabilities, dict) else None
        if added:
            yield place.warned(f"container {name} has capabilities more: {', '.join(map(str, added))}")
        replaced = sorted(str(one.get("name")) for one in _objects(container.get("env"))
                          if _PROXY_NAMES.fullmatch(str(one.get("name"))))
        if replaced:
            yield place.warned(f"container {name} sets {', '.join(replaced)}: Governor's values take their place")


def _all_containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return _objects(spec.get("containers")) + _objects(spec.get("initContainers"))


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _check_together(where: str, workloads: list[Workload]) -> None:
    namespaces = sorted({workload.namespace or "(none)" for workload in workloads})
    if len(namespaces) > 1:
        raise ManifestError(where, f"its workloads are in several namespaces: {', '.join(namespaces)}",
                            "a NetworkPolicy holds in one: give a file for each namespace")
    names = [workload.name for workload in workloads]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ManifestError(where, f"several workloads have the name {', '.join(twice)}",
                            "an agent is known by it: rename one")
