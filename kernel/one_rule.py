"""What one rule says by itself where it holds, and rules together of their measures; which of them hold: `match.py`."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from kernel.address import range_contains, wholly_private
from kernel.measures import combined, tightest
from kernel.policy import AddressRange, UrlPattern, Verb
from kernel.verdict import Action, Code, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.facts import Address
    from kernel.measures import Measures, Named
    from kernel.policy import Destination, HostPattern, Rule


def measures_of(held: Iterable[Rule]) -> Measures:
    """What applies where exactly these rules hold, given in the order of the policy: each tier's, all at once."""
    known = tuple(held)
    limits = [(rule.name, rule.terms) for rule in known if rule.verb is Verb.LIMIT]
    grants: dict[int, list[Named]] = {}
    for rule in known:
        if rule.verb.grants:
            grants.setdefault(rule.tier, []).append((rule.name, rule.terms))
    return reduce(tightest, [combined(each, limits) for each in grants.values()] or [combined((), limits)])


def verdict_of(rule: Rule, *, literal: bool) -> Verdict:
    """What a rule that is no limit says where it alone holds; `literal`: the host is an address.

    Where a name leads is said by others, who could end an agent with it: a halt for addresses only refuses a name.
    """
    verb = Verb.DENY if rule.verb is Verb.HALT and not literal and hangs_on_addresses(rule) else rule.verb
    action, code = _SAID[verb]
    return Verdict(action, code, rule.name, f"rule {rule.name}", rule.tell)


_SAID = {
    Verb.ALLOW: (Action.ALLOW, Code.ALLOW),
    Verb.THROTTLE: (Action.THROTTLE, Code.ALLOW),
    Verb.ASK: (Action.ASK, Code.APPROVAL_PENDING),
    Verb.DENY: (Action.DENY, Code.RULE_DENY),
    Verb.HALT: (Action.HALT, Code.RULE_HALT),
    Verb.NEVER: (Action.DENY, Code.NEVER),
}


def hangs_on_addresses(rule: Rule) -> bool:
    """True when it may matter to the rule where a name leads."""
    return any(
        where.address is not None or any(isinstance(hosts_of(item), AddressRange) for item in where.to or ())
        for where in (rule.where, *rule.holes))


def opens(rule: Rule, address: Address, *, literal: bool) -> bool:
    """True when the grant was written for this inside address: a range with it holds nothing of the public internet.

    URL patterns count only when all of them that cover the address are such: which one held is not known here.
    """
    if any(range_contains(each, address) and wholly_private(each) for each in rule.where.address or ()):
        return True
    if not literal:
        return False
    covering = [(item, host) for item in rule.where.to or () if isinstance(host := hosts_of(item), AddressRange)
                and range_contains(host, address)]
    private = [item for item, host in covering if wholly_private(host)]
    return any(isinstance(item, AddressRange) for item in private) or 0 < len(private) == len(covering)


def hosts_of(item: Destination) -> HostPattern | AddressRange:
    """The host part of a destination."""
    return item.host if isinstance(item, UrlPattern) else item
