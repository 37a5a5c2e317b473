"""The command `governor`: finds the verb, runs it, turns what happened into an exit status."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

import click

from addons.errors import GovernorError
from addons.origin_check import check_origin
from addons.verb_group import VerbGroup
from kernel.errors import KernelError
from kernel.version import VERSION

VERBS = {
    "init": ("home", "Make a home: keys, CA, log, a starting policy and the pin of the log."),
    "serve": ("service", "Run the proxy with Governor inside. Arguments are mitmdump's."),
    "run": ("run", "Run a command whose only way out is Governor."),
    "reload": ("control", "Take the changed policy into force without a restart."),
    "status": ("control", "Say whether the running Governor is ready, and what it enforces."),
    "script": ("service", "Print the path of the script for `mitmdump -s`."),
    "doctor": ("doctor", "Say what is wrong here and how to repair it; try to get out of a sandbox."),
    "policy": ("policy", "Check, test, explain and compare policies."),
    "audit": ("audit", "Verify, prove, read and replay the signed log."),
    "agents": ("agents", "Give tokens to agents; show, halt, quarantine and release them."),
    "ca": ("ca", "Show the CA, have clients and this machine trust it, replace it."),
    "pool": ("pool", "Show what budgets that processes share have left; rebuild their ledger from the log."),
    "clock": ("clock", "Say that the clock is right again after it jumped."),
}
EPILOG = """
Exit status: 0 yes, 1 no, 2 wrong usage, 3 answer with a reservation, 4 incomplete, 5 rolled back, 70 a fault of
Governor's own.

Shell completion: eval "$(_GOVERNOR_COMPLETE=bash_source governor)", or zsh_source in zsh; for fish,
_GOVERNOR_COMPLETE=fish_source governor | source.

First steps: governor init, then governor serve, then curl -x http://127.0.0.1:8080 URL.
"""
INTERNAL_FAULT = 70


@click.command(cls=VerbGroup, verbs=VERBS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="governor %(version)s")
def governor() -> None:
    """Judge, sign and record every request of an AI agent before it leaves.

    `governor VERB --help` explains a verb. Every verb takes --home, which comes before $GOVERNOR_HOME, and every
    verb that reports takes --json.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit status."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status of DESIGN's table, whatever happens."""
    try:
        check_origin()
        outcome = governor.main(arguments, prog_name="governor", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("governor: interrupted", err=True)
        return 130
    except click.ClickException as problem:
        problem.show()
        return problem.exit_code
    except (GovernorError, KernelError) as problem:
        click.echo(_one_line(problem), err=True)
        return 1
    except Exception as fault:  # noqa: BLE001
        place = traceback.extract_tb(fault.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        click.echo(f"governor: internal fault: {type(fault).__name__}: {fault} ({where})", err=True)
        return INTERNAL_FAULT
    return outcome if isinstance(outcome, int) else 0


def _one_line(problem: Exception) -> str:
    said = str(problem)
    return said if said.startswith("governor: ") else f"governor: {said}"
