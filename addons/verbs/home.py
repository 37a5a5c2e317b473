"""`governor init`: make a home before the first start, or what a cluster makes one from, and say what to keep."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from addons import ahead_keys, build_info, durable, package_sources, pins, policy_files
from addons.errors import StartCode, StartRefused
from addons.home import MAIN, Home, Paths, home_folder
from addons.kubernetes.workload import Placement
from addons.lane import Lane
from addons.verbs.output import console, print_json, progress
from addons.verbs.root_key import asked_for, root_key_option, root_passphrase_option
from kernel.transition import CLI

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MOST_WORKERS = 1000
OUTPUT = Path("governor-kustomize")


@click.command()
@root_key_option
@root_passphrase_option
@click.option("--lanes", type=click.IntRange(1, MOST_WORKERS), metavar="N",
              help="Certify lanes for up to N workers now, so that the root key can live elsewhere.")
@click.option("--home", metavar="DIR", help="Where the home is made. Before $GOVERNOR_HOME.")
@click.option("--kubernetes", "manifest", type=click.Path(path_type=Path), metavar="FILE",
              help="Make no home, but a folder that governs the workloads in this manifest.")
@click.option("--emit", type=click.Choice(["kustomize"]), help="The form of that folder.")
@click.option("--placement", type=click.Choice([place.value for place in Placement]),
              help="gateway (without it): agents reach nothing but Governor. sidecar: in their pods, as advice.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help=f"That folder. [default: {OUTPUT}]")
@click.option("--overwrite", is_flag=True, help="Replace its files that differ; its policy.yaml is never replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(root_key: str | None, root_passphrase: str | None, lanes: int | None, home: str | None,
         manifest: Path | None, emit: str | None, placement: str | None, output: Path | None, overwrite: bool,
         as_json: bool) -> None:
    """Make a home: keys, CA, a starting policy and the pin of the log.

    The folder must be absent or empty. In a home that is there already nothing is changed; what is missing is added: a
    CA, a policy, certified lanes. A new policy also allows reading from where this machine's pip, npm, cargo and apt
    are set up to fetch.

    Keep the pin: it is what makes the log checkable by someone who does not trust this machine.

    The root key certifies the first key of each lane of the log, and is asked for besides where governor audit
    key-compromised says that one is in other hands. With --lanes the lanes of the proxy,
    of N workers and of the verbs are certified now, and one more for the day when a lane is lost; from then on a root
    key in the home can be moved away. One that comes with --root-key is then never written to this machine; without
    --lanes it is copied into the home.

    \b
    openssl genpkey -algorithm ed25519 -aes256 -out root.pem      # on a machine of its own
    ssh safe.example.org cat root.pem | governor init --root-key - --lanes 2

    Never in an argument or the environment: the key and its passphrase. Copies that the memory of this process or its
    swap may hold for a while are not in Governor's hand.

    With --kubernetes a folder for kubectl apply -k is written instead, from a manifest with a Deployment, StatefulSet,
    DaemonSet, ReplicaSet, Job, CronJob or Pod: a copy of it, patches, Governor itself, network policies and a policy.
    The home is made in the cluster, with the root key of a Secret.

    \b
    governor init --kubernetes deployment.yaml --emit kustomize --output governed

    Exit status: 0 made, or there already; 1 refused, 2 wrong usage.
    """
    if manifest is not None:
        if (root_key, root_passphrase, lanes, home) != (None,) * 4:
            raise click.UsageError("--kubernetes makes no home: leave out --home, --root-key and --lanes")
        from addons.verbs import kubernetes

        where = Placement(placement or Placement.GATEWAY)
        kubernetes.emit(manifest, where, output or OUTPUT, overwrite=overwrite, as_json=as_json)
        return
    if emit or placement or output or overwrite:
        raise click.UsageError("--emit, --placement, --output and --overwrite need --kubernetes FILE")
    told = _completed(_made(home_folder(home), asked_for(root_key, root_passphrase), lanes))
    if as_json:
        print_json(told)
    else:
        _tell(told)


def _made(folder: Path, brought: Ed25519PrivateKey | None, lanes: int | None) -> Home:
    """The home, with what the root key has to sign signed. It is not kept for longer."""
    home = Home.open(folder, brought, keep_root=lanes is None)
    if lanes is not None:
        _certify(home, lanes)
    return replace(home, brought=None)


def _completed(home: Home) -> dict[str, Any]:
    """What is in the home, with what was missing of CA and policy added."""
    # mitmproxy, which reads the CA, takes a second to import; `governor --help` does not wait for it.
    from addons import authority

    paths = home.paths
    return {
        "home": str(paths.folder),
        "log_id": home.log_id,
        "pin": str(home.root),
        "pin_file": str(pins.path(home.log_id)),
        "ca": str(authority.ensure(paths.ca, datetime.now(UTC))),
        "policy": str(paths.policy),
        "policy_written": _write_policy(paths),
        "root_key": str(paths.root_key) if os.path.lexists(paths.root_key) else None,
        "lanes_ahead": ahead_keys.ready(home),
    }


def _certify(home: Home, workers: int) -> None:
    """Begin the log where it has not begun, which the root key signs, and have keys ready for the lanes to come."""
    if os.path.lexists(home.paths.fresh):
        Lane.open(home, CLI, kernel=build_info.kernel_identity()).close("done")
    names = (MAIN, CLI, *(f"w{number}" for number in range(workers)), _successor(home))
    try:
        with progress("certifying lanes", len(names)) as step:
            for lane in names:
                ahead_keys.certify(home, lane)
                step()
    except OSError as fault:
        text = f"{os.fsdecode(fault.filename or home.paths.ahead)}: {fault.strerror}; run the same command again"
        raise StartRefused(StartCode.HOME_UNWRITABLE, text) from fault


def _successor(home: Home) -> str:
    """The lane that goes on where the proxy's is lost: the first of them that has not begun."""
    begun = home.lanes()
    return next(name for number in count(1) if (name := f"{MAIN}-{number}") not in begun)


def _write_policy(paths: Paths) -> bool:
    """Whether a starting policy was written; one that is there is the operator's and stays."""
    if paths.policy.exists() or paths.policy.is_symlink():
        return False
    shipped = policy_files.shipped_policy("default").read_text()
    sources = package_sources.search(package_sources.this_machine(os.environ))
    durable.replace(paths.policy, package_sources.with_found_rules(shipped, sources).encode())
    return True


def _tell(told: Mapping[str, Any]) -> None:
    out, ahead = console(), told["lanes_ahead"]
    for name in ("home", "policy", "ca", "pin_file", "pin"):
        out.print(f"{name.replace('_', ' '):9} {told[name]}")
    if not os.path.exists(told["pin_file"]):
        out.print("          that file is not there: nothing on this machine says that this is the right log")
    out.print(f"root key  {told['root_key'] or 'not in this home'}")
    if ahead:
        out.print(f"certified {', '.join(ahead)}: they begin without the root key")
    out.print()
    out.print("Next steps", style="bold")
    out.print(f"  keep the pin where this machine cannot change it: governor audit verify {told['home']} --trust PIN")
    if ahead and told["root_key"]:
        out.print(f"  nothing needs the root key any more, move it off: {told['root_key']}")
    out.print(f"  read the policy and make it yours:                governor policy check {told['policy']}")
    out.print(f"  have the agents' clients trust the CA:            {told['ca']}")
    out.print(f"  start:                                            governor serve --home {told['home']}")
