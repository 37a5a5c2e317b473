"""`governor pool`: what the ledger of shared budgets holds, and how it begins anew from the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.table import Table

from addons.errors import GovernorError
from addons.home import Home, home_folder
from addons.pools.chains import posts
from addons.pools.opening import open_ledger, sqlite_path
from addons.pools.setting import POOL_VARIABLE
from addons.verbs.acting import REFUSED, end, json_option
from addons.verbs.output import console, counted, print_json, progress
from kernel.bounds import COUNTER

if TYPE_CHECKING:
    from pathlib import Path

    from addons.pools.protocol import Ledger
    from kernel.leases import Held, Member, Overview, Purse

pool_option = click.option(
    "--pool", metavar="URL", envvar=POOL_VARIABLE, show_envvar=True,
    help="The ledger: sqlite:PATH, redis://..., rediss://... Without it pool.db of the home.")


@click.group()
def pool() -> None:
    """The ledger that the workers of a host, or several hosts, share: what is left of each budget, and who holds it.

    A Governor leases a part of a budget, writes that into its log, and draws on it. What it holds when it falls silent
    counts as spent.
    """


@pool.command()
@click.option("--home", metavar="DIR", help="The home that is meant. Before $GOVERNOR_HOME.")
@pool_option
@json_option
def status(home: str | None, pool: str | None, as_json: bool) -> None:
    """Show every budget that is drawn on: its limit, what is spent, held, and stranded with who fell silent.

    Then the leases by whom they were given to, and the processes with when they were last heard of. --json prints
    `server`, `budgets`, `leases`, `processes`.

    Exit status: 0 shown, 1 the ledger does not answer, 2 wrong usage.
    """
    path = sqlite_path(pool)
    if path is not None and not path.exists():
        end(f"{path} is not there: no ledger is kept in it", REFUSED, as_json=as_json)
    ledger = _opened(home_folder(home), pool, as_json=as_json)
    try:
        overview = ledger.overview()
    except GovernorError as problem:
        end(str(problem), REFUSED, as_json=as_json)
    finally:
        ledger.close()
    if as_json:
        print_json(_as_fields(overview))
    else:
        _tell(overview)


@pool.command()
@click.option("--home", "homes", metavar="DIR", multiple=True, help="A home whose log counts. Once for each host's.")
@pool_option
@json_option
def rebuild(homes: tuple[str, ...], pool: str | None, as_json: bool) -> None:
    """Have the ledger begin anew from the logs of all processes that have drawn on it: they are the authority.

    After a ledger was lost, or came back from an old backup. Every Governor that shares it must be stopped, and every
    home must be named: what stands in a log that is not counts as never drawn.

    Exit status: 0 rebuilt, 1 a log does not hold, or a process still runs, 2 wrong usage.
    """
    folders = [home_folder(each) for each in homes] or [home_folder(None)]
    ledger = _opened(folders[0], pool, as_json=as_json)
    try:
        opened = [Home.open(folder) for folder in folders]
        lanes = [(home, lane.name) for home in opened for lane in sorted(home.paths.lanes.iterdir()) if lane.is_dir()]
        with progress("reading lanes", len(lanes)) as advance:
            said = {holder: post for home, lane in lanes for holder, post in posts(home, [lane], advance).items()}
        ledger.rebuild(said)
    except GovernorError as problem:
        end(str(problem), REFUSED, as_json=as_json)
    finally:
        ledger.close()
    if as_json:
        print_json({"lanes": sorted(said)})
    else:
        console().print(f"rebuilt from {counted(len(said), 'lane')}: {', '.join(sorted(said)) or 'nothing was leased'}")


def _opened(folder: Path, said: str | None, *, as_json: bool) -> Ledger:
    own = folder / "pool.db"
    if said is None and not own.exists():
        anew = f"governor pool rebuild --pool sqlite:{own}"
        end(f"{own} is not there: no workers have shared budgets here, or it was lost. Name another ledger with --pool "
            f"or in ${POOL_VARIABLE}, or make it anew from the log: {anew}", REFUSED, as_json=as_json)
    try:
        return open_ledger(said or f"sqlite:{own}")
    except GovernorError as problem:
        end(str(problem), REFUSED, as_json=as_json)


def _as_fields(overview: Overview) -> dict[str, object]:
    return {
        "server": overview.server,
        "budgets": [{**_purse(each.purse), "limit": each.limit, "spent": each.spent, "held": each.held,
                     "stranded": each.stranded} for each in overview.balances],
        "leases": [{"holder": holder, **_lease(lease)} for holder, lease in overview.leases],
        "processes": [{"holder": each.holder, "alive": each.alive, "silent_seconds": _silent(overview, each)}
                      for each in overview.members],
    }


def _purse(purse: Purse) -> dict[str, object]:
    return {"budget": purse.budget.removesuffix(COUNTER), "unit": purse.unit, "for": purse.agent or None,
            "window": purse.window}


def _lease(lease: Held) -> dict[str, object]:
    return {"lease": lease.lease, **_purse(lease.purse), "amount": lease.amount}


def _silent(overview: Overview, member: Member) -> int:
    return max(0, overview.now_us - member.seen_us) // 1_000_000


def _tell(overview: Overview) -> None:
    out = console()
    if not overview.balances:
        out.print("nothing was drawn yet")
    table = Table("budget", "for", "unit", "limit", "spent", "held", "stranded", box=None, pad_edge=False)
    for each in overview.balances:
        purse = each.purse
        table.add_row(purse.budget.removesuffix(COUNTER), purse.agent or "all together", purse.unit,
                      *(f"{number:,}" for number in (each.limit, each.spent, each.held, each.stranded)))
    if overview.balances:
        out.print(table)
    for member in overview.members:
        stands = "alive" if member.alive else "silent"
        held = [lease for holder, lease in overview.leases if holder == member.holder]
        out.print(f"{member.holder}: {stands}, heard of {_silent(overview, member)} s ago, holds "
                  f"{counted(len(held), 'lease')}")
        for lease in held:
            out.print(f"  lease {lease.lease}: {lease.amount:,} {lease.purse.unit} of {lease.purse.budget} "
                      f"({lease.purse.agent or 'all together'})")
