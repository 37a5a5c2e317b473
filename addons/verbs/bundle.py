"""`governor audit bundle`: the part of a log that an auditor asks for, as one file that verifies itself."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from addons import bundling
from addons.audit_log import AuditLog
from addons.audit_text import escaped
from addons.bundling import Made
from addons.home import home_folder
from addons.operator_acts import ActRefused, check_words
from addons.verbs.asking import Moment, home_option, json_option, reading_bar, usage_errors, where_argument
from addons.verbs.output import console, counted, print_json
from kernel.entry import timestamp
from kernel.manifest import Period


@click.command()
@where_argument
@home_option
@click.option("--agent", help="Only entries about this agent, each with a receipt.")
@click.option("--since", type=Moment(), help="Entries from TIME on: RFC 3339, or 10m, 2h, 3d ago.")
@click.option("--until", type=Moment(), help="Entries before TIME.")
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path),
              help="The file to make; else governor-audit-LOG_ID.tar here.")
@click.option("--operator", metavar="NAME", help="Who makes it, for the entry that tells of it; else this user.")
@json_option
def bundle(where: Path | None, home: str | None, agent: str | None, since: datetime | None, until: datetime | None,
           output: Path | None, operator: str | None, as_json: bool) -> int:
    """Make one file of the log, or of a part of it, that an auditor can verify without Governor.

    The tar holds whole segments, from the first to the last that has an entry of the period, with the checkpoints, the
    certified keys, the policies and the states that their entries name, the anchors' receipts, and two verifiers:
    verify_log.py, and governor-audit.pyz, which also replays. Nothing of the vault goes in: what agents asked for is
    told as far as the log has it in clear.

    \b
    governor audit bundle --since 30d --output november.tar
    governor audit verify november.tar --trust KEY       # where Governor is installed
    python governor-audit.pyz verify november.tar --trust KEY  # where it is not

    With --agent no segment goes in, as it would tell of other agents: the entries about this one and the outcomes of
    its decisions, each with a receipt that proves it under the newest signed checkpoint.

    In a home that can be written, lane cli signs the list of what is in it, and an operator entry tells of it. Of a
    copy of a log the list is not signed, and that is said.

    Exit status: 0 made, 2 no log there, a file that is there already, wrong usage.
    """
    try:
        check_words("-", operator)
    except ActRefused as refused:
        raise click.UsageError(str(refused)) from None
    start, end = (timestamp(moment) if moment else None for moment in (since, until))
    with usage_errors():
        log = AuditLog.at(where or home_folder(home))
        with reading_bar(log, "bundling") as progress:
            made = bundling.bundle(log, Period(start, end), output, operator, agent, progress)
    if as_json:
        print_json(_as_json(made))
    else:
        _tell(console(), made)
    return 0


def _as_json(made: Made) -> dict[str, Any]:
    asked, covered = made.manifest.requested, made.manifest.covered
    return {"output": str(made.path), "files": made.files, "bytes": made.path.stat().st_size,
            "requested": {"since": asked.start, "until": asked.end},
            "covered": {"from": covered.start, "to": covered.end}, "agent": made.manifest.agent,
            "signed_by": made.signed_by, "unsigned": made.unsigned, "entry": made.entry,
            "uncovered": made.uncovered}


def _tell(out: Console, made: Made) -> None:
    """What was made, what it covers, who signed, and what the auditor does with it."""
    covered = made.manifest.covered
    size = made.path.stat().st_size
    out.print(f"{escaped(str(made.path))}: {counted(made.files, 'file')}, {size:,} bytes", style="bold green")
    if covered.start is None:
        out.print("  it holds no entries: none is of this agent and period", style="yellow")
    else:
        out.print(f"  it covers {escaped(covered.start)} to {escaped(covered.end or '')}")
    if made.unsigned is not None:
        out.print(f"  its manifest is not signed: {escaped(made.unsigned)}", style="yellow")
    else:
        out.print(f"  its manifest is signed by key {made.signed_by} of lane cli, and entry {made.entry} tells of it")
    if made.uncovered:
        out.print(f"  {made.uncovered:,} left out: no checkpoint covers them yet", style="yellow")
    out.print(f"  to verify it: governor audit verify {escaped(str(made.path))} --trust KEY")
