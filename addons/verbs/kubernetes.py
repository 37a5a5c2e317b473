"""What `governor init --kubernetes` does: the folder written, what became of each file, and what is left to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons.kubernetes.workload import Given, Placement, read
from addons.verbs.output import console, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_POD = "governor-0"


def emit(manifest: Path, placement: Placement, output: Path, *, overwrite: bool, as_json: bool) -> None:
    """Write the folder, or `ManifestError`; then say what was done."""
    # It takes the CA's file name from where mitmproxy is imported, which takes a second.
    from addons.kubernetes import folder

    given = read(manifest, placement)
    emitted = folder.emit(output, folder.files(given, placement), overwrite=overwrite)
    if as_json:
        print_json({
            "output": str(output),
            "placement": placement.value,
            "enforced": placement is Placement.GATEWAY,
            "workloads": [{"kind": one.kind, "name": one.name, "namespace": one.namespace} for one in given.workloads],
            "files": [{"name": file.name, "fate": file.fate.value} for file in emitted],
            "warnings": list(given.warnings),
            "next": list(_next_steps(given, placement, output)),
        })
        return
    out = console()
    for file in emitted:
        out.print(f"{file.fate.value:9} {output / file.name}")
    for warning in given.warnings:
        out.print(f"warning   {warning}", style="yellow")
    if placement is Placement.SIDECAR:
        out.print("advice, not enforcement: a sidecar shares the network of its pod, and an agent that wants to goes "
                  "round it; --placement gateway leaves it no other way out", style="red")
    out.print()
    out.print("Next steps", style="bold")
    for step in _next_steps(given, placement, output):
        out.print(f"  {step}")


def _next_steps(given: Given, placement: Placement, output: Path) -> Iterator[str]:
    where = f" -n {given.namespace}" if given.namespace else ""
    yield "openssl genpkey -algorithm ed25519 -out root.key      # then keep it off the cluster, too"
    yield f"kubectl{where} create secret generic governor-root-key --from-file=root.key"
    yield f"governor policy check {output}/policy.yaml"
    yield f"kubectl apply -k {output}"
    if placement is Placement.SIDECAR:
        return
    from addons.kubernetes import agent, placing, proxy_pod

    inside = f"kubectl{where} exec {_POD} -c governor --"
    yield (f"{inside} python3 -c \"print(open('{proxy_pod.CERTIFICATE}').read())\" | "
           f"kubectl{where} create configmap {placing.CA_MAP} --from-file=ca.pem=/dev/stdin")
    for workload in given.workloads:
        yield (f"{inside} governor agents add {workload.name} --json | jq -j .token | "
               f"kubectl{where} create secret generic {agent.token_secret(workload)} --from-file=token=/dev/stdin")
