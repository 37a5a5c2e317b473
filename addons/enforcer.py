"""The enforcer: the mitmproxy addon that starts everything, keeps it together and ends it.

It judges nothing itself and has no hook for traffic: those run in the gate (addons/gate.py, addons/hooks.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NoReturn

from mitmproxy import command, ctx, exceptions, version
from mitmproxy.addonmanager import Loader

from addons import (
    authority,
    banner,
    build_info,
    dispatch,
    durable,
    gate,
    gate_trial,
    listeners,
    own_output,
    patches,
    policy_store,
    settings,
    takeover,
)
from addons.admission import Admission, raise_file_limit
from addons.agents_control import AgentsControl
from addons.agents_file import AgentsError
from addons.anchored import Anchored
from addons.book import Book
from addons.control import ControlServer, Message, Peer, user_name
from addons.deadlines import Deadlines
from addons.errors import AuditUnavailable, GovernorError, ReloadRefused, StartCode, StartRefused
from addons.governed import Governed
from addons.home import Home, home_folder
from addons.hooks import Hooks
from addons.identity import Registry
from addons.in_flight import InFlight
from addons.judge import Judge
from addons.lane import Lane
from addons.lineage import newest
from addons.listeners import Listeners
from addons.metrics import Gauge, Metrics
from addons.metrics_server import MetricsServer
from addons.mirror import Mirror
from addons.operator_acts import hints
from addons.origin_check import check_origin
from addons.outcomes import Outcomes
from addons.port_lock import port_lock
from addons.refusal_rate import RefusalRate
from addons.request_bodies import RequestBodies
from addons.request_names import RequestNames
from addons.resolver import Resolver
from addons.rotation import RotationControl
from addons.snapshots import Snapshots
from addons.spool import Room
from addons.watchdog import Watchdog
from kernel import entry, standings
from kernel.comparison import UNREAD
from kernel.errors import NonCanonical, PolicyError
from kernel.question import answer, facts_of
from kernel.trial import Mode
from kernel.verdict import Action, Code, Verdict
from kernel.version import VERSION

TESTED_MITMPROXY = "12.2.3"
LANE = "main"
UNLOADED = 70
STOPPED = 3
_HEARTBEAT_SECONDS = 1.0
_LATE_SECONDS = 5.0
_FLUSH_SECONDS = 60.0
_UNANCHORED = Verdict(Action.DENY, Code.AUDIT_UNAVAILABLE, reason="the audit log is not anchored in time")


class Enforcer:
    """One Governor in one mitmproxy process.

    `seconds_after_stop`: how long it goes on refusing after the log failed before it ends with status 3. None, as under
    `mitmdump -s`, leaves the end to the operator.
    """

    seconds_after_stop: float | None = None
    _running: _Running | None = None
    _started = False

    def load(self, loader: Loader) -> None:
        settings.add_options(loader)
        try:
            # mitmproxy does this next; where a value cannot be read it serves on, without the script.
            loader.master.options.process_deferred()
        except exceptions.OptionsError as problem:
            _refuse_start(StartRefused(StartCode.OPTION_REFUSED, str(problem)))

    def configure(self, updated: set[str]) -> None:
        """Start at the first complete configuration; afterwards no option changes any more."""
        if self._running is not None:
            self._running.frozen.check(updated)
        elif "mode" in updated and not self._started:
            self._started = True
            try:
                self._running = _Running(self.seconds_after_stop)
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
            _say("the script was unloaded or changed: the process ends")
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

    @command.command("governor.explain")  # type: ignore[untyped-decorator]
    def explain(self, agent: str, method: str, url: str) -> str:
        """What the policy says to a request, without its headers and body. Nothing is sent."""
        return self._running.explain(agent, method, url) if self._running else "no policy is in force"

    @command.command("governor.reload")  # type: ignore[untyped-decorator]
    def reload(self) -> None:
        """Read the policy again; a bad one leaves the old one in force."""
        if self._running is not None:
            self._running.reload_soon("mitmproxy")


class _Running:
    """Everything that exists between a start and its end."""

    def __init__(self, seconds_after_stop: float | None) -> None:
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
        self._ready = False
        self._watchdog: Watchdog | None = None
        self._reload_lock = asyncio.Lock()
        self.metrics = Metrics(VERSION, version.VERSION)
        with contextlib.ExitStack() as opened:
            for host, port in settings.listen_addresses(options):
                opened.enter_context(port_lock(host, port, open_already=listeners.tried(host, port)))
            self._open(options)
            self._locks = opened.pop_all()

    def _open(self, options: Any) -> None:
        home = Home.open(home_folder(self._settings.home))
        self.paths = home.paths
        self._anchored = Anchored(home, _say)
        self._certificate = authority.ensure(self.paths.ca, datetime.now(UTC))
        settings.force(options, self.paths.ca)
        self._registry = Registry(self.paths.agents, lambda error: self.metrics.fault("agents"))
        self._governed: Governed = policy_store.first(
            self._settings.policies, self.paths, self._registry, strict=self._settings.strict)
        self._server = MetricsServer((self._settings.metrics_host, self._settings.metrics_port), self.metrics,
                                     self._turns, self._checks)
        self._server.start()
        try:
            lane = newest(self.paths, LANE, home.root)
            self.lane = Lane.open(home, lane, kernel=build_info.kernel_identity(), loop=self._loop,
                                  published=self._anchored.published(lane))
        except BaseException:
            self._server.stop()
            raise
        self.lane.observe(self.metrics)
        self.lane.on_stop(self._stopped)
        self._anchored.start(self.lane, self.metrics)
        self._resolver = Resolver(self._loop)
        self._listeners = Listeners(options, self._server.address[1])
        self._rate = RefusalRate(time.time)
        durable.make_folder(self.paths.spool)
        in_flight, bodies = InFlight(), RequestBodies(self.paths.spool, Room())
        self.book = Book(self.lane, self.lane.states, lambda: self._governed, self._sources_of)
        self._snapshots = Snapshots(self.paths, self.lane, self.lane.states)
        self.lane.on_rotate(self._snapshots.begin)
        self._outcomes = Outcomes(self.lane, self.book, self.metrics, in_flight)
        self.book.on_halt, self.book.on_new_halt = self._outcomes.end_agent, self.metrics.halt
        judge = Judge(lambda: self._governed, self.lane, self._registry, self._resolver, self.metrics,
                      self._listeners.ports, self._rate, bodies, in_flight,
                      Mirror(lambda: self._governed, time.time, self._own), self.book,
                      RequestNames.of_home(self.paths.request_names), closed=self._closed)
        hooks = self._hooks = Hooks(judge, self._outcomes, self.lane, self.metrics, bodies,
                                    Admission(self._rate, raise_file_limit()))
        self._deadlines = Deadlines(gate.end)
        patches.install(hooks, self._outcomes, bodies, self._deadlines)
        own_output.restrict()
        self.frozen = settings.Frozen(options)
        self._write_start(options)
        self.book.begin_clock()
        self.book.take_over(takeover.acts(home, self.book.state.taken_over))
        self.operator = AgentsControl(self._registry, self.book, home)
        self._control = ControlServer(self.paths.control_sock, {
            "status": self._answer_status, "reload": self._answer_reload,
            **self.operator.handlers(), **RotationControl(self.lane).handlers()},
            lambda where, error: self.metrics.fault(where))
        self._read_gauges()

    def _closed(self) -> Verdict | None:
        """Why nothing passes at this moment, for all that is well with the log."""
        return _UNANCHORED if self._anchored.stops else None

    def _sources_of(self, agent: str) -> tuple[str, ...]:
        """The client addresses from which an agent comes, or came lately."""
        now = {each.peer for _, each in self._hooks.clients.items() if each.agent == agent}
        return tuple(sorted(now.union(self._registry.whereabouts.of(agent))))

    def _own(self, agent: str) -> standings.Own:
        return standings.own(self.book.state, self.book.bounded(agent), agent, _now_us())

    def _write_start(self, options: Any) -> None:
        versions = {"governor": VERSION, "mitmproxy": version.VERSION}
        for _ in range(self._anchored.silent):
            self.lane.record("fault", entry.fault("anchor", "AnchorError", Code.FAULT, None))
        self.lane.write_now("config", entry.config(settings.recorded(options) | self._anchored.recorded(), versions))
        policy_store.keep(self._governed, self.paths)
        self._recorded = self.lane.last_policy
        self._put_in_force(self._governed)

    def _put_in_force(self, governed: Governed) -> None:
        """Record a policy that was kept, then judge by it."""
        names = [file.name for file in governed.files]
        now = time.time()
        digest, mode = governed.policy.digest, governed.mode(now)
        if self._recorded not in (None, digest):
            self.lane.rotate("policy")
        self.lane.write_now("policy_load", entry.policy_load(digest, names, mode, build_info.kernel_identity()))
        self._governed, self._mode, self._recorded = governed, mode, digest
        self.metrics.policy_loaded(digest, mode, now)

    def _end_trial(self) -> None:
        """Say that the policy enforces from here on, once its trial is over."""
        if self._governed.mode(time.time()) is not self._mode:
            with contextlib.suppress(AuditUnavailable):
                self._put_in_force(self._governed)
                _say(f"the trial of policy {self._governed.policy.digest[:12]} is over: mode {self._mode}")

    def _look_at_clock(self) -> None:
        with contextlib.suppress(AuditUnavailable):
            self.book.look_at_clock(_now_us())

    def _read_gauges(self) -> None:
        self.metrics.read(Gauge.READY, lambda: all(self._checks().values()))
        self.metrics.read(Gauge.OPEN_STREAMS, lambda: len(self._outcomes))
        self.metrics.read(Gauge.DISK_FREE, lambda: _free_bytes(self.paths.audit))
        self.metrics.read(Gauge.CA_EXPIRY, lambda: authority.expiry(self.paths.ca).timestamp())
        self.metrics.read_standings(
            lambda: standings.halted(self.book.state),
            lambda: standings.overall(self.book.state, self.book.bounds.amounts(), _now_us()))

    async def serve(self) -> None:
        """The ports are open: seal the resolver, open the control socket, say where everything is."""
        self._deadlines.start(self._loop)
        self._resolver.seal()
        self._listeners.opened()
        await self._control.start()
        self._loop.add_signal_handler(signal.SIGHUP, lambda: self.reload_soon("SIGHUP"))
        self._heartbeat()
        self._watchdog = Watchdog(self._loop, self.lane)
        self._watchdog.start()
        self._ready = True
        banner.show(self._listeners.proxies(), self._certificate, self._server.address, self.paths.folder,
                    self._governed.observed_until if self._mode is Mode.OBSERVE else None)

    def _heartbeat(self) -> None:
        self._turned = time.monotonic()
        self._write_refusals()
        self._end_trial()
        self._look_at_clock()
        self._anchored.look()
        self._hooks.connections.sweep()
        if self._turned >= self._next_flush:
            self._next_flush = self._turned + _FLUSH_SECONDS
            self._flushing = self._loop.run_in_executor(None, self._flush)
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
        _say(f"stopped: {reason}; every request is refused")
        if self._seconds_after_stop is not None:
            self._end = self._loop.call_later(self._seconds_after_stop, sys.exit, STOPPED)

    def _flush(self) -> None:
        """Write down when each agent was last seen. What fails here costs a date, so it is counted and no more."""
        try:
            self._registry.flush()
        except AgentsError:
            self.metrics.fault("agents")

    def _turns(self) -> bool:
        return not self._ready or time.monotonic() - self._turned < _LATE_SECONDS

    def _checks(self) -> dict[str, bool]:
        """The conditions of readiness by name."""
        return {"serving": self._ready, "gate": gate.installed(), "policy": True, "lane": self.lane.stopped is None,
                "anchors": not self._anchored.stops}

    def reload_soon(self, by: str) -> None:
        """Begin to read the policy again, from a place that cannot wait for it."""
        self._reloading = self._loop.create_task(self.reload(by))

    def halt_soon(self, agent: str, reason: str) -> None:
        """Begin to halt an agent, from a place that cannot wait for it."""
        self._halting = self._loop.create_task(self._halt(agent, reason))

    async def _halt(self, agent: str, reason: str) -> None:
        user = user_name(os.geteuid())
        try:
            told = await self.operator.halt(agent, reason, user, "mitmproxy")
        except GovernorError as problem:
            _say(str(problem))
        else:
            _say(f"halted {agent} ({told['entry']})" if told["changed"] else f"{agent} is halted already")

    def explain(self, agent: str, method: str, url: str) -> str:
        """The verdict of the policy in force on a request, in words."""
        governed = self._governed
        try:
            asked = facts_of(agent, method.upper(), url, headers=UNREAD, body=UNREAD, at=int(time.time()))
        except NonCanonical as problem:
            return str(problem)
        verdict = answer(governed.index, asked).verdict
        return f"{verdict.action} {verdict.code}: {f'rule {verdict.rule}' if verdict.rule else verdict.reason}"

    async def reload(self, by: str) -> Message:
        """Read the policy again; a bad one leaves the old one in force, and says so."""
        try:
            # One at a time: of two that overlap, the one that read the files first could end last.
            async with self._reload_lock:
                governed = await asyncio.to_thread(policy_store.again, self._governed, self.paths, self._registry)
                self._put_in_force(governed)
        except PolicyError as problem:
            return self._not_reloaded(by, problem.findings)
        except (ReloadRefused, AuditUnavailable) as problem:
            return self._not_reloaded(by, (problem,))
        except Exception as fault:  # noqa: BLE001
            # Asked for by a signal, nobody else would hear of it.
            self.metrics.fault("reload")
            return self._not_reloaded(by, (f"an internal fault, {type(fault).__name__}; restart Governor to be sure",))
        _say(f"policy {governed.policy.digest[:12]} in force ({by})")
        return _reloaded(governed, governed.findings, ok=True)

    def _not_reloaded(self, by: str, findings: Iterable[object]) -> Message:
        self.metrics.reload_failed()
        told = _reloaded(self._governed, findings, ok=False)
        _say("\n".join((f"the policy was not reloaded ({by}); the old one stays:", *told["findings"])))
        return told

    def status(self) -> Message:
        """The fields of `governor status --json`."""
        checks = self._checks()
        return {
            "ready": all(checks.values()), "mode": self._governed.mode(time.time()),
            "policy": self._governed.policy.digest,
            "lanes": [{"lane": self.lane.name, "entries": self.lane.next_seq}],
            "workers": 1, "agents": len(self._registry.tokens.ids), "halted": list(standings.halted(self.book.state)),
            "hints": [*(f"{name} failed" for name, holds in checks.items() if not holds),
                      *self._anchored.hints(), *hints(self.book.state), *self._hooks.rejections.hints()],
        }

    async def _answer_status(self, message: Message, peer: Peer) -> Message:
        return self.status()

    async def _answer_reload(self, message: Message, peer: Peer) -> Message:
        await self._write_operator(entry.operator("reload", None, "", peer.name, "control"))
        return await self.reload(peer.name)

    async def _write_operator(self, fields: entry.Body) -> None:
        _, durable = self.lane.commit("operator", fields)
        await durable

    def close(self, reason: str) -> None:
        """End in order. What is asked afterwards is refused, because the log is closed."""
        self._ready = False
        if self._watchdog is not None:
            self._watchdog.stop()
        gate.close()
        self._flush()
        self._outcomes.cut_all()
        self._hooks.connections.close()
        self._write_refusals()
        self._snapshots.finish()
        self.lane.close(reason)
        self._anchored.close()
        self._server.stop()
        self._locks.close()
        with contextlib.suppress(OSError):
            self.paths.control_sock.unlink()


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


def _reloaded(governed: Governed, findings: Iterable[object], *, ok: bool) -> Message:
    return {"ok": ok, "policy": governed.policy.digest, "findings": [str(finding) for finding in findings]}


def _say(text: str) -> None:
    print(f"governor: {text}", file=sys.stderr, flush=True)


def _now_us() -> int:
    return time.time_ns() // 1000


def _free_bytes(folder: Any) -> float:
    status = os.statvfs(folder)
    return float(status.f_bavail * status.f_frsize)
