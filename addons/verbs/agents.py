"""`governor agents`: tokens given, rotated and taken back; agents shown, halted, quarantined and released."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from addons import acts_alone, agents_file
from addons.agent_rows import FIELDS
from addons.agents_file import Act, AgentsError
from addons.home import Paths, home_folder
from addons.operator_acts import MOST_QUARANTINE_SECONDS, Deed
from addons.verbs import standings
from addons.verbs.acting import (
    TIMED_OUT,
    Reply,
    asked,
    confirm,
    home_option,
    json_option,
    operator_option,
    reason_option,
)
from addons.verbs.instructions import instructions
from addons.verbs.output import console, print_json
from kernel.errors import PatternError
from kernel.identity import digest
from kernel.quantity import duration

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_BYTES = 32
_NOT_SHOWN = "what it has drawn and open is not in this (governor status)"
_NOT_CONFIRMED = "that it goes by this is not confirmed (governor status)"
_OF_ALL = ("changed", "entry", "in_force", "confirmed", "processes")


def _names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The agents of the home, for shell completion."""
    try:
        known = agents_file.load(Paths(home_folder(ctx.params.get("home"))).agents).agents
    except AgentsError:
        return []
    return [name for name in sorted(known) if name.startswith(incomplete)]


def _seconds(_: click.Context, parameter: click.Parameter, value: str) -> int:
    try:
        found = duration(value)
    except PatternError as problem:
        raise click.BadParameter(str(problem), param=parameter) from None
    if found > MOST_QUARANTINE_SECONDS:
        raise click.BadParameter(f"{value} is longer than a year; halt an agent that is to stop", param=parameter)
    return found


_all_option = click.option("--all", "everybody", is_flag=True, help="All agents together, in place of NAME.")
_name_or_all = click.argument("name", required=False, shell_complete=_names)
_new_name = click.argument("name")
_name = click.argument("name", shell_complete=_names)


@click.group()
def agents() -> None:
    """Give tokens to agents; show, halt, quarantine and release them.

    An agent sends its token as the password of the proxy: http://NAME:TOKEN@HOST:PORT. From the first token on, a
    flow without one gets 407.

    Every act is in force when its verb returns, and stands in the log. Without a running Governor it is written down
    and in force from the next start on.

    Exit status: 0 done, 1 refused, 2 wrong usage, 4 not answered in time, or not by every worker.
    """


agents.add_command(instructions)


@agents.command()
@_new_name
@home_option
@json_option
def add(name: str, home: str | None, as_json: bool) -> None:
    """Register the agent NAME and print its token, this once: Governor keeps the hash alone."""
    _give_token(Act.ADD, name, home, as_json)


@agents.command()
@_name
@home_option
@json_option
def rotate(name: str, home: str | None, as_json: bool) -> None:
    """Give the agent NAME a new token and print it. The old one is refused from now on. A halt stays."""
    _give_token(Act.ROTATE, name, home, as_json)


@agents.command()
@_name
@home_option
@json_option
def remove(name: str, home: str | None, as_json: bool) -> None:
    """Take the tokens of the agent NAME back. Its name stays known, so flows without a token stay refused.

    It is refused whatever else names it: a certificate, a port, an address, a sandbox. A halted agent stays halted.
    """
    told = _register(home_folder(home), Act.REMOVE, name, None, as_json)
    row = told["agent"]
    if as_json:
        print_json({"id": name, "state": row["state"]})
    else:
        still = "; it stays halted" if row["state"] == "halted" else ""
        console(stderr=True).print(f"removed {name}; its token is refused from now on{still}")
    confirm(told, _NOT_CONFIRMED)


@agents.command("list")
@click.option("--all", "everyone", is_flag=True, help=f"Show more than {standings.MOST_ROWS} agents.")
@home_option
@json_option
def list_agents(everyone: bool, home: str | None, as_json: bool) -> None:
    """Show who there is: running, halted, quarantined, throttled or revoked, and what is left of the budgets.

    Of several budgets the one nearest its end is shown; governor agents show NAME has all of them. What is spent is
    what the processes that run on this home have drawn; governor pool status has what all hosts have, and those that
    run no more. JSON always has every agent.
    """
    folder = home_folder(home)

    def alone() -> Reply:
        rows = acts_alone.rows(folder)
        return {"agents": rows.all(), "system": rows.system()}

    told = asked(folder, "agents", alone, as_json=as_json, act="list")
    rows = told["agents"]
    if as_json:
        print_json([{name: row[name] for name in FIELDS} for row in rows])
    else:
        standings.tell_system(told["system"])
        standings.tell_rows(rows, datetime.now(UTC), everyone=everyone)
    confirm(told, _NOT_SHOWN)


@agents.command()
@_name
@home_option
@json_option
def show(name: str, home: str | None, as_json: bool) -> None:
    """Show everything about the agent NAME: its state and why, budgets, counters, open flows."""
    folder = home_folder(home)

    def alone() -> Reply:
        return {"agent": acts_alone.rows(folder).shown(name)}

    told = asked(folder, "agents", alone, as_json=as_json, act="show", agent=name)
    row = told["agent"]
    if as_json:
        print_json(row)
    else:
        standings.tell_agent(row, datetime.now(UTC))
    confirm(told, _NOT_SHOWN)


@agents.command()
@_name_or_all
@_all_option
@click.option("--yes", is_flag=True, help="Halt all without asking whether that is meant.")
@reason_option
@operator_option
@home_option
@json_option
def halt(
    name: str | None, everybody: bool, yes: bool, reason: str, operator: str | None, home: str | None, as_json: bool
) -> None:
    """Stop the agent NAME: what it has open is cut, and everything else of it is refused until it is released.

    Nothing else lifts a halt: no restart, no reload, no new token, no new day. Nobody without an identity passes any
    more from where the agent came. To let an agent read on, see governor agents quarantine.

    With --all everybody is stopped, whoever asks, in every process and on every host that shares the budgets; it says
    in how many of them that is in force, and ends with 4 where not all have confirmed it within 5 s.
    """
    _check_whom(name, everybody=everybody)
    if name is not None:
        _act(Deed.HALT, name, reason, operator, home, as_json)
        return
    if not yes and _is_terminal():
        click.confirm("this stops every agent, and cuts what all have open; go on?", abort=True, err=True)
    _act_on_all(Deed.HALT_ALL, reason, operator, home, as_json)


@agents.command()
@_name_or_all
@_all_option
@reason_option
@operator_option
@home_option
@json_option
def release(
    name: str | None, everybody: bool, reason: str, operator: str | None, home: str | None, as_json: bool
) -> None:
    """Let the halted or quarantined agent NAME go on. A new epoch begins: its sessions and counters begin anew.

    With --all the halt of all agents ends, and no other: who is halted by itself stays halted.
    """
    _check_whom(name, everybody=everybody)
    if name is not None:
        _act(Deed.RELEASE, name, reason, operator, home, as_json)
    else:
        _act_on_all(Deed.RELEASE_ALL, reason, operator, home, as_json)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _check_whom(name: str | None, *, everybody: bool) -> None:
    if (name is None) != everybody:
        raise click.UsageError("name one agent, or say --all")


@agents.command()
@_name
@click.option("--for", "seconds", required=True, metavar="TIME", callback=_seconds, help="How long: 30m, 1h, 7d.")
@reason_option
@operator_option
@home_option
@json_option
def quarantine(
    name: str, seconds: int, reason: str, operator: str | None, home: str | None, as_json: bool
) -> None:
    """Let the agent NAME only read (GET, HEAD, OPTIONS) for a while. It ends by itself, or with a release."""
    _act(Deed.QUARANTINE, name, reason, operator, home, as_json, seconds)


def _act(
    deed: Deed, name: str, reason: str, operator: str | None, home: str | None, as_json: bool, seconds: int = 0
) -> None:
    folder = home_folder(home)
    told = asked(
        folder, "agents", lambda: acts_alone.act(folder, deed, name, reason, operator, seconds), as_json=as_json,
        act=deed.removeprefix("agents "), agent=name, reason=reason, operator=operator, seconds=seconds)
    row = told["agent"]
    if as_json:
        kept = {field: row[field] for field in (*FIELDS, "until")}
        kept |= {field: told[field] for field in ("changed", "entry", "in_force", "unanswered") if field in told}
        print_json(kept)
    else:
        console().print(_sentence(deed, told))
    confirm(told, _NOT_CONFIRMED)


def _act_on_all(deed: Deed, reason: str, operator: str | None, home: str | None, as_json: bool) -> None:
    folder = home_folder(home)
    told = asked(
        folder, "agents", lambda: acts_alone.act(folder, deed, None, reason, operator, 0), as_json=as_json,
        act=deed.removeprefix("agents "), reason=reason, operator=operator)
    if as_json:
        print_json(told["system"] | {field: told[field] for field in _OF_ALL})
    else:
        console().print(_sentence_of_all(deed, told))
    confirm(told, _NOT_CONFIRMED)
    if told["confirmed"] != told["processes"]:
        raise click.exceptions.Exit(TIMED_OUT)


def _sentence_of_all(deed: Deed, told: Reply) -> str:
    system, where = told["system"], _where(told)
    if not told["changed"]:
        since = f"since {standings.moment(system['since'])} by {system['by']}: {system['reason']}"
        return f"all agents are halted already, {since}; nothing was changed{where}"
    done = ("halted all agents: what they had open is cut, and nothing passes until governor agents release --all"
            if deed is Deed.HALT_ALL else
            "released all agents; who is halted by itself stays so (governor agents list)")
    return f"{done}{where} ({told['entry']})"


def _where(told: Reply) -> str:
    """In which processes it is in force."""
    if not told["in_force"]:
        return "; no Governor runs, so this is in force from the next start on"
    if told["processes"] is None:
        return "; in force here, and everywhere else once the ledger answers again"
    missing = told["processes"] - told["confirmed"]
    more = f"; {missing} did not confirm it in time: governor status names them" if missing else ""
    processes = "1 process" if told["processes"] == 1 else f"{told['processes']} processes"
    return f"; in force in {told['confirmed']} of {processes}{more}"


def _sentence(deed: Deed, told: Reply) -> str:
    row = told["agent"]
    name = row["id"]
    if not told["changed"]:
        since = f"since {standings.moment(row['since'])} by {row['by']}"
        return f"{name} is halted already, {since}: {row['reason']}; nothing was changed"
    done = {
        Deed.HALT: f"halted {name}: what it had open is cut, and nothing of it passes until it is released",
        Deed.RELEASE: f"released {name}",
        Deed.QUARANTINE: f"quarantined {name}: it only reads until {standings.moment(row['until'] or '')}",
    }[deed]
    if not told["in_force"]:
        done += "; no Governor runs, so this is in force from the next start on"
    if deed is Deed.RELEASE and row["with_all"]:
        done += "; all agents are halted, so nothing passes until governor agents release --all"
    if deed is Deed.RELEASE and row["state"] == "revoked":
        done += f"; it has no token (governor agents add {name} gives it one)"
    return f"{done} ({told['entry']})"


def _give_token(act: Act, name: str, home: str | None, as_json: bool) -> None:
    # Made here, so that a token is in no other process than this one and the agent's.
    token = "gov_" + secrets.token_urlsafe(TOKEN_BYTES)
    told = _register(home_folder(home), act, name, digest(token), as_json)
    if as_json:
        print_json({"id": name, "token": token})
    else:
        _tell_token(name, token, told)
    confirm(told, _NOT_CONFIRMED)


def _tell_token(name: str, token: str, told: Reply) -> None:
    aside = console(stderr=True)
    aside.print(f"the token of {name}, shown this once; the agent uses http://{name}:TOKEN@HOST:PORT as its proxy:")
    console().print(token)
    if told["first"]:
        aside.print("this is the first token: from now on every flow without one gets 407")
    if told["agent"]["state"] == "halted":
        aside.print(f"{name} is halted, and a new token lifts no halt (governor agents show {name})")


def _register(folder: Path, act: Act, name: str, sha256: str | None, as_json: bool) -> Reply:
    """Make the change, in the running Governor where there is one."""
    return asked(
        folder, "agents", lambda: acts_alone.register(folder, act, name, sha256), as_json=as_json,
        act=act, agent=name, sha256=sha256)
