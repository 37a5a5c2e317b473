"""Where Governor stands: what each placement adds to the agents' pods, and which objects it brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from addons.kubernetes import proxy_pod
from addons.kubernetes.agent import CA_VOLUME, LABEL, patch
from addons.kubernetes.workload import GOVERNOR, METRICS_PORT, PROXY_PORT, Given, Placement, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator

CA_MAP = "governor-ca"
"""The ConfigMap with the gateway's certificate, made by a person once the gateway runs."""
# Of its own kind: a label that a chart gives an agent's pod must not let it out as if it were the gateway.
_OURS = {"governor/part": "gateway"}
_NAMESPACE = "kubernetes.io/metadata.name"
_LOG_SIZE = "20Gi"
# Credentials of the cloud lie there, and on some clusters the DNS of the node.
_LINK_LOCAL = {"0.0.0.0/0": "169.254.0.0/16", "::/0": "fe80::/10"}


def patches(given: Given, placement: Placement) -> dict[str, dict[str, Any]]:
    """The patch of each workload, by the name of its file."""
    pod = _beside_agent() if placement is Placement.SIDECAR else _far_from_agent()
    return {f"patch-{workload.kind.lower()}-{workload.name}.yaml": patch(workload, placement, pod)
            for workload in given.workloads}


def objects(given: Given, placement: Placement) -> list[dict[str, Any]]:
    """Governor's own objects, with the namespace of the agents."""
    match placement:
        case Placement.GATEWAY:
            found = [_gateway_service(), _gateway(), _budget(GOVERNOR, {"minAvailable": 1}, _OURS)]
        case Placement.SIDECAR:
            found = [made for workload in given.workloads for made in _beside(workload, given.has_budget)]
        case _:
            assert_never(placement)
    return [_in_namespace(made, given.namespace) for made in found]


def network_policies(given: Given, placement: Placement) -> list[dict[str, Any]]:
    """Who may send what to whom. Whatever a pod is not allowed here it cannot send."""
    if placement is Placement.GATEWAY:
        found = [_only_to_governor(workload) for workload in given.workloads] + [_of_governor()]
    else:
        found = [_of_shared_pod(workload) for workload in given.workloads]
    return [_in_namespace(made, given.namespace) for made in found]


def _beside_agent() -> dict[str, Any]:
    lasting = {"restartPolicy": "Always"}
    return {
        # A sidecar of Kubernetes' own kind: there before the agent's first container and until after its last, and a
        # Job ends in spite of it.
        "initContainers": [
            proxy_pod.making_home(), proxy_pod.handing_out_ca(), proxy_pod.serving("127.0.0.1") | lasting,
            proxy_pod.following_log() | lasting,
        ],
        "volumes": [
            {"name": proxy_pod.HOME_VOLUME, "emptyDir": {"sizeLimit": "4Gi"}},
            {"name": CA_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            *proxy_pod.volumes(),
        ],
    }


def _far_from_agent() -> dict[str, Any]:
    return {
        # No query leaves the pod, and a program that asks for a name is told so at once.
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "enableServiceLinks": True,
        "volumes": [{"name": CA_VOLUME, "configMap": {"name": CA_MAP}}],
    }


def _gateway() -> dict[str, Any]:
    """One process with a volume of its own: a home has one Governor, and its log outlives the pod."""
    spec = {
        "serviceName": GOVERNOR,
        "replicas": 1,
        "selector": {"matchLabels": _OURS},
        "template": {
            "metadata": {"labels": _OURS},
            "spec": {
                # Governor reads no credentials of the cluster, and no variables that a Service happens to be named for.
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": proxy_pod.pod_security(),
                "initContainers": [proxy_pod.making_home()],
                "containers": [proxy_pod.serving(None)],
                "volumes": proxy_pod.volumes(),
            },
        },
        "volumeClaimTemplates": [{
            "metadata": {"name": proxy_pod.HOME_VOLUME},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": _LOG_SIZE}}},
        }],
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": GOVERNOR}, "spec": spec}


def _gateway_service() -> dict[str, Any]:
    ports = [{"name": "proxy", "port": PROXY_PORT}, {"name": "metrics", "port": METRICS_PORT}]
    return _service(GOVERNOR, {"selector": _OURS, "ports": ports})


def _beside(workload: Workload, has_budget: bool) -> Iterator[dict[str, Any]]:
    label = {LABEL: workload.name}
    # Headless: whoever scrapes wants each pod.
    ports = [{"name": "metrics", "port": METRICS_PORT}]
    yield _service(f"{workload.name}-{GOVERNOR}", {"clusterIP": "None", "selector": label, "ports": ports})
    if not has_budget and workload.kind in ("Deployment", "StatefulSet", "ReplicaSet"):
        yield _budget(f"{workload.name}-{GOVERNOR}", {"maxUnavailable": 1}, label)


def _service(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def _budget(name: str, bound: dict[str, int], labels: dict[str, str]) -> dict[str, Any]:
    spec = bound | {"selector": {"matchLabels": labels}}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec}


def _only_to_governor(workload: Workload) -> dict[str, Any]:
    egress = [{"to": [{"podSelector": {"matchLabels": _OURS}}], "ports": [_port(PROXY_PORT)]}]
    return _policy(f"{workload.name}-only-to-{GOVERNOR}", {LABEL: workload.name}, {"egress": egress})


def _of_governor() -> dict[str, Any]:
    ingress = [
        {"from": [{"podSelector": {"matchExpressions": [{"key": LABEL, "operator": "Exists"}]}}],
         "ports": [_port(PROXY_PORT)]},
        {"from": [{"namespaceSelector": {"matchLabels": {_NAMESPACE: "monitoring"}}}], "ports": [_port(METRICS_PORT)]},
    ]
    return _policy(GOVERNOR, _OURS, {"ingress": ingress, "egress": _to_the_world()})


def _of_shared_pod(workload: Workload) -> dict[str, Any]:
    return _policy(f"{workload.name}-{GOVERNOR}", {LABEL: workload.name}, {"egress": _to_the_world()})


def _to_the_world() -> list[dict[str, Any]]:
    """The web and the cluster's DNS. What of it an agent gets to see is the policy's to say."""
    blocks = [{"ipBlock": {"cidr": cidr, "except": [left_out]}} for cidr, left_out in _LINK_LOCAL.items()]
    dns = {"namespaceSelector": {"matchLabels": {_NAMESPACE: "kube-system"}},
           "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    return [
        {"to": blocks, "ports": [_port(80), _port(443)]},
        {"to": [dns], "ports": [_port(53, "UDP"), _port(53)]},
    ]


def _policy(name: str, labels: dict[str, str], rules: dict[str, Any]) -> dict[str, Any]:
    types = [{"ingress": "Ingress", "egress": "Egress"}[direction] for direction in rules]
    spec = {"podSelector": {"matchLabels": labels}, "policyTypes": types, **rules}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def _port(number: int, protocol: str = "TCP") -> dict[str, Any]:
    return {"protocol": protocol, "port": number}


def _in_namespace(made: dict[str, Any], namespace: str | None) -> dict[str, Any]:
    return made if namespace is None else made | {"metadata": made["metadata"] | {"namespace": namespace}}
