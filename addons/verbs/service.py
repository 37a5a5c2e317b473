"""`governor serve` and `governor script`: the two ways to start."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from addons.home import MAIN, home_folder
from addons.report_text import loss_words
from addons.verbs.acting import operator_option, words
from addons.verbs.losses import accepted
from addons.verbs.output import console

MOST_WORKERS = 1000


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--home", metavar="DIR", help="The home: keys, CA and log. Before $GOVERNOR_HOME.")
@click.option("--workers", type=click.IntRange(1, MOST_WORKERS), default=1, show_default=True, metavar="N",
              help="How many processes share the port, each with a lane of the log.")
@click.option("--accept-loss", "reason", metavar="REASON", callback=words,
              help="Give up the lane of a log that a start refuses, and go on in another: governor audit accept-loss.")
@operator_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[MITMDUMP ARGUMENTS]...")
def serve(
    home: str | None, workers: int, reason: str | None, operator: str | None, arguments: tuple[str, ...]
) -> None:
    """Run the proxy with Governor inside from before its first port.

    \b
    Everything else is an argument of mitmdump's:
      governor serve --listen-port 8081
      governor serve --home DIR --set governor_policy=policy.yaml --set governor_metrics=127.0.0.1:9465
      governor serve --workers 4
      governor serve --accept-loss "the disk failed" --operator ann
      governor serve -- --help        what mitmdump accepts

    With --workers, processes that share the port and all budgets do the work, one for each core; one that crashes is
    started again. Asked to stop (SIGTERM, SIGINT), they take nobody in any more and let what is open finish for 10
    seconds; an event stream that is still open then ends in words. Asked again, they end at once. mitmweb, which shows
    the flows of one process, is not to be had with them.

    $GOVERNOR_POOL names a ledger that several hosts share, with its password, where ps does not show it. The option
    governor_pool comes before it.

    Exit status: 0 asked to stop, 1 refused to start, 2 wrong usage, 3 stopped on a fault.
    """
    # It asks for the policy to be read, which the start has yet to do.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from addons.serve import serve as run

    if reason is not None and workers > 1:
        raise click.UsageError("each worker has a lane of its own: governor audit accept-loss --lane w0 REASON")
    if reason is not None:
        succession = accepted(home_folder(home or _home_in(arguments)), MAIN, reason, operator, as_json=False)
        console(stderr=True).print(f"governor: {loss_words(succession)}")
    elif operator is not None:
        raise click.UsageError("--operator says who accepts a loss: give --accept-loss REASON, too")
    chosen = ("--set", f"governor_home={Path(home).absolute()}") if home else ()
    sys.exit(run([*chosen, *arguments], workers))


def _home_in(arguments: tuple[str, ...]) -> str | None:
    """The home that arguments of mitmdump's name."""
    options = (argument.removeprefix("--set=") for argument in reversed(arguments))
    return next((option.partition("=")[2] for option in options if option.startswith("governor_home=")), None)


@click.command()
@click.option("--home", metavar="DIR", help="Taken for uniformity; the script lies with the program.", hidden=True)
def script(home: str | None) -> None:  # noqa: ARG001
    """Print the path of the script that mitmproxy loads: mitmdump -s "$(governor script)"."""
    click.echo(os.fspath(Path(__file__).resolve().parents[1] / "governor.py"))
