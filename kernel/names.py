"""Names that are looked up for clients: which of them are answered, and with which of their addresses.

Asking for a name tells it to whoever serves it, so a name is asked for only where some rule could lead there, and an
address is told only where it could be dialled. The rest is refused without a question leaving.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from kernel import normal
from kernel.dns import ADDRESS_TYPES, Dns, narrowed
from kernel.dns_message import RecordType
from kernel.errors import NonCanonical
from kernel.facts import OWN_NAME, Host
from kernel.tiers import binds
from kernel.verdict import Action, Code, Judgement, Verdict

if TYPE_CHECKING:
    from kernel.facts import Address
    from kernel.match import Index
    from kernel.policy import Policy

OWN_ADDRESSES: tuple[Address, ...] = (IPv4Address("198.18.0.1"),)
"""What `governor.internal` is answered with: an address of nobody's (RFC 2544), which leads to where all leads."""
ANSWERED = Verdict(Action.ALLOW, Code.ALLOW, reason="some rule could let a request go there")
ITS_OWN = Verdict(Action.ALLOW, Code.ALLOW, reason="Governor itself answers")
_LABEL = re.compile(rb"[A-Za-z0-9_-]{1,63}")


def _refused(reason: str) -> Verdict:
    return Verdict(Action.DENY, Code.DEFAULT_DENY, reason=reason)


NOTHING_ANSWERED = _refused("no name is answered here")
OTHER_TYPE = Verdict(Action.DENY, Code.PROTOCOL_REFUSED, reason="no records of this type are answered")
TOO_LONG = _refused("the name is longer than names may be")
NOTHING_LEADS_THERE = _refused("no rule allows anything at this name")
NOWHERE = Verdict(Action.DENY, Code.PRIVATE_ADDRESS,
                  reason="the name leads only to addresses at which no rule allows anything")


def terms_of(policy: Policy, agent: str) -> Dns:
    """What the tiers that bind an agent say together of names."""
    return narrowed([said for tier, said in zip(policy.tiers, policy.dns, strict=True)
                     if said is not None and binds(tier, agent)])


def named(labels: Sequence[bytes]) -> Host:
    """The name of a question, in canonical form. Raises `NonCanonical`."""
    # A dot inside a label would make another name of it.
    if not labels or not all(_LABEL.fullmatch(label) for label in labels):
        raise NonCanonical(Code.NON_CANONICAL, "the name has a character that no host name has")
    found = normal.host(b".".join(labels).decode())
    if found.address is not None:
        raise NonCanonical(Code.NON_CANONICAL, "an address needs no look-up")
    return found


def type_name(number: int) -> str | None:
    """What a type is called; None for one that is not known here."""
    return RecordType(number).name if number in RecordType else None


def name_verdict(index: Index, said: Dns, agent: str, name: Host, record: int, at: int) -> Judgement:
    """Whether a question is answered, before anybody is asked. `at` is the second since 1970.

    A name that the policy has written out is never too long: whoever asks for it can say nothing by it. On trial a
    policy's own refusal of a name (`OBSERVED`) is no reason to answer nothing.
    """
    kind = type_name(record)
    if name.name == OWN_NAME:
        return Judgement(OTHER_TYPE if kind is None else ITS_OWN, (), None)
    if kind not in said.types:
        return Judgement(OTHER_TYPE, (), None)
    if not index.name_reaches(agent, name, at):
        return _unreached(index, agent, name, at)
    if not said.answers:
        return Judgement(NOTHING_ANSWERED, (), None)
    is_long = name.name.count(".") >= said.most_labels or len(name.name) > said.most_characters
    if is_long and not index.is_named(name):
        return Judgement(TOO_LONG, (), None)
    return Judgement(ANSWERED, (), None)


def _unreached(index: Index, agent: str, name: Host, at: int) -> Judgement:
    """The refusal of a name to which nothing may lead: by the rule that says so, where one alone does."""
    numbers = index.name_refusals(agent, name, at)
    verdicts = [each for each in index.verdicts(numbers, literal=False) if each.code in _REFUSING]
    verdict = min(verdicts, key=lambda each: _REFUSING.index(each.code), default=NOTHING_LEADS_THERE)
    if verdict.code not in _ENFORCED and not index.name_reaches(agent, name, at, on_trial=True):
        verdict = replace(verdict, code=Code.NEVER)
    # To ask for a name is no attempt to go there: it halts nobody.
    return Judgement(replace(verdict, action=Action.DENY), index.names(tuple(numbers)), None)


_ENFORCED = (Code.NEVER, Code.RULE_HALT)
_REFUSING = (*_ENFORCED, Code.RULE_DENY)


def told(index: Index, agent: str, name: Host, addresses: Sequence[Address], at: int, *,
         on_trial: bool) -> tuple[Address, ...]:
    """The addresses of the name to which some rule could let a request of the agent go."""
    return tuple([each for each in addresses if index.name_reaches(agent, name, at, each, on_trial=on_trial)])


def wants_addresses(record: int) -> bool:
    """True for a question that is answered with addresses; any other is answered as if there were no such records."""
    return type_name(record) in ADDRESS_TYPES
