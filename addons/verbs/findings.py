"""What a check found, as people read it and as JSON."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from addons.policy_files import PolicyMissing, read_file
from addons.verbs.output import counted
from kernel.document import joined, printable
from kernel.findings import Finding, Severity, Witness
from kernel.hours import told
from kernel.policy import Policy
from kernel.reach import Reach

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "cyan"}
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_EXCERPT_LINES = 3


@dataclass(frozen=True, slots=True)
class Checked:
    """The files of one policy, the policy where it loads, all that was found, and what could not be decided.

    `proved` are the never items of which it was shown that nothing in them passes, `reach` is the worst that one halt
    brings about where halts spread.
    """

    files: tuple[Path, ...]
    policy: Policy | None
    findings: tuple[Finding, ...]
    undecided: tuple[str, ...] = ()
    proved: tuple[str, ...] = ()
    reach: Reach | None = None

    @property
    def loads(self) -> bool:
        return self.policy is not None

    def failures(self, *, strict: bool) -> list[Finding]:
        """The findings that answer a check with no."""
        failing = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
        return [finding for finding in self.findings if finding.severity in failing]


def said(finding: Finding) -> str:
    """The message of a finding with its hint."""
    return f"{finding.message} ({finding.hint})" if finding.hint else finding.message


def asked(seen: Witness) -> str:
    """The command that shows a witness."""
    return f"governor policy explain {' '.join(_arguments(seen))}"


def _arguments(seen: Witness) -> Iterator[str]:
    yield f"--agent {seen.agent} {seen.method} {shlex.quote(printable(seen.url))}"
    if seen.address:
        yield f"--address {seen.address}"
    for name, value in seen.headers:
        yield f"--header {shlex.quote(printable(f'{name}:{value}'))}"
    if seen.body is not None:
        yield f"--body {shlex.quote(printable(seen.body))}"
    if seen.at is not None:
        yield f"--at {told(seen.at)}"


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding as `policy check --json` prints it."""
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "file": finding.position.file,
        "line": finding.position.line,
        "column": finding.position.column,
        "rules": list(finding.rules),
        "message": said(finding),
        "witness": finding.witness and witness_json(finding.witness),
    }


def witness_json(seen: Witness) -> dict[str, Any]:
    """A request that shows something, with every field of a request."""
    request = {"agent": seen.agent, "method": seen.method, "url": seen.url, "address": seen.address}
    at = None if seen.at is None else told(seen.at)
    return {**request, "at": at, "headers": dict(seen.headers), "body": seen.body}


def tell_findings(out: Console, findings: Iterable[Finding]) -> None:
    """Each finding with the lines it is about, the hint and the request that shows it."""
    lines_of = cache(_lines)
    for finding in findings:
        severity = (finding.severity.value, _STYLES[finding.severity])
        out.print(Text.assemble(f"{finding.position}  ", severity, f" {finding.code}  {finding.message}"))
        for line in _excerpt(finding, lines_of):
            out.print(line, style="dim")
        if finding.hint:
            out.print(f"  {finding.hint}")
        if finding.witness:
            out.print(f"  witness: {asked(finding.witness)}")
        out.print()


def _excerpt(finding: Finding, lines_of: Callable[[str], Sequence[str]]) -> list[str]:
    """The line of a finding and the two before it, with a mark under the place; nothing where a secret is near."""
    lines = lines_of(finding.position.file)
    if finding.code == "E405" or not lines:
        return []
    last = finding.position.line
    numbered = [(number, lines[number - 1]) for number in range(max(1, last - _EXCERPT_LINES + 1), last + 1)
                if number <= len(lines)]
    return [*(f"  {number:5} | {printable(line)}" for number, line in numbered),
            f"        | {' ' * (finding.position.column - 1)}^"]


def _lines(file: str) -> tuple[str, ...]:
    """The lines of a file; nothing where it cannot be read, or a second time."""
    try:
        return tuple(_LINE_BREAK.split(read_file(Path(file)).decode()))
    except (PolicyMissing, UnicodeDecodeError):
        return ()


def tell_check(out: Console, checked: Sequence[Checked], seconds: float) -> None:
    """The findings, and in one line what was looked at."""
    findings = [finding for each in checked for finding in each.findings]
    tell_findings(out, findings)
    for what in (what for each in checked for what in each.undecided):
        out.print(f"undecided  {what}", style="yellow")
    for reach in (each.reach for each in checked if each.reach is not None):
        out.print(_worst(reach))
    out.print(f"{_summed_up(findings)}. {_looked_at(checked)}, {seconds:.2f} s")
    refused = sum(not each.loads for each in checked)
    if refused:
        errors = "error is" if sum(finding.severity is Severity.ERROR for finding in findings) == 1 else "errors are"
        which = "This policy does" if len(checked) == 1 else f"{refused} of {len(checked)} policies do"
        out.print(f"{which} not load until the {errors} gone.")


def _worst(reach: Reach) -> str:
    """The worst halt in one line."""
    unknown = f"; nobody knows how many agents {joined(reach.unknown, 'and')} are" if reach.unknown else ""
    if not reach.reached:
        return f"cascade: no halt of the {counted(reach.agents, 'known agent')} acts on another one{unknown}"
    instead = f", and slows {reach.slowed_instead} down instead" if reach.slowed_instead else ""
    return (f"cascade: the worst halt, of {reach.worst}, acts on {len(reach.reached)} of {reach.agents} known agents "
            f"in {reach.in_hops}; by the blast radius a process holds back {reach.radius} at most{instead}{unknown}")


def reach_json(checked: Sequence[Checked]) -> dict[str, Any] | None:
    """The worst halt of these policies as `policy check --json` prints it; None where no halt spreads."""
    found = [each.reach for each in checked if each.reach is not None]
    if not found:
        return None
    worst = max(found, key=lambda reach: len(reach.reached))
    return {"worst": worst.worst or None, "reach": len(worst.reached), "agents": worst.agents, "radius": worst.radius,
            "hops": worst.hops, "slowed_instead": worst.slowed_instead, "unknown": list(worst.unknown)}


def _summed_up(findings: Sequence[Finding]) -> str:
    if not findings:
        return "nothing found"
    numbers = {severity: sum(finding.severity is severity for finding in findings) for severity in Severity}
    each = ", ".join(counted(number, severity.value) for severity, number in numbers.items() if number)
    return f"{counted(len(findings), 'finding')}: {each}"


def _looked_at(checked: Sequence[Checked]) -> str:
    policies = [each.policy for each in checked if each.policy is not None]
    rules = counted(sum(len(policy.rules) for policy in policies), "rule")
    every = sum(len(policy.nevers) for policy in policies)
    nevers = f"{sum(len(each.proved) for each in checked)} of {every} never proved" if every else "0 never"
    limits = counted(sum(len(policy.limits) for policy in policies), "limit")
    proved = counted(sum(len(policy.assertions) + len(policy.claims) for policy in policies), "assertion")
    undecided = sum(len(each.undecided) for each in checked)
    shown = [rules, nevers, *([] if limits.startswith("0") else [limits]), f"{proved} proved", f"{undecided} undecided"]
    return ", ".join(shown)
