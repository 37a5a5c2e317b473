"""From a request to its verdict on disk: identity, one destination, names, addresses, the decision entry."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic, perf_counter

from mitmproxy import http
from mitmproxy.proxy.server import ConnectionHandler

from addons.connections import ClientConnection, connected_peers
from addons.errors import AuditUnavailable
from addons.extract import connect_target, extract, method_of
from addons.governed import Governed
from addons.identity import Registry
from addons.lane import Lane
from addons.metrics import Metrics
from addons.refusal import Refused
from addons.refusal_rate import RefusalRate
from addons.resolver import ResolveFailed, Resolver
from kernel import entry
from kernel.decide import Judgement, address_stage, name_stage
from kernel.errors import NonCanonical
from kernel.facts import Address, Agent, Host, RequestFacts
from kernel.verdict import Action, Code, Verdict

MODE = "enforce"
_TUNNEL = Verdict(Action.ALLOW, Code.TUNNEL, reason="each request inside the tunnel is judged")
_OVERRIDE = Verdict(Action.DENY, Code.METHOD_OVERRIDE,
                    reason="the request asks the origin to read another method or path than the one judged")
_EDITED = Verdict(Action.DENY, Code.EDITED, reason="the request was changed while it was judged")
_REPLAY = Verdict(Action.DENY, Code.PROTOCOL_REFUSED, reason="this version judges no replays")
_NOBODY = ClientConnection("replay")
_UNWRITTEN = Verdict(Action.DENY, Code.AUDIT_UNAVAILABLE, reason="the audit log cannot be written")


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict with what the answer and the log need. `number` is the decision's entry, None where it has none."""

    verdict: Verdict
    agent: Agent | None
    method: str
    host: Host | None
    port: int | None = None
    facts: RequestFacts | None = None
    judgement: Judgement | None = None
    addresses: tuple[Address, ...] = ()
    number: int | None = None
    sent: tuple[object, ...] | None = None
    """The request as it was read for this verdict: another one may not be sent under it."""

    @property
    def target(self) -> str:
        return self.host.name if self.host else ""


class Judge:
    """Judges for one process: one lane, one registry, whatever policy is in force at the moment of the request."""

    def __init__(self, governed: Callable[[], Governed], lane: Lane, registry: Registry, resolver: Resolver,
                 metrics: Metrics, own_ports: Callable[[], frozenset[int]], rate: RefusalRate) -> None:
        self._governed, self._lane, self._registry = governed, lane, registry
        self._resolver, self._metrics, self._own_ports, self._rate = resolver, metrics, own_ports, rate

    async def connect(self, connection: ClientConnection, flow: http.HTTPFlow) -> Judged:
        """Judge a CONNECT. It opens nothing: what passes is the right to be asked about each request inside."""
        if self._lane.stopped:
            return Judged(_UNWRITTEN, None, "CONNECT", None)
        governed, started = self._governed(), perf_counter()
        agent, refused = self._registry.identify(governed.policy.identity, connection.credentials)
        host = port = None
        try:
            host, port = connect_target(flow.request)
        except NonCanonical as error:
            verdict = _refusal(error.code, error.problem)
        else:
            verdict = self._tunnel_verdict(governed, connection, agent, refused, host, port)
        judged = Judged(verdict, agent, "CONNECT", host, port)
        return await self._written("connect", governed, connection, flow, judged, started)

    def _tunnel_verdict(self, governed: Governed, connection: ClientConnection, agent: Agent | None,
                        refused: Code | None, host: Host, port: int) -> Verdict:
        if agent is None:
            return _unidentified(refused)
        # A client that cannot finish a handshake with us never sees a refusal inside: it gets the status line.
        if connection.handshake_failed and not governed.index.connect_reaches(agent.id, host, port):
            return _refusal(Code.DEFAULT_DENY, "no request to this destination would pass")
        return _TUNNEL

    async def replay(self, flow: http.HTTPFlow) -> Judged:
        """Refuse to send a flow a second time: it has no client whose identity could be judged."""
        judged = Judged(_REPLAY, None, method_of(flow.request), _host_or_none(flow))
        return await self._written("request", self._governed(), _NOBODY, flow, judged, perf_counter())

    async def request(self, handler: ConnectionHandler, connection: ClientConnection, flow: http.HTTPFlow) -> Judged:
        """Judge one request as it would be sent. Returns when the decision is durable."""
        if self._lane.stopped:
            return Judged(_UNWRITTEN, None, method_of(flow.request), None)
        governed, started = self._governed(), perf_counter()
        agent, refused = self._registry.identify(governed.policy.identity, connection.credentials)
        if agent is None:
            judged = Judged(_unidentified(refused), None, method_of(flow.request), None)
        else:
            judged = await self._judged(handler, connection, flow, governed, agent)
        judged = await self._written("request", governed, connection, flow, judged, started)
        if judged.verdict.lets_through and fingerprint(flow.request) != judged.sent:
            decision = f"{self._lane.name}/{judged.number}"
            self._lane.record("outcome", entry.outcome(flow.id, decision, "not_sent", code=Code.EDITED))
            edited = replace(judged, verdict=_EDITED, judgement=None, addresses=(), number=None)
            return await self._written("request", governed, connection, flow, edited, started)
        if judged.verdict.lets_through and judged.host and judged.port is not None:
            connection.grant(judged.host.name, judged.port, judged.addresses, monotonic())
        return judged

    async def _judged(self, handler: ConnectionHandler, connection: ClientConnection, flow: http.HTTPFlow,
                      governed: Governed, agent: Agent) -> Judged:
        try:
            found = extract(flow, agent, connection.tunnel is not None)
        except NonCanonical as error:
            return Judged(_refusal(error.code, error.problem), agent, method_of(flow.request), _host_or_none(flow))
        facts = found.facts
        _settle(flow.request, facts)
        # Taken before anything is waited for: the look-up of a name takes as long as its server likes.
        sent = fingerprint(flow.request)
        judgement = name_stage(governed.index, facts)
        overridden = found.overrides and governed.constrains_method_or_path
        if judgement is None and overridden and facts.host.address is None:
            # No address would let it through, so the name is not asked.
            return Judged(_OVERRIDE, agent, facts.method, facts.host, facts.port, facts)
        addresses: tuple[Address, ...] = ()
        if judgement is None:
            try:
                addresses = await self._addresses(handler, connection, facts)
            except ResolveFailed:
                verdict = _refusal(Code.RESOLVE_FAILED, "the name has no address")
                return Judged(verdict, agent, facts.method, facts.host, facts.port, facts)
            judgement = address_stage(governed.index, facts, addresses, self._own(facts.port, addresses))
        verdict = _OVERRIDE if overridden and judgement.verdict.lets_through else judgement.verdict
        return Judged(verdict, agent, facts.method, facts.host, facts.port, facts, judgement, addresses, sent=sent)

    async def _addresses(self, handler: ConnectionHandler, connection: ClientConnection,
                         facts: RequestFacts) -> tuple[Address, ...]:
        """Where this request would go: its literal, the peers of a connection it would reuse, or the name's answers."""
        if facts.host.address is not None:
            return (facts.host.address,)
        name, port = facts.host.name, facts.port
        return (connected_peers(handler, name, port) or connection.judged(name, port, monotonic())
                or await self._resolver.resolve(name))

    def _own(self, port: int, addresses: tuple[Address, ...]) -> frozenset[tuple[Address, int]]:
        """Those of the addresses at which Governor itself listens on this port."""
        if port not in self._own_ports():
            return frozenset()
        return frozenset((address, port) for address in addresses if _is_local(address))

    async def _written(self, stage: str, governed: Governed, connection: ClientConnection, flow: http.HTTPFlow,
                       judged: Judged, started: float) -> Judged:
        """The verdict, once its entry is on disk. A refusal over the agent's rate is counted instead."""
        verdict, agent = judged.verdict, judged.agent
        self._metrics.step()
        if not verdict.lets_through and self._rate.exceeded(agent.id if agent else connection.peer, verdict.code):
            self._metrics.rate_limited()
            verdict = Verdict(Action.THROTTLE, Code.REFUSAL_RATE, reason="too many refusals within a second")
            return replace(judged, verdict=verdict)
        fields = _decision(stage, flow, governed, judged)
        number, durable = self._lane.commit("decision", fields, _secrets(fields, judged))
        try:
            if stage == "request":
                self._metrics.decision(verdict.action, verdict.code, agent.id if agent else "", verdict.rule,
                                       perf_counter() - started)
            await durable
        except BaseException as fault:
            if stage == "request" and verdict.lets_through:
                self._take_back(flow, number, fault)
            raise
        return replace(judged, number=number)

    def _take_back(self, flow: http.HTTPFlow, number: int, fault: BaseException) -> None:
        """The entry may yet be written: then what it allows must not stand open, for it is refused."""
        code = Code.DEADLINE if isinstance(fault, asyncio.CancelledError) else Code.FAULT
        with suppress(AuditUnavailable):
            self._lane.record("outcome", entry.outcome(flow.id, f"{self._lane.name}/{number}", "not_sent", code=code))

    def too_many_connections(self, peer: str) -> bool:
        """Count one connection that brought nothing to judge; True when this second's others tell enough."""
        return self._rate.exceeded(f"{peer} connections", Code.MALFORMED)

    def refused(self, judged: Judged, flow: http.HTTPFlow) -> Refused:
        """What the client is told about this verdict."""
        number = judged.number
        return Refused(judged.verdict, judged.method, judged.target, judged.agent.id if judged.agent else None,
                       flow.id, None if number is None else f"{self._lane.name}/{number}",
                       self._governed().policy.contact)

    def is_llm_host(self, host: Host | None) -> bool:
        return host is not None and host.name in self._governed().llm_hosts


def _decision(stage: str, flow: http.HTTPFlow, governed: Governed, judged: Judged) -> entry.Body:
    facts, judgement, verdict = judged.facts, judged.judgement, judged.verdict
    address = judgement.address if judgement else None
    shown = governed.disclosure.shown(judged.host) if judged.host else None
    seen = entry.request_facts(
        judged.method or None, facts.scheme if facts else None, shown, judged.port, None,
        None if address is None else str(address), facts.body_bytes if facts else None,
        facts.content_type if facts else None)
    return entry.decision(
        stage, flow.id, judged.agent.id if judged.agent else None, judged.agent.by if judged.agent else "none",
        governed.policy.digest, seen, judgement.groups if judgement else (), verdict.action, verdict.rule,
        verdict.code, verdict.reason, MODE)


def _secrets(fields: entry.Body, judged: Judged) -> dict[str, str] | None:
    """What stands in the entry as a commitment: the path, and a host of which the log shows only the domain."""
    if judged.facts is None:
        return None
    path, host = judged.facts.path.text, judged.facts.host.name
    return {"path": path} if fields["in"]["host"] == host else {"path": path, "host": host}  # type: ignore[index,call-overload]


def _refusal(code: Code, reason: str) -> Verdict:
    return Verdict(Action.DENY, code, reason=reason)


def _unidentified(code: Code | None) -> Verdict:
    if code is Code.IDENTITY_REFUSED:
        return _refusal(code, "the proxy credentials are unknown, revoked or another agent's")
    return _refusal(code or Code.IDENTITY_REQUIRED, "the proxy needs to know who asks")


def _host_or_none(flow: http.HTTPFlow) -> Host | None:
    try:
        return connect_target(flow.request)[0]
    except NonCanonical:
        return None


def _settle(request: http.Request, facts: RequestFacts) -> None:
    """Have the request sent in the spelling that is judged."""
    path = f"{facts.path.text}?{facts.query}" if facts.query else facts.path.text
    data = request.data
    data.host, data.path, data.method = facts.host.name, path.encode("latin-1"), facts.method.encode("ascii")


def fingerprint(request: http.Request) -> tuple[object, ...]:
    """Everything of a request that reaches the wire."""
    data = request.data
    return (data.host, data.port, data.scheme, data.method, data.authority, data.path, data.headers.fields,
            data.content, data.trailers)


def _is_local(address: Address) -> bool:
    """True when the address is one of this machine's own: only those can be bound."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
