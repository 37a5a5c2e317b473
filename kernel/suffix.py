"""Registrable domains, from the rules of the public-suffix list given as values (publicsuffix.org/list)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from kernel import normal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.facts import Host


class Suffixes:
    """Public suffixes: plain rules (`co.uk`), wildcards (`*.ck`) and exceptions (`!www.ck`)."""

    def __init__(self, rules: Iterable[str]) -> None:
        """Raises `NonCanonical` for a rule that is no host."""
        written = [_ascii(rule.strip()) for rule in rules]
        self._exceptions = frozenset(rule[1:] for rule in written if rule[0] == "!")
        self._wild = frozenset(rule[2:] for rule in written if rule[:2] == "*.")
        self._plain = frozenset(rule for rule in written if rule[0] not in "!*")
        self._of = lru_cache(maxsize=8192)(self._look_up)

    def registrable(self, host: Host) -> str:
        """The public suffix of the host and one label more; the host itself where it is an address or a suffix."""
        return host.name if host.address is not None else self._of(host.name)

    def _look_up(self, name: str) -> str:
        """Walk from the whole name down; the longest rule wins, an exception over all, and `*` where none matches."""
        registrable, rest = name, name
        while rest:
            parent = rest.partition(".")[2]
            if rest in self._exceptions:
                return rest
            if rest in self._plain or (parent and parent in self._wild) or not parent:
                return registrable
            registrable, rest = rest, parent
        return name


def _ascii(rule: str) -> str:
    if rule.isascii():
        return rule.lower()
    mark = next((mark for mark in ("!", "*.") if rule.startswith(mark)), "")
    return mark + normal.host(rule.removeprefix(mark)).name
