"""`governor policy`: check, test and compare policies. Nothing here needs a running Governor or asks a name server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from addons import agents_file
from addons.cases import Trial, tried
from addons.home import Paths, home_folder
from addons.policy_files import PolicyMissing, is_cases, is_policy, known_of_the_world, load_policy
from addons.policy_sides import SideMissing, side
from addons.verbs import junit
from addons.verbs.difference import difference_json, markdown, may_loosen, tell_difference
from addons.verbs.difference import workflow_commands as difference_commands
from addons.verbs.findings import Checked, as_json, reach_json, tell_check, tell_findings
from addons.verbs.github import workflow_commands
from addons.verbs.output import console, print_json, progress
from addons.verbs.policy_explain import ahead_option, explain
from addons.verbs.sarif import sarif
from kernel.ahead.outlook import review_at_most
from kernel.analysis.difference import difference
from kernel.document import printable
from kernel.errors import PolicyError
from kernel.findings import Severity
from kernel.policy import Policy
from kernel.reach import worst_reach
from kernel.schema import schema

_FILE_OR_FOLDER = click.Path(exists=True, readable=True, path_type=Path)

_json = click.option("--json", "wants_json", is_flag=True, help="Print one JSON object: short for --format json.")


def _formats(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    choice = click.Choice(["text", "json", *names])
    return click.option("--format", "form", type=choice, default="text", show_default=True, help="How to answer.")


@click.group()
def policy() -> None:
    """Check, test, explain and compare policies.

    \b
    governor policy check policy.yaml             does it load, and what is doubtful in it?
    governor policy test policy.cases.yaml        does it answer as its cases say?
    governor policy explain GET https://x.org/    what would happen to this request, and why?
    governor policy explain policy.yaml           what does it say, in sentences?
    governor policy explain --agent coder-1       what can this agent reach?
    governor policy diff old.yaml new.yaml        what changes, for every request?
    governor policy schema                        its keys, for an editor

    None of them needs a running Governor, and none asks a name server anything.
    """


policy.add_command(explain)


@policy.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_FILE_OR_FOLDER)
@click.option("--tiers", is_flag=True, help="The FILEs are the tiers of one policy, the platform's first.")
@_formats("sarif", "github", "junit")
@click.option("--strict", is_flag=True, help="Exit 1 on a warning, and on what could not be decided, too.")
@click.option("--home", metavar="DIR", help="The home whose registered agents are known. Before $GOVERNOR_HOME.")
@ahead_option
@_json
@click.pass_context
def check(
    ctx: click.Context, files: tuple[Path, ...], tiers: bool, form: str, strict: bool, home: str | None,
    ahead: bool, wants_json: bool,
) -> None:
    """Check policies: would each FILE load, do its assertions hold, and what is doubtful in it?

    A FILE may be a folder: every policy in it is checked, not what lies in folders below. Every finding has a code, a
    place and, where one helps, a hint and a request that shows it. A policy with an error does not load: a start is
    refused, and a reload keeps the policy that is in force.

    A key that this version cannot enforce is an error. With --ahead it is read and analysed like the others, but such a
    policy still does not load: it is written for the version to come.

    \b
    governor policy check --strict policies/
    governor policy check --tiers platform.yaml team.yaml
    governor policy check --format github policy.yaml       notes beside the lines of a pull request
    governor policy check --format sarif policy.yaml        for code hosts and editors
    governor policy check --format junit policy.yaml        for build servers

    Exit status: 0 no error, 1 an error (with --strict also a warning, or something undecided), 2 a FILE that is not
    there, or a folder without a policy.
    """
    started = time.perf_counter()
    known = _registered(home)
    each = _files(files, is_policy, "policy")
    policies = [tuple(each)] if tiers else [(file,) for file in each]
    checked = []
    with progress("checking", len(policies)) as step:
        for of_one in policies:
            checked.append(_checked(of_one, known, ahead=ahead))
            step()
    _answer_check("json" if wants_json else form, each, checked, strict=strict, seconds=time.perf_counter() - started)
    ctx.exit(1 if any(one.failures(strict=strict) or (strict and one.undecided) for one in checked) else 0)


def _answer_check(
    form: str, files: Sequence[Path], checked: Sequence[Checked], *, strict: bool, seconds: float
) -> None:
    findings = [finding for one in checked for finding in one.findings]
    undecided = [what for one in checked for what in one.undecided]
    if form == "json":
        ok = not any(finding.severity is Severity.ERROR for finding in findings)
        shown = [as_json(finding) for finding in findings]
        print_json({"files": [str(file) for file in files], "ok": ok, "findings": shown, "undecided": undecided,
                    "cascade": reach_json(checked)})
    elif form == "sarif":
        print_json(sarif(findings, undecided))
    elif form == "github":
        click.echo("".join(f"{line}\n" for line in workflow_commands(checked)), nl=False)
    elif form == "junit":
        click.echo(junit.of_checks(checked, strict=strict), nl=False)
    else:
        tell_check(console(), checked, seconds)


def _files(paths: Sequence[Path], wanted: Callable[[str], bool], what: str) -> list[Path]:
    """The files, and those that are wanted of each folder, by name."""
    found = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if wanted(file.name) and file.is_file())
        if not inside:
            raise click.BadParameter(f"the folder {path} has no {what} in it", param_hint="FILE")
        found += inside
    return found


def _registered(home: str | None) -> frozenset[str]:
    """The agents that a home knows; none where there is no home."""
    path = Paths(home_folder(home)).agents
    return frozenset(agents_file.load(path).agents) if path.exists() else frozenset()


def _checked(files: tuple[Path, ...], known: frozenset[str], *, ahead: bool) -> Checked:
    try:
        compiled = load_policy(files, known, ahead=ahead)
    except PolicyError as refused:
        return Checked(files, None, refused.findings)
    reviewed = review_at_most(compiled.policy, known_of_the_world(), int(time.time()))
    findings = (*compiled.findings, *reviewed.findings)
    reach = worst_reach(compiled.policy, known | compiled.policy.identity.agents)
    return Checked(files, compiled.policy, findings, reviewed.undecided, reviewed.proved, reach)


@policy.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_FILE_OR_FOLDER)
@_formats("junit")
@ahead_option
@_json
@click.pass_context
def test(ctx: click.Context, files: tuple[Path, ...], form: str, ahead: bool, wants_json: bool) -> None:
    """Try cases: requests written down in a FILE, each with the verdict that the policy must give.

    \b
    policy: default.yaml            relative to FILE; of several tiers: [platform.yaml, team.yaml]
    cases:
      - name: code may be read
        agent: coder-1              local, where it is left out
        method: GET
        url: https://github.com/
        address: 140.82.121.4       what the host resolves to; some public address, where it is left out
        expect: allow
        rule: read-code             the rule that decides, where it matters
        code: ALLOW                 the same for the code
        holds: [ask-models]         with --ahead: rules whose conditions nothing can judge yet, and this request fulfils

    A FILE may be a folder: every NAME.cases.yaml in it is tried. The end lists the rules that no case met.

    Exit status: 0 every case passed, 1 one did not or the policy does not load, 2 a FILE that is not there, or a
    folder without cases.
    """
    each = _files(files, is_cases, "file of cases (NAME.cases.yaml)")
    try:
        trials = _trials(each, ahead=ahead)
    except PolicyError as refused:
        tell_findings(console(stderr=True), refused.findings)
        ctx.exit(1)
    outcomes = [outcome for trial in trials for outcome in trial.outcomes]
    failed = sum(not outcome.ok for outcome in outcomes)
    if wants_json or form == "json":
        cases = [{"name": each.case.name, "ok": each.ok, "expect": each.case.expect, "verdict": each.verdict,
                  "rule": each.rule, "code": each.code} for each in outcomes]
        uncovered = [name for trial in trials for name in trial.uncovered]
        print_json({"passed": len(outcomes) - failed, "failed": failed, "cases": cases, "uncovered": uncovered})
    elif form == "junit":
        click.echo(junit.of_trials([(str(file), trial) for file, trial in zip(each, trials, strict=True)]), nl=False)
    else:
        for file, trial in zip(each, trials, strict=True):
            _tell_trial(console(), file, trial)
    ctx.exit(1 if failed else 0)


def _trials(files: Sequence[Path], *, ahead: bool) -> list[Trial]:
    trials = []
    with progress("trying", len(files)) as step:
        for file in files:
            trials.append(tried(file, ahead=ahead))
            step()
    return trials


def _tell_trial(out: Console, file: Path, trial: Trial) -> None:
    for each in trial.outcomes:
        if each.ok:
            out.print(Text.assemble(("ok    ", "green"), printable(each.case.name)))
            continue
        out.print(Text.assemble(("FAIL  ", "bold red"), printable(each.case.name)))
        out.print(f"      expected {each.wanted}")
        out.print(f"      got      {each.got}")
    failed = sum(not each.ok for each in trial.outcomes)
    out.print(f"{file}: {len(trial.outcomes) - failed} passed, {failed} failed")
    if trial.uncovered:
        out.print(f"no case meets: {', '.join(trial.uncovered)}", style="yellow")


@policy.command()
@click.argument("old")
@click.argument("new")
@_formats("markdown", "github")
@click.option("--fail-if-looser", is_flag=True, help="Exit 1 unless NEW certainly allows nothing that OLD refuses.")
@_json
@click.pass_context
def diff(ctx: click.Context, old: str, new: str, form: str, fail_if_looser: bool, wants_json: bool) -> None:
    """Say what changes from policy OLD to policy NEW, for every request: what is newly allowed, newly denied, changed.

    OLD and NEW are files, folders, or either at a git revision, which is read without touching the work tree. Every
    change has a request that shows it; at most five of a kind are shown. Where identity differs it stays undecided what
    passes, since clients may be other agents. A file that a policy names is compared by its name alone.

    \b
    governor policy diff old.yaml new.yaml
    governor policy diff main:policies/team.yaml policies/team.yaml --fail-if-looser
    governor policy diff HEAD~1:team.yaml HEAD:team.yaml --format markdown      for a pull request

    Exit status: 0 told, 1 only with --fail-if-looser where NEW is looser, incomparable or undecided, 2 a side that is
    not there or does not load.
    """
    started = time.perf_counter()
    found = difference(_side(old), _side(new), int(time.time()))
    if wants_json or form == "json":
        print_json(difference_json(found))
    elif form == "markdown":
        click.echo(markdown(found), nl=False)
    elif form == "github":
        click.echo("".join(f"{line}\n" for line in difference_commands(found, new)), nl=False)
    else:
        tell_difference(console(), found, time.perf_counter() - started)
    ctx.exit(1 if fail_if_looser and may_loosen(found) else 0)


def _side(text: str) -> Policy:
    try:
        return side(text).policy()
    except PolicyError as refused:
        tell_findings(console(stderr=True), refused.findings)
        raise click.UsageError(f"{text} does not load") from None
    except (SideMissing, PolicyMissing) as missing:
        raise click.UsageError(str(missing)) from None


@policy.command("schema")
def show_schema() -> None:
    """Print the JSON Schema of policies, for editors: which keys stand where, and what each is for.

    \b
    governor policy schema > policy.schema.json
    # yaml-language-server: $schema=policy.schema.json      the first line of a policy

    Whether a policy loads is what governor policy check says: a schema looks up no name and sees no contradiction.
    """
    print_json(schema())
