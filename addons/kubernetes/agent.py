"""What an agent's pod gets: the way to Governor, and the CA to trust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from addons.client_trust.laid import REPLACING
from addons.client_trust.own_settings import ADDED_TO
from addons.kubernetes.workload import GOVERNOR, PROXY_PORT, Container, Placement, Workload

if TYPE_CHECKING:
    from collections.abc import Mapping

LABEL = "governor/agent"
"""By it the network policies find an agent's pods."""
CA_VOLUME = "governor-ca"
CA_FOLDER = "/run/governor"
CA_FILE = f"{CA_FOLDER}/ca.pem"
TOKEN_KEY = "token"  # noqa: S105

# Everything that leaves the pod comes by way of Governor, under its CA: no other has to be trusted.
_TRUSTING = (*REPLACING, *ADDED_TO)
# Containers of one pod talk over its loopback.
_DIRECT = "localhost,127.0.0.1,::1"


def token_secret(workload: Workload) -> str:
    """The Secret that holds the agent's token."""
    return f"{GOVERNOR}-agent-{workload.name}"


def patch(workload: Workload, placement: Placement, pod: Mapping[str, Any]) -> dict[str, Any]:
    """The strategic merge patch of a workload. `pod` is what else its pod gets."""
    spec = {key: value for key, value in pod.items() if key != "initContainers"}
    spec["containers"] = [_container(workload, placement, container) for container in workload.containers]
    preparing = [_container(workload, placement, container) for container in workload.preparing]
    if first := [*pod.get("initContainers", ()), *preparing]:
        spec["initContainers"] = first
    inside: dict[str, Any] = {"metadata": {"labels": {LABEL: workload.name}}, "spec": spec}
    if workload.pod_at:
        for key in reversed(workload.pod_at):
            inside = {key: inside}
        labels = {}
    else:
        labels = inside.pop("metadata")
    place = {"namespace": workload.namespace} if workload.namespace else {}
    metadata = {"name": workload.name, **place, **labels}
    return {"apiVersion": workload.api, "kind": workload.kind, "metadata": metadata, **inside}


def _container(workload: Workload, placement: Placement, container: Container) -> dict[str, Any]:
    return {
        "name": container.name,
        "env": [_over(variable, container) for variable in _variables(workload, placement)],
        "volumeMounts": [{"name": CA_VOLUME, "mountPath": CA_FOLDER, "readOnly": True}],
    }


def _over(variable: dict[str, Any], container: Container) -> dict[str, Any]:
    """A merge keeps what the container says beside the value: a variable has a value or a reference, never both."""
    other = "value" if "valueFrom" in variable else "valueFrom"
    named = container.referring if other == "valueFrom" else container.variables - container.referring
    return variable | {other: None} if variable["name"] in named else variable


def _variables(workload: Workload, placement: Placement) -> list[dict[str, Any]]:
    """In an order in which each stands behind those that its value names."""
    found: list[dict[str, Any]] = []
    proxy = f"http://127.0.0.1:{PROXY_PORT}"
    if placement is Placement.GATEWAY:
        secret = {"secretKeyRef": {"name": token_secret(workload), "key": TOKEN_KEY}}
        found = [{"name": "GOVERNOR_AGENT", "value": workload.name}, {"name": "GOVERNOR_TOKEN", "valueFrom": secret}]
        # The Service's address, which the cluster puts into the environment: the pod has no DNS that it could ask.
        proxy = f"http://$(GOVERNOR_AGENT):$(GOVERNOR_TOKEN)@$(GOVERNOR_SERVICE_HOST):{PROXY_PORT}"
    leading = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
    return [
        {"name": "GOVERNOR", "value": "1"}, *found,
        *({"name": name, "value": proxy} for name in leading),
        *({"name": name, "value": _DIRECT} for name in ("NO_PROXY", "no_proxy")),
        *({"name": name, "value": CA_FILE} for name in _TRUSTING),
    ]
