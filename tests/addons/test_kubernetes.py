"""`governor init --kubernetes`: a manifest in, a folder out that a cluster takes and that leaves an agent one way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator, ValidationError

from addons import policy_files
from addons.cli import run
from addons.verbs.home import init
from addons.yaml_nodes import manifests

SCHEMAS = json.loads((Path(__file__).parent / "kubernetes-1.34.json").read_text())
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

CODER = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: coder, namespace: agents}
spec:
  replicas: 2
  selector: {matchLabels: {app: coder}}
  template:
    metadata: {labels: {app: coder}}
    spec:
      initContainers:
        - {name: clone, image: "registry.example.org/git:1"}
      containers:
        - name: main
          image: registry.example.org/agent:1
          env: [{name: MODE, value: "on"}]
"""
NIGHTLY = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: agents}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: main, image: "registry.example.org/agent:1"}]
"""
ALONE = """\
apiVersion: v1
kind: Pod
metadata: {name: alone}
spec:
  containers: [{name: main, image: "registry.example.org/agent:1"}]
"""
OF_EACH_KIND = {"a Deployment": CODER, "a CronJob": NIGHTLY, "a Pod": ALONE, "two": f"{CODER}---\n{NIGHTLY}",
                "a StatefulSet": CODER.replace("kind: Deployment", "kind: StatefulSet").replace(
                    "  replicas: 2\n", "  replicas: 2\n  serviceName: coder\n")}


def in_pod(line: str) -> str:
    """The Deployment with one line more in its pod."""
    return CODER.replace("    spec:\n", f"    spec:\n      {line}\n")


def in_container(line: str) -> str:
    """The Deployment with one line more in its container."""
    return CODER.replace("name: main\n", f"name: main\n          {line}\n")


def named(name: str) -> str:
    return CODER.replace("name: coder,", f"name: {name},")


def called(folder: Path, manifest: str, *options: str) -> tuple[int, str, str]:
    """Status, output and errors of the verb on this manifest, with the folder `out` to write."""
    file = folder / "deployment.yaml"
    file.write_text(manifest)
    result = CliRunner().invoke(init, ["--kubernetes", str(file), "--output", str(folder / "out"), *options])
    problem = result.exception if isinstance(result.exception, Exception) else None
    return result.exit_code, result.stdout, str(problem or result.stderr)


def emitted(folder: Path, manifest: str, placement: str, *options: str) -> dict[str, Any]:
    status, output, errors = called(folder, manifest, "--placement", placement, "--json", *options)
    assert status == 0, errors
    return json.loads(output)


def loaded(text: str) -> list[dict[str, Any]]:
    """Every document, by the parser that the product takes: the one in Python needs seconds for these."""
    return [document.value for document in manifests(text)]


def documents(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [document for name in names for document in loaded((folder / "out" / name).read_text())]


def built(folder: Path) -> list[dict[str, Any]]:
    """What kustomize makes of the folder."""
    made = subprocess.run(["kubectl", "kustomize", str(folder / "out")], capture_output=True, text=True, check=False,
                          env=os.environ | {"KUBECONFIG": os.devnull})
    assert made.returncode == 0, made.stderr
    return loaded(made.stdout)


def one(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    [match] = [made for made in found if made["kind"] == kind and made["metadata"]["name"] == name]
    return match


def check_schema(made: dict[str, Any]) -> None:
    # jsonschema.validate would check all of the schemas at each object.
    schema = {"$ref": f"#/$defs/{SCHEMAS['kinds'][made['kind']]}", "$defs": SCHEMAS["$defs"]}
    Draft202012Validator(schema).validate(made)


def test_the_schemas_refuse_what_is_not_declared():
    Draft202012Validator.check_schema(SCHEMAS)
    with pytest.raises(ValidationError, match="prots"):
        check_schema({"apiVersion": "v1", "kind": "Service", "spec": {"prots": []}})


@pytest.mark.parametrize("placement", ["gateway", "sidecar"])
@pytest.mark.parametrize("manifest", [pytest.param(text, id=name) for name, text in OF_EACH_KIND.items()])
def test_every_object_is_one_that_kubernetes_declares(tmp_path, manifest, placement):
    emitted(tmp_path, manifest, placement)

    for made in documents(tmp_path, "governor.yaml", "network.yaml"):
        check_schema(made)


@needs_kubectl
@pytest.mark.parametrize("placement", ["gateway", "sidecar"])
@pytest.mark.parametrize("manifest", [pytest.param(text, id=name) for name, text in OF_EACH_KIND.items()])
def test_kustomize_builds_it_into_objects_that_kubernetes_declares(tmp_path, manifest, placement):
    emitted(tmp_path, manifest, placement)

    found = built(tmp_path)
    for made in found:
        check_schema(made)
    given = [document["kind"] for document in loaded(manifest)]
    assert set(given) <= {made["kind"] for made in found}


@needs_kubectl
def test_images_and_policy_are_put_in_where_kustomization_says(tmp_path):
    emitted(tmp_path, CODER, "gateway")

    found = built(tmp_path)
    gateway = one(found, "StatefulSet", "governor")["spec"]["template"]["spec"]
    [policy] = [made for made in found if made["kind"] == "ConfigMap"]
    [volume] = [volume for volume in gateway["volumes"] if "configMap" in volume]
    assert {part["image"].partition(":")[0] for part in (*gateway["containers"], *gateway["initContainers"])} == {
        "registry.example.org/governor"}
    assert volume["configMap"]["name"] == policy["metadata"]["name"]
    assert policy["metadata"]["namespace"] == "agents"


def test_a_gateway_leaves_the_agents_pods_no_other_way_out(tmp_path):
    emitted(tmp_path, f"{CODER}---\n{NIGHTLY}", "gateway")

    policies = documents(tmp_path, "network.yaml")
    gateway = one(documents(tmp_path, "governor.yaml"), "StatefulSet", "governor")
    ours = gateway["spec"]["template"]["metadata"]["labels"]
    for name in ("coder", "nightly"):
        spec = one(policies, "NetworkPolicy", f"{name}-only-to-governor")["spec"]
        assert spec["podSelector"] == {"matchLabels": {"governor/agent": name}}
        assert spec["policyTypes"] == ["Egress"]
        assert spec["egress"] == [{"to": [{"podSelector": {"matchLabels": ours}}],
                                   "ports": [{"protocol": "TCP", "port": 15080}]}]
    [patch] = documents(tmp_path, "patch-deployment-coder.yaml")
    assert patch["spec"]["template"]["metadata"]["labels"] == {"governor/agent": "coder"}
    assert patch["spec"]["template"]["spec"]["dnsPolicy"] == "None"


def test_the_gateway_takes_agents_alone_and_leads_to_no_link_local_address(tmp_path):
    emitted(tmp_path, CODER, "gateway")

    spec = one(documents(tmp_path, "network.yaml"), "NetworkPolicy", "governor")["spec"]
    [proxied] = [rule for rule in spec["ingress"] if {"protocol": "TCP", "port": 15080} in rule["ports"]]
    blocks = [peer["ipBlock"] for rule in spec["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert proxied["from"] == [{"podSelector": {"matchExpressions": [{"key": "governor/agent", "operator": "Exists"}]}}]
    assert blocks == [{"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}, {"cidr": "::/0", "except": ["fe80::/10"]}]


def test_an_agent_says_who_it_is_and_finds_the_gateway_without_dns(tmp_path):
    emitted(tmp_path, CODER, "gateway")

    [patch] = documents(tmp_path, "patch-deployment-coder.yaml")
    spec = patch["spec"]["template"]["spec"]
    for container in (*spec["containers"], *spec["initContainers"]):
        names = [variable["name"] for variable in container["env"]]
        proxy = container["env"][names.index("HTTPS_PROXY")]["value"]
        assert proxy == "http://$(GOVERNOR_AGENT):$(GOVERNOR_TOKEN)@$(GOVERNOR_SERVICE_HOST):15080"
        # A variable is put in where it stands further up.
        assert max(names.index("GOVERNOR_AGENT"), names.index("GOVERNOR_TOKEN")) < names.index("HTTPS_PROXY")
    assert spec["enableServiceLinks"] is True


@needs_kubectl
def test_the_order_of_variables_outlives_the_merge(tmp_path):
    emitted(tmp_path, CODER, "gateway")

    [main] = one(built(tmp_path), "Deployment", "coder")["spec"]["template"]["spec"]["containers"]
    names = [variable["name"] for variable in main["env"]]
    assert "MODE" in names
    assert max(names.index("GOVERNOR_AGENT"), names.index("GOVERNOR_TOKEN")) < names.index("HTTPS_PROXY")


@needs_kubectl
def test_a_sidecar_is_there_before_the_agents_first_container_and_ends_with_a_job(tmp_path):
    emitted(tmp_path, CODER, "sidecar")

    spec = one(built(tmp_path), "Deployment", "coder")["spec"]["template"]["spec"]
    order = [container["name"] for container in spec["initContainers"]]
    lasting = {container["name"] for container in spec["initContainers"] if container.get("restartPolicy") == "Always"}
    assert order == ["governor-init", "governor-ca", "governor", "governor-log", "clone"]
    assert lasting == {"governor", "governor-log"}


def test_a_sidecar_says_that_it_is_advice(tmp_path):
    _, output, _ = called(tmp_path, CODER, "--placement", "sidecar")
    told = emitted(tmp_path, CODER, "sidecar")

    assert "advice, not enforcement" in output
    assert told["enforced"] is False
    assert b"ADVICE, NOT ENFORCEMENT" in (tmp_path / "out" / "network.yaml").read_bytes()


@pytest.mark.parametrize("placement", ["gateway", "sidecar"])
def test_no_container_of_ours_is_root_can_become_it_or_write_to_its_image(tmp_path, placement):
    emitted(tmp_path, CODER, placement)

    found = documents(tmp_path, "governor.yaml", "patch-deployment-coder.yaml")
    pods = [made["spec"]["template"]["spec"] for made in found if "template" in made["spec"]]
    ours = [container for pod in pods for container in (*pod["containers"], *pod.get("initContainers", ()))
            if container["name"].startswith("governor")]
    assert ours
    for container in ours:
        context = container["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] != 0
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("placement", ["gateway", "sidecar"])
def test_only_the_container_that_makes_the_home_sees_the_root_key_and_no_agent_sees_the_home(tmp_path, placement):
    emitted(tmp_path, CODER, placement)

    found = documents(tmp_path, "governor.yaml", "patch-deployment-coder.yaml")
    pods = [made["spec"]["template"]["spec"] for made in found if "template" in made["spec"]]
    mounts = {(container["name"], mount["name"]) for pod in pods
              for container in (*pod["containers"], *pod.get("initContainers", ()))
              for mount in container["volumeMounts"]}
    assert {name for name, volume in mounts if volume == "governor-root-key"} == {"governor-init"}
    assert all(name.startswith("governor") for name, volume in mounts if volume == "governor-home")


@pytest.mark.parametrize("placement", ["gateway", "sidecar"])
def test_probes_ask_the_metrics_port(tmp_path, placement):
    emitted(tmp_path, CODER, placement)

    found = documents(tmp_path, "governor.yaml", "patch-deployment-coder.yaml")
    pods = [made["spec"]["template"]["spec"] for made in found if "template" in made["spec"]]
    [serving] = [container for pod in pods for container in (*pod["containers"], *pod.get("initContainers", ()))
                 if container["name"] == "governor"]
    asked = {probe: serving[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe: get["path"] for probe, get in asked.items()} == {
        "startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert {get["port"] for get in asked.values()} == {9464}
    assert "governor_metrics=0.0.0.0:9464" in serving["command"]


@needs_kubectl
@pytest.mark.parametrize("given", ["{name: HTTPS_PROXY, valueFrom: {secretKeyRef: {name: s, key: k}}}",
                                   "{name: HTTPS_PROXY, value: http://elsewhere.example.org}"])
def test_a_variable_of_the_agents_own_gives_way_and_is_told_of(tmp_path, given):
    told = emitted(tmp_path, CODER.replace('{name: MODE, value: "on"}', given), "sidecar")

    [main] = one(built(tmp_path), "Deployment", "coder")["spec"]["template"]["spec"]["containers"]
    assert [variable for variable in main["env"] if variable["name"] == "HTTPS_PROXY"] == [
        {"name": "HTTPS_PROXY", "value": "http://127.0.0.1:15080"}]
    assert "container main sets HTTPS_PROXY" in told["warnings"][0]


@needs_kubectl
def test_a_token_that_the_agent_names_itself_gives_way_to_the_secret(tmp_path):
    emitted(tmp_path, CODER.replace("name: MODE", "name: GOVERNOR_TOKEN"), "gateway")

    [main] = one(built(tmp_path), "Deployment", "coder")["spec"]["template"]["spec"]["containers"]
    assert [variable for variable in main["env"] if variable["name"] == "GOVERNOR_TOKEN"] == [
        {"name": "GOVERNOR_TOKEN", "valueFrom": {"secretKeyRef": {"name": "governor-agent-coder", "key": "token"}}}]


def test_a_budget_for_disruptions_that_is_there_gets_no_second_one(tmp_path):
    own = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: own, namespace: agents}\n"
    emitted(tmp_path, CODER, "sidecar")
    first = [made["kind"] for made in documents(tmp_path, "governor.yaml")]
    emitted(tmp_path, f"{CODER}---\n{own}", "sidecar", "--overwrite")

    assert "PodDisruptionBudget" in first
    assert "PodDisruptionBudget" not in [made["kind"] for made in documents(tmp_path, "governor.yaml")]


@pytest.mark.parametrize("placement", ["gateway", "sidecar"])
def test_the_policy_that_is_emitted_loads(tmp_path, placement):
    emitted(tmp_path, CODER, placement)

    assert run(["policy", "check", str(tmp_path / "out" / "policy.yaml")]) == 0
    shipped = policy_files.shipped_policy("default").read_text()
    found = (tmp_path / "out" / "policy.yaml").read_text()
    assert ("proxy-auth: yes" in found) is (placement == "gateway")
    assert found.endswith(shipped.partition("version: 1\n")[2])


def test_the_manifest_goes_in_byte_for_byte(tmp_path):
    emitted(tmp_path, f"# ours\n{CODER}", "gateway")

    assert (tmp_path / "out" / "workload.yaml").read_text() == f"# ours\n{CODER}"


def test_nothing_is_written_over_without_being_asked_for(tmp_path):
    emitted(tmp_path, CODER, "gateway")
    (tmp_path / "out" / "network.yaml").write_text("mine\n")
    (tmp_path / "out" / "policy.yaml").write_text("version: 1\n")

    status, _, errors = called(tmp_path, CODER, "--placement", "sidecar")
    assert status == 1
    assert "would write over governor.yaml, kustomization.yaml, network.yaml, patch-deployment-coder.yaml" in errors
    assert "--overwrite" in errors
    assert (tmp_path / "out" / "network.yaml").read_text() == "mine\n"

    told = emitted(tmp_path, CODER, "gateway", "--overwrite")
    assert {file["name"]: file["fate"] for file in told["files"]} == {
        "workload.yaml": "unchanged", "patch-deployment-coder.yaml": "unchanged", "governor.yaml": "unchanged",
        "network.yaml": "replaced", "policy.yaml": "kept", "kustomization.yaml": "unchanged"}
    assert (tmp_path / "out" / "policy.yaml").read_text() == "version: 1\n"


NO_POD = CODER.partition("    spec:\n")[0]
REFUSED = {
    "an old API": (CODER.replace("apps/v1", "extensions/v1beta1"), "line 1 (Deployment coder): apiVersion"),
    "the node's network": (in_pod("hostNetwork: true"), "take hostNetwork out"),
    "nothing that runs": ("apiVersion: v1\nkind: Service\nmetadata: {name: x}\n", "holds none of Pod, Deployment"),
    "an empty file": ("", "holds none of"),
    "no YAML": ("a: [\n", "deployment.yaml:2: not YAML"),
    "a chart": ("{{ .Values.x }}: 1\n{{- if }}", "helm template"),
    "a list of YAML": ("- a\n", "document 1, line 1: is no object"),
    "a List": ("apiVersion: v1\nkind: List\nitems: []\n", "write each of its items"),
    "a name that is none": (named("Coder"), "lowercase"),
    "a long name": (named("a" * 45), "at most 44"),
    "a reserved name": (named("local"), "keeps for itself"),
    "no name": (CODER.replace("name: coder,", ""), "has no metadata.name"),
    "governed already": (CODER.replace("name: main", "name: governor"), "as it is without Governor"),
    "a namespace that is no text": (CODER.replace("namespace: agents", "namespace: {a: 1}"), "namespace is no text"),
    "the gateway's label": (CODER.replace("labels: {app: coder}", "labels: {governor/part: gateway}"),
                            "has a label governor/part"),
    "deep nesting": ("a: " + "[" * 100_000, "more than 100 levels"),
    "a volume of our name": (in_pod("volumes: [{name: governor-home}]"), "has a volume governor-home"),
    "no pod": (NO_POD, "has no spec.template.spec"),
    "no containers": (NO_POD + "    spec: {}\n", "has no containers"),
    "two namespaces": (f"{CODER}---\n{ALONE}", "several namespaces: (none), agents"),
    "one name twice": (f"{CODER}---\n{NIGHTLY.replace('nightly', 'coder')}", "several workloads have the name coder"),
}


@pytest.mark.parametrize(("manifest", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_governed_is_refused_with_its_place_and_what_to_do(tmp_path, manifest, said):
    status, _, errors = called(tmp_path, manifest)

    assert status == 1
    assert said in errors
    assert "deployment.yaml" in errors
    assert errors.endswith(")")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("manifest", "said"), [
    pytest.param(in_pod("shareProcessNamespace: true"), "shareProcessNamespace", id="one PID namespace"),
    pytest.param(in_container("ports: [{containerPort: 15080}]"), "listens on 15080", id="the proxy's port"),
])
def test_what_a_sidecar_cannot_share_is_refused_there_and_not_at_a_gateway(tmp_path, manifest, said):
    status, _, errors = called(tmp_path, manifest, "--placement", "sidecar")

    assert status == 1
    assert said in errors
    assert called(tmp_path, manifest, "--placement", "gateway")[0] == 0


@pytest.mark.parametrize(("manifest", "said"), [
    pytest.param(in_container("securityContext: {privileged: true}"), "is privileged", id="privileged"),
    pytest.param(in_container("securityContext: {capabilities: {add: [NET_ADMIN]}}"), "NET_ADMIN", id="a capability"),
    pytest.param(in_pod("volumes: [{name: v, hostPath: {path: /var/run}}]"), "a path of the node", id="its files"),
    pytest.param(in_pod("hostPID: true"), "hostPID", id="its processes"),
])
def test_what_makes_the_walls_of_a_pod_thin_is_warned_of(tmp_path, manifest, said):
    told = emitted(tmp_path, manifest, "gateway")

    assert any(said in warning for warning in told["warnings"])


def test_a_network_policy_of_the_agents_own_is_warned_of(tmp_path):
    own = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: open, namespace: agents}\n"

    told = emitted(tmp_path, f"{CODER}---\n{own}", "gateway")

    assert "what any of them allows is allowed" in told["warnings"][0]


@pytest.mark.parametrize("options", [
    pytest.param(["--kubernetes", "x.yaml", "--lanes", "2"], id="a home and a folder"),
    pytest.param(["--output", "x"], id="a folder of nothing"),
    pytest.param(["--kubernetes", "x.yaml", "--emit", "helm"], id="another form"),
])
def test_options_that_do_not_go_together_are_wrong_usage(options):
    assert run(["init", *options]) == 2


def test_names_that_one_yaml_reads_as_numbers_are_written_as_text(tmp_path):
    emitted(tmp_path, named("y"), "gateway")

    assert 'name: "y"' in (tmp_path / "out" / "patch-deployment-y.yaml").read_text()
