"""`governor audit`: verify the log, read it, make its decisions again; other modules prove parts of it."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from importlib import import_module
from pathlib import Path

import click

from addons.audit_log import AuditLog
from addons.audit_text import Vault, as_text, escaped
from addons.audit_view import Filter, View
from addons.bundle_reading import opened
from addons.home import home_folder
from addons.verbs.anchor import anchor
from addons.verbs.asking import (
    Moment,
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

FOLLOW_SECONDS = 0.25
_ELSEWHERE = {"verify": "verification", "receipt": "proofs", "prove": "proofs", "sample": "proofs", "bundle": "bundle",
              "export": "export", "rotate": "rotation", "anchor": "anchor", "accept-loss": "losses",
              "key-compromised": "losses"}


class _AuditGroup(click.Group):
    """Knows the verbs of other modules by name, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(
            import_module(f"addons.verbs.{_ELSEWHERE[cmd_name]}"), cmd_name.replace("-", "_"))
        return command


@click.group(cls=_AuditGroup)
def audit() -> None:
    """Verify the signed log, prove parts of it, read it, and make its decisions again.

    HOME is a Governor home, the audit folder of one, or a bundle that `governor audit bundle` made. A log can be
    verified anywhere, with nothing but that and the verifier key of its root, which `governor init` printed and pinned.
    """


audit.add_command(anchor)


@audit.command()
@where_argument
@home_option
@click.option("--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--agent", help="Only entries about this agent.")
@click.option("--verdict", help="Only decisions with this verdict: allow, ask, throttle, deny or halt.")
@click.option("--rule", help="Only decisions of this rule.")
@click.option("--host", help="Only decisions about this host, as the log names it.")
@click.option("--since", type=Moment(), help="Only entries from TIME on: RFC 3339, or 10m, 2h, 3d ago.")
@click.option("--until", type=Moment(), help="Only entries before TIME.")
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
    """Print the entries of all lanes, oldest first. It reads and does not verify."""
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


@audit.command()
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
