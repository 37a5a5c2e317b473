"""From a request to its verdict on disk: identity, one destination, names, addresses, the decision entry."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from time import monotonic, perf_counter, time

from mitmproxy import http
from mitmproxy.proxy.server import ConnectionHandler

from addons import model_calls, redirected, websocket_handshake
from addons.book import Book
from addons.client_authority import Authority
from addons.connections import ClientConnection, connected_peers
from addons.decision_log import TOO_MANY, DecisionLog
from addons.extract import BODYLESS, Extracted, connect_target, extract, method_of
from addons.governed import Governed
from addons.identity import Registry
from addons.in_flight import InFlight
from addons.judged import Judged, decision_fields, fingerprint
from addons.lane import Lane
from addons.metrics import Metrics
from addons.mirror import ITSELF, Mirror
from addons.model_calls import ModelCall
from addons.refusal import Refused
from addons.refusal_rate import RefusalRate
from addons.request_bodies import Incoming, RequestBodies
from addons.request_fields import STREAMED, readable
from addons.request_names import RequestNames
from addons.resolver import ResolveFailed, Resolver
from addons.told_names import ToldNames
from kernel import entry
from kernel.comparison import UNREAD, UNREADABLE, Gap
from kernel.decide import OWN, address_stage, expected, name_stage
from kernel.errors import NonCanonical
from kernel.facts import UPGRADES, Address, Agent, Host, RequestFacts
from kernel.fields import MOST_BODY_BYTES, Fields
from kernel.identity import Evidence
from kernel.llm.request import MOST_CALL_BYTES
from kernel.trial import OBSERVED, Mode, enforced, widest
from kernel.verdict import Action, Code, Verdict

_TUNNEL = Verdict(Action.ALLOW, Code.TUNNEL, reason="each request inside the tunnel is judged")
_OVERRIDE = Verdict(Action.DENY, Code.METHOD_OVERRIDE,
                    reason="the request asks the origin to read another method or path than the one judged")
_EDITED = Verdict(Action.DENY, Code.EDITED, reason="the request was changed while it was judged")
_REMOTE_DNS = "let the proxy look names up; write socks5h:// for socks5://, or set your client's option for remote DNS"
_REPLAY = Verdict(Action.DENY, Code.PROTOCOL_REFUSED, reason="this version judges no replays")
_NOBODY = ClientConnection("replay")
_INCOMPLETE = Verdict(Action.DENY, Code.MALFORMED, reason="it did not arrive whole")
_NOT_ITS_ADDRESS = Verdict(Action.DENY, Code.DESTINATION_MISMATCH,
                           reason="the connection was opened to an address that the name does not have")
_NO_ROOM = Verdict(Action.DENY, Code.BUSY, reason="too many bytes of request bodies are waiting")
_UNWRITTEN = Verdict(Action.DENY, Code.AUDIT_UNAVAILABLE, reason="the audit log cannot be written")


class Judge:
    """Judges for one process: one lane, one registry, whatever policy is in force at the moment of the request."""

    def __init__(self, governed: Callable[[], Governed], lane: Lane, registry: Registry, resolver: Resolver,
                 metrics: Metrics, own_ports: Callable[[], frozenset[int]], rate: RefusalRate,
                 bodies: RequestBodies, in_flight: InFlight, mirror: Mirror, book: Book, names: RequestNames,
                 clock: Callable[[], float] = time, closed: Callable[[], Verdict | None] = lambda: None,
                 told: ToldNames | None = None) -> None:
        """`closed` says why nothing passes at a moment; None while that is not so. `told` is what clients were told of
        names, where they are told of any.
        """
        self._governed, self._lane, self._registry = governed, lane, registry
        self._resolver, self._metrics, self._own_ports, self._rate = resolver, metrics, own_ports, rate
        self._bodies, self._in_flight, self._mirror, self._clock = bodies, in_flight, mirror, clock
        self._book, self._names, self._closed = book, names, closed
        self._told = told or ToldNames()
        self._log = DecisionLog(lane, book, metrics, rate)

    def shut(self, connection: ClientConnection) -> Verdict | None:
        """Why everything is refused: the log cannot be written, or what is outside does not let it; else None."""
        if self._lane.stopped:
            return _UNWRITTEN
        closed = self._closed()
        if closed is not None:
            self._rate.count(connection.peer, closed.code)
        return closed

    async def connect(self, connection: ClientConnection, flow: http.HTTPFlow) -> Judged:
        """Judge a CONNECT. It opens nothing: what passes is the right to be asked about each request inside."""
        if shut := self.shut(connection):
            return Judged(shut, None, "CONNECT", None)
        governed, started = self._governed(), perf_counter()
        agent, refused = self._identified(governed, connection)
        host = port = None
        try:
            host, port = connect_target(flow.request)
        except NonCanonical as error:
            verdict = _refusal(error.code, error.problem)
        else:
            verdict = self._tunnel_verdict(governed, connection, agent, refused, host, port)
        judged = Judged(verdict, agent, "CONNECT", host, port, mode=governed.mode(self._clock()))
        return await self._log.written("connect", governed, connection, flow, judged, started)

    async def credentials(self, connection: ClientConnection, flow: http.HTTPFlow) -> Judged:
        """Judge what a SOCKS5 client says of itself. Only a refusal is written: what is asked for comes next."""
        if shut := self.shut(connection):
            return Judged(shut, None, "CONNECT", None)
        governed, started = self._governed(), perf_counter()
        agent, refused = self._identified(governed, connection)
        if agent is not None or refused is Code.IDENTITY_REQUIRED:
            return Judged(_TUNNEL, agent, "CONNECT", None)
        judged = Judged(_unidentified(refused), None, "CONNECT", None)
        return await self._log.written("connect", governed, connection, flow, judged, started)

    def _tunnel_verdict(self, governed: Governed, connection: ClientConnection, agent: Agent | None,
                        refused: Code | None, host: Host, port: int) -> Verdict:
        if agent is None:
            # SOCKS5 has no way to ask for credentials with words: the requests inside are answered 407.
            inside = connection.socks and refused is Code.IDENTITY_REQUIRED and not connection.handshake_failed
            return _TUNNEL if inside else _unidentified(refused)
        # A client that cannot finish a handshake with us never sees a refusal inside: it gets the status line.
        told = connection.handshake_failed and governed.mode(self._clock()) is Mode.ENFORCE
        if told and not governed.index.connect_reaches(agent.id, host, port):
            return _refusal(Code.DEFAULT_DENY, "no request to this destination would pass")
        return _TUNNEL

    async def replay(self, flow: http.HTTPFlow) -> Judged:
        """Refuse to send a flow a second time: it has no client whose identity could be judged."""
        judged = Judged(_REPLAY, None, method_of(flow.request), _host_or_none(flow))
        return await self._log.written("request", self._governed(), _NOBODY, flow, judged, perf_counter())

    async def headers(self, handler: ConnectionHandler, connection: ClientConnection, flow: http.HTTPFlow,
                      declared_bytes: int | None) -> Judged | None:
        """Judge what is known before the body, of which the client has told the size or not.

        A refusal that no body can change; or a grant of a rule that lets the body pass while it comes. None: the body
        is to be read, as far as `RequestBodies` was told here, and judged with it.
        """
        if shut := self.shut(connection):
            return Judged(shut, None, method_of(flow.request), None)
        governed, started = self._governed(), perf_counter()
        agent, refused = self._identified(governed, connection)
        if agent is None:
            judged = Judged(_unidentified(refused), None, method_of(flow.request), None)
            return await self._log.written("request", governed, connection, flow, judged, started)
        try:
            facts = self._read(connection, flow, agent, declared_bytes or 0).facts
        except NonCanonical as error:
            judged = _non_canonical(error, agent, flow, connection)
            return await self._log.written("request", governed, connection, flow, judged, started)
        own = self._own(facts.port, (facts.host.address,)) if facts.host.address else frozenset()
        if self._mirror.is_own(facts.host):
            return None
        halted = self._halted(agent, connection)
        if halted is not None:
            judged = Judged(halted, agent, facts.method, facts.host, facts.port, facts)
            return await self._log.written("request", governed, connection, flow, judged, started)
        known = expected(governed.index, _with_fields(governed, flow, facts, UNREAD), own)
        on_trial = governed.mode(facts.at) is Mode.OBSERVE
        if known.refused is not None and not (on_trial and known.refused.verdict.code in OBSERVED):
            judged = Judged(known.refused.verdict, agent, facts.method, facts.host, facts.port, facts, known.refused)
            return await self._log.written("request", governed, connection, flow, judged, started)
        # Whether such a method brings a body at all is a part of its verdict.
        if known.may_stream and facts.method not in BODYLESS:
            judged = await self._judged(handler, connection, flow, governed, agent, declared_bytes or 0, STREAMED)
            if judged.lets_through and judged.measures.stream_request:
                judged = replace(judged, open_ended=declared_bytes is None)
                return await self._concluded(governed, connection, flow, judged, started)
        self._bodies.expect(flow, agent.id, widest(known.max_request) if on_trial else known.max_request, governed)
        return None

    async def body_refused(self, connection: ClientConnection, flow: http.HTTPFlow, incoming: Incoming) -> Judged:
        """Refuse a request whose body is larger than it may be, or for whose body there is no room."""
        # By the policy that set the limit: at the end of a long body another may be in force.
        governed, started = incoming.governed or self._governed(), perf_counter()
        agent, _ = self._identified(governed, connection)
        if incoming.refused is Code.BODY_TOO_LARGE:
            verdict = Verdict(Action.DENY, Code.BODY_TOO_LARGE, incoming.most.by,
                              f"its body is larger than {incoming.most.most} bytes")
        else:
            verdict = _NO_ROOM
        judged = Judged(verdict, agent, method_of(flow.request), _host_or_none(flow))
        return await self._log.written("request", governed, connection, flow, judged, started)

    async def request(self, handler: ConnectionHandler, connection: ClientConnection, flow: http.HTTPFlow) -> Judged:
        """Judge one request as it would be sent. Returns when the decision is durable."""
        if shut := self.shut(connection):
            return Judged(shut, None, method_of(flow.request), None)
        governed, started = self._governed(), perf_counter()
        agent, refused = self._identified(governed, connection)
        if agent is None:
            judged = Judged(_unidentified(refused), None, method_of(flow.request), None)
        else:
            body = self._body(flow) if governed.index.needs_body else UNREADABLE
            judged = await self._judged(handler, connection, flow, governed, agent, self._bodies.size(flow), body)
        return await self._concluded(governed, connection, flow, judged, started)

    def _body(self, flow: http.HTTPFlow) -> bytes | Gap:
        """The body that would be sent, as its fields are read."""
        return readable(self._bodies.content(flow, MOST_BODY_BYTES), flow.request.data.headers.fields)

    async def _concluded(self, governed: Governed, connection: ClientConnection, flow: http.HTTPFlow, judged: Judged,
                         started: float) -> Judged:
        """The verdict on a request once it is durable; the flow then counts as in flight where it is let through."""
        if not judged.lets_through or judged.agent is None:
            return await self._log.written("request", governed, connection, flow, judged, started)
        full = self._in_flight.enter(judged.agent.id, judged.measures.in_flight)
        if full is not None:
            busy = replace(judged, verdict=Verdict(Action.DENY, Code.BUSY, full.by, "as many flows are open as may be"))
            return await self._log.written("request", governed, connection, flow, busy, started)
        goes_on, agent = False, judged.agent
        try:
            judged = await self._log.written("request", governed, connection, flow, judged, started)
            if not judged.lets_through:
                return judged
            if fingerprint(flow.request) != judged.sent:
                return await self._taken_back(governed, connection, flow, judged, _EDITED, started)
            # While the entry was written. Who is halted may still ask Governor itself about that.
            ended = self._closed() if judged.verdict is ITSELF else self._halted(agent, connection) or self._closed()
            if ended is not None:
                return await self._taken_back(governed, connection, flow, judged, ended, started)
            goes_on = True
        finally:
            if not goes_on:
                self._in_flight.leave(agent.id)
        if judged.host and judged.port is not None:
            connection.grant(judged.host.name, judged.port, judged.addresses, monotonic())
        return judged

    async def _taken_back(self, governed: Governed, connection: ClientConnection, flow: http.HTTPFlow, judged: Judged,
                          verdict: Verdict, started: float) -> Judged:
        """Refuse what was let through and has not left yet."""
        assert judged.agent is not None
        outcome = entry.outcome(flow.id, f"{self._lane.name}/{judged.number}", "not_sent", code=verdict.code)
        self._book.record("outcome", outcome, judged.agent.id, judged.mode)
        refused = replace(judged, verdict=verdict, judgement=None, addresses=(), number=None)
        return await self._log.written("request", governed, connection, flow, refused, started)

    @property
    def governed(self) -> Governed:
        """The policy in force."""
        return self._governed()

    def asked_by(self, governed: Governed, connection: ClientConnection) -> tuple[Agent | None, Verdict | None]:
        """The agent that asks for something which is no request, and why nothing of it passes; None where it may."""
        agent, refused = self._identified(governed, connection)
        return (None, _unidentified(refused)) if agent is None else (agent, self._halted(agent, connection))

    def _identified(self, governed: Governed, connection: ClientConnection) -> tuple[Agent, None] | tuple[None, Code]:
        """The agent behind what a client says of itself, or the code that refuses it."""
        agent, refused = self._registry.identify(
            governed.policy.identity, _evidence(governed, connection), connection.peer)
        if agent is None:
            assert refused is not None
            return None, refused
        connection.agent = agent.id
        return agent, None

    def _halted(self, agent: Agent, connection: ClientConnection) -> Verdict | None:
        return self._book.halted(agent.id, connection.peer if agent.by == "none" else None)

    def _name(self, governed: Governed, flow: http.HTTPFlow, facts: RequestFacts, body: bytes | Gap) -> str | None:
        """The name of what is asked, where it is counted how often that is, and the body is known."""
        if body is STREAMED or not governed.bounds.of(facts.agent.id).counts_requests:
            return None
        return self._names.name(facts, self._bodies.content(flow, MOST_BODY_BYTES))

    async def _judged(self, handler: ConnectionHandler, connection: ClientConnection, flow: http.HTTPFlow,
                      governed: Governed, agent: Agent, body_bytes: int, body: bytes | Gap) -> Judged:
        try:
            found = self._read(connection, flow, agent, body_bytes)
        except NonCanonical as error:
            return _non_canonical(error, agent, flow, connection)
        facts = found.facts
        _settle(flow.request, facts)
        if self._mirror.is_own(facts.host):
            return Judged(ITSELF, agent, facts.method, facts.host, facts.port, facts, sent=fingerprint(flow.request))
        ended = self._halted(agent, connection) or _circular(connection)
        if ended is not None:
            return Judged(ended, agent, facts.method, facts.host, facts.port, facts)
        # Taken before anything is waited for: the look-up of a name takes as long as its server likes.
        sent = fingerprint(flow.request)
        headers = flow.request.data.headers.fields
        model = model_calls.read(governed, facts, headers, lambda: self._whole(flow, body))
        asked = _with_fields(governed, flow, facts, body, model)
        named = self._name(governed, flow, facts, body)
        mode = governed.mode(facts.at)
        judgement = name_stage(governed.index, asked)
        if mode is Mode.OBSERVE and judgement is not None and judgement.verdict.code in OBSERVED:
            # Of a request that passes in spite of its name's refusal the addresses are judged, too.
            judgement = None
        overridden = found.overrides and governed.constrains_method_or_path
        if judgement is None and overridden and facts.host.address is None:
            # No address would let it through, so the name is not asked.
            return Judged(_OVERRIDE, agent, facts.method, facts.host, facts.port, facts, request=named, model=model)
        addresses: tuple[Address, ...] = ()
        if judgement is None:
            found_at = await self._addresses(handler, connection, facts)
            if isinstance(found_at, Verdict):
                return Judged(found_at, agent, facts.method, facts.host, facts.port, facts)
            addresses = found_at
            judgement = address_stage(governed.index, asked, addresses, self._own(facts.port, addresses))
        if mode is Mode.OBSERVE:
            judgement = enforced(governed.index, asked, addresses, judgement, governed.observed_until)
        timed = governed.index.timed or mode is Mode.OBSERVE
        model = model_calls.bounded(model, judgement.measures)
        judged = Judged(judgement.verdict, agent, facts.method, facts.host, facts.port, facts, judgement, addresses,
                        request=named, sent=sent, mode=mode, asked=(governed.index, asked) if timed else None,
                        model=model)
        refused = _OVERRIDE if overridden else None
        if refused is None and mode is Mode.ENFORCE:
            refused = model_calls.refused(governed, facts, judgement, model, overrides=found.overrides)
        return judged if refused is None or not judged.lets_through else replace(judged, verdict=refused)

    def _whole(self, flow: http.HTTPFlow, body: bytes | Gap) -> bytes | Gap | None:
        """The body of a call of a model, which may be longer than what rules compare fields of."""
        return body if body is STREAMED else self._bodies.content(flow, MOST_CALL_BYTES)

    async def _addresses(self, handler: ConnectionHandler, connection: ClientConnection,
                         facts: RequestFacts) -> tuple[Address, ...] | Verdict:
        """Where this request would go: its literal, the peers of a connection it would reuse, or the name's answers.

        A verdict, where the name has none, or not the one to which the client was going.
        """
        if facts.host.address is not None:
            return (facts.host.address,)
        name, port = facts.host.name, facts.port
        going_to = connection.redirected_to
        fits = going_to is None or name in connection.fitting
        known = connected_peers(handler, name, port) or connection.judged(name, port, monotonic()) if fits else None
        try:
            addresses = known or await self._resolver.resolve(name)
        except ResolveFailed:
            return _refusal(Code.RESOLVE_FAILED, "the name has no address")
        if going_to is not None and not fits:
            told = self._told.has(facts.agent.id, name, going_to[0], monotonic())
            if going_to[0] not in addresses and not told:
                return _NOT_ITS_ADDRESS
            connection.fits(name)
        return addresses

    def _read(self, connection: ClientConnection, flow: http.HTTPFlow, agent: Agent, body_bytes: int) -> Extracted:
        """The request as it would be sent. Raises `NonCanonical`."""
        if connection.redirected_to is not None:
            redirected.aim(flow, connection.redirected_to)
        return extract(flow, agent, connection.for_origins, body_bytes, int(self._clock()))

    def _own(self, port: int, addresses: tuple[Address, ...]) -> frozenset[tuple[Address, int]]:
        """Those of the addresses at which Governor itself listens on this port."""
        if port not in self._own_ports():
            return frozenset()
        return frozenset((address, port) for address in addresses if _is_local(address))

    async def unreadable(self, connection: ClientConnection, flow: http.HTTPFlow, reason: str) -> Judged:
        """Refuse a request that has no single reading. Returns when the decision is durable."""
        if shut := self.shut(connection):
            return Judged(shut, None, method_of(flow.request), None)
        judged = self._malformed(connection, flow, _refusal(Code.MALFORMED, reason))
        return await self._log.written("request", self._governed(), connection, flow, judged, perf_counter())

    def record_incomplete(self, connection: ClientConnection, flow: http.HTTPFlow) -> None:
        """Write down a request that ended before it could be judged: nobody waits for an answer."""
        connection.forget(flow)
        connection.requests += 1
        if self._lane.stopped:
            return
        judged = self._malformed(connection, flow, _INCOMPLETE)
        self._metrics.step()
        source = judged.agent.id if judged.agent else connection.peer
        if not self._rate.exceeded(source, Code.MALFORMED):
            agent = judged.agent.id if judged.agent else ""
            self._book.note_unheard(decision_fields("request", flow.id, self._governed(), judged), agent)
            self._metrics.decision(judged.verdict.action, Code.MALFORMED, agent, None, 0.0)

    def _malformed(self, connection: ClientConnection, flow: http.HTTPFlow, verdict: Verdict) -> Judged:
        agent, _ = self._identified(self._governed(), connection)
        return Judged(verdict, agent, method_of(flow.request), _host_or_none(flow))

    async def no_request(self, connection: ClientConnection, reason: str) -> Refused:
        """What a client is told that sent what is no request, once that stands in the log."""
        if shut := self.shut(connection):
            return Refused(shut, "", "", None, None, None, self.contact)
        connection.recorded, source = True, f"{connection.peer} connections"
        if self._rate.exceeded(source, Code.MALFORMED):
            self._metrics.rate_limited()
            await self._log.wait(connection, source)
            return Refused(TOO_MANY, "", "", None, None, None, self.contact)
        fields = entry.connection(connection.peer, "malformed", Code.MALFORMED)
        number, durable = self._lane.commit("connection", fields)
        await durable
        verdict = _refusal(Code.MALFORMED, reason)
        return Refused(verdict, "", "", None, None, f"{self._lane.name}/{number}", self.contact)

    def record_connection(self, connection: ClientConnection, result: str, code: Code | None) -> None:
        """Write down how a connection ended; only count it where this second's others tell enough."""
        if not self._lane.stopped and not self._rate.exceeded(f"{connection.peer} connections", code or Code.MALFORMED):
            self._lane.record("connection", entry.connection(connection.peer, result, code))

    def own_answer(self, judged: Judged, accept: str) -> http.Response | None:
        """What Governor itself answers where the request is for its own name; None where it may go out."""
        if judged.facts is None or not self._mirror.is_own(judged.facts.host):
            return None
        return self._mirror.answer(judged.facts, accept)

    def entry_of(self, judged: Judged) -> str | None:
        """The name of the decision's entry, LANE/SEQ."""
        return None if judged.number is None else f"{self._lane.name}/{judged.number}"

    def refused(self, judged: Judged, flow: http.HTTPFlow) -> Refused:
        """What the client is told about this verdict."""
        refused = Refused(judged.verdict, judged.method, judged.target, judged.agent.id if judged.agent else None,
                          flow.id, self.entry_of(judged), self.contact,
                          wait_seconds=max(1, -(-judged.wait_us // 1_000_000)),
                          to_proxy=redirected.dialled(flow.client_conn) is None)
        self._mirror.note_refusal(refused)
        return refused

    @property
    def client_authority(self) -> Authority | None:
        """The CA whose certificates clients need in TLS with Governor itself; None where they need none."""
        return self._governed().client_authority

    @property
    def contact(self) -> str | None:
        """Whom the agents' users ask, as the policy says."""
        return self._governed().policy.contact

    def is_llm_host(self, name: str) -> bool:
        """True for the hosts whose clients show refusals in the form of model providers. `name` is canonical."""
        return name in self._governed().llm_hosts


def _refusal(code: Code, reason: str) -> Verdict:
    return Verdict(Action.DENY, code, reason=reason)


def _circular(connection: ClientConnection) -> Verdict | None:
    """The refusal of what nobody redirected here: what is dialled for it would come here again, and again."""
    going_to = connection.redirected_to
    return OWN if going_to is not None and going_to == connection.arrived_at else None


def _non_canonical(error: NonCanonical, agent: Agent, flow: http.HTTPFlow, connection: ClientConnection) -> Judged:
    verdict = replace(_refusal(error.code, error.problem), tell=_advice(error.code, connection))
    return Judged(verdict, agent, method_of(flow.request), _host_or_none(flow))


def _evidence(governed: Governed, connection: ClientConnection) -> Evidence:
    """What there is now to know a client by: the policy may have changed since it came."""
    proved, authority = connection.certificate, governed.client_authority
    name = proved.name_by(authority) if proved is not None and authority is not None else None
    if connection.sandbox is not None:
        # Its addresses and ports are of Governor's own making, and those that a policy names lie elsewhere.
        return Evidence(connection.credentials, name, sandbox=connection.sandbox)
    return Evidence(connection.credentials, name, connection.listener_port, connection.address)


def _unidentified(code: Code | None) -> Verdict:
    if code is Code.IDENTITY_REFUSED:
        return _refusal(code, "what the client is known by is unknown, revoked or another agent's")
    if code is Code.IDENTITY_CONFLICT:
        return _refusal(code, "what the client is known by names two agents")
    return _refusal(code or Code.IDENTITY_REQUIRED, "the proxy needs to know who asks")


def _advice(code: Code, connection: ClientConnection) -> str | None:
    """What helps a client whose names disagree because it looked one up itself."""
    by_address = connection.tunnel is not None and connection.tunnel[0].address is not None
    return _REMOTE_DNS if code is Code.DESTINATION_MISMATCH and connection.socks and by_address else None


def _host_or_none(flow: http.HTTPFlow) -> Host | None:
    try:
        return connect_target(flow.request)[0]
    except NonCanonical:
        return None


def _with_fields(governed: Governed, flow: http.HTTPFlow, facts: RequestFacts, body: bytes | Gap,
                 model: ModelCall | None = None) -> RequestFacts:
    """The facts with what rules can compare, where some rule does. What is kept of a request is without them."""
    if not governed.index.needs_fields:
        return facts
    asked = None if model is None else model.model
    return replace(facts, fields=Fields(facts.query, flow.request.data.headers.fields, body, asked))


def _settle(request: http.Request, facts: RequestFacts) -> None:
    """Have the request sent in the spelling that is judged."""
    path = f"{facts.path.text}?{facts.query}" if facts.query else facts.path.text
    data = request.data
    if facts.scheme in UPGRADES:
        websocket_handshake.offer_no_extensions(request)
    data.host, data.path, data.method = facts.host.name, path.encode("latin-1"), facts.method.encode("ascii")


def _is_local(address: Address) -> bool:
    """True when the address is one of this machine's own: only those can be bound."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
