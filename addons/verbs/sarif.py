"""SARIF 2.1.0 (OASIS), which code hosts and editors read: every code a rule, every finding a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from addons.verbs.findings import asked, said
from kernel.findings import CATALOGUE, Finding, Severity
from kernel.version import VERSION

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_LEVEL_OF_CODE = {"E": "error", "P": "error", "W": "warning", "I": "note"}
_CODES = {code: number for number, code in enumerate(CATALOGUE)}


def sarif(findings: Sequence[Finding], undecided: Sequence[str]) -> dict[str, Any]:
    """The log of one run. What could not be decided is a notification of the run."""
    driver = {"name": "governor", "version": VERSION, "rules": [_rule(code) for code in CATALOGUE]}
    notes = [{"level": "warning", "message": {"text": f"Undecided: {what}"}} for what in undecided]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
        "results": [_result(finding) for finding in findings],
    }
    return {"version": "2.1.0", "$schema": _SCHEMA, "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    sentence = {"text": CATALOGUE[code]}
    level = {"level": _LEVEL_OF_CODE[code[0]]}
    return {"id": code, "shortDescription": sentence, "fullDescription": sentence, "defaultConfiguration": level}


def _result(finding: Finding) -> dict[str, Any]:
    shown = f"\nWitness: {asked(finding.witness)}" if finding.witness else ""
    region = {"startLine": finding.position.line, "startColumn": finding.position.column}
    place = {"artifactLocation": _location(finding.position.file), "region": region}
    return {
        "ruleId": finding.code,
        "ruleIndex": _CODES[finding.code],
        "level": _LEVELS[finding.severity],
        "message": {"text": said(finding) + shown},
        "locations": [{"physicalLocation": place}],
    }


def _location(file: str) -> dict[str, str]:
    """A URI. A relative one is relative to the folder in which the check ran, the checkout as a rule."""
    path = Path(file)
    return {"uri": path.as_uri()} if path.is_absolute() else {"uri": quote(path.as_posix()), "uriBaseId": "%SRCROOT%"}
