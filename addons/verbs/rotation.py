"""`governor audit rotate`: the end of a segment and of its key at an operator's word."""

from __future__ import annotations

import click

from addons.audit_text import escaped
from addons.control import ControlTimeout
from addons.errors import GovernorError
from addons.home import home_folder
from addons.rotation import rotate as rotated
from addons.verbs.acting import REFUSED, TIMED_OUT, end, home_option, json_option, operator_option
from addons.verbs.output import console, print_json


@click.command()
@click.option("--lane", metavar="LANE", help="The lane that goes on with a new key.  [default: those of the proxy]")
@operator_option
@home_option
@json_option
def rotate(lane: str | None, operator: str | None, home: str | None, as_json: bool) -> None:
    """End the segment that is written, and with it the key that signs: the next one has a key of its own.

    The old key certifies the new one and is destroyed. Whoever steals the new one cannot rewrite what lies before it.
    Segments end by themselves at 64 MiB, after a day and when the policy changes. Do it by hand before a backup, or
    when somebody was on this machine who should not have been; if the key itself may be stolen, this is not enough.

    The running Governor does it between two entries; without one the verb does. --json prints `lane`, `segment` (the
    file that is written now), `kid` (the key that signs it) and `entry` (its first); with several workers and no --lane
    a list of these.

    Exit status: 0 done and durable, 1 refused, 2 wrong usage, 4 not answered in time.
    """
    try:
        done = rotated(home_folder(home), lane, operator)
    except ControlTimeout as problem:
        end(f"{problem}; it may still be done, which governor audit verify shows", TIMED_OUT, as_json=as_json)
    except GovernorError as problem:
        end(escaped(str(problem)), REFUSED, as_json=as_json)
    if as_json:
        print_json(done if len(done) > 1 else done[0])
        return
    for told in done:
        console().print(f"lane {told['lane']} goes on in {told['segment']} with key {told['kid']} ({told['entry']})")
