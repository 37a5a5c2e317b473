"""A verdict on one flow with everything that the answer and the log need of it, and the fields of its entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mitmproxy import http

from addons.governed import Governed
from addons.journal import Secrets, Veiled
from addons.model_calls import ModelCall
from kernel import entry
from kernel.decide import Judgement, address_stage
from kernel.facts import UPGRADES, Address, Agent, Host, RequestFacts
from kernel.match import Index
from kernel.measures import DEFAULT, Measures, WebSocketMeasures
from kernel.state import Draw
from kernel.trial import OBSERVED, Mode, observing
from kernel.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict with what the answer and the log need. `number` is the decision's entry, None where it has none.

    `open_ended` says that it was given before the body, whose size nobody has told.
    """

    verdict: Verdict
    agent: Agent | None
    method: str
    host: Host | None
    port: int | None = None
    facts: RequestFacts | None = None
    judgement: Judgement | None = None
    addresses: tuple[Address, ...] = ()
    number: int | None = None
    request: str | None = None
    """The name of what is asked, where it matters whether the same was asked before."""
    left: Mapping[str, int] = field(default_factory=dict)
    """What remains of each unit of which the agent is to be told."""
    wait_us: int = 0
    """After how long a throttled request may be asked again."""
    draws: tuple[Draw, ...] = ()
    sent: tuple[object, ...] | None = None
    """The request as it was read for this verdict: another one may not be sent under it."""
    open_ended: bool = False
    mode: Mode = Mode.ENFORCE
    asked: tuple[Index, RequestFacts] | None = None
    """What was asked of which policy, where that may say another thing at another time."""
    model: ModelCall | None = None
    """The call of a model that the request makes; None where it makes none."""

    @property
    def lets_through(self) -> bool:
        """True when the request may leave: it is granted, or it is only observed that it is not."""
        return self.verdict.lets_through or (self.mode is Mode.OBSERVE and self.verdict.code in OBSERVED)

    @property
    def until(self) -> int | None:
        """When the verdict must be asked for again, in seconds since 1970; None where it stands for good."""
        return self.judgement.until if self.judgement and self.asked else None

    def later(self, at: int) -> Judgement | None:
        """What the same policy says of the same request at another second; None where that hangs on no time."""
        if self.until is None or self.asked is None:
            return None
        index, facts = self.asked
        return address_stage(index, replace(facts, at=at), self.addresses, frozenset())

    @property
    def measures(self) -> Measures:
        return self.judgement.measures if self.judgement else DEFAULT

    @property
    def websocket(self) -> WebSocketMeasures | None:
        """What the request may carry as the WebSocket that it asks to become; None where it asks for none."""
        return self.measures.websocket if self.facts is not None and self.facts.scheme in UPGRADES else None

    @property
    def target(self) -> str:
        return self.host.name if self.host else ""


def decision_fields(stage: str, flow: str, governed: Governed, judged: Judged,
                    record: str | None = None) -> entry.Body:
    """What the entry of the decision says. `flow` is an id; `record` is the type of what is asked of a name."""
    facts, judgement, verdict = judged.facts, judged.judgement, judged.verdict
    address = judgement.address if judgement else None
    shown = governed.disclosure.shown(judged.host) if judged.host else None
    seen = entry.request_facts(
        judged.method or None, facts.scheme if facts else None, shown, judged.port, None,
        None if address is None else str(address), facts.body_bytes if facts and not judged.open_ended else None,
        facts.content_type if facts else None) | {"request": judged.request}
    if record is not None:
        seen["record"] = record
    groups = judgement.groups if judgement else ()
    because = observing(verdict.reason, groups, governed.index.observed) if governed.index.observed else verdict.reason
    mode = judged.mode if judged.lets_through else Mode.ENFORCE
    made = entry.decision(
        stage, flow, judged.agent.id if judged.agent else None, judged.agent.by if judged.agent else "none",
        governed.policy.digest, seen, groups, verdict.action, verdict.rule, verdict.code, because, mode)
    return made if judged.model is None else made | {"llm": judged.model.told()}


def secrets(fields: entry.Body, governed: Governed, judged: Judged) -> Secrets | None:
    """What stands in the entry as a commitment: the path, and a host of which the log shows only the domain."""
    if judged.facts is None:
        return None
    text, host = judged.facts.path.text, judged.facts.host.name
    groups = judged.judgement.groups if judged.judgement else ()
    matched = governed.secret_paths.matched(judged.facts, groups, judged.addresses)
    path = text if matched is None else Veiled(text, matched)
    return {"path": path} if fields["in"]["host"] == host else {"path": path, "host": host}  # type: ignore[index,call-overload]


def fingerprint(request: http.Request) -> tuple[object, ...]:
    """Everything of a request that reaches the wire."""
    data = request.data
    return (data.host, data.port, data.scheme, data.method, data.authority, data.path, data.headers.fields,
            data.content, data.trailers)
