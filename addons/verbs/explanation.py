"""What `policy explain` says: about one request, about who reaches what, and a whole policy in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from addons.request_fields import readable
from kernel.access import Access
from kernel.ahead.prose import in_words
from kernel.decide import Judgement, address_stage
from kernel.document import printable
from kernel.errors import NonCanonical
from kernel.explanation import Miss, draws_on, measured, near_misses, would_allow
from kernel.facts import Address, RequestFacts
from kernel.fields import Headers
from kernel.hours import told
from kernel.match import Index
from kernel.policy import Policy, Rule, Tier
from kernel.prose import (
    Paragraph,
    conditions_in_words,
    destination_in_words,
    path_in_words,
)
from kernel.question import STAND_IN, answer, facts_of
from kernel.trial import OBSERVED, Mode, enforced, mode_at
from kernel.verdict import Action, Verdict
from kernel.words import agents_in_words, rate_in_words


@dataclass(frozen=True, slots=True)
class Explained:
    """A verdict with what is said about it. `assumed` is true where no address was given for a name."""

    tiers: tuple[Tier, ...]
    judgement: Judgement
    matched: tuple[Rule, ...]
    misses: tuple[Miss, ...]
    would_allow: tuple[str, ...]
    assumed: bool
    draws_on: tuple[str, ...] = ()
    observed_until: int | None = None
    """The end of the trial, in seconds since 1970, where the request passes for it; None otherwise."""


def explained(
    policy: Policy, agent: str, method: str, url: str, address: Address | None, headers: Headers, body: bytes, at: int
) -> Explained:
    """Judge one request made at a moment, in seconds since 1970, and find the words for it."""
    try:
        facts = facts_of(agent, method, url, len(body), headers, readable(body, headers), at=at)
    except NonCanonical as refused:
        verdict = Verdict(Action.DENY, refused.code, reason=refused.problem)
        sentence = f"No policy can allow it: {refused.problem}."
        return Explained(policy.tiers, Judgement(verdict, (), None), (), (), (sentence,), assumed=False)
    index, where = Index(policy), facts.host.address or address or STAND_IN
    judgement, trial = answer(index, facts, address), None
    if mode_at(policy.observed_until, at) is Mode.OBSERVE and judgement.verdict.code in OBSERVED:
        whole = address_stage(index, facts, (where,), frozenset())
        judgement = enforced(index, facts, (where,), whole, policy.observed_until)
        trial = policy.observed_until if judgement.verdict.code in OBSERVED else None
    held = tuple(rule for rule in policy.items if rule.name in judgement.groups)
    misses = near_misses(policy, facts, where)
    sentences = tuple(would_allow(policy, facts, judgement, misses))
    drawn = tuple(draws_on(policy, facts, judgement))
    return Explained(policy.tiers, judgement, held, tuple(misses), sentences, _assumed(facts, address), drawn, trial)


def _assumed(facts: RequestFacts, address: Address | None) -> bool:
    return facts.host.address is None and address is None


def explained_json(said: Explained) -> dict[str, Any]:
    verdict = said.judgement.verdict
    matched = [
        {"tier": said.tiers[rule.tier].name, "rule": rule.name, "verb": rule.verb.value, "file": rule.position.file,
         "line": rule.position.line} for rule in said.matched]
    trial = {} if said.observed_until is None else {"mode": Mode.OBSERVE}
    return {"verdict": verdict.action.value, "rule": verdict.rule, "code": verdict.code.value, "matched": matched,
            "would_allow": list(said.would_allow), "draws_on": list(said.draws_on), **trial}


def tell_explained(out: Console, said: Explained) -> None:
    """The verdict, the rules that hold, those that nearly do, and what would let the request through."""
    verdict = said.judgement.verdict
    deciding = next((rule for rule in said.matched if rule.name == verdict.rule), None)
    because = f"by rule {deciding.name} ({_place(deciding)})" if deciding else verdict.reason
    style = "bold green" if verdict.lets_through else "bold red"
    out.print(Text.assemble((f"{verdict.action.value}", style), f"  {verdict.code.value}  {because}"))
    if said.observed_until is not None:
        out.print(f"passes all the same: the policy is on trial until {told(said.observed_until)}", style="bold yellow")
    if verdict.lets_through or said.matched or said.misses:
        out.print()
    for rule in said.matched:
        out.print(f"  matched  {rule.verb.value:8} {rule.name}  {_place(rule)}")
    for miss in said.misses:
        reasons = ", ".join(miss.reasons)
        out.print(f"  missed   {miss.rule.verb.value:8} {miss.rule.name}  {_place(miss.rule)}  {reasons}")
    if verdict.lets_through:
        out.print(f"  measured {'; '.join(measured(said.judgement.measures))}")
    if said.draws_on:
        out.print(f"  would draw on {'; '.join(said.draws_on)}")
    if said.assumed:
        out.print("\nThe host is taken to be on the public internet; --address says where else it resolves to.")
    if said.would_allow:
        out.print("\nTo let it through:")
    for sentence in said.would_allow:
        out.print(f"  {printable(sentence)}")


def _place(rule: Rule) -> str:
    return f"{Path(rule.position.file).name}:{rule.position.line}"


@dataclass(frozen=True, slots=True)
class _Row:
    """One access in words; what is `any` is said so."""

    agents: str
    to: list[str]
    methods: str
    paths: str
    conditions: str
    rule: str
    but_not: str


def _row(access: Access, policy: Policy) -> _Row:
    where, rule = access.where, access.rule
    excepted = ["its own except"] if rule.holes else []
    pace = "" if rule.rate is None else f"at most {rate_in_words(rule.rate)}"
    return _Row(
        "every agent" if where.agents is None else agents_in_words(where.agents, policy.groups),
        ["any host"] if where.to is None else [destination_in_words(item) for item in where.to],
        "any" if where.methods is None else " ".join(sorted(where.methods)),
        "any" if where.paths is None else ", ".join(path_in_words(glob) for glob in where.paths),
        ", ".join(filter(None, [conditions_in_words(where), pace])),
        rule.name,
        ", ".join([*excepted, *(refusal.name for refusal in access.but_not)]),
    )


def accesses_json(found: Sequence[Access], policy: Policy) -> list[dict[str, Any]]:
    """The rows of the table; `but_not` are rules that may take a part away."""
    return [{
        "agents": row.agents, "to": row.to, "methods": row.methods.split(), "paths": row.paths,
        "conditions": row.conditions, "tier": policy.tiers[access.rule.tier].name, "rule": row.rule,
        "file": access.rule.position.file, "line": access.rule.position.line, "except": bool(access.rule.holes),
        "but_not": [refusal.name for refusal in access.but_not],
    } for access in found for row in [_row(access, policy)]]


def tell_accesses(out: Console, found: Sequence[Access], policy: Policy, asked: str, *, agents: bool) -> None:
    """A table of what may be reached, a line for each destination; with `agents` also by whom."""
    if not found:
        out.print(f"{asked}: nothing is allowed.")
        return
    out.print(f"{asked}, as the rules stand:\n")
    rows = [_row(access, policy) for access in found]
    lines = [("agents", "to", "methods", "paths", "conditions", "rule", "but not")]
    lines += [(row.agents, to, row.methods, row.paths, row.conditions, row.rule, row.but_not)
              for row in rows for to in row.to]
    shown = [column for column in zip(*lines, strict=True) if any(column[1:]) and (agents or column[0] != "agents")]
    widths = [max(map(len, column)) for column in shown]
    for number, cells in enumerate(zip(*shown, strict=True)):
        padded = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        out.print(padded.rstrip(), style=None if number else "bold")
    if len(policy.tiers) > 1:
        out.print("\nEach tier that binds an agent must allow what it asks: what stands here in one of them only is "
                  "refused.")
    if any(row.but_not for row in rows):
        out.print("\nWhat a rule under \"but not\" covers is refused; governor policy explain METHOD URL says which.")


def prose_json(policy: Policy) -> dict[str, Any]:
    paragraphs = [{
        "title": paragraph.title,
        "sentences": [{"text": said.text, "rule": said.rule, "file": said.position and said.position.file,
                       "line": said.position and said.position.line} for said in paragraph.sentences],
    } for paragraph in in_words(policy)]
    return {"files": list(policy.files), "paragraphs": paragraphs}


def tell_prose(out: Console, policy: Policy) -> None:
    """The whole policy, a paragraph for each group of agents."""
    for number, paragraph in enumerate(in_words(policy)):
        if number:
            out.print()
        _tell_paragraph(out, paragraph, several=len(policy.files) > 1)


def _tell_paragraph(out: Console, paragraph: Paragraph, *, several: bool) -> None:
    out.print(printable(paragraph.title), style="bold")
    for said in paragraph.sentences:
        line = "" if said.position is None else f"{Path(said.position.file).name}:" if several else "line "
        place = f"  ({said.rule}, {line}{said.position.line})" if said.rule and said.position else ""
        out.print(Text.assemble(f"  {said.text}", (place, "dim")))
