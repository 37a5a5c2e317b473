"""`governor status` and `governor reload`: what a running Governor is asked over its control socket."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from rich.table import Table

from addons.control import ControlError, ControlTimeout, request, requests
from addons.home import home_folder
from addons.verbs import standings
from addons.verbs.output import console, print_json

STATUS_SECONDS = 10.0
ASKED_SECONDS = 2.0
TIMED_OUT = 4

_NOT_RUNNING: dict[str, Any] = {
    "ready": False,
    "mode": None,
    "policy": None,
    "lanes": [],
    "workers": 0,
    "agents": 0,
    "halted": [],
    "system": None,
    "fleet": [],
}


@click.command()
@click.option("--home", metavar="DIR", help="The home of the Governor that is asked. Before $GOVERNOR_HOME.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, home: str | None, as_json: bool) -> None:
    """Say whether the running Governor is ready, and what it enforces; how all agents together stand, and what is left
    of their budgets; and every process that shares these budgets, on whatever host.

    Exit status: 0 when it is ready, 1 when it is not or none runs.
    """
    try:
        reply = request(home_folder(home), "status", STATUS_SECONDS)
    except ControlError as error:
        reply = _NOT_RUNNING | {"hints": [str(error)]}
    if as_json:
        print_json(reply)
    else:
        _tell(reply)
    ctx.exit(0 if reply["ready"] else 1)


def _tell(reply: dict[str, Any]) -> None:
    out = console()
    out.print("ready" if reply["ready"] else "NOT READY", style="bold green" if reply["ready"] else "bold red")
    for name, value in reply.items():
        if name not in ("ready", "hints", "system", "fleet") and value not in (None, [], {}):
            out.print(f"  {name:8} {_plain(value)}")
    if reply.get("system"):
        _tell_system(reply["system"])
    if len(reply.get("fleet", [])) > 1:
        _tell_fleet(reply["fleet"])
    for hint in reply.get("hints", []):
        out.print(f"  hint: {hint}")


def _tell_system(system: dict[str, Any]) -> None:
    standings.tell_system(system)
    if system["budgets"]:
        console().print("  all agents together")
        standings.tell_balances(system["budgets"])


def _tell_fleet(fleet: list[dict[str, Any]]) -> None:
    """Every process that shares the budgets: one row each."""
    now = datetime.now(UTC)
    table = Table("process", "ready", "policy", "open", "heard of", "version", box=None, pad_edge=False)
    for each in fleet:
        ready = "yes" if each["ready"] else "no" if each["alive"] else "silent"
        table.add_row(each["holder"], ready, each["policy"][:12], str(each["open"]),
                      f"{standings.age(each['seen'], now)} ago", each["version"])
    standings.tell_table(table)


def _plain(value: object) -> str:
    match value:
        case dict():
            return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
        case list():
            return "; ".join(_plain(part) for part in value)
        case _:
            return str(value)


@click.command()
@click.option("--home", metavar="DIR", help="The home of the Governor that is asked. Before $GOVERNOR_HOME.")
@click.option("--wait", is_flag=True, help="Wait until the policy is in force or refused.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long --wait waits.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def reload(ctx: click.Context, home: str | None, wait: bool, timeout: float, as_json: bool) -> None:
    """Take the changed policy into force without a restart. A policy with an error is refused; the old one stays.

    Commands of governor run that go on take theirs, too; the one that refuses is told of.

    Exit status: 0 in force (without --wait also: asked for), 1 refused or no Governor runs, 4 no answer in time. --json
    prints `ok` (null: no answer in time), the `policy` in force and the `findings`.
    """
    try:
        replies = list(requests(home_folder(home), "reload", timeout if wait else ASKED_SECONDS))
        reply = next((each for each in replies if not each["ok"]), replies[0])
    except ControlTimeout as error:
        _tell_unanswered(f"{error}; the policy may still be taken, which governor status shows", ok=None,
                         as_json=as_json)
        ctx.exit(TIMED_OUT if wait else 0)
    except ControlError as error:
        _tell_unanswered(str(error), ok=False, as_json=as_json)
        ctx.exit(1)
    if as_json:
        print_json(reply)
    else:
        _tell_reload(reply)
    ctx.exit(0 if reply["ok"] else 1)


def _tell_unanswered(problem: str, *, ok: bool | None, as_json: bool) -> None:
    if as_json:
        print_json({"ok": ok, "policy": None, "findings": [problem]})
    else:
        console(stderr=True).print(f"governor: {problem}")


def _tell_reload(reply: dict[str, Any]) -> None:
    for finding in reply["findings"]:
        console(stderr=not reply["ok"]).print(_finding(finding))
    if reply["ok"]:
        console().print(f"in force: policy {reply['policy']}")
    else:
        console(stderr=True).print(f"refused; policy {reply['policy']} stays in force")


def _finding(finding: object) -> str:
    if not isinstance(finding, dict):
        return str(finding)
    place = ":".join(str(finding[part]) for part in ("file", "line", "column") if part in finding)
    return f"{place}: {finding.get('code', '')} {finding.get('message', '')}"
