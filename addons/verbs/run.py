"""`governor run`: a command whose only way out is Governor."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from addons.audit_text import json_text
from addons.errors import GovernorError
from addons.home import home_folder
from addons.sandbox import tiers
from addons.sandbox.executable import unstartable
from addons.sandbox.inside import TIER
from addons.sandbox.tiers import Tier
from addons.verbs.output import console
from kernel.errors import KernelError
from kernel.identity import LOCAL, valid_id

if TYPE_CHECKING:
    from addons.sandbox.asked import Asked
    from addons.sandbox.running import Ended

NOT_STARTED = 125
_DENIED = 1


class AgentName(click.ParamType[str]):
    """An agent's id."""

    name = "NAME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not (valid_id(text) or text == LOCAL.id):
            self.fail(f"{text!r} is no name of an agent: lower-case letters, digits and . _ - ; at most 64", param, ctx)
        return text


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--agent", type=AgentName(), default=LOCAL.id, show_default=True, metavar="NAME",
              help="Which agent the command is. It is known by its sandbox, whatever it says itself.")
@click.option("--policy", "policies", multiple=True, metavar="FILE",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The policy, or its tiers. Else policy.yaml of the home, else the one Governor ships.")
@click.option("--allow", "allowed", multiple=True, metavar='"METHODS HOST/PATH"',
              help='A policy in a few words: "GET api.example.org/v1/**". Nothing else passes.')
@click.option("--observe", is_flag=True, help="Let pass what the policy would refuse, and write that down; for a day.")
@click.option("--tier", "wanted", type=click.Choice(["auto", *map(str, Tier)]), default="auto", show_default=True,
              help="How strongly the command is held.")
@click.option("--fail-on", type=click.Choice(["deny"]),
              help="End with 1 where something was refused and CMD ended with 0.")
@click.option("--home", metavar="DIR", help="The home: keys, log and budgets. Before $GOVERNOR_HOME.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object, on standard error.")
@click.option("--quiet", is_flag=True, help="Print no summary.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] CMD [ARGS]...")
def run(agent: str, policies: tuple[Path, ...], allowed: tuple[str, ...], observe: bool, wanted: str,
        fail_on: str | None, home: str | None, as_json: bool, quiet: bool, command: tuple[str, ...]) -> None:
    """Run a command whose only way out is Governor, with nothing to configure inside.

    \b
      governor run -- claude
      governor run --agent coder-1 --policy team.yaml -- npm test
      governor run --allow "GET api.example.org/v1/**" -- curl https://api.example.org/v1/me
      governor run --observe -- ./agent.sh

    The command has the caller's terminal, environment, files and exit status. Its requests are judged, signed and
    recorded in a lane of their own, and every other packet is refused and counted. Clients inside trust the CA of this
    run, whose key is gone when it ends.

    \b
    Tiers:
      netns   every packet is led to Governor or refused: any client, any protocol. Needs nftables, iproute2 and
              bubblewrap, and root or user namespaces.
      bwrap   no network but a proxy on loopback: clients that know no proxy reach nothing, and no name is
              answered inside. Needs bubblewrap and user namespaces.
      env     proxy variables and no more: advice, not enforcement.
      auto    the first of the first two that this machine can hold; env only where neither exists, as on macOS.

    The summary goes to standard error. governor doctor says what is missing for a tier.

    Exit status: CMD's, or 128 and the number of the signal that ended it; 125 where Governor did not start it, 126
    where it cannot be executed, 127 where it is not there; 2 wrong usage.
    """
    _open_standard_streams()
    if TIER in os.environ:
        _fail("this command is in a sandbox of Governor's already")
    folder = Path(os.path.realpath(home_folder(home)))
    _refuse_reachable(folder)
    problem = unstartable(command[0], os.environ.get("PATH", os.defpath))
    if problem is not None:
        _fail(problem.text, problem.status)
    tier = _tier(wanted)
    # mitmproxy is Governor's to import; what is needed here takes time enough.
    from addons.sandbox import run_policy, running
    from addons.sandbox.asked import Asked as AskedRun

    try:
        policy = run_policy.chosen(folder / "policy.yaml", policies, allowed, datetime.now(UTC).date(), observe=observe)
        asked = AskedRun(command, agent, tier, folder, policy, dict(os.environ))
        if tier is Tier.ENV:
            console(stderr=True).print("governor: tier env: advice, not enforcement: the command can leave it aside",
                                       style="bold red")
        ended = asyncio.run(running.run(asked))
    except (GovernorError, KernelError) as fault:
        _fail(str(fault).removeprefix("governor: "))
    sys.exit(_told(asked, ended, fail_on, as_json=as_json, quiet=quiet))


def _open_standard_streams() -> None:
    """Where the caller has closed them, what is opened next would get their numbers and be kept inside: by the first
    process of a sandbox the /proc of the host.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # noqa: FBT003
    os.close(descriptor)


def _tier(wanted: str) -> Tier:
    if wanted == "auto":
        best = tiers.best()
        if best is None:
            _fail("no tier can hold a command here: governor doctor says why; --tier env is advice, not enforcement")
        return best
    tier = Tier(wanted)
    missing = tiers.possible(tier)
    if missing:
        _fail("; ".join(f"tier {tier}: {each.what}{f' ({each.fix})' if each.fix else ''}" for each in missing))
    return tier


def _refuse_reachable(home: Path) -> None:
    """A home in the folder in which the command works would be the command's."""
    try:
        here = Path(os.path.realpath(os.getcwd()))
    except OSError as problem:
        _fail(f"the working directory is not there any more ({problem.strerror}); run it elsewhere")
    if here in (home, *home.parents):
        _fail(f"the home {home} lies in the working directory {here}; give --home another folder, or run it elsewhere")
    if home in here.parents:
        _fail(f"the working directory {here} lies in the home {home}; run it elsewhere")


def _told(asked: Asked, ended: Ended, fail_on: str | None, *, as_json: bool, quiet: bool) -> int:
    """Tell how it went; the status to end with."""
    from addons.sandbox import run_summary

    summary, problem = run_summary.of_lane(asked.home, asked.lane)
    screen = console(stderr=True)
    if as_json:
        screen.print(json_text(run_summary.told(summary, asked, ended)))
    elif not quiet:
        for line in run_summary.lines(summary, asked, ended):
            screen.print(line)
    if ended.governor_ended:
        text = "governor: Governor ended before the command did, which had no way out from then on"
        screen.print(text, style="bold red")
    if problem is not None:
        screen.print(f"governor: {problem}", style="bold red")
    return _DENIED if fail_on and summary.denied and not ended.status else ended.status


def _fail(problem: str, status: int = NOT_STARTED) -> NoReturn:
    console(stderr=True).print(f"governor: {problem}")
    sys.exit(status)
