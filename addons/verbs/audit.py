"""`governor audit`: read the log and make its decisions again; its other verbs are found by name."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from pathlib import Path

import click

from addons.audit_log import AuditLog
from addons.audit_text import Vault, as_text, escaped
from addons.audit_view import Filter, View
from addons.bundle_reading import opened
from addons.home import home_folder
from addons.verb_group import VerbGroup
from addons.verbs.asking import (
    FOLLOW_SECONDS,
    Moment,
    filter_options,
    home_option,
    jobs_option,
    json_option,
    reading_bar,
    usage_errors,
    where_argument,
)
from addons.verbs.output import console, print_json
from kernel.entry import timestamp
from kernel.errors import PolicyError

VERBS = {
    "verify": ("verification", "Say whether the log is whole and as it was written, and what that rests on."),
    "show": ("audit", "Print the entries of all lanes, oldest first."),
    "replay": ("audit", "Make every decision again; or say what another policy would have changed."),
    "receipt": ("proofs", "Prove that an entry is in the log to somebody who has nothing of it."),
    "prove": ("proofs", "Prove that the log grew from a head that somebody kept."),
    "sample": ("proofs", "Draw entries by a public rule, each with its receipt."),
    "bundle": ("bundle", "Make one file for an auditor, verified without Governor."),
    "export": ("export", "Write the log out for a SIEM, as JSON lines or OCSF events."),
    "anchor": ("anchor", "Keep heads of the log where this host cannot take them back."),
    "rotate": ("rotation", "End the segment that is written, and the key that signs it."),
    "accept-loss": ("losses", "Give up a lane that a start refuses, and go on in another."),
    "key-compromised": ("losses", "Say that a lane's key is in other hands, and go on in another lane."),
}


@click.group(cls=VerbGroup, verbs=VERBS)
def audit() -> None:
    """Verify the signed log, prove parts of it, read it, and make its decisions again.

    HOME is a Governor home or the audit folder of one; for verify and replay a bundle, too. A log can be verified
    anywhere, with nothing but that and the verifier key of its root, which `governor init` printed and pinned.

    Exit status: 0 yes, 1 no (verify: tampered), 2 wrong usage or no log there, 3 answer with a reservation, 4
    incomplete, 5 rolled back. Each verb says which of them it has.
    """


@click.command()
@where_argument
@home_option
@click.option("--follow", is_flag=True, help="Go on with what is written from now on.")
@filter_options
@click.option("--json", "as_json", is_flag=True, help="Print the log's own lines, bytes unchanged.")
def show(
    where: Path | None,
    home: str | None,
    follow: bool,
    agent: str | None,
    verdict: str | None,
    rule: str | None,
    host: str | None,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> int:
    """Print the entries of all lanes, oldest first. It reads and does not verify.

    \b
    governor audit show --agent coder-1 --verdict deny --since 2h
    governor audit show --follow

    Exit status: 0 shown, 1 a line that cannot be read was left out, 2 no log there.
    """
    first, end = (timestamp(moment) if moment else None for moment in (since, until))
    wanted = Filter(agent, verdict, rule, host, first, end)
    with usage_errors():
        log = AuditLog.at(where or home_folder(home))
        view = View(log, wanted, complain=lambda text: click.echo(f"governor: {escaped(text)}", err=True))
        vault = Vault(log.vault)
        coloured = console().is_terminal and not console().no_color
        while True:
            for line, entry in view.fresh():
                if as_json:
                    sys.stdout.buffer.write(line)
                else:
                    click.echo(as_text(entry, vault, coloured=coloured))
            sys.stdout.flush()
            if not follow:
                return 1 if view.damaged else 0
            time.sleep(FOLLOW_SECONDS)


@click.command()
@where_argument
@home_option
@click.option("--policy", "policies", metavar="FILE", multiple=True,
              type=click.Path(exists=True, readable=True, dir_okay=False, path_type=Path),
              help="Say what this policy would have changed; of several files the first is the uppermost tier.")
@click.option("--fail-on-change", is_flag=True, help="With --policy: exit 1 where a verdict would be another.")
@click.option("--agent", help="Only decisions about this agent.")
@click.option("--since", type=Moment(), help="Only decisions from TIME on: RFC 3339, or 10m, 2h, 3d ago.")
@click.option("--until", type=Moment(), help="Only decisions before TIME.")
@jobs_option
@json_option
def replay(where: Path | None, home: str | None, policies: tuple[Path, ...], fail_on_change: bool, agent: str | None,
           since: datetime | None, until: datetime | None, jobs: int | None, as_json: bool) -> int:
    """Make every decision of the log again, and say whether each comes out as it was.

    From the rules that held, the accounts as the entries before have left them and the moment of each entry, the kernel
    decides anew: verdict, rule, code, draws and the hashes of the accounts must be those of the entry. Where the vault
    holds what was asked, the rules are found again, too. What another version of the kernel decided is not judged by
    this one, and a decision whose policy was not kept or that hangs on a query, on headers or a body cannot be made
    again: that is said, with numbers. All entries count towards the accounts, whichever decisions are asked for.

    \b
    governor audit replay
    governor audit replay --since 30d --policy new.yaml     # try a policy on last month before it governs

    With --policy the requests of the log are judged by that policy instead, with its budgets full at the beginning.
    A name that was refused before it was looked up counts as one on the public internet, a URL without its query.

    A replay presumes a log as it was written: `governor audit verify` proves that.

    Exit status: 0 equal, 1 divergent, 3 some decisions cannot be made again, 4 entries are missing, 2 wrong usage. With
    --policy 0, and 1 with --fail-on-change where something changes; 4 where entries are missing.
    """
    from addons import replay_text, replaying
    from addons.verbs import replay as words

    if fail_on_change and not policies:
        raise click.UsageError("--fail-on-change is said of a --policy")
    first, end = (timestamp(moment) if moment else None for moment in (since, until))
    wanted, cores = Filter(agent=agent, since=first, until=end), jobs or os.cpu_count() or 1
    started = time.perf_counter()
    with usage_errors():
        if not policies:
            with opened(where or home_folder(home)) as log, reading_bar(log, "replaying") as progress:
                reading = replaying.replayed(log, wanted, cores, progress)
            if as_json:
                print_json(replay_text.replay_json(reading))
            else:
                words.tell_replay(console(), reading, time.perf_counter() - started)
            return replay_text.exit_code(reading)
        sources = _sources(policies)
        with opened(where or home_folder(home)) as log, reading_bar(log, "replaying") as progress:
            changes = replaying.changes(log, wanted, sources, cores, progress)
    if as_json:
        print_json(words.changes_json(changes))
    else:
        words.tell_changes(console(), changes, time.perf_counter() - started)
    if fail_on_change and changes.found.changed:
        return 1
    return 4 if changes.incomplete else 0


def _sources(files: tuple[Path, ...]) -> list[tuple[str, bytes]]:
    """The files of a policy that loads; a wrong question where it does not."""
    from addons.policy_files import PolicyMissing, read, read_policy
    from addons.verbs.findings import tell_findings

    try:
        sources = [(str(file), read(file)) for file in files]
        read_policy(sources)
    except PolicyError as refused:
        tell_findings(console(stderr=True), refused.findings)
        raise click.UsageError(f"{', '.join(map(str, files))}: it does not load") from None
    except PolicyMissing as missing:
        raise click.UsageError(str(missing)) from None
    return sources
