"""`governor policy`: check, test and explain policies. Nothing here needs a running Governor or asks a name server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from addons import agents_file
from addons.cases import Trial, tried
from addons.home import Paths, home_folder
from addons.policy_files import load_policy, shipped_policy
from addons.verbs.output import console, print_json
from kernel.compiler import Compiled
from kernel.decide import Judgement
from kernel.document import printable
from kernel.errors import NonCanonical, PolicyError
from kernel.explanation import Miss, measured, near_misses, would_allow
from kernel.facts import Address, RequestFacts
from kernel.findings import Finding, Severity, Witness
from kernel.match import Index
from kernel.outlook import as_if
from kernel.policy import Policy, Rule
from kernel.question import STAND_IN, answer, facts_of
from kernel.verdict import Action, Verdict

_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "cyan"}
_EXCERPT_LINES = 3
_TIER = "platform"
_METHOD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_ahead = click.option("--ahead", is_flag=True, help="Also read what a later version enforces: ask, budgets, llm, ...")


@click.group()
def policy() -> None:
    """Check, test and explain policies.

    \b
    governor policy check policy.yaml             does it load, and what is doubtful in it?
    governor policy test policy.cases.yaml        does it answer as its cases say?
    governor policy explain GET https://x.org/    what would happen to this request, and why?

    None of them needs a running Governor, and none asks a name server anything.
    """


@policy.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_FILE)
@click.option("--strict", is_flag=True, help="Exit 1 on a warning, too.")
@click.option("--home", metavar="DIR", help="The home whose registered agents are known. Before $GOVERNOR_HOME.")
@_ahead
@_json
@click.pass_context
def check(
    ctx: click.Context, files: tuple[Path, ...], strict: bool, home: str | None, ahead: bool, as_json: bool
) -> None:
    """Check policies: would each FILE load, do its assertions hold, and what is doubtful in it?

    Every finding has a code, a place and, where one helps, a hint and a request that shows it. A policy with an error
    does not load: a start is refused, and a reload keeps the policy that is in force.

    A key that this version cannot enforce is an error. With --ahead it is read and analysed like the others, but such a
    policy still does not load: it is written for the version to come.

    Exit status: 0 no error, 1 an error (with --strict also a warning), 2 a FILE that is not there.
    """
    started = time.perf_counter()
    known = _registered(home)
    checked = [_checked(file, known, ahead=ahead) for file in files]
    findings = [finding for each in checked for finding in each.findings]
    ok = not any(finding.severity is Severity.ERROR for finding in findings)
    if as_json:
        shown = [_finding(finding) for finding in findings]
        print_json({"files": [str(file) for file in files], "ok": ok, "findings": shown, "undecided": []})
    else:
        _tell_findings(console(), findings)
        _tell_check(console(), checked, findings, time.perf_counter() - started)
    doubtful = strict and any(finding.severity is Severity.WARNING for finding in findings)
    ctx.exit(0 if ok and not doubtful else 1)


@dataclass(frozen=True, slots=True)
class _Checked:
    """One file, its policy where it loads, and everything that was found."""

    policy: Policy | None
    findings: tuple[Finding, ...]


def _registered(home: str | None) -> frozenset[str]:
    """The agents that a home knows; none where there is no home."""
    path = Paths(home_folder(home)).agents
    return frozenset(agents_file.load(path).agents) if path.exists() else frozenset()


def _checked(file: Path, known: frozenset[str], *, ahead: bool) -> _Checked:
    try:
        compiled = load_policy([file], known, ahead=ahead)
    except PolicyError as refused:
        return _Checked(None, refused.findings)
    return _Checked(compiled.policy, compiled.findings)


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "file": finding.position.file,
        "line": finding.position.line,
        "column": finding.position.column,
        "rules": list(finding.rules),
        "message": f"{finding.message} ({finding.hint})" if finding.hint else finding.message,
        "witness": finding.witness and _witness(finding.witness),
    }


def _witness(seen: Witness) -> dict[str, Any]:
    asked = {"agent": seen.agent, "method": seen.method, "url": seen.url, "address": seen.address}
    return {**asked, "at": None, "headers": {}, "body": None}


def _tell_findings(out: Console, findings: Iterable[Finding]) -> None:
    """Each finding with the lines it is about, the hint and the request that shows it."""
    for finding in findings:
        severity = (finding.severity.value, _STYLES[finding.severity])
        out.print(Text.assemble(f"{finding.position}  ", severity, f" {finding.code}  {finding.message}"))
        for line in _excerpt(finding):
            out.print(line, style="dim")
        if finding.hint:
            out.print(f"  {finding.hint}")
        if finding.witness:
            seen = finding.witness
            address = f" --address {seen.address}" if seen.address else ""
            url = printable(seen.url)
            out.print(f"  witness: governor policy explain --agent {seen.agent} {seen.method} {url}{address}")
        out.print()


def _excerpt(finding: Finding) -> list[str]:
    """The line of a finding and the two before it, with a mark under the place."""
    try:
        lines = Path(finding.position.file).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):
        return []
    last = finding.position.line
    numbered = [(number, lines[number - 1]) for number in range(max(1, last - _EXCERPT_LINES + 1), last + 1)
                if number <= len(lines)]
    return [*(f"  {number:5} | {printable(line)}" for number, line in numbered),
            f"        | {' ' * (finding.position.column - 1)}^"]


def _tell_check(out: Console, checked: Sequence[_Checked], findings: Sequence[Finding], seconds: float) -> None:
    policies = [each.policy for each in checked if each.policy is not None]
    counted = [_count(len([f for f in findings if f.severity is severity]), severity.value) for severity in Severity]
    found = ", ".join(text for text in counted if not text.startswith("0 ")) or "nothing found"
    rules = _count(sum(len(each.rules) for each in policies), "rule")
    never = sum(len(each.nevers) for each in policies)
    limits = sum(len(each.limits) for each in policies)
    limited = f"{_count(limits, 'limit')}, " if limits else ""
    proved = _count(sum(len(each.assertions) for each in policies), "assertion")
    out.print(f"{found}. {rules}, {never} never, {limited}{proved} held, {seconds:.2f} s")
    if len(policies) < len(checked):
        out.print("This does not load until the errors are gone." if len(checked) == 1 else
                  f"{len(checked) - len(policies)} of {len(checked)} files do not load until the errors are gone.")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 or what == "info" else f"{number} {what}s"


@policy.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_FILE)
@_ahead
@_json
@click.pass_context
def test(ctx: click.Context, files: tuple[Path, ...], ahead: bool, as_json: bool) -> None:
    """Try cases: requests written down in a FILE, each with the verdict that the policy must give.

    \b
    policy: default.yaml            relative to FILE
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

    The end lists the rules that no case met.

    Exit status: 0 every case passed, 1 one did not or the policy does not load, 2 a FILE that is not there.
    """
    try:
        trials = [tried(file, ahead=ahead) for file in files]
    except PolicyError as refused:
        _tell_findings(console(stderr=True), refused.findings)
        ctx.exit(1)
    outcomes = [outcome for trial in trials for outcome in trial.outcomes]
    failed = sum(not outcome.ok for outcome in outcomes)
    if as_json:
        cases = [{"name": each.case.name, "ok": each.ok, "expect": each.case.expect, "verdict": each.verdict,
                  "rule": each.rule, "code": each.code} for each in outcomes]
        uncovered = [name for trial in trials for name in trial.uncovered]
        print_json({"passed": len(outcomes) - failed, "failed": failed, "cases": cases, "uncovered": uncovered})
    else:
        for file, trial in zip(files, trials, strict=True):
            _tell_trial(console(), file, trial)
    ctx.exit(1 if failed else 0)


def _tell_trial(out: Console, file: Path, trial: Trial) -> None:
    for each in trial.outcomes:
        if each.ok:
            out.print(Text.assemble(("ok    ", "green"), printable(each.case.name)))
            continue
        wanted = [each.case.expect, each.case.rule and f"rule {each.case.rule}", each.case.code]
        got = [each.verdict, each.rule and f"rule {each.rule}", each.code]
        out.print(Text.assemble(("FAIL  ", "bold red"), printable(each.case.name)))
        out.print(f"      expected {', '.join(filter(None, wanted))}")
        out.print(f"      got      {', '.join(filter(None, got))}")
    failed = sum(not each.ok for each in trial.outcomes)
    out.print(f"{file}: {len(trial.outcomes) - failed} passed, {failed} failed")
    if trial.uncovered:
        out.print(f"no case meets: {', '.join(trial.uncovered)}", style="yellow")


@policy.command()
@click.option("--policy", "file", type=_FILE, metavar="FILE",
              help="The policy that is asked. Without it: the home's policy.yaml, else the one that Governor ships.")
@click.option("--home", metavar="DIR", help="The home whose policy is asked. Before $GOVERNOR_HOME.")
@click.option("--agent", default="local", show_default=True, metavar="A", help="Who asks.")
@click.option("--address", metavar="IP", help="What the host resolves to. Without it: some address of the internet.")
@click.option("--body", metavar="STRING|@FILE", help="The body of the request. Only its size matters yet.")
@_ahead
@click.option("--holds", multiple=True, metavar="RULE",
              help="With --ahead: the request fulfils what nothing can judge yet of this rule. May be repeated.")
@_json
@click.argument("method")
@click.argument("url")
@click.pass_context
def explain(
    ctx: click.Context, file: Path | None, home: str | None, agent: str, address: str | None, body: str | None,
    ahead: bool, holds: tuple[str, ...], as_json: bool, method: str, url: str,
) -> None:
    """Say what would happen to a request, which rules hold for it, and what would let it through.

    \b
    governor policy explain --agent coder-1 POST https://api.example.org/v1/items
    governor policy explain GET https://billing.corp.example/ --address 10.1.2.3
    governor policy explain GET wss://voice.example.org/

    Exit status: 0 granted, 1 refused, 2 a FILE, METHOD, URL or IP that cannot be meant.
    """
    asked = as_if(_asked_policy(file, home, ahead=ahead).policy, holds)
    if not _METHOD.fullmatch(method):
        raise click.BadParameter(f"{method} is not a method", param_hint="METHOD")
    explained = _explained(asked, agent, method.upper(), url, _address(address), _body_bytes(body))
    if as_json:
        print_json(_explanation(explained))
    else:
        _tell_explanation(console(), explained)
    ctx.exit(0 if explained.judgement.verdict.lets_through else 1)


def _asked_policy(file: Path | None, home: str | None, *, ahead: bool) -> Compiled:
    if file is None:
        own = Paths(home_folder(home)).policy
        file = own if own.exists() else shipped_policy("default")
    return load_policy([file], ahead=ahead)


def _address(text: str | None) -> Address | None:
    try:
        return None if text is None else ip_address(text)
    except ValueError:
        raise click.BadParameter(f"{text} is not an address", param_hint="--address") from None


def _body_bytes(text: str | None) -> int:
    if text is None or not text.startswith("@"):
        return len((text or "").encode(errors="surrogateescape"))
    file = Path(text[1:])
    if not file.is_file():
        raise click.BadParameter(f"there is no file {file}", param_hint="--body")
    return file.stat().st_size


@dataclass(frozen=True, slots=True)
class _Explained:
    """A verdict with what is said about it. `assumed` is true where no address was given for a name."""

    judgement: Judgement
    matched: tuple[Rule, ...]
    misses: tuple[Miss, ...]
    would_allow: tuple[str, ...]
    assumed: bool


def _explained(
    asked: Policy, agent: str, method: str, url: str, address: Address | None, body_bytes: int
) -> _Explained:
    try:
        facts = facts_of(agent, method, url, body_bytes)
    except NonCanonical as refused:
        verdict = Verdict(Action.DENY, refused.code, reason=refused.problem)
        sentence = f"No policy can allow it: {refused.problem}."
        return _Explained(Judgement(verdict, (), None), (), (), (sentence,), assumed=False)
    judgement = answer(Index(asked), facts, address)
    held = tuple(rule for rule in asked.items if rule.name in judgement.groups)
    misses = near_misses(asked, facts, facts.host.address or address or STAND_IN)
    sentences = tuple(would_allow(asked, facts, judgement, misses))
    return _Explained(judgement, held, tuple(misses), sentences, _assumed(facts, address))


def _assumed(facts: RequestFacts, address: Address | None) -> bool:
    return facts.host.address is None and address is None


def _explanation(explained: _Explained) -> dict[str, Any]:
    verdict = explained.judgement.verdict
    matched = [
        {"tier": _TIER, "rule": rule.name, "verb": rule.verb.value, "file": rule.position.file,
         "line": rule.position.line} for rule in explained.matched]
    return {"verdict": verdict.action.value, "rule": verdict.rule, "code": verdict.code.value, "matched": matched,
            "would_allow": list(explained.would_allow)}


def _tell_explanation(out: Console, explained: _Explained) -> None:
    verdict = explained.judgement.verdict
    deciding = next((rule for rule in explained.matched if rule.name == verdict.rule), None)
    because = f"by rule {deciding.name} ({_place(deciding)})" if deciding else verdict.reason
    style = "bold green" if verdict.lets_through else "bold red"
    out.print(Text.assemble((f"{verdict.action.value}", style), f"  {verdict.code.value}  {because}"))
    if verdict.lets_through or explained.matched or explained.misses:
        out.print()
    for rule in explained.matched:
        out.print(f"  matched  {rule.verb.value:5} {rule.name}  {_place(rule)}")
    for miss in explained.misses:
        reasons = ", ".join(miss.reasons)
        out.print(f"  missed   {miss.rule.verb.value:5} {miss.rule.name}  {_place(miss.rule)}  {reasons}")
    if verdict.lets_through:
        out.print(f"  measured {'; '.join(measured(explained.judgement.measures))}")
    if explained.assumed:
        out.print("\nThe host is taken to be on the public internet; --address says where else it resolves to.")
    if explained.would_allow:
        out.print("\nTo let it through:")
    for sentence in explained.would_allow:
        out.print(f"  {printable(sentence)}")


def _place(rule: Rule) -> str:
    return f"{Path(rule.position.file).name}:{rule.position.line}"
