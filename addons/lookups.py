"""From a question for a name to its answer: who asks, whether some rule could lead there, the entry, the addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic, perf_counter, time
from typing import TYPE_CHECKING
from uuid import uuid4

from addons.connections import ClientConnection
from addons.errors import AuditUnavailable
from addons.judge import Judge
from addons.judged import Judged, decision_fields
from addons.mirror import Mirror
from addons.refusal import Refused
from addons.resolver import ResolveFailed, Resolver
from addons.told_names import TTL_SECONDS, ToldNames
from kernel import dns_message, entry, names
from kernel.decide import Judgement
from kernel.dns_message import Question, Result
from kernel.errors import NonCanonical
from kernel.facts import Address
from kernel.trial import Mode
from kernel.verdict import Action, Code, Verdict

if TYPE_CHECKING:
    from addons.book import Book
    from addons.faults import Faults
    from addons.governed import Governed
    from addons.lane import Lane
    from addons.metrics import Metrics
    from addons.refusal_rate import RefusalRate

# Less than most resolvers wait before they ask again.
_SECONDS = 4.5
# A client asks for both kinds of addresses at once, and again for every connection.
_FRESH_SECONDS = 30.0
_REMEMBERED = 4096
_WRITTEN_SECONDS = 60.0
_NONE_SUCH = Verdict(Action.DENY, Code.RESOLVE_FAILED, reason="the name has no address")
_NO_ANSWER = Verdict(Action.DENY, Code.RESOLVE_FAILED, reason="the name could not be looked up")
_UNKNOWN = Verdict(Action.DENY, Code.IDENTITY_REQUIRED, reason="nobody knows who asks")
_MALFORMED = "malformed"
_STAGE = "dns"


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look-up gave: addresses, or how it failed."""

    addresses: tuple[Address, ...] = ()
    result: Result = Result.NOERROR


class Lookups:
    """Answers the questions of one process."""

    def __init__(self, judge: Judge, lane: Lane, book: Book, resolver: Resolver, metrics: Metrics, rate: RefusalRate,
                 mirror: Mirror, told: ToldNames, faults: Faults, clock: Callable[[], float] = time) -> None:
        self._judge, self._lane, self._book, self._resolver = judge, lane, book, resolver
        self._metrics, self._rate, self._mirror, self._told = metrics, rate, mirror, told
        self._faults, self._clock = faults, clock
        self._asking: dict[str, asyncio.Task[_Found]] = {}
        self._fresh: dict[str, tuple[float, _Found]] = {}
        # When a question that is answered was last written down, by policy, agent, name, type and what was decided.
        self._written: dict[tuple[object, ...], tuple[float, asyncio.Future[None]]] = {}

    async def answer(self, message: bytes, connection: ClientConnection, *, udp: bool) -> bytes | None:
        """What to send back to a client, once the decision is durable; None where nothing is. Never raises."""
        try:
            asked = dns_message.read(message)
        except dns_message.Unreadable as error:
            return error.reply if await self._noted(connection) else None
        try:
            async with asyncio.timeout(_SECONDS):
                return await self._answered(asked, connection, udp=udp)
        except Exception as fault:  # noqa: BLE001
            self._faults.count("Question", fault)
            return dns_message.answer(asked, Result.SERVFAIL, udp=udp)

    def dropped(self, connection: ClientConnection) -> None:
        """A question of this client was not even read: too many came."""
        self._rate.count(connection.peer, Code.BUSY)

    async def _noted(self, connection: ClientConnection) -> bool:
        """Write down that something came which is no question. False where there are too many to be answered."""
        source = f"{connection.peer} connections"
        if self._lane.stopped or self._rate.exceeded(source, Code.MALFORMED):
            return False
        try:
            _, durable = self._lane.commit("connection", entry.connection(connection.peer, _MALFORMED, Code.MALFORMED))
            await durable
        except AuditUnavailable:
            return False
        return True

    async def _answered(self, asked: Question, connection: ClientConnection, *, udp: bool) -> bytes:
        started, governed = perf_counter(), self._judge.governed
        shut = self._judge.shut(connection)
        if shut is not None:
            return dns_message.answer(asked, Result.REFUSED, why=_why(shut), udp=udp)
        judged, found = await self._judged(governed, asked, connection)
        written = await self._log(governed, asked, connection, judged, started)
        if judged.verdict.code is Code.RESOLVE_FAILED:
            return dns_message.answer(asked, found.result, udp=udp)
        if not judged.lets_through:
            return dns_message.answer(asked, Result.REFUSED, why=_why(judged.verdict, written), udp=udp)
        if judged.agent is not None and judged.host is not None and judged.addresses:
            self._told.note(judged.agent.id, judged.host.name, judged.addresses, monotonic())
        return dns_message.answer(asked, found.result, judged.addresses, TTL_SECONDS, udp=udp)

    async def _judged(self, governed: Governed, asked: Question,
                      connection: ClientConnection) -> tuple[Judged, _Found]:
        agent, refused = self._judge.asked_by(governed, connection)
        try:
            name = names.named(asked.labels)
        except NonCanonical as error:
            return Judged(Verdict(Action.DENY, error.code, reason=error.problem), agent, "", None), _Found()
        if agent is None or refused is not None:
            return Judged(refused or _UNKNOWN, agent, "", name), _Found()
        at = int(self._clock())
        mode = governed.mode(at)
        judgement = names.name_verdict(
            governed.index, names.terms_of(governed.policy, agent.id), agent.id, name, asked.type, at)
        judged = Judged(judgement.verdict, agent, "", name, judgement=judgement, mode=mode)
        if not judged.lets_through:
            return judged, _Found()
        if judgement.verdict is names.ITS_OWN:
            return replace(judged, addresses=names.OWN_ADDRESSES), _Found()
        if not names.wants_addresses(asked.type):
            return judged, _Found()
        found = await self._found(name.name)
        if not found.addresses:
            verdict = _NO_ANSWER if found.result is Result.SERVFAIL else _NONE_SUCH
            return replace(judged, verdict=verdict), found
        addresses = names.told(governed.index, agent.id, name, found.addresses, at, on_trial=mode is Mode.OBSERVE)
        if not addresses:
            judgement = Judgement(names.NOWHERE, (), found.addresses[0])
            return replace(judged, verdict=names.NOWHERE, judgement=judgement), found
        judgement = replace(judgement, address=addresses[0])
        return replace(judged, addresses=addresses, judgement=judgement), found

    async def _found(self, name: str) -> _Found:
        """The name's addresses; one look-up at a time, and none while the last one is fresh."""
        known = self._fresh.get(name)
        if known is not None and monotonic() - known[0] <= _FRESH_SECONDS:
            return known[1]
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.get_running_loop().create_task(self._ask(name))
            asking.add_done_callback(lambda _: self._asking.pop(name, None))
        # Others wait for the same answer, also when the first of them has left.
        return await asyncio.shield(asking)

    async def _ask(self, name: str) -> _Found:
        try:
            found = _Found(await self._resolver.resolve(name))
        except ResolveFailed as failed:
            return _Found((), _ABSENT.get(failed.number, Result.SERVFAIL))
        if len(self._fresh) >= _REMEMBERED:
            self._fresh.clear()
        self._fresh[name] = (monotonic(), found)
        return found

    async def _log(self, governed: Governed, asked: Question, connection: ClientConnection, judged: Judged,
                   started: float) -> str:
        """Write the decision down; the name of its entry, empty where it is only counted."""
        self._metrics.step()
        verdict, agent = judged.verdict, judged.agent.id if judged.agent else ""
        passes = judged.lets_through
        asks = (governed.policy.digest, agent, judged.target, asked.type, verdict, judged.mode, judged.addresses)
        before = self._written_lately(asks) if passes else None
        if before is not None:
            self._metrics.decision(verdict.action, verdict.code, agent, verdict.rule, perf_counter() - started)
            await asyncio.shield(before)
            return ""
        source = agent or connection.peer
        quiet = not passes and verdict.rule is not None and verdict.rule in governed.index.quiet
        if quiet:
            source = f"{source} quiet"
        # By turns of their own: what looks for updates all the time is still told why its user's page is refused.
        if not passes and self._rate.exceeded(source, verdict.code, _STAGE):
            self._metrics.rate_limited()
            return ""
        self._metrics.decision(verdict.action, verdict.code, agent, verdict.rule, perf_counter() - started)
        if quiet and self._rate.is_repeated(source, str(verdict.rule)):
            self._rate.count(source, verdict.code)
            return ""
        record = names.type_name(asked.type) or str(asked.type)
        fields = decision_fields(_STAGE, str(uuid4()), governed, judged, record)
        number, durable = self._book.note(fields, _hidden(governed, judged), agent)
        if passes:
            self._remember(asks, durable)
        # Others may wait for it, also when this client's time is over.
        await asyncio.shield(durable)
        written = f"{self._lane.name}/{number}"
        if not passes:
            self._mirror.note_refusal(Refused(verdict, "DNS", judged.target, agent or None, None, written, None))
        return written

    def _written_lately(self, asks: tuple[object, ...]) -> asyncio.Future[None] | None:
        """What is done once the last entry of the same answer to the same question is durable; None without one."""
        at, durable = self._written.get(asks, (0.0, None))
        return durable if monotonic() - at <= _WRITTEN_SECONDS else None

    def _remember(self, asks: tuple[object, ...], durable: asyncio.Future[None]) -> None:
        if len(self._written) >= _REMEMBERED:
            self._written.clear()
        self._written[asks] = monotonic(), durable


# The system tells a name that does not exist from one without addresses.
_ABSENT: dict[int | None, Result] = {socket.EAI_NONAME: Result.NXDOMAIN}
if hasattr(socket, "EAI_NODATA"):
    _ABSENT[socket.EAI_NODATA] = Result.NOERROR


def _why(verdict: Verdict, written: str = "") -> str:
    return f"Governor: {verdict.code} {written}".rstrip()


def _hidden(governed: Governed, judged: Judged) -> dict[str, str] | None:
    """The name, where the entry shows only its domain."""
    host = judged.host
    return {"host": host.name} if host and governed.disclosure.shown(host) != host.name else None
