"""Whose paths are secrets: a webhook's, a bot's, an address that was signed beforehand. Whoever has the path may act.

Of such a path nothing is kept but which globs of a policy it matched: the commitment in the log tells the path from any
other, to those who know it. A request may be refused before all is known that a rule asks for; what can then still be
under the rule counts as under it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.address import RangeSet
from kernel.host_set import HostSet, named
from kernel.pattern import path_matches
from kernel.policy import AddressRange, UrlPattern

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from kernel.facts import Address, Path, RequestFacts
    from kernel.policy import HostPattern, PathGlob, Policy, Rule

ANY_PATH = "/**"


class _Unnamed:
    """A part of a rule that names no host: some ranges of addresses, or all, and the paths there."""

    __slots__ = ("_globs", "_ranges")

    def __init__(self, ranges: tuple[AddressRange, ...] | None, globs: tuple[PathGlob, ...] | None) -> None:
        self._ranges = None if ranges is None else RangeSet(net for spread in ranges for net in spread.networks)
        self._globs = globs

    def may_cover(self, path: Path, addresses: Collection[Address]) -> bool:
        """True at its addresses, as at a host that a rule names; where they are not known, or any, on its paths."""
        if self._ranges is not None and addresses:
            return any(each in self._ranges for each in addresses)
        return self._globs is None or _match(self._globs, path)


class SecretPaths:
    """The secret paths of one policy: at the hosts of a table, and at those and under those rules that say so."""

    def __init__(self, policy: Policy, hosts: Iterable[HostPattern]) -> None:
        said = [rule for rule in policy.rules if rule.secret_paths]
        self._hosts = HostSet((*hosts, *named(said)))
        self._unnamed = tuple(part for rule in said for part in _unnamed(rule))
        self._said = frozenset(rule.name for rule in said)
        self._globs = {rule.name: tuple(_globs(rule)) for rule in policy.items}

    def matched(
        self, facts: RequestFacts, groups: Iterable[str], addresses: Collection[Address] = ()
    ) -> tuple[str, ...] | None:
        """The globs of the rules in `groups` that the path matches, `/**` where there is none; None for a path that is
        no secret. `addresses` is what the host stands for, empty where nobody asked."""
        held = tuple(groups)
        if not self._is_secret(facts, held, addresses):
            return None
        globs = (glob for name in held for glob in self._globs.get(name, ()))
        found = dict.fromkeys(glob.text for glob in globs if path_matches(glob, facts.path.segments))
        return tuple(found) or (ANY_PATH,)

    def _is_secret(self, facts: RequestFacts, held: tuple[str, ...], addresses: Collection[Address]) -> bool:
        if facts.host.name in self._hosts or not self._said.isdisjoint(held):
            return True
        known = addresses if facts.host.address is None else (facts.host.address,)
        return any(part.may_cover(facts.path, known) for part in self._unnamed)


def _unnamed(rule: Rule) -> Iterator[_Unnamed]:
    """What a rule says of addresses; of a rule without `to` everything that it says."""
    where = rule.where
    if where.to is None:
        yield _Unnamed(where.address, where.paths)
    for item in where.to or ():
        match item:
            case AddressRange():
                yield _Unnamed((item,), where.paths)
            case UrlPattern(host=AddressRange() as spread):
                yield _Unnamed((spread,), (item.path,))
            case _:
                pass


def _match(globs: Iterable[PathGlob], path: Path) -> bool:
    return any(path_matches(glob, reading) for glob in globs for reading in path.readings)


def _globs(rule: Rule) -> Iterator[PathGlob]:
    yield from rule.where.paths or ()
    for item in rule.where.to or ():
        if isinstance(item, UrlPattern):
            yield item.path
