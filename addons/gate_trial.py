"""The self-test of the gate: hostile addons around flows that nobody may let through, on the running mitmproxy.

The flows go through both patched handlers with an addon manager of their own, and reach the real guards before a judge
that cannot judge. Each must end refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Self

from mitmproxy import addonmanager, connection, ctx, exceptions, http
from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.proxy import layer, layers, server_hooks
from mitmproxy.proxy.layers.http import _hooks as http_hooks
from mitmproxy.proxy.layers.tcp import TcpMessageHook
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.tcp import TCPFlow

from addons import gate, relied_on
from addons.deadlines import Deadlines
from addons.dispatch_trial import TrialMaster

type Guards = Mapping[str, gate.Guard]
type Convert = Callable[[addonmanager.AddonManager], None]
type Act = Callable[[Any], object]

_MOST_STEPS = 8
_REGULAR = ProxyMode.parse("regular")
_EDITED = "/edited-by-another-addon"


class CannotJudge:
    """Stands where judge, lane, outcomes, metrics, bodies and admission stand, and can do none of their work."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.stopped = True

    def fault(self, _: str) -> None: ...

    def enter(self, _: str) -> None: ...

    def opened(self, _: object) -> None: ...

    def size(self, _: object) -> int:
        return 0

    def waiting(self, _: object) -> list[object]:
        return []

    async def request(self, *arguments: Any) -> Any:
        self.seen.append(arguments[-1].request.path)
        raise LookupError

    replay = connect = request


def failures(guards: Callable[[Any], Guards], convert: Convert | None) -> list[str]:
    """What this mitmproxy would let through, or what it lacks for a gate; empty when the gate holds.

    `convert` is what gave the running addon manager the fast dispatch.
    """
    stub = CannotJudge()
    tried = guards(stub)
    missing = relied_on.missing(frozenset(tried))
    return missing or list(_let_through(tried, stub, convert))


def _let_through(guards: Guards, stub: CannotJudge, convert: Convert | None) -> Iterator[str]:
    kept = gate.installation()
    master: Any = getattr(ctx, "master", None)
    # The raising addons would otherwise be reported as faults of this start.
    quiet, addonmanager.logger.disabled = addonmanager.logger.disabled, True
    trial = _Trial(convert, stub)
    ctx.master = trial.master
    try:
        gate.install(guards, Deadlines(gate.end))
        for name, chain in _hostile():
            yield from trial.under(*chain).requests(name)
        for error in (asyncio.CancelledError(), exceptions.OptionsError()):
            yield from trial.under(_addon(_raising(error), _CONNECTIONS)).connections(type(error).__name__)
        yield from trial.under(_addon(_becoming_raw, _CONNECTIONS)).layers()
        gate.install({}, Deadlines(gate.end))
        yield from trial.under().unguarded()
    finally:
        addonmanager.logger.disabled = quiet
        ctx.master = master
        gate.install(*kept)


class _Trial:
    """What gets past the gate under one chain of addons after another."""

    def __init__(self, convert: Convert | None, stub: CannotJudge) -> None:
        self.master: Any = TrialMaster()
        self._stub = stub
        if convert is not None:
            convert(self.master.addons)

    def under(self, *chain: Any) -> Self:
        """The same with these addons and no others."""
        self.master.addons.clear()
        self.master.addons.add(*chain)
        return self

    def requests(self, name: str) -> Iterator[str]:
        """The names of the requests that are not refused, or not as they would be sent."""
        for hook, handler_of in ((http_hooks.HttpRequestHook, self._live), (http_hooks.HttpConnectHook, self._live),
                                 (http_hooks.HttpRequestHook, self._replay)):
            flow = _flow()
            handler = handler_of(flow)
            self._stub.seen.clear()
            _drive(handler.handle_hook(hook(flow)), flow)
            what = f"{hook.name} of {type(handler).__name__}"
            if flow.response is None or flow.response.status_code != 403 or flow.error is not None:
                yield f"a {what} under an addon that {name}"
            elif name == "edits" and self._stub.seen != [_EDITED]:
                yield f"a {what} that is edited after its verdict"

    def connections(self, name: str) -> Iterator[str]:
        """The connections that go on under an addon that fails."""
        handler = self._live()
        server = connection.Server(address=("origin.example.org", 443))
        data = server_hooks.ServerConnectionHookData(client=handler.client, server=server)
        _drive(handler.handle_hook(server_hooks.ServerConnectHook(data)))
        _drive(handler.handle_hook(TcpMessageHook(TCPFlow(handler.client, server))))
        if not (server.error and handler.client.error and _ended(handler)):
            yield f"a connection under an addon that raises {name}"

    def layers(self) -> Iterator[str]:
        """The layers without a verdict that another addon can choose."""
        handler = self._live()
        chosen = layer.NextLayer(handler.layer.context)
        _drive(handler.handle_hook(layer.NextLayerHook(chosen)))
        if isinstance(chosen.layer, layers.TCPLayer):
            yield "a raw layer that another addon chose"

    def unguarded(self) -> Iterator[str]:
        """A hook that has no guard, where its connection goes on."""
        flow = _flow()
        handler = self._live()
        _drive(handler.handle_hook(http_hooks.HttpRequestHook(flow)))
        if not _ended(handler):
            yield "a hook without a guard"

    def _live(self, _: http.HTTPFlow | None = None) -> ConnectionHandler:
        told = {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2), "transport_protocol": "tcp"}
        writer = SimpleNamespace(get_extra_info=lambda name, default=None: told.get(name, default), open=True)
        writer.close = lambda: setattr(writer, "open", False)
        handler = ProxyConnectionHandler(self.master, None, writer, self.master.options, _REGULAR)
        _drive(handler.handle_hook(server_hooks.ClientConnectedHook(handler.client)))
        return handler

    def _replay(self, flow: http.HTTPFlow) -> ConnectionHandler:
        return ReplayHandler(flow, self.master.options)


_REQUESTS = ("request", "http_connect")
_CONNECTIONS = ("client_connected", "server_connect", "tcp_message", "next_layer")


def _addon(act: Act, at: tuple[str, ...] = _REQUESTS) -> Any:
    """An addon that does one thing at these hooks."""
    addon = SimpleNamespace(**dict.fromkeys(at, act))
    # Two of a chain must not have one name.
    addon.name = f"trial {id(addon)}"
    return addon


def _later(act: Act) -> Act:
    """The same, after it has waited."""
    async def waiting(subject: Any) -> None:
        await asyncio.sleep(0)
        act(subject)

    return waiting


def _raising(error: BaseException) -> Act:
    def act(_: Any) -> None:
        raise error

    return act


def _answering(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(200)


def _clearing(flow: http.HTTPFlow) -> None:
    flow.response = None


def _editing(flow: http.HTTPFlow) -> None:
    flow.request.path = _EDITED


def _holding(flow: http.HTTPFlow) -> None:
    flow.intercept()


def _becoming_raw(chosen: layer.NextLayer) -> None:
    chosen.layer = layers.TCPLayer(chosen.context)


def _hostile() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Chains of addons, each with what it does to a request."""
    yield "does nothing", ()
    for error in (ValueError(), asyncio.CancelledError(), exceptions.OptionsError()):
        yield f"raises {type(error).__name__}", (_addon(_raising(error)),)
        yield f"waits and raises {type(error).__name__}", (_addon(_later(_raising(error))),)
    yield "halts", (_addon(_raising(exceptions.AddonHalt())), _addon(_answering))
    yield "answers", (_addon(_answering),)
    yield "clears the answer", (_addon(_answering), _addon(_clearing))
    yield "edits", (_addon(_later(_editing)),)
    yield "holds, and then kills", (_addon(_holding),)


def _flow() -> http.HTTPFlow:
    client = connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    flow = http.HTTPFlow(client, connection.Server(address=None), live=True)
    flow.request = http.Request.make("GET", "http://origin.example.org/wanted")
    return flow


def _ended(handler: Any) -> bool:
    return not handler.transports[handler.client].writer.open


def _drive(running: Coroutine[Any, Any, None], held: http.HTTPFlow | None = None) -> None:
    """Run a coroutine here and now, inside the starting event loop; whenever it waits, kill the flow that is held."""
    for _ in range(_MOST_STEPS):
        try:
            waited_for = running.send(None)
        except StopIteration:
            return
        except asyncio.CancelledError as error:
            raise RuntimeError("a hook passes on what it should refuse") from error
        if held is not None and held.intercepted:
            held.kill()
        if waited_for is not None and not waited_for.done():
            break
    with contextlib.suppress(BaseException):
        running.close()
    raise RuntimeError("a hook waits for ever")
