"""Words for what a grant lets through: who, how, where to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.document import joined
from kernel.prose import destination_in_words
from kernel.vocabulary import METHOD_SETS
from kernel.words import agents_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.policy import Policy, Rule

_MOST = 4


def who(policy: Policy, rule: Rule) -> str:
    """The agents of a rule, by their groups."""
    return "every agent" if rule.where.agents is None else agents_in_words(rule.where.agents, policy.groups)


def how(rule: Rule) -> str:
    """The methods of a rule, or the models that it may ask."""
    if rule.where.llm is not None:
        models = rule.where.llm.models
        several = "" if models is None or len(models) == 1 else "s"
        return "ask any model" if models is None else f"ask the model{several} {_listed(models)}"
    methods = rule.where.methods
    if methods is None:
        return "use any method"
    named = [name for name, known in METHOD_SETS.items() if known == methods]
    return f"send {named[0]}" if named else _listed(sorted(methods))


def to(rule: Rule, all_of: str = "") -> str:
    """The destinations of a rule, with their paths: models are asked at them, all else goes to them."""
    where = "every host" if rule.where.to is None else _listed(map(destination_in_words, rule.where.to))
    paths = "" if rule.where.paths is None else f" under {_listed(path.text for path in rule.where.paths)}"
    ranges = "" if rule.where.address is None else f" in {_listed(each.text for each in rule.where.address)}"
    return f"{'to' if rule.where.llm is None else 'at'} {all_of}{where}{ranges}{paths}"


def _listed(words: Iterable[str]) -> str:
    return joined(dict.fromkeys(words), "and", _MOST)


def place(rule: Rule) -> str:
    """The rule with the file and line in which it stands."""
    return f"rule {rule.name}, {rule.position.file.rpartition('/')[2]}:{rule.position.line}"
