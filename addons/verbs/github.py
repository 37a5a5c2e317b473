"""Workflow commands that GitHub shows beside the lines of a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from addons.verbs.findings import Checked, asked, said
from kernel.findings import Finding, Severity

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
_IN_A_MESSAGE = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_IN_A_PROPERTY = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})


def workflow_commands(checked: Iterable[Checked]) -> Iterator[str]:
    """A command for each finding, and for each thing that could not be decided."""
    for each in checked:
        yield from (_annotation(finding) for finding in each.findings)
        for what in each.undecided:
            place = {"file": str(each.files[0]), "title": "undecided"}
            yield command("warning", f"could not be decided: {what}", place)


def _annotation(finding: Finding) -> str:
    place = finding.position
    properties = {"file": place.file, "line": str(place.line), "col": str(place.column), "title": finding.code}
    shown = f"\nwitness: {asked(finding.witness)}" if finding.witness else ""
    return command(_COMMANDS[finding.severity], said(finding) + shown, properties)


def command(name: str, message: str, properties: dict[str, str]) -> str:
    """`::name key=value,...::message`, with everything escaped that would end it early."""
    escaped = ",".join(f"{key}={value.translate(_IN_A_PROPERTY)}" for key, value in properties.items())
    return f"::{name} {escaped}::{message.translate(_IN_A_MESSAGE)}"
