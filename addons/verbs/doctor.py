"""`governor doctor`: what is wrong with this machine's Governor, and whether a sandbox holds."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from addons.sandbox import tiers
from addons.sandbox.inside import TIER
from addons.sandbox.tiers import Tier
from addons.verbs.asking import home_option, json_option
from addons.verbs.output import console, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NO_TIER = 2
_NOT_STARTED = 125
_AUTO = "auto"


class Address(click.ParamType[str]):
    """An IPv4 or IPv6 address."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            self.fail(f"{value} is no address: give one such as 203.0.113.7", param, ctx)


@click.command()
@click.option("--inside", is_flag=True, help="Try to get out of a sandbox; outside one, start one first.")
@click.option("--here", is_flag=True, help="With --inside: try right here, in a deployment of your own.")
@click.option("--tier", type=click.Choice([_AUTO, *(tier.value for tier in Tier)]), show_default=_AUTO,
              help="With --inside: of which tier the sandbox is that is started.")
@click.option("--target", "targets", type=Address(), multiple=True, metavar="ADDRESS",
              help="With --inside: a server of your own that should not be reachable. Can be given several times.")
@click.option("--all", "everything", is_flag=True, help="With --inside: show closed ways, too.")
@home_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, inside: bool, here: bool, tier: str | None, targets: tuple[str, ...], everything: bool,
           home: str | None, as_json: bool) -> None:
    """Say what is wrong with this machine's Governor and how to repair it; or whether a sandbox holds.

    Without --inside: versions, the gate's self-test, the home, its keys and who can read them, room on the disk, the
    policy, the CA, who listens on the ports, clients that refuse the CA, and which tiers of sandbox this machine can
    hold. A line says ok, warn or FAIL, and what to do.

    With --inside some 340 attempts are made to get round the enforcement: other ports, protocols and addresses, DNS,
    raw packets, sockets of other services, other processes, mounts, namespaces, privileges, Governor's own files. None
    does harm where it succeeds. Each says its way, what is expected and what was seen. Closed means that something said
    no; "silent", that nothing came back, which a capture at the other end must confirm.

    \b
    governor doctor
    governor doctor --inside                                    a sandbox of the best tier this machine can hold
    governor doctor --inside --tier bwrap --all
    kubectl exec agent -- governor doctor --inside --here --target 203.0.113.7

    Without --target well-known addresses are tried: documentation ranges, public resolvers, cloud metadata. A server of
    your own that answers on many ports is the better proof.

    Exit status: 0 nothing FAILs, or no way is open (warnings are fine); 1 something does, or one is; 2 wrong usage, or
    this machine can hold no sandbox.
    """
    from addons.home import home_folder

    if not inside:
        if here or tier or targets or everything:
            raise click.UsageError("--here, --tier, --target and --all go with --inside")
        ctx.exit(_look(home_folder(home), as_json=as_json))
    if here or os.environ.get(TIER):
        ctx.exit(_try(targets, home, everything=everything, as_json=as_json))
    ctx.exit(_enter(tier or _AUTO, targets, home_folder(home), everything=everything, as_json=as_json))


def _look(home: Path, *, as_json: bool) -> int:
    """Look at the host; the exit status."""
    # What is looked at takes a second to import; `governor --help` does not wait for it.
    from addons.doctor.examination import examined
    from addons.verbs.checks import as_json as document
    from addons.verbs.checks import tell

    checks = examined(home)
    if as_json:
        print_json(document(checks))
    else:
        tell(checks)
    return 0 if all(check.holds for check in checks) else 1


def _try(targets: tuple[str, ...], home: str | None, *, everything: bool, as_json: bool) -> int:
    """Make the attempts in this process's place; the exit status."""
    from addons.attempts.attempt import Result
    from addons.attempts.every import ATTEMPTS
    from addons.attempts.running import run
    from addons.attempts.surroundings import Surroundings
    from addons.verbs import attempts

    here = Surroundings.read(targets, os.environ | ({"GOVERNOR_HOME": home} if home else {}))
    taken = run(ATTEMPTS, here)
    if as_json:
        print_json(attempts.as_json(here.tier, taken))
    else:
        attempts.tell(here.tier, taken, everything=everything)
    return 1 if any(seen.result is Result.OPEN for _, seen in taken) else 0


def _enter(tier: str, targets: tuple[str, ...], home: Path, *, everything: bool, as_json: bool) -> int:
    """Make them in a sandbox that is started for it; the exit status."""
    wanted = (Tier.NETNS, Tier.BWRAP) if tier == _AUTO else (Tier(tier),)
    chosen = tiers.best() if tier == _AUTO else next((each for each in wanted if not tiers.possible(each)), None)
    if chosen is None:
        lacking = dict.fromkeys(missing for each in wanted for missing in tiers.possible(each))
        _tell_impossible(list(lacking), as_json=as_json)
        return NO_TIER
    flags = [*(["--all"] if everything else []), *(["--json"] if as_json else []),
             *(part for target in targets for part in ("--target", target))]
    ended = subprocess.run(_sandboxed(chosen, os.path.abspath(home), flags), check=False).returncode
    return NO_TIER if ended == _NOT_STARTED else ended


def _sandboxed(tier: Tier, home: str, flags: Sequence[str]) -> list[str]:
    """The command that makes the attempts in a sandbox of that tier, which has this home."""
    from addons.sandbox.held import OUR_CODE, ROOT

    # A sandbox has its own PATH and may have its own `governor`: this Python and this code are what is asked.
    governor = [sys.executable, "-I", "-c", f"{OUR_CODE}from addons.cli import main; main()", os.fspath(ROOT)]
    return [*governor, "run", "--tier", tier, "--home", home, "--quiet", "--",
            *governor, "doctor", "--inside", "--home", home, *flags]


def _tell_impossible(lacking: Sequence[tiers.Missing], *, as_json: bool) -> None:
    if as_json:
        print_json({"tier": None, "attempts": [], "open": 0, "closed": 0, "not_possible": 0,
                    "missing": [{"what": each.what, "fix": each.fix} for each in lacking]})
        return
    for each in lacking:
        console(stderr=True).print(f"governor: {each.what}" + (f": {each.fix}" if each.fix else ""))
    console(stderr=True).print("governor: no sandbox can be made here")
