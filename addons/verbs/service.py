"""`governor serve` and `governor script`: the two ways to start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--home", metavar="DIR", help="The home: keys, CA and log. Before $GOVERNOR_HOME.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[MITMDUMP ARGUMENTS]...")
def serve(home: str | None, arguments: tuple[str, ...]) -> None:
    """Run the proxy with Governor inside from before its first port.

    \b
    Everything else is an argument of mitmdump's:
      governor serve --listen-port 8081
      governor serve --home DIR --set governor_policy=policy.yaml --set governor_metrics=127.0.0.1:9465
      governor serve -- --help        what mitmdump accepts

    Exit status: 0 asked to stop, 1 refused to start, 2 wrong usage, 3 stopped on a fault.
    """
    from addons.serve import serve as run

    chosen = ("--set", f"governor_home={Path(home).absolute()}") if home else ()
    sys.exit(run([*chosen, *arguments]))


@click.command()
@click.option("--home", metavar="DIR", help="Taken for uniformity; the script lies with the program.", hidden=True)
def script(home: str | None) -> None:  # noqa: ARG001
    """Print the path of the script that mitmproxy loads: mitmdump -s "$(governor script)"."""
    click.echo(os.fspath(Path(__file__).resolve().parents[1] / "governor.py"))
