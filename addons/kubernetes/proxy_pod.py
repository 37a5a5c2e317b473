"""Governor's own containers: the same in a pod of its own and beside an agent."""

from __future__ import annotations

from typing import Any

from addons.authority import CERTIFICATE_FILE
from addons.kubernetes.agent import CA_FILE, CA_FOLDER, CA_VOLUME
from addons.kubernetes.workload import GOVERNOR, METRICS_PORT, PROXY_PORT

IMAGE = "governor-proxy"
"""What kustomization.yaml puts the real image in place of."""
POLICY = "governor-policy"
ROOT_KEY = "governor-root-key"
"""The Secret with the root key, made by a person: `root.key` in it is PKCS#8 PEM."""
HOME_VOLUME = "governor-home"
UID = 10001

_STATE = "/var/lib/governor"
HOME = f"{_STATE}/home"
CERTIFICATE = f"{HOME}/ca/{CERTIFICATE_FILE}"
"""The one file of the CA that others may have."""
_POLICY_FOLDER, _ROOT_FOLDER = "/etc/governor", "/run/root-key"
_TEMPORARY = "governor-tmp"
# Read by Python alone, since an image needs neither a shell nor cp.
_HAND_OUT = f"import shutil; shutil.copyfile('{CERTIFICATE}', '{CA_FILE}')"


def volumes() -> list[dict[str, Any]]:
    """Those that do not depend on where Governor stands."""
    return [
        {"name": POLICY, "configMap": {"name": POLICY}},
        # Each file of a Secret is a symbolic link, and root's: it is read once, and never becomes part of the home.
        {"name": ROOT_KEY, "secret": {"secretName": ROOT_KEY, "defaultMode": 0o444}},
        {"name": _TEMPORARY, "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
    ]


def making_home() -> dict[str, Any]:
    """Makes the home at the first start, and at a later one only sees that it is whole.

    With --lanes the root key signs the keys of the lanes and is not copied: no pod that serves ever has it.
    """
    command = ["governor", "init", "--root-key", f"{_ROOT_FOLDER}/root.key", "--lanes", "1"]
    return _container(f"{GOVERNOR}-init", command, (ROOT_KEY, _ROOT_FOLDER))


def handing_out_ca() -> dict[str, Any]:
    """Gives the agent the certificate, and nothing else of the folder that holds its key."""
    return _container(f"{GOVERNOR}-ca", ["python3", "-c", _HAND_OUT], (CA_VOLUME, CA_FOLDER, False))


def following_log() -> dict[str, Any]:
    """Writes the log to its output as it grows, since a home beside an agent goes with its pod."""
    return _container(f"{GOVERNOR}-log", ["governor", "audit", "export", "--follow"])


def serving(listen_host: str | None) -> dict[str, Any]:
    """The proxy. Without a host it listens on every address of its pod."""
    host = () if listen_host is None else ("--listen-host", listen_host)
    command = ["governor", "serve", *host, "--listen-port", str(PROXY_PORT),
               "--set", f"governor_policy={_POLICY_FOLDER}/policy.yaml",
               "--set", f"governor_metrics=0.0.0.0:{METRICS_PORT}"]
    return _container(GOVERNOR, command, (POLICY, _POLICY_FOLDER)) | {
        "ports": [{"name": "proxy", "containerPort": PROXY_PORT}, {"name": "metrics", "containerPort": METRICS_PORT}],
        # A start reads the log again: five seconds for a million entries, more on a slow disk.
        "startupProbe": _probe("/readyz", 2, 90),
        "readinessProbe": _probe("/readyz", 5, 2),
        "livenessProbe": _probe("/healthz", 10, 3),
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
    }


def pod_security() -> dict[str, Any]:
    """Of a pod that is Governor's alone."""
    # Only where the volume is new: later on it would open the keys to the group, and Governor refuses keys that are.
    return {"runAsNonRoot": True, "fsGroup": UID, "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"}}


def _container(name: str, command: list[str], *mounts: tuple[str, str] | tuple[str, str, bool]) -> dict[str, Any]:
    return {
        "name": name,
        "image": IMAGE,
        "command": command,
        # Pins lie beside the home and not in it. HOME is what else a program might want to write to.
        "env": [{"name": "GOVERNOR_HOME", "value": HOME}, {"name": "XDG_CONFIG_HOME", "value": f"{_STATE}/config"},
                {"name": "HOME", "value": "/tmp"}],  # noqa: S108
        "volumeMounts": [
            {"name": HOME_VOLUME, "mountPath": _STATE}, {"name": _TEMPORARY, "mountPath": "/tmp"},  # noqa: S108
            *({"name": mount[0], "mountPath": mount[1], "readOnly": mount[2:] != (False,)} for mount in mounts),
        ],
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    }


def _probe(path: str, every_seconds: int, failures: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": METRICS_PORT}, "periodSeconds": every_seconds,
            "timeoutSeconds": 2, "failureThreshold": failures}
