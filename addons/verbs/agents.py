"""`governor agents`: give, rotate and take back the tokens of agents."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from addons import agents_file, build_info
from addons.agents_control import operator_entry
from addons.agents_file import Act, AgentsError, changed
from addons.control import NotRunning, request, user_name
from addons.home import Home, Paths, home_folder
from addons.lane import Lane
from addons.verbs.output import console, print_json
from kernel.entry import timestamp
from kernel.identity import digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTROL_SECONDS = 20.0
LANE = "cli"
TOKEN_BYTES = 32

_home = click.option("--home", metavar="DIR", help="The home that is changed. Before $GOVERNOR_HOME.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def agents() -> None:
    """Give, rotate and take back the tokens of agents.

    An agent sends its token as the password of the proxy: http://NAME:TOKEN@HOST:PORT. From the first token on, a
    flow without one gets 407. Changes are in force at once and stand in the log.
    """


@agents.command()
@click.argument("name")
@_home
@_json
def add(name: str, home: str | None, as_json: bool) -> None:
    """Register the agent NAME and print its token, this once: Governor keeps the hash alone."""
    _give_token(Act.ADD, name, home, as_json)


@agents.command()
@click.argument("name")
@_home
@_json
def rotate(name: str, home: str | None, as_json: bool) -> None:
    """Give the agent NAME a new token and print it. The old one is refused from now on."""
    _give_token(Act.ROTATE, name, home, as_json)


@agents.command()
@click.argument("name")
@_home
@_json
def remove(name: str, home: str | None, as_json: bool) -> None:
    """Take the tokens of the agent NAME back. Its name stays known, so flows without a token stay refused."""
    _change(home_folder(home), Act.REMOVE, name, None)
    if as_json:
        print_json({"id": name, "state": "removed"})
    else:
        console(stderr=True).print(f"removed {name}; its token is refused from now on")


@agents.command("list")
@_home
@_json
def list_agents(home: str | None, as_json: bool) -> None:
    """Show every agent that ever had a token."""
    rows = _rows(home_folder(home))
    if as_json:
        print_json(rows)
    else:
        _show(rows)


def _give_token(act: Act, name: str, home: str | None, as_json: bool) -> None:
    # Made here, so that a token is in no other process than this one and the agent's.
    token = "gov_" + secrets.token_urlsafe(TOKEN_BYTES)
    first = _change(home_folder(home), act, name, digest(token))
    if as_json:
        print_json({"id": name, "token": token})
        return
    aside = console(stderr=True)
    aside.print(f"the token of {name}, shown this once; the agent uses http://{name}:TOKEN@HOST:PORT as its proxy:")
    console().print(token)
    if first:
        aside.print("this is the first token: from now on every flow without one gets 407")


def _change(folder: Path, act: Act, name: str, sha256: str | None) -> bool:
    """Make the change, in the running Governor where there is one; True when the first token came into being."""
    try:
        reply = request(folder, "agents", CONTROL_SECONDS, act=act, agent=name, sha256=sha256)
    except NotRunning:
        return _change_alone(folder, act, name, sha256)
    return bool(reply["first"])


def _change_alone(folder: Path, act: Act, name: str, sha256: str | None) -> bool:
    path = _agents_path(folder)
    operator = user_name(os.getuid())
    now = timestamp(datetime.now(UTC))
    known = agents_file.load(path).tokens().known
    agents_file.change(
        path, lambda agents: changed(agents, act, name, sha256, operator, now), _recorder(folder, act, name, operator)
    )
    return act.gives_token and not known


def _recorder(folder: Path, act: Act, name: str, operator: str) -> Callable[[], None]:
    def record() -> None:
        lane = Lane.open(Home.open(folder), LANE, kernel=build_info.kernel_identity())
        try:
            lane.write_now("operator", operator_entry(act, name, operator, "cli"))
        finally:
            lane.close("done")

    return record


def _rows(folder: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = request(folder, "agents", CONTROL_SECONDS, act="list")["agents"]
    except NotRunning:
        return agents_file.listing(agents_file.load(_agents_path(folder)), {})
    return rows


def _agents_path(folder: Path) -> Path:
    """The file of a home that exists: a mistyped --home must not make a new one."""
    paths = Paths(folder)
    if not paths.trust.exists():
        raise AgentsError(f"{folder} is no home (governor init makes one; --home names another)")
    return paths.agents


def _show(rows: list[dict[str, Any]]) -> None:
    if not rows:
        console().print("no agent has a token: every flow is the agent local (governor agents add NAME)")
        return
    table = Table("agent", "state", "since", "by", "last seen", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(row[name] or "never") for name in ("id", "state", "since", "by", "last_seen")))
    console().print(table)
