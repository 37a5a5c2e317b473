"""JUnit's XML, as build servers read it: a `testsuite` for each file, a `testcase` for each thing that was asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from addons.cases import Outcome, Trial
from addons.verbs.findings import Checked, said
from kernel.document import printable
from kernel.findings import Finding
from kernel.policy import Assertion


@dataclass(frozen=True, slots=True)
class Line:
    """One test of the report; `failures` says what is wrong, `skipped` why nothing is said; nothing where it holds."""

    name: str
    failures: tuple[str, ...] = ()
    skipped: str = ""


type Suite = tuple[str, Sequence[Line]]


def of_checks(checked: Iterable[Checked], *, strict: bool) -> str:
    """A suite for each policy: that it loads, and each of its assertions and never items."""
    return _document([(_names(each), list(_checks(each, strict=strict))) for each in checked])


def _names(checked: Checked) -> str:
    return " ".join(map(str, checked.files))


def _checks(checked: Checked, *, strict: bool) -> Iterator[Line]:
    bad = checked.failures(strict=strict)
    proofs = [finding for finding in bad if finding.code.startswith("P")]
    others = [finding for finding in bad if not finding.code.startswith("P")]
    undecided = [f"undecided: {what}" for what in checked.undecided] if strict else []
    yield Line("loads without a warning" if strict else "loads", (*map(_placed, others), *undecided))
    for finding in proofs:
        yield Line(f"assertion in line {finding.position.line}", (_placed(finding),))
    if checked.policy is not None:
        yield from (Line(_asserted(assertion)) for assertion in checked.policy.assertions)
        yield from (Line(claim.name) for claim in checked.policy.claims)
        for never in checked.policy.nevers:
            yield Line(f"{never.name} in line {never.position.line}",
                       skipped="" if never.name in checked.proved else "it was not proved")


def _asserted(assertion: Assertion) -> str:
    wanted = "allowed" if assertion.allowed else "denied"
    request = f"{assertion.agent} {assertion.method} {assertion.url}"
    return f"assertion in line {assertion.position.line}: {request} is {wanted}"


def _placed(finding: Finding) -> str:
    return f"{finding.position}: {finding.code} {said(finding)}"


def of_trials(trials: Iterable[tuple[str, Trial]]) -> str:
    """A suite for each file of cases."""
    return _document([(file, [_tried(outcome) for outcome in trial.outcomes]) for file, trial in trials])


def _tried(outcome: Outcome) -> Line:
    if outcome.ok:
        return Line(outcome.case.name)
    return Line(outcome.case.name, (f"expected {outcome.wanted}; got {outcome.got}",))


def _document(suites: Sequence[Suite]) -> str:
    every = [case for _, cases in suites for case in cases]
    counts = {name: number for name, number in _counts(every).items() if name != "skipped"}
    root = ElementTree.Element("testsuites", {"name": "governor policy", **counts})
    for name, cases in suites:
        suite = ElementTree.SubElement(root, "testsuite", {"name": printable(name), **_counts(cases)})
        for case in cases:
            shown = ElementTree.SubElement(suite, "testcase", classname=printable(name), name=printable(case.name))
            if case.failures:
                # One element for all: most readers show the first and drop the others.
                failures = [printable(failure) for failure in case.failures]
                failed = ElementTree.SubElement(shown, "failure", message=failures[0], type="failure")
                failed.text = "\n".join(failures)
            if case.skipped:
                ElementTree.SubElement(shown, "skipped", message=case.skipped)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _counts(cases: Sequence[Line]) -> dict[str, str]:
    failed = sum(bool(case.failures) for case in cases)
    skipped = sum(bool(case.skipped) for case in cases)
    return {"tests": str(len(cases)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}
