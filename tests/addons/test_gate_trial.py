"""The self-test of the gate: it passes on this mitmproxy and fails over a broken gate and another build."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.flow import Flow
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.proxy.server import ConnectionHandler

from addons import dispatch, gate, gate_trial, holds, relied_on
from addons.deadlines import Deadlines
from addons.hooks import Hooks
from tests.addons.inside import uninstall


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    gate.install({}, Deadlines(gate.end))
    yield
    uninstall()


def guards(stub: Any) -> Any:
    return Hooks(stub, stub, stub, stub, stub, stub).guards()


def failures(but: dict[str, gate.Guard | None] | None = None) -> list[str]:
    """What the self-test finds with these guards in the place of the real ones; None leaves one out."""
    changed = but or {}
    return gate_trial.failures(
        lambda stub: {name: guard for name, guard in {**guards(stub), **changed}.items() if guard is not None}, None)


@pytest.mark.parametrize("convert", [None, dispatch.convert], ids=["mitmproxy's dispatch", "fast dispatch"])
async def test_the_gate_holds_on_this_mitmproxy(convert: Any) -> None:
    assert gate_trial.failures(guards, convert) == []


async def test_the_self_test_leaves_everything_as_it_was() -> None:
    before = gate.installation(), getattr(ctx, "master", None)

    failures()

    assert (gate.installation(), getattr(ctx, "master", None)) == before


async def skips_what_comes_after(handler: Any, hook: Any) -> None:
    """A gate that only guards against what addons raise."""
    guard = gate._guards.get(hook.name, gate._UNGUARDED)
    (data,) = hook.args()
    with contextlib.suppress(Exception):
        await type(handler).handle_hook.ungoverned(handler, hook)
        return
    guard.refuse(handler, data, Exception())


async def speaks_first(handler: Any, hook: Any) -> None:
    """A gate that judges before the other addons."""
    guard = gate._guards.get(hook.name, gate._UNGUARDED)
    (data,) = hook.args()
    try:
        if guard.after is not None and (acting := guard.after(handler, data)) is not None:
            await acting
    except Exception as error:
        guard.refuse(handler, data, error)
    await type(handler).handle_hook.ungoverned(handler, hook)


async def trusts_faults(handler: Any, hook: Any) -> None:
    """A gate that goes on after a fault."""
    guard = gate._guards.get(hook.name)
    (data,) = hook.args()
    with contextlib.suppress(BaseException):
        await type(handler).handle_hook.ungoverned(handler, hook)
        if guard is not None and guard.after is not None and (acting := guard.after(handler, data)) is not None:
            await acting


@pytest.mark.parametrize("handler", [ProxyConnectionHandler, ReplayHandler])
@pytest.mark.parametrize("mutant", [skips_what_comes_after, speaks_first, trusts_faults])
async def test_a_gate_that_does_not_hold_fails_it(monkeypatch: pytest.MonkeyPatch, handler: Any, mutant: Any) -> None:
    async def handle_hook(*arguments: Any) -> None:
        await mutant(*arguments)

    handle_hook.ungoverned = handler.handle_hook.ungoverned  # type: ignore[attr-defined]
    monkeypatch.setattr(handler, "handle_hook", handle_hook)

    assert found()


def found() -> list[str]:
    """What the self-test finds, be it by what it sees or by what it is thrown."""
    try:
        return failures()
    except RuntimeError as error:
        return [str(error)]


async def test_a_gate_that_is_not_there_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProxyConnectionHandler, "handle_hook", ProxyConnectionHandler.handle_hook.ungoverned)
    monkeypatch.setattr(gate, "install", lambda *_: None)

    assert found()


async def test_a_kill_that_wakes_nobody_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flow, "kill", Flow.kill.ungoverned)
    monkeypatch.setattr(holds, "install", lambda: None)

    with pytest.raises(RuntimeError, match="waits for ever"):
        failures()


@pytest.mark.parametrize("hook", ["request", "tcp_message", "tls_start_client"])
async def test_a_hook_without_a_guard_fails_it(hook: str) -> None:
    assert failures({hook: None}) == [f"a guard for the hook {hook}"]


@pytest.mark.parametrize("hook", ["request", "http_connect", "server_connect", "client_connected", "tcp_message",
                                  "next_layer"])
async def test_a_guard_that_refuses_nothing_fails_it(hook: str) -> None:
    assert failures({hook: gate.Guard(lambda *_: None)})


@pytest.mark.parametrize(("owner", "name"), [
    (HttpStream, "check_killed"), (HttpStream, "handle_protocol_error"), (ConnectionHandler, "server_event"),
])
async def test_a_mitmproxy_with_a_renamed_method_fails_it(
        monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    monkeypatch.delattr(owner, name)

    assert any(f"{owner.__name__}.{name}" in missing for missing in failures())


async def test_a_mitmproxy_with_another_signature_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpStream, "check_killed", lambda self, emit, more: None)

    assert "HttpStream.check_killed(self emit_error_hook)" in failures()


async def test_a_mitmproxy_that_logs_crashes_in_other_words_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def server_event(self: Any, event: Any) -> None:
        self.layer.handle_event(event, exc_info=True)

    monkeypatch.setattr(ConnectionHandler, "server_event", server_event)

    assert relied_on.missing(frozenset(guards(None))) == ["'mitmproxy has crashed!' in ConnectionHandler.server_event"]
