"""What Governor answers: five verdicts, the codes that explain them, and the HTTP status each one has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kernel.facts import Address
from kernel.measures import DEFAULT, Measures


class Action(StrEnum):
    """The five verdicts, from the mildest to the most severe."""

    ALLOW = "allow"
    THROTTLE = "throttle"
    ASK = "ask"
    DENY = "deny"
    HALT = "halt"


class Code(StrEnum):
    """Why a verdict is what it is. A code is never renamed and never reused."""

    ALLOW = "ALLOW"
    TUNNEL = "TUNNEL"
    RULE_DENY = "RULE_DENY"
    DEFAULT_DENY = "DEFAULT_DENY"
    NEVER = "NEVER"
    PRIVATE_ADDRESS = "PRIVATE_ADDRESS"
    RULE_HALT = "RULE_HALT"
    AGENT_HALTED = "AGENT_HALTED"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    RATE_LIMITED = "RATE_LIMITED"
    REFUSAL_RATE = "REFUSAL_RATE"
    BUSY = "BUSY"
    IDENTITY_REQUIRED = "IDENTITY_REQUIRED"
    IDENTITY_REFUSED = "IDENTITY_REFUSED"
    IDENTITY_CONFLICT = "IDENTITY_CONFLICT"
    DESTINATION_MISMATCH = "DESTINATION_MISMATCH"
    NON_CANONICAL = "NON_CANONICAL"
    RESOLVE_FAILED = "RESOLVE_FAILED"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    UNDECODABLE = "UNDECODABLE"
    TRAILERS = "TRAILERS"
    UPGRADE_REFUSED = "UPGRADE_REFUSED"
    METHOD_OVERRIDE = "METHOD_OVERRIDE"
    EDITED = "EDITED"
    FAULT = "FAULT"
    DEADLINE = "DEADLINE"
    AUDIT_UNAVAILABLE = "AUDIT_UNAVAILABLE"
    POOL_UNREACHABLE = "POOL_UNREACHABLE"
    CLOCK_JUMP = "CLOCK_JUMP"
    APPROVAL_PENDING = "APPROVAL_PENDING"
    OUT_OF_HOURS = "OUT_OF_HOURS"
    URL_TOO_LONG = "URL_TOO_LONG"
    MALFORMED = "MALFORMED"
    PROTOCOL_REFUSED = "PROTOCOL_REFUSED"
    QUARANTINED = "QUARANTINED"
    ORIGIN_FAILED = "ORIGIN_FAILED"
    EXHAUSTION = "EXHAUSTION"
    OVERRISK = "OVERRISK"
    EXPLORATION_DRIFT = "EXPLORATION_DRIFT"
    PERSISTENCE_LIMIT = "PERSISTENCE_LIMIT"
    STAGNATION = "STAGNATION"
    EXTERNAL = "EXTERNAL"
    OPERATOR = "OPERATOR"
    CASCADE = "CASCADE"
    CONTRACT_VIOLATION = "CONTRACT_VIOLATION"

    @property
    def status(self) -> int:
        """The HTTP status of a refusal with this code."""
        return _STATUS.get(self, 403)


_STATUS = {
    Code.IDENTITY_REQUIRED: 407,
    Code.IDENTITY_REFUSED: 407,
    Code.RATE_LIMITED: 429,
    Code.REFUSAL_RATE: 429,
    Code.BODY_TOO_LARGE: 413,
    Code.URL_TOO_LONG: 414,
    Code.BUSY: 503,
    Code.RESOLVE_FAILED: 502,
    Code.ORIGIN_FAILED: 502,
    Code.MALFORMED: 400,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer: what is done, why, which rule decided (None where no rule did), and what the agent is told."""

    action: Action
    code: Code
    rule: str | None = None
    reason: str = ""
    tell: str | None = None

    @property
    def lets_through(self) -> bool:
        """True only for the pairs of action and code under which a request may leave."""
        return self.code in _PASSING and self.action in _PASSING_ACTIONS


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its evidence: the rules that hold at the deciding address, and what they say of sizes.

    `address` is None where no address was judged. Then a refusal for size names as `groups` what may hold at some
    address: the refusal stands even where all of it does. Of a request that passes, `measures` are those under which
    it may be sent to every address that was judged, and `until` is when it must be judged again (seconds since 1970):
    nothing that the policy says of time begins or ends before. None: it says nothing of time.
    """

    verdict: Verdict
    groups: tuple[str, ...]
    address: Address | None
    measures: Measures = DEFAULT
    until: int | None = None


_PASSING = frozenset({Code.ALLOW, Code.TUNNEL})
_PASSING_ACTIONS = frozenset({Action.ALLOW, Action.THROTTLE})
