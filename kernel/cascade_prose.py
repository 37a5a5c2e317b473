"""`cascade` in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from kernel.contagion import Breaker, Cascade, OnHalt, Prevention
from kernel.document import joined, printable
from kernel.words import duration_in_words

PREVENTIONS = {
    Prevention.OBSERVE: "written down, and go on",
    Prevention.THROTTLE: "slowed down",
    Prevention.ASK: "allowed only what a human agrees to (without effect yet)",
    Prevention.QUARANTINE: "allowed to read only",
    Prevention.HALT: "halted until an operator releases them",
}


def cascade_in_words(cascade: Cascade | None) -> list[str]:
    """What the halt of one agent means for others."""
    return [sentence for sentence, _ in consequences(cascade)]


def consequences(cascade: Cascade | None) -> Iterator[tuple[str, object]]:
    """Each thing that the halt of one agent means for others, in a sentence, with the agents that it speaks of."""
    if cascade is None:
        return
    members = cascade.members
    for name, needed in cascade.depends.items():
        said = f"{printable(name)} needs {joined([printable(each) for each in needed], 'and')}."
        yield said, (members[name], *(members[each] for each in needed))
    if cascade.on_halt is not None:
        yield _on_halt(cascade.on_halt), None
    if cascade.breaker is not None:
        yield _breaker(cascade.breaker, cascade.seconds), tuple(cascade.groups.items())
    if any(each is not None and each.do.holds_back for each in (cascade.on_halt, cascade.breaker)):
        yield (f"Each process holds back so at most {cascade.blast_percent} % of the agents that asked it for "
               "something within the hour, and one always, at a time; the others are slowed down."), None


def _on_halt(halt: OnHalt) -> str:
    steps = "" if halt.hops == 1 else f", up to {halt.hops} steps away,"
    reasons = joined(sorted(halt.reasons), "or")
    return f"When an agent is halted for {reasons}, those that need it{steps} are {_done(halt.do, halt.seconds)}."


def _breaker(breaker: Breaker, seconds: int) -> str:
    halts = "halt" if breaker.halts == 1 else "halts"
    return (f"After {breaker.halts:,} {halts} within {duration_in_words(breaker.within_seconds)} in one group, the "
            f"others of the group are {_done(breaker.do, seconds)}.")


def _done(do: Prevention, seconds: int) -> str:
    ends = do is not Prevention.HALT and do is not Prevention.OBSERVE
    return f"{PREVENTIONS[do]}, for {duration_in_words(seconds)}" if ends else PREVENTIONS[do]
