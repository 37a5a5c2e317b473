"""What `policy diff` says of two policies: text, JSON, Markdown for a pull request, and GitHub's workflow commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from addons.verbs.findings import asked, witness_json
from addons.verbs.github import command
from kernel.analysis.difference import MOST_CHANGES, Change, Difference, Relation
from kernel.hours import told
from kernel.trial import Mode

_SIDES = ("old", "new")
_LOOSENS = frozenset({Relation.LOOSER, Relation.INCOMPARABLE, Relation.UNDECIDED})
_STYLES = {Relation.LOOSER: "bold red", Relation.STRICTER: "bold green", Relation.EQUAL: "bold green"}
_SPECIAL_IN_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|~"})


def may_loosen(found: Difference) -> bool:
    """True unless the new policy certainly allows nothing that the old one refuses."""
    return found.relation in _LOOSENS or bool(found.undecided)


def _kinds(found: Difference) -> list[tuple[str, Sequence[Change]]]:
    return [("newly allowed", found.newly_allowed), ("newly denied", found.newly_denied), ("changed", found.changed)]


def _summary(found: Difference) -> str:
    numbers = ", ".join(f"{len(changes)} {kind}" for kind, changes in _kinds(found))
    return f"{found.relation.value.upper()} ({numbers}, {len(found.undecided)} undecided)"


def difference_json(found: Difference) -> dict[str, Any]:
    shown = {kind.replace(" ", "_"): [_change(each) for each in changes] for kind, changes in _kinds(found)}
    modes, ends = ([of(end) for end in found.trials] for of in (_mode, _end))
    mode: dict[str, Any] = dict(zip(_SIDES, modes, strict=True))
    if any(ends):
        mode["until"] = dict(zip(_SIDES, ends, strict=True))
    return {"relation": found.relation.value, "mode": mode, **shown, "undecided": list(found.undecided)}


def _mode(end: int | None) -> Mode:
    return Mode.ENFORCE if end is None else Mode.OBSERVE


def _end(end: int | None) -> str | None:
    return None if end is None else told(end)


def _change_of_mode(found: Difference) -> str | None:
    """The change of mode in words; None where there is none."""
    old, new = found.trials
    if old == new:
        return None
    before, after = (f"{_mode(end)}{'' if end is None else f' until {told(end)}'}" for end in found.trials)
    because = "nothing is refused for the rules until then" if new is not None else "what the rules refuse is refused"
    return f"mode {before} -> {after}: {because}"


def _change(change: Change) -> dict[str, Any]:
    witness = change.witness and witness_json(change.witness)
    return {"rules": list(change.rules), "message": change.message, "witness": witness}


def tell_difference(out: Console, found: Difference, seconds: float) -> None:
    """The relation, then each change with the request that shows it."""
    mode = _change_of_mode(found)
    if mode is not None:
        out.print(mode, style="bold red" if found.trials[1] is not None else "bold green")
    out.print(f"{_summary(found)}, {seconds:.2f} s", style=_STYLES.get(found.relation, "bold yellow"))
    for kind, changes in _kinds(found):
        for change in changes:
            out.print(f"\n{kind}: {change.message}")
            if change.witness is not None:
                out.print(f"  witness: {asked(change.witness)}", style="dim")
    for what in found.undecided:
        out.print(f"\nundecided: {what}", style="yellow")


def markdown(found: Difference) -> str:
    """A comment for a pull request."""
    return "\n".join([f"### Policy change: {_summary(found)}", "", *_markdown_lines(found)]) + "\n"


def _markdown_lines(found: Difference) -> Iterator[str]:
    mode = _change_of_mode(found)
    if mode is not None:
        yield f"- **{mode.translate(_SPECIAL_IN_MARKDOWN)}**"
    for kind, changes in _kinds(found):
        for change in changes:
            # In a fence, so that nothing of a URL is read as Markdown.
            yield f"- **{kind}**: {change.message.translate(_SPECIAL_IN_MARKDOWN)}"
            if change.witness is not None:
                yield from ("", "  ```", f"  {asked(change.witness)}", "  ```", "")
    for what in found.undecided:
        yield f"- **undecided**: {what.translate(_SPECIAL_IN_MARKDOWN)}"
    if found.relation is Relation.EQUAL and not found.changed:
        yield "- Nothing changes for any request."
    elif any(len(changes) == MOST_CHANGES for _, changes in _kinds(found)):
        yield f"- At most {MOST_CHANGES} changes of a kind are shown: there may be more."
    elif not found.undecided:
        yield "- Nothing else changes for any request."


def workflow_commands(found: Difference, file: str) -> Iterator[str]:
    """A note for a change of mode and for the summary, and one for each change."""
    mode = _change_of_mode(found)
    if mode is not None:
        yield command("warning" if found.trials[1] is not None else "notice", mode, {"file": file, "title": "mode"})
    yield command("warning" if may_loosen(found) else "notice", _summary(found), {"file": file, "title": "policy diff"})
    for kind, changes in _kinds(found):
        for change in changes:
            shown = "" if change.witness is None else f"\nwitness: {asked(change.witness)}"
            name = "warning" if kind == "newly allowed" else "notice"
            yield command(name, change.message + shown, {"file": file, "title": kind})
    for what in found.undecided:
        yield command("warning", what, {"file": file, "title": "undecided"})
