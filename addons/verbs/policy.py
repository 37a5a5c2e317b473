"""`governor policy`: check, test and explain policies. Nothing here needs a running Governor or asks a name server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.text import Text

from addons import agents_file
from addons.cases import Trial, tried
from addons.home import Paths, home_folder
from addons.policy_files import PolicyMissing, is_cases, is_policy, known_of_the_world, load_policy, shipped_policy
from addons.policy_sides import SideMissing, side
from addons.verbs import junit
from addons.verbs.difference import difference_json, markdown, may_loosen, tell_difference
from addons.verbs.difference import workflow_commands as difference_commands
from addons.verbs.explanation import (
    accesses_json,
    explained,
    explained_json,
    prose_json,
    tell_accesses,
    tell_explained,
    tell_prose,
)
from addons.verbs.findings import Checked, as_json, reach_json, tell_check, tell_findings
from addons.verbs.github import workflow_commands
from addons.verbs.output import console, print_json, progress
from addons.verbs.sarif import sarif
from kernel import times
from kernel.access import accesses
from kernel.ahead.outlook import as_if, review_at_most
from kernel.analysis.difference import difference
from kernel.compiler import Compiled
from kernel.document import printable
from kernel.errors import NonCanonical, PatternError, PolicyError
from kernel.facts import Address, Host
from kernel.fields import Headers
from kernel.findings import Severity
from kernel.normal import host as canonical_host
from kernel.policy import Policy
from kernel.reach import worst_reach
from kernel.schema import schema
from kernel.vocabulary import WELL_KNOWN_METHODS

_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_FILE_OR_FOLDER = click.Path(exists=True, readable=True, path_type=Path)
_METHOD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

_ahead = click.option("--ahead", is_flag=True, help="Also read what a later version enforces: ask, mcp, git, ...")
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


@policy.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_FILE_OR_FOLDER)
@click.option("--tiers", is_flag=True, help="The FILEs are the tiers of one policy, the platform's first.")
@_formats("sarif", "github", "junit")
@click.option("--strict", is_flag=True, help="Exit 1 on a warning, and on what could not be decided, too.")
@click.option("--home", metavar="DIR", help="The home whose registered agents are known. Before $GOVERNOR_HOME.")
@_ahead
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
    reach = worst_reach(compiled.policy, known)
    return Checked(files, compiled.policy, findings, reviewed.undecided, reviewed.proved, reach)


@policy.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_FILE_OR_FOLDER)
@_formats("junit")
@_ahead
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
@click.option("--policy", "asked_files", type=_FILE, metavar="FILE", multiple=True,
              help="The policy that is asked; once for each of its tiers. Without it: the home's policy.yaml, else the "
                   "one that Governor ships.")
@click.option("--home", metavar="DIR", help="The home whose policy is asked. Before $GOVERNOR_HOME.")
@click.option("--agent", metavar="A", help="Who asks; local, where a request is asked without it.")
@click.option("--to", "host", metavar="HOST", help="Who can reach this host, and how?")
@click.option("--address", metavar="IP", help="What the host resolves to. Without it: some address of the internet.")
@click.option("--at", metavar="TIME", help="When it is asked, as 2026-12-31T18:00:00Z. Without it: now.")
@click.option("--header", "headers", multiple=True, metavar="K:V",
              help="A header of the request, such as content-type:application/json. Once for each.")
@click.option("--body", metavar="STRING|@FILE", help="The body of the request, and what its content type says it is.")
@_ahead
@click.option("--holds", multiple=True, metavar="RULE",
              help="With --ahead: the request fulfils what nothing can judge yet of this rule. May be repeated.")
@_json
@click.argument("asked", nargs=-1, metavar="[METHOD URL | FILE]")
@click.pass_context
def explain(
    ctx: click.Context, asked_files: tuple[Path, ...], home: str | None, agent: str | None, host: str | None,
    address: str | None, at: str | None, headers: tuple[str, ...], body: str | None, ahead: bool,
    holds: tuple[str, ...], wants_json: bool, asked: tuple[str, ...],
) -> None:
    """Say what would happen to a request and why, who can reach what, or what a whole policy says.

    \b
    governor policy explain --agent coder-1 POST https://api.example.org/v1/items
    governor policy explain GET https://billing.corp.example/ --address 10.1.2.3
    governor policy explain POST https://pay.example.org/v1/charges \\
        --header content-type:application/json --body '{"amount": 5}'
    governor policy explain --agent coder-1          everything that it can reach
    governor policy explain --to api.example.org     who can reach it
    governor policy explain policy.yaml              the whole policy in sentences
    governor policy explain --policy platform.yaml --policy team.yaml GET https://example.org/

    The two tables come from the rules as they stand. A rule under "but not" takes a part of a row away; a row that a
    rule certainly takes away as a whole is left out.

    Exit status: 0 granted, something can be reached, or told; 1 refused, nothing can be reached, or a policy that does
    not load; 2 a FILE, METHOD, URL, HOST or IP that cannot be meant.
    """
    carried = (address, at, headers, body)
    match asked:
        case (method, url) if host is None:
            request = (agent or "local", _method(method), _url(url), _address(address), _headers(headers), _body(body),
                       _moment(at))
            supposed = as_if(_asked_policy(asked_files, home, ahead=ahead).policy, holds)
            granted = _tell_request(supposed, request, wants_json=wants_json)
        case (one,) if (host, agent, asked_files, *carried) == (None, None, (), None, None, (), None):
            granted = _tell_policy(one, ahead=ahead, wants_json=wants_json)
        case () if (host or agent) and carried == (None, None, (), None):
            granted = _tell_reach(
                _asked_policy(asked_files, home, ahead=ahead), agent, _host(host), wants_json=wants_json)
        case _:
            raise click.UsageError("Say METHOD URL, --agent A, --to HOST, or one FILE.")
    ctx.exit(0 if granted else 1)


def _method(text: str) -> str:
    if not _METHOD.fullmatch(text):
        raise click.BadParameter(f"{text} is not a method", param_hint="METHOD")
    return text.upper()


def _url(text: str) -> str:
    if "://" not in text:
        raise click.BadParameter(f"{text} is no URL; write https://{text}", param_hint="URL")
    return text


def _tell_request(
    asked: Policy, request: tuple[str, str, str, Address | None, Headers, bytes, int], *, wants_json: bool
) -> bool:
    said = explained(asked, *request)
    if wants_json:
        print_json(explained_json(said))
    else:
        tell_explained(console(), said)
    return said.judgement.verdict.lets_through


def _tell_policy(file: str, *, ahead: bool, wants_json: bool) -> bool:
    path = Path(file)
    if not path.is_file():
        raise click.BadParameter(_instead_of(file), param_hint="FILE")
    try:
        told = load_policy([path], ahead=ahead).policy
    except PolicyError as refused:
        tell_findings(console(stderr=True), refused.findings)
        return False
    if wants_json:
        print_json(prose_json(told))
    else:
        tell_prose(console(), told)
    return True


def _instead_of(file: str) -> str:
    """What to write where one word is no file."""
    if "://" in file:
        return f"a URL needs its method before it: GET {file}"
    if file.upper() in WELL_KNOWN_METHODS:
        return f"a method needs its URL behind it: {file} https://example.org/"
    return f"{file} is a folder; name one file in it" if Path(file).is_dir() else f"there is no file {file}"


def _tell_reach(compiled: Compiled, agent: str | None, host: Host | None, *, wants_json: bool) -> bool:
    asked = compiled.policy
    found = accesses(asked, agent, host)
    if wants_json:
        print_json({"agent": agent, "to": host and host.name, "reach": accesses_json(found, asked)})
    else:
        whom = f"What {agent} can reach" if agent else "Who can reach"
        where = "" if host is None else f"{' at' if agent else ''} {host.name}"
        tell_accesses(console(), found, asked, f"{whom}{where}", agents=agent is None)
    return bool(found)


def _host(text: str | None) -> Host | None:
    if text is None:
        return None
    try:
        return canonical_host(text)
    except NonCanonical as refused:
        name = urlsplit(text).hostname if "://" in text else None
        problem = f"{text} is a URL; write --to {name}" if name else f"{text}: {refused.problem}"
        raise click.BadParameter(problem, param_hint="--to") from None


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
    change has a request that shows it; at most five of a kind are shown.

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


def _asked_policy(files: tuple[Path, ...], home: str | None, *, ahead: bool) -> Compiled:
    own = Paths(home_folder(home)).policy
    return load_policy(files or (own if own.exists() else shipped_policy("default"),), ahead=ahead)


def _address(text: str | None) -> Address | None:
    try:
        return None if text is None else ip_address(text)
    except ValueError:
        raise click.BadParameter(f"{text} is not an address", param_hint="--address") from None


def _moment(text: str | None) -> int:
    try:
        return int(time.time()) if text is None else times.moment(text)
    except PatternError as refused:
        raise click.BadParameter(str(refused), param_hint="--at") from None


def _headers(texts: Iterable[str]) -> Headers:
    split = [text.partition(":") for text in texts]
    for name, colon, _ in split:
        if not name.strip() or not colon:
            raise click.BadParameter(f"{name} is no NAME:VALUE", param_hint="--header")
    return tuple((name.strip().lower().encode(errors="surrogateescape"), value.strip().encode(errors="surrogateescape"))
                 for name, _, value in split)


def _body(text: str | None) -> bytes:
    if text is None or not text.startswith("@"):
        return (text or "").encode(errors="surrogateescape")
    file = Path(text[1:])
    if not file.is_file():
        raise click.BadParameter(f"there is no file {file}", param_hint="--body")
    return file.read_bytes()
