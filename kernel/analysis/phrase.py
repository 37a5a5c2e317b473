"""Words for what a grant lets through: who, how, where to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.conditions import spelled
from kernel.document import joined
from kernel.policy import AddressRange, HostPattern, UrlPattern
from kernel.vocabulary import METHOD_SETS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.policy import Destination, Policy, Rule

_MOST = 4


def who(policy: Policy, rule: Rule) -> str:
    """The agents of a rule, as a group where they are one."""
    if rule.where.agents is None:
        return "every agent"
    groups = [name for name, patterns in policy.groups.items() if set(patterns) == set(rule.where.agents)]
    return groups[0] if groups else _listed(pattern.text for pattern in rule.where.agents)


def how(rule: Rule) -> str:
    """The methods of a rule."""
    methods = rule.where.methods
    if methods is None:
        return "use any method"
    named = [name for name, known in METHOD_SETS.items() if known == methods]
    return f"send {named[0]}" if named else _listed(sorted(methods))


def to(rule: Rule) -> str:
    """The destinations of a rule, with their paths."""
    where = "every host" if rule.where.to is None else _listed(map(_destination, rule.where.to))
    paths = "" if rule.where.paths is None else f" under {_listed(path.text for path in rule.where.paths)}"
    ranges = "" if rule.where.address is None else f" in {_listed(each.text for each in rule.where.address)}"
    return where + ranges + paths


def _destination(item: Destination) -> str:
    if isinstance(item, UrlPattern):
        whole = item.path.text == "/**"
        return _destination(item.host) if whole else item.text
    return item.text if isinstance(item, AddressRange) else _host(item)


def _host(pattern: HostPattern) -> str:
    written = spelled(pattern)
    return f"{pattern.name} and everything below it" if written.startswith(".") else written


def _listed(words: Iterable[str]) -> str:
    return joined(dict.fromkeys(words), "and", _MOST)


def place(rule: Rule) -> str:
    """The rule with the file and line in which it stands."""
    return f"rule {rule.name}, {rule.position.file.rpartition('/')[2]}:{rule.position.line}"
