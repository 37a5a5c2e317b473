"""The self-test of the fast dispatch: every kind of event, to probes of every kind, on a manager of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from mitmproxy import addonmanager, command, connection, exceptions, flow, hooks, http, options

# A hook of each protocol is imported, so that `all_hooks` knows them all.
from mitmproxy.proxy import layers, server_hooks  # noqa: F401

_LIFECYCLE = {"load", "configure", "running", "done", "update"}


def calls(convert: Callable[[addonmanager.AddonManager], None] | None) -> list[str]:
    """The handlers called, in order, as `probe event`, on a stock manager or on one that `convert` has changed."""
    called: list[str] = []
    master = TrialMaster()
    addons = master.addons
    if convert:
        convert(addons)
    late = _probe(called, "late")
    # The raising probe would otherwise be reported as an addon error of this start.
    quiet, addonmanager.logger.disabled = addonmanager.logger.disabled, True
    try:
        addons.add(*_chain(called))
        _send_all(addons)
        addons.add(late)
        _send_all(addons)
        addons.remove(late)
        _send_all(addons)
    finally:
        addonmanager.logger.disabled = quiet
    return called


class TrialMaster:
    """What addons need of a master, and nothing that runs."""

    def __init__(self) -> None:
        self.options = options.Options()
        self.commands = command.CommandManager(self)
        self.addons = addonmanager.AddonManager(self)


def _chain(called: list[str]) -> list[Any]:
    parent = _probe(called, "parent")
    parent.addons = [_probe(called, "child"), _probe(called, "failing child", fails=True), _probe(called, "unreached")]
    return [
        _probe(called, "sparse", only={"request", "update"}), parent, _probe(called, "waiting", waits=True),
        _probe(called, "halting", only={"response"}, halts=True), _probe(called, "last"),
    ]


def _probe(called: list[str], label: str, *, only: set[str] | None = None, waits: bool = False, fails: bool = False,
           halts: bool = False) -> Any:
    """An addon with a handler for each event (or for `only` some) that writes itself down."""
    def handler(event: str) -> Callable[..., Any]:
        def note(*_arguments: Any) -> None:
            called.append(f"{label} {event}")
            if halts:
                raise exceptions.AddonHalt
            if fails:
                raise ValueError(label)

        async def note_later(*arguments: Any) -> None:
            note(*arguments)

        return note_later if waits else note

    probe = type("Probe", (), {"name": label})()
    for event in only or (set(hooks.all_hooks) - _LIFECYCLE) | {"update"}:
        setattr(probe, event, handler(event))
    return probe


def _send_all(addons: addonmanager.AddonManager) -> None:
    subject = _flow()
    for name, kind in sorted(hooks.all_hooks.items()):
        if name not in _LIFECYCLE:
            carried = [subject] * len(kind.__dataclass_fields__)  # type: ignore[attr-defined]
            _finish(addons.handle_lifecycle(kind(*carried)))
    _finish(addons.trigger_event(hooks.UpdateHook([subject])))


def _flow() -> flow.Flow:
    client = connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    return http.HTTPFlow(client, connection.Server(address=None))


def _finish(running: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never really waits, here and now: this test stands inside the starting event loop."""
    try:
        running.send(None)
    except StopIteration:
        return
    raise RuntimeError("a probe waited")
