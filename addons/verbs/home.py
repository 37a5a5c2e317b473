"""`governor init`: make a home before the first start, and say what to keep."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import click

from addons import durable, package_sources, pins, policy_files
from addons.home import Home, Paths, home_folder
from addons.verbs.output import console, print_json


@click.command()
@click.option("--home", metavar="DIR", help="Where the home is made. Before $GOVERNOR_HOME.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(home: str | None, as_json: bool) -> None:
    """Make a home: keys, CA, a starting policy and the pin of the log.

    The folder must be absent or empty. In a home that is there already nothing is changed; a missing CA or policy is
    added. A new policy also allows reading from where this machine's pip, npm, cargo and apt are set up to fetch.

    Keep the pin: it is what makes the log checkable by someone who does not trust this machine.
    """
    # mitmproxy, which reads the CA, takes a second to import; `governor --help` does not wait for it.
    from addons import authority

    made = Home.open(home_folder(home))
    paths = made.paths
    told: dict[str, str | bool] = {
        "home": str(paths.folder),
        "log_id": made.log_id,
        "pin": str(made.root),
        "pin_file": str(pins.path(made.log_id)),
        "ca": str(authority.ensure(paths.ca, datetime.now(UTC))),
        "policy": str(paths.policy),
        "policy_written": _write_policy(paths),
    }
    if as_json:
        print_json(told)
    else:
        _tell(told)


def _write_policy(paths: Paths) -> bool:
    """Whether a starting policy was written; one that is there is the operator's and stays."""
    if paths.policy.exists() or paths.policy.is_symlink():
        return False
    shipped = policy_files.shipped_policy("default").read_text()
    sources = package_sources.search(package_sources.this_machine(os.environ))
    durable.replace(paths.policy, package_sources.with_found_rules(shipped, sources).encode())
    return True


def _tell(told: dict[str, str | bool]) -> None:
    out = console()
    for name in ("home", "policy", "ca", "pin_file", "pin"):
        out.print(f"{name.replace('_', ' '):9} {told[name]}")
    out.print()
    out.print("Next steps", style="bold")
    out.print(f"  keep the pin where this machine cannot change it: governor audit verify {told['home']} --trust PIN")
    out.print(f"  read the policy and make it yours:                governor policy check {told['policy']}")
    out.print(f"  have the agents' clients trust the CA:            {told['ca']}")
    out.print(f"  start:                                            governor serve --home {told['home']}")
