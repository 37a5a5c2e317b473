"""`governor clock`: what an operator says of the clock."""

from __future__ import annotations

import click

from addons import acts_alone
from addons.home import home_folder
from addons.operator_acts import Deed
from addons.verbs.acting import asked, home_option, json_option, operator_option, reason_option
from addons.verbs.output import console, print_json


@click.group()
def clock() -> None:
    """Say that the clock is right again.

    Where the clock of this machine jumps by more than a minute, or a start finds it behind the last entry of the log,
    flows that draw on a budget are refused with CLOCK_JUMP: nobody knows any more which day it is.
    """


@clock.command()
@reason_option
@operator_option
@home_option
@json_option
def accept(reason: str, operator: str | None, home: str | None, as_json: bool) -> None:
    """Accept the time that this machine shows now. Correct it first: date, or the service that sets it.

    What was spent stays spent. Exit status: 0 accepted, 1 the clock had not jumped, 2 wrong usage, 4 not answered in
    time.
    """
    folder = home_folder(home)
    told = asked(
        folder, "clock", lambda: acts_alone.act(folder, Deed.CLOCK, None, reason, operator, 0), as_json=as_json,
        act="accept", reason=reason, operator=operator)
    if as_json:
        print_json(told)
        return
    later = "" if told["in_force"] else "; no Governor runs, so this is in force from the next start on"
    console().print(f"accepted the time of this machine{later} ({told['entry']})")
