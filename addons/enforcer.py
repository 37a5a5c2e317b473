"""The enforcer: the mitmproxy addon that starts everything, keeps it together and ends it.

It judges nothing itself and has no hook for traffic: those run in the gate (addons/gate.py, addons/hooks.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

from mitmproxy import command, ctx, version
from mitmproxy.addonmanager import Loader

from addons import (
    build_info,
    dispatch,
    dns_server,
    durable,
    gate,
    gate_trial,
    listeners,
    own_output,
    patches,
    settings,
    takeover,
)
from addons.admission import Admission, raise_file_limit
from addons.agents_control import Acts, AgentsControl
from addons.agents_file import AgentsError
from addons.anchored import Anchored
from addons.book import Book
from addons.control import Handler, Message, Peer, user_name
from addons.deadlines import Deadlines
from addons.errors import AuditUnavailable, GovernorError, StartCode, StartRefused
from addons.fleet import Fleet
from addons.hooks import Hooks
from addons.hosting import Alone, Host
from addons.identity import Registry
from addons.in_flight import InFlight
from addons.in_force import InForce
from addons.judge import Judge
from addons.lane import Lane
from addons.lineage import newest
from addons.listeners import Listeners
from addons.lookups import Lookups
from addons.metrics import NOT_STOPPING, Gauge, Metrics
from addons.mirror import Mirror
from addons.operator_acts import hints
from addons.origin_check import check_origin
from addons.outcomes import Outcomes
from addons.own_output import say
from addons.pools.acts import SharedActs
from addons.pools.joining import joined
from addons.pools.member import CUT_OFF, Member
from addons.pools.setting import Kind
from addons.refusal_rate import RefusalRate
from addons.request_bodies import RequestBodies
from addons.request_names import RequestNames
from addons.resolver import Resolver
from addons.rotation import RotationControl
from addons.signing import Signing
from addons.snapshots import Snapshots
from addons.spool import ROOM_BYTES, Room
from addons.told_names import ToldNames
from addons.watchdog import Watchdog
from kernel import entry, standings
from kernel.comparison import UNREAD
from kernel.errors import NonCanonical
from kernel.question import answer, facts_of
from kernel.system import MOST_SEEN, Said
from kernel.verdict import Action, Code, Verdict
from kernel.version import VERSION

TESTED_MITMPROXY = "12.2.3"
UNLOADED = 70
STOPPED = 3
_HEARTBEAT_SECONDS = 1.0
_LATE_SECONDS = 5.0
_FLUSH_SECONDS = 60.0
_UNANCHORED = Verdict(Action.DENY, Code.AUDIT_UNAVAILABLE, reason="the audit log is not anchored in time")


class Enforcer:
    """One Governor in one mitmproxy process. `host` makes what surrounds it, of mitmproxy's options and the settings.

    `seconds_after_stop`: how long it goes on refusing after the log failed before it ends with status 3. None, as under
    `mitmdump -s`, leaves the end to the operator.
    """

    seconds_after_stop: float | None = None
    _running: _Running | None = None
    _started = False

    def __init__(self, host: Callable[[Any, settings.Settings], Host] = Alone) -> None:
        self._host = host

    def load(self, loader: Loader) -> None:
        try:
            settings.declare(loader)
        except StartRefused as refused:
            _refuse_start(refused)

    def configure(self, updated: set[str]) -> None:
        """Start at the first complete configuration; afterwards no option changes any more."""
        if self._running is not None:
            self._running.frozen.check(updated)
        elif "mode" in updated and not self._started:
            self._started = True
            try:
                self._running = _Running(self._host, self.seconds_after_stop)
            except StartRefused as refused:
                _refuse_start(refused)
            except Exception as fault:  # noqa: BLE001
                _refuse_start(StartRefused(StartCode.SELF_TEST, f"{type(fault).__name__}: {fault}"))

    async def running(self) -> None:
        if self._running is not None:
            await self._running.serve()

    def done(self) -> None:
        """mitmproxy ends; or the script is unloaded, and the process ends with it: nothing goes on ungoverned."""
        if self._running is None:
            return
        unloaded = not ctx.master.should_exit.is_set()
        self._running.close("unloaded" if unloaded else "stopped")
        if unloaded:
            say("the script was unloaded or changed: the process ends")
            os._exit(UNLOADED)

    @command.command("governor.status")  # type: ignore[untyped-decorator]
    def status(self) -> str:
        """Whether Governor is ready, and under which policy."""
        return str(self._running.status() if self._running else {"ready": False})

    @command.command("governor.halt")  # type: ignore[untyped-decorator]
    def halt(self, agent: str, reason: str) -> None:
        """Halt an agent until an operator releases it: governor.halt coder-7 "it uploads what it must not"."""
        if self._running is not None:
            self._running.halt_soon(agent, reason)

    @command.command("governor.halt.all")  # type: ignore[untyped-decorator]
    def halt_all(self, reason: str) -> None:
        """Halt all agents until an operator releases them: governor.halt.all "somebody has our keys"."""
        if self._running is not None:
            self._running.halt_all_soon(reason)

    @command.command("governor.explain")  # type: ignore[untyped-decorator]
    def explain(self, agent: str, method: str, url: str) -> str:
        """What the policy says to a request, without its headers and body. Nothing is sent."""
        return self._running.explain(agent, method, url) if self._running else "no policy is in force"

    @command.command("governor.reload")  # type: ignore[untyped-decorator]
    def reload(self) -> None:
        """Read the policy again; a bad one leaves the old one in force."""
        if self._running is not None:
            self._running.in_force.reload_soon("mitmproxy")


class _Running:
    """Everything that exists between a start and its end."""

    def __init__(self, host: Callable[[Any, settings.Settings], Host], seconds_after_stop: float | None) -> None:
        self._seconds_after_stop = seconds_after_stop
        check_origin()
        if version.VERSION != TESTED_MITMPROXY:
            text = f"mitmproxy is {version.VERSION}; Governor is tested on {TESTED_MITMPROXY}"
            raise StartRefused(StartCode.VERSION, text)
        options = ctx.options
        settings.check_at_start(options)
        _prove_gate()
        self._settings = settings.read(options)
        self._loop = asyncio.get_running_loop()
        self._turned = time.monotonic()
        self._next_flush = self._turned + _FLUSH_SECONDS
        self._opened = self._ready = self.stopping = False
        self._watchdog: Watchdog | None = None
        self.metrics = Metrics(VERSION, version.VERSION)
        self.frozen: settings.Frozen
        self.fleet: Fleet
        self._member: Member | None
        self._open(options, host(options, self._settings))
        self._opened = True

    def _open(self, options: Any, host: Host) -> None:
        self._host, home = host, host.home
        self.paths, self.siblings = home.paths, host.siblings
        self.pool = host.pool(self._settings.pool)
        self._anchored = Anchored(home, say)
        settings.force(options, host.authority)
        tls = ctx.master.addons.get("tlsconfig")
        self._signing = Signing(host.authority, lambda: tls.configure({"confdir"}), self._turned)
        self.registry = Registry(self.paths.agents, lambda error: self.metrics.fault("agents"),
                                 {} if host.sandbox is None else host.sandbox.lent)
        governed = host.first_policy(self._settings, self.registry)
        metrics_port = host.show_metrics(self)
        try:
            lane = newest(self.paths, host.lane, home.root)
            self.lane = Lane.open(home, lane, kernel=build_info.kernel_identity(), loop=self._loop,
                                  published=self._anchored.published(lane), patience_seconds=host.patience_seconds,
                                  marks={} if host.sandbox is None else {"tier": host.sandbox.tier})
        except BaseException:
            host.hide_metrics()
            raise
        self.in_force = InForce(governed, self.lane, self.paths, self.registry, self.metrics)
        self.lane.observe(self.metrics)
        self.lane.on_stop(self._stopped)
        self._anchored.start(self.lane, self.metrics)
        self._resolver = Resolver(self._loop)
        self._listeners = Listeners(options, metrics_port)
        self._rate = RefusalRate(time.time)
        durable.make_folder(self.paths.spool)
        in_flight, bodies = InFlight(), RequestBodies(self.paths.spool, Room(ROOM_BYTES // host.processes))
        self.book = Book(self.lane, self.lane.states, lambda: self.in_force.governed, self._sources_of)
        self._snapshots = Snapshots(self.paths, self.lane, self.lane.states)
        self.lane.on_rotate(self._snapshots.begin)
        self.outcomes = Outcomes(self.lane, self.book, self.metrics, in_flight)
        self.book.on_halt, self.book.on_new_halt = self.outcomes.end_agent, self.metrics.halt
        self.book.on_halt_all, self.book.on_reads_only = self.outcomes.end_all, self.outcomes.end_writes
        self.book.on_preventive = lambda fields: self.metrics.preventive(fields["do"], degraded=fields["degraded"])
        mirror, told = Mirror(lambda: self.in_force.governed, time.time, self._own), ToldNames()
        judge = Judge(lambda: self.in_force.governed, self.lane, self.registry, self._resolver, self.metrics,
                      self._listeners.ports, self._rate, bodies, in_flight, mirror, self.book,
                      RequestNames.of_home(self.paths.request_names), closed=self._closed, told=told)
        enclosed = None if host.sandbox is None else host.sandbox.enclosed
        hooks = self.hooks = Hooks(judge, self.outcomes, self.lane, self.metrics, bodies,
                                    Admission(self._rate, raise_file_limit()),
                                    enclosed)
        self._deadlines = Deadlines(gate.end)
        patches.install(hooks, self.outcomes, bodies, self._deadlines)
        dns_server.install(Lookups(judge, self.lane, self.book, self._resolver, self.metrics, self._rate, mirror, told,
                                   hooks.faults), enclosed)
        own_output.restrict()
        self.frozen = settings.Frozen(options)
        self._write_start(options)
        self.book.begin_clock()
        self._join()
        acts = takeover.acts(home, self.book.state.taken_over)
        self.book.take_over(acts if self._member is None else self._member.take_over(acts))
        self.operator = AgentsControl(self.registry, self._acts, home, self.fleet)
        self._read_gauges()

    def _join(self) -> None:
        """Become one of those that share a ledger, where there is one."""
        self._host.keep_accounts(self.pool, self.lane.name)
        said = {"policy": self.in_force.governed.policy.digest, "version": VERSION}
        self._member = joined(self.pool, self._host.home, self.lane.name, self.book, say, said)
        self._acts: Acts = self.book
        if self._member is not None:
            self._member.on_cut_off = lambda: self.outcomes.end_all(CUT_OFF)
            self._member.on_told = self.siblings.poke
            self.siblings.on_poke(self._member.poke)
            self._member.about = lambda: self._told_of_itself().fields()
            self._acts = SharedActs(self.book, self._member)
        self.fleet = Fleet(f"{self._host.home.log_id}/{self.lane.name}", self.book, self._told_of_itself, self._member)

    def _cut_off(self) -> bool:
        return self._member is not None and self._member.cut_off

    def _closed(self) -> Verdict | None:
        """Why nothing passes at this moment, for all that is well with the log."""
        if self._cut_off():
            return CUT_OFF
        return _UNANCHORED if self._anchored.stops else None

    def handlers(self) -> dict[str, Handler]:
        return {"status": self._answer_status, **self.operator.handlers(), **RotationControl(self.lane).handlers()}

    def proxies(self) -> list[tuple[str, str, int]]:
        return self._listeners.proxies()

    def _told_of_itself(self) -> Said:
        switch, ports = self.book.state.switch, sorted({port for _, _, port in self.proxies()})
        return Said(self.lane.name, self.in_force.governed.policy.digest, VERSION, all(self.checks().values()),
                    len(self.outcomes), tuple(ports), switch.halt is not None, switch.epoch,
                    self.registry.newest_seen(MOST_SEEN))

    def _sources_of(self, agent: str) -> tuple[str, ...]:
        """The client addresses from which an agent comes, or came lately."""
        now = {each.peer for _, each in self.hooks.clients.items() if each.agent == agent}
        return tuple(sorted(now.union(self.registry.whereabouts.of(agent))))

    def _own(self, agent: str) -> standings.Own:
        return standings.own(self.book.state, self.book.bounded(agent), agent, _now_us())

    def _write_start(self, options: Any) -> None:
        versions = {"governor": VERSION, "mitmproxy": version.VERSION}
        for _ in range(self._anchored.silent):
            self.lane.record("fault", entry.fault("anchor", "AnchorError", Code.FAULT, None))
        said = settings.recorded(options) | self._anchored.recorded()
        if self.pool.kind is not Kind.MEMORY:
            said |= {"governor_pool": str(self.pool), "workers": self._host.processes}
        self.book.begin(entry.config(said, versions))
        self.in_force.begin()

    def _look_at_clock(self) -> None:
        with contextlib.suppress(AuditUnavailable):
            self.book.look_at_clock(_now_us())

    def _look_at_ca(self) -> None:
        try:
            self._signing.look(self._turned)
        except (OSError, ValueError):
            # It cannot be read: what was read before goes on signing, and the next minute's look says why.
            self.metrics.fault("ca")

    def _read_gauges(self) -> None:
        self.metrics.read(Gauge.READY, lambda: all(self.checks().values()))
        self.metrics.read(Gauge.OPEN_STREAMS, lambda: len(self.outcomes))
        self.metrics.read(Gauge.POOL_UP, lambda: not self._cut_off())
        self.metrics.read_standings(
            lambda: standings.all_halted(self.book.state),
            lambda: standings.overall(self.book.state, self.book.bounds.amounts(), _now_us()))
        self.metrics.read_held_back(lambda: standings.numbers_held_back(self.book.state, _now_us()))

    async def serve(self) -> None:
        """The ports are open: seal the resolver, let operators in, say where everything is."""
        self._deadlines.start(self._loop)
        await self._listeners.reopen()
        self._resolver.seal()
        self._listeners.opened()
        self._heartbeat()
        self._watchdog = Watchdog(self._loop, self.lane)
        self._watchdog.start()
        if self._member is not None:
            self._member.start()
        self._ready = True
        await self._host.open(self)

    def _heartbeat(self) -> None:
        self._turned = time.monotonic()
        self._write_refusals()
        self.in_force.end_trial()
        self._look_at_clock()
        self._anchored.look()
        self.hooks.connections.sweep()
        self._look_at_ca()
        if self._turned >= self._next_flush:
            self._next_flush = self._turned + _FLUSH_SECONDS
            self._flushing = self._loop.run_in_executor(None, self._flush)
            self._renewing = self._loop.run_in_executor(None, self._renew_ca)
        self._beat = self._loop.call_later(_HEARTBEAT_SECONDS, self._heartbeat)

    def _write_refusals(self) -> None:
        """Write down what was only counted since the last time."""
        now = datetime.now(UTC)
        for source, uncounted in self._rate.drain().items():
            with contextlib.suppress(AuditUnavailable):
                start = datetime.fromtimestamp(uncounted.start, UTC)
                self.lane.record("refusals", entry.refusals(source, uncounted.counts, entry.timestamp(start),
                                                            entry.timestamp(now)))

    def _stopped(self, reason: AuditUnavailable) -> None:
        """The log has failed: everything is refused from here on."""
        self.metrics.fault("lane")
        say(f"stopped: {reason}; every request is refused")
        if self._seconds_after_stop is not None:
            self._end = self._loop.call_later(self._seconds_after_stop, sys.exit, STOPPED)

    def _flush(self) -> None:
        """Write down when each agent was last seen. What fails here costs a date, so it is counted and no more."""
        try:
            self.registry.flush()
        except AgentsError:
            self.metrics.fault("agents")

    def _renew_ca(self) -> None:
        """Do what is due to the CA. Where that fails the one that signs goes on to its end, which a metric tells."""
        try:
            self._signing.renew(datetime.now(UTC))
        except (OSError, StartRefused) as fault:
            self.metrics.fault("ca")
            say(f"the CA cannot be renewed: {fault}")

    def turns(self) -> bool:
        return not self._ready or time.monotonic() - self._turned < _LATE_SECONDS

    def checks(self) -> dict[str, bool]:
        """The conditions of readiness by name."""
        if not self._opened:
            # The metrics port is open, and not all of what is asked here is there.
            return {"serving": False}
        return {"serving": self._ready, NOT_STOPPING: not self.stopping, "gate": gate.installed(), "policy": True,
                "lane": self.lane.stopped is None, "anchors": not self._anchored.stops, "pool": not self._cut_off()}

    def halt_soon(self, agent: str, reason: str) -> None:
        """Begin to halt an agent, from a place that cannot wait for it."""
        self._halting = self._loop.create_task(self._halt(agent, reason))

    def halt_all_soon(self, reason: str) -> None:
        """Begin to halt all agents, from a place that cannot wait for it."""
        self._halting = self._loop.create_task(self._halt_all(reason))

    async def _halt_all(self, reason: str) -> None:
        try:
            told = await self.operator.halt_all(reason, user_name(os.geteuid()), "mitmproxy")
        except GovernorError as problem:
            say(str(problem))
        else:
            say(f"halted all agents ({told['entry']})" if told["changed"] else "all agents are halted already")

    async def _halt(self, agent: str, reason: str) -> None:
        user = user_name(os.geteuid())
        try:
            told = await self.operator.halt(agent, reason, user, "mitmproxy")
        except GovernorError as problem:
            say(str(problem))
        else:
            say(f"halted {agent} ({told['entry']})" if told["changed"] else f"{agent} is halted already")

    def explain(self, agent: str, method: str, url: str) -> str:
        """The verdict of the policy in force on a request, in words."""
        governed = self.in_force.governed
        try:
            asked = facts_of(agent, method.upper(), url, headers=UNREAD, body=UNREAD, at=int(time.time()))
        except NonCanonical as problem:
            return str(problem)
        verdict = answer(governed.index, asked).verdict
        return f"{verdict.action} {verdict.code}: {f'rule {verdict.rule}' if verdict.rule else verdict.reason}"

    def status(self) -> Message:
        """The fields of `governor status --json`."""
        checks = self.checks()
        return {
            "ready": all(checks.values()), "mode": self.in_force.governed.mode(time.time()),
            "policy": self.in_force.governed.policy.digest,
            "lanes": [{"lane": self.lane.name, "entries": self.lane.next_seq}],
            "workers": 1, "agents": len(self.registry.tokens.ids), "halted": list(standings.halted(self.book.state)),
            **self.fleet.fields(),
            "hints": [*(_failed(name) for name, holds in checks.items() if not holds), *self._anchored.hints(),
                      *hints(self.book.state, _now_us()), *self.fleet.hints(), *self.hooks.rejections.hints()],
        }

    async def _answer_status(self, message: Message, peer: Peer) -> Message:
        await self.fleet.look()
        return self.status()

    def close(self, reason: str) -> None:
        """End in order. What is asked afterwards is refused, because the log is closed."""
        self._ready, self.stopping = False, True
        if self._watchdog is not None:
            self._watchdog.stop()
        gate.close()
        self._flush()
        self.outcomes.cut_all()
        self.hooks.connections.close()
        self._write_refusals()
        self._snapshots.finish()
        if self._member is not None:
            self._member.end()
        self.lane.close(reason)
        self._anchored.close()
        self._host.close()


def _prove_gate() -> None:
    """Refuse to start on a mitmproxy on which the gate does not hold, with the dispatch that will be in use."""
    convert = dispatch.convert if dispatch.speed_up(ctx.master.addons) else None
    let_through = gate_trial.failures(lambda stub: Hooks(stub, stub, stub, stub, stub, stub).guards(), convert)
    if let_through:
        raise StartRefused(StartCode.SELF_TEST, f"on this mitmproxy nothing holds back {'; '.join(let_through)}")


def _refuse_start(refused: StartRefused) -> NoReturn:
    print(refused, file=sys.stderr, flush=True)
    if listeners.opening():
        # On an orderly way out the event loop goes round some more times, and serves whoever waits at the port.
        os._exit(1)
    # An exception of any other kind lets mitmproxy open its port for a moment, or serve without Governor.
    raise SystemExit(1)


def _failed(check: str) -> str:
    return "it is being stopped" if check == NOT_STOPPING else f"{check} failed"


def _now_us() -> int:
    return time.time_ns() // 1000
