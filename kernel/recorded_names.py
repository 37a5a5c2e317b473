"""Decisions on names that are looked up, made again from a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kernel.dns_message import RecordType
from kernel.facts import OWN_NAME, Host
from kernel.names import name_verdict, terms_of
from kernel.recorded import address_of, moments
from kernel.trial import OBSERVED, Mode
from kernel.verdict import Code

if TYPE_CHECKING:
    from kernel.recorded import Entry, Judging, Values

HOST_NOT_KEPT = "the name is not kept"
_OF_THE_NAME = frozenset({
    Code.ALLOW, Code.DEFAULT_DENY, Code.RULE_DENY, Code.RULE_HALT, Code.NEVER, Code.PROTOCOL_REFUSED})
# Where the name passed, and what it led to decided.
_OF_ITS_ADDRESSES = frozenset({Code.RESOLVE_FAILED, Code.PRIVATE_ADDRESS})


def looked_up_again(judging: Judging, entry: Entry, values: Values, at: int, *,
                    on_trial: bool) -> tuple[str, Any, Any] | str | None:
    """The first field that differs with what was found for it, why nothing can be said, or None where all is equal."""
    code, seen, agent = entry["code"], entry["in"], entry["agent"]["id"]
    if agent is None or code not in _OF_THE_NAME | _OF_ITS_ADDRESSES:
        # Facts from outside: who asks, whether the name is one, whether the agent is halted.
        return None
    name = values.get("host") if "host$c" in seen else seen["host"]
    if not isinstance(name, str):
        return HOST_NOT_KEPT
    found = [_again(judging, entry, Host(name), moment, on_trial=on_trial)
             for moment in moments(judging.index, at)]
    return None if None in found else found[0]


def _again(judging: Judging, entry: Entry, name: Host, at: int, *, on_trial: bool) -> tuple[str, Any, Any] | None:
    code, seen, agent, index = entry["code"], entry["in"], entry["agent"]["id"], judging.index
    made = name_verdict(index, terms_of(judging.policy, agent), agent, name, _number(seen["record"]), at)
    passes = made.verdict.lets_through or (on_trial and made.verdict.code in OBSERVED)
    if code in _OF_ITS_ADDRESSES:
        if not passes:
            return "code", code, made.verdict.code
    else:
        mode = Mode.OBSERVE if passes and on_trial else Mode.ENFORCE
        said = {"verdict": made.verdict.action, "rule": made.verdict.rule, "code": made.verdict.code,
                "groups": list(made.groups), "mode": mode}
        differing = next((field for field, value in said.items() if entry[field] != value), None)
        if differing is not None:
            return differing, entry[differing], said[differing]
    address = address_of(seen["address"])
    if address is not None and not _is_own(name, code):
        reached = index.name_reaches(agent, name, at, address, on_trial=on_trial)
        if reached is (code == Code.PRIVATE_ADDRESS):
            return "address", seen["address"], "an address at which something passes" if not reached else "none"
    return None


def _is_own(name: Host, code: str) -> bool:
    return name.name == OWN_NAME and code == Code.ALLOW


def _number(record: str) -> int:
    """The number of a type by the name that the log has for it."""
    return RecordType[record] if record in RecordType.__members__ else int(record)
