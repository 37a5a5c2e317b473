"""A policy that was read ahead, in sentences: what `prose.py` tells of it, and what has no effect yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from kernel.ahead.said import Ahead, Clause
from kernel.document import joined, printable
from kernel.policy import Policy
from kernel.prose import Paragraph, Sentence
from kernel.prose import in_words as in_words_without_ahead
from kernel.vocabulary import LATER_VERBS
from kernel.words import duration_in_words


def in_words(policy: Policy) -> list[Paragraph]:
    """The whole policy in sentences; what has no effect yet is told with its rule."""
    told = in_words_without_ahead(policy)
    ahead = policy.ahead or Ahead()
    later = {rule.name: ahead.clauses.get(rule.name, Clause()) for rule in policy.items
             if rule.name in ahead.clauses or rule.verb in LATER_VERBS}
    asks = policy.cascade is not None and policy.cascade.asks
    if ahead == Ahead() and not (later or asks):
        return told
    rules = [_with_clauses(paragraph, later) for paragraph in told]
    return [Paragraph("Not in force", (Sentence(_WARNING),)), *rules]


_WARNING = ("This policy says what this version cannot enforce, so it does not load, and governs nothing; what has no "
            "effect yet is marked.")


def _with_clauses(paragraph: Paragraph, clauses: Mapping[str, Clause]) -> Paragraph:
    said = [(sentence, clauses.get(sentence.rule or "")) for sentence in paragraph.sentences]
    return replace(paragraph, sentences=tuple(
        sentence if clause is None else replace(sentence, text=f"{sentence.text} {clause_in_words(clause)}")
        for sentence, clause in said))


def clause_in_words(clause: Clause) -> str:
    """What a rule says that has no effect yet."""
    parts = [part for function in _PARTS if (part := function(clause)) is not None]
    return f"Without effect yet{': ' if parts else ''}{'; '.join(parts)}."


def _mcp(clause: Clause) -> str | None:
    said = clause.mcp
    if said is None:
        return None
    tools = "any tool" if said.tools is None else f"the tool{_s(said.tools)} {_listed(said.tools)}"
    where = [f"{printable(name)} is {_listed(values)}" for name, values in said.where.items()]
    return f"only calls of {tools}{f' where {joined(where, "and")}' if where else ''}"


def _git(clause: Clause) -> str | None:
    said = clause.git
    if said is None:
        return None
    parts = [f"fetching from {_listed(said.fetch)}"] if said.fetch else []
    if said.push:
        refs = "" if said.refs is None else f", there only {_listed(said.refs)}"
        may = [word for word, allowed in (("rewriting", said.force), ("deleting", said.delete)) if allowed]
        never = [word for word, allowed in (("rewriting", said.force), ("deleting", said.delete)) if not allowed]
        how = [*([f"{joined(may, 'and')} what is there, too"] if may else []),
               *([f"without {joined(never, 'or')} what is there"] if never else [])]
        parts.append(f"pushing to {_listed(said.push)}{refs}, {joined(how, 'and')}")
    return f"only {joined(parts, 'and')}"


def _graphql(clause: Clause) -> str | None:
    said = clause.graphql
    if said is None:
        return None
    kinds = "any kind" if said.operations is None else f"the kind {_listed(sorted(said.operations))}"
    fields = "" if said.fields is None else f" on {_listed(said.fields)}"
    return f"only GraphQL operations of {kinds}{fields}"


def _contains(clause: Clause) -> str | None:
    return f"only where a detector finds {_listed(sorted(clause.contains))} in it" if clause.contains else None


def _credentials(clause: Clause) -> str | None:
    return f"only with the keys {_listed(sorted(clause.credentials))}" if clause.credentials else None


def _redact(clause: Clause) -> str | None:
    return f"{_listed(sorted(clause.redact), 'and')} are taken out of what is sent" if clause.redact else None


def _add_headers(clause: Clause) -> str | None:
    if not clause.add_headers:
        return None
    set_ = [f'{name} is set to "{printable(value)}"' for name, value in clause.add_headers]
    return f"the header{_s(set_)} {joined(set_, 'and')}"


def _tunnel(clause: Clause) -> str | None:
    return "bytes pass unseen and are only measured" if clause.tunnel else None


def _approvers(clause: Clause) -> str | None:
    return f"{_listed(clause.approvers)} decides" if clause.approvers else None


def _hold(clause: Clause) -> str | None:
    return None if clause.hold_seconds is None else f"it waits {duration_in_words(clause.hold_seconds)} for an answer"


def _valid(clause: Clause) -> str | None:
    if clause.valid_seconds is None:
        return None
    return f"a yes holds {duration_in_words(clause.valid_seconds)} for the same request"


_PARTS: tuple[Callable[[Clause], str | None], ...] = (
    _mcp, _git, _graphql, _contains, _credentials, _redact, _add_headers, _tunnel, _approvers, _hold, _valid,
)  # fmt: skip


def _listed(words: Iterable[str], last: str = "or") -> str:
    return joined([printable(word) for word in words], last)


def _s(several: Iterable[object]) -> str:
    return "" if len(list(several)) == 1 else "s"
