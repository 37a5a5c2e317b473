"""What the verbs that act on agents and the clock have in common: their options, and how a refusal is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import click

from addons.control import ControlTimeout, NotRunning, request
from addons.errors import GovernorError
from addons.operator_acts import ActRefused, check_words
from addons.verbs.output import console, print_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTROL_SECONDS = 20.0
REFUSED, TIMED_OUT = 1, 4

type Reply = dict[str, Any]


def words(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The value of an option or argument that stands in the log: one line of text."""
    if value is not None:
        try:
            check_words(value, None)
        except ActRefused as problem:
            raise click.BadParameter(str(problem), param=parameter) from None
    return value


home_option = click.option("--home", metavar="DIR", help="The home that is meant. Before $GOVERNOR_HOME.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
reason_option = click.option(
    "--reason", required=True, metavar="TEXT", callback=words, help="Why. It stands in the log.")
operator_option = click.option(
    "--operator", metavar="NAME", callback=words,
    help="Who decides it. Without it your user name, which stands in the log in any case.")


def asked(folder: Path, verb: str, alone: Callable[[], Reply], *, as_json: bool, **fields: Any) -> Reply:
    """What the Governor that runs on the home replies, or `alone` where none runs.

    Ends the verb where it was refused (1) or not answered in time (4).
    """
    try:
        try:
            return request(folder, verb, CONTROL_SECONDS, **fields)
        except NotRunning:
            return alone()
    except ControlTimeout as problem:
        end(f"{problem}; it may still be done, which governor agents list shows", TIMED_OUT, as_json=as_json)
    except GovernorError as problem:
        end(str(problem), REFUSED, as_json=as_json)


def confirm(told: Reply, otherwise: str) -> None:
    """End the verb with 4 where workers have not answered, and say which, and what that means."""
    names = told.get("unanswered")
    if names:
        workers = f"worker {names[0]}" if len(names) == 1 else f"workers {', '.join(names)}"
        console(stderr=True).print(f"governor: {workers} did not answer in time: {otherwise}")
        raise click.exceptions.Exit(TIMED_OUT)


def end(problem: str, status: int, *, as_json: bool) -> NoReturn:
    """Say why nothing was done, as the verb speaks, and end with this status."""
    if as_json:
        print_json({"error": problem})
    else:
        console(stderr=True).print(problem if problem.startswith("governor: ") else f"governor: {problem}")
    raise click.exceptions.Exit(status)
