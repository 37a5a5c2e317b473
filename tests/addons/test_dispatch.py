"""The fast dispatch calls what stock mitmproxy calls, on real flows and in every special case."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions, hooks, options
from mitmproxy.proxy import server_hooks
from mitmproxy.test import tflow
from mitmproxy.tools.dump import DumpMaster

from addons import dispatch, dispatch_trial
from tests.e2e.origins import make_certificate, serving

SILENT = {"load", "configure", "running", "done", "add_log"}


class Listener:
    """An addon with a handler for every event, which counts."""

    def __init__(self, name: str, *, waits: bool = False) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        for event in set(hooks.all_hooks) - SILENT:
            setattr(self, event, self._handler(event, waits=waits))

    def _handler(self, event: str, *, waits: bool) -> Callable[..., Any]:
        def count(*_: Any) -> None:
            self.counts[event] += 1

        async def wait_and_count(*_: Any) -> None:
            await asyncio.sleep(0)
            count()

        return wait_and_count if waits else count


@contextlib.asynccontextmanager
async def proxy(folder: Path, *addons: Any, fast: bool) -> AsyncIterator[DumpMaster]:
    settings = options.Options(listen_host="127.0.0.1", listen_port=0, confdir=str(folder), ssl_insecure=True)
    master = DumpMaster(settings, with_termlog=False, with_dumper=False)
    if fast:
        assert dispatch.speed_up(master.addons)
    master.addons.add(*addons)
    running = asyncio.create_task(master.run())
    try:
        while not master.addons.get("proxyserver").listen_addrs():
            await asyncio.sleep(0.01)
        yield master
    finally:
        master.shutdown()
        await running


def fetch(port: int, origin_port: int, *, encrypted: bool) -> int:
    """One request through the proxy, as clients send it."""
    if encrypted:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
        connection.set_tunnel("localhost", origin_port)
        connection.request("GET", "/")
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", f"http://localhost:{origin_port}/")
    with contextlib.closing(connection):
        return connection.getresponse().status


def free_port() -> int:
    with serving() as gone:
        return gone.port


async def counted(folder: Path, chain: Path, *, fast: bool) -> tuple[list[int], list[Counter[str]]]:
    listeners = [Listener("first"), Listener("second", waits=True)]
    with serving() as plain, serving(chain=chain) as tls:
        async with proxy(folder, *listeners, fast=fast) as master:
            port = master.addons.get("proxyserver").listen_addrs()[0][1]
            statuses = [await asyncio.to_thread(fetch, port, origin, encrypted=encrypted)
                        for origin, encrypted in ((plain.port, False), (tls.port, True), (free_port(), False))]
            # The closing of connections is reported in its own time.
            for listener in listeners:
                while listener.counts["client_disconnected"] < len(statuses):
                    await asyncio.sleep(0.01)
    return statuses, [listener.counts for listener in listeners]


async def test_real_flows_reach_the_same_handlers_as_often_as_in_stock(tmp_path):
    chain, _ = make_certificate(tmp_path)

    statuses, fast = await counted(tmp_path, chain, fast=True)

    assert statuses == [200, 200, 502]
    assert fast[0]["request"] == 3
    assert fast[0]["error"] == 1
    assert fast[0]["tls_established_client"] == 1
    assert (statuses, fast) == await counted(tmp_path, chain, fast=False)


def test_every_kind_of_event_meets_every_kind_of_addon_as_in_stock():
    stock = dispatch_trial.calls(None)

    assert dispatch_trial.calls(dispatch.convert) == stock
    assert len(stock) > 1000


@pytest.fixture
async def master(request, tmp_path):
    made = DumpMaster(options.Options(confdir=str(tmp_path)), with_termlog=False, with_dumper=False)
    dispatch.convert(made.addons)
    return made


async def send(master: DumpMaster) -> None:
    await master.addons.handle_lifecycle(tflow_request())


def tflow_request() -> hooks.Hook:
    return hooks.all_hooks["request"](tflow.tflow())  # type: ignore[call-arg]


async def test_an_addon_is_heard_from_the_moment_it_is_added_until_it_is_removed(master):
    listener = Listener("late")
    await send(master)
    master.addons.add(listener)
    await send(master)
    master.addons.remove(listener)
    await send(master)

    assert listener.counts["request"] == 1
    assert listener.counts["update"] == 1


async def test_a_script_is_heard_as_soon_as_its_option_is_set_and_no_longer_than_that(master, tmp_path):
    script = tmp_path / "counting_script.py"
    script.write_text("seen = []\ndef request(flow):\n    seen.append(flow)\n")
    await send(master)
    master.options.update(scripts=[str(script)])
    loader = master.addons.get("scriptloader")
    while not loader.addons[0].ns:
        await asyncio.sleep(0.01)
    seen = loader.addons[0].ns.seen
    await send(master)
    master.options.update(scripts=[])
    await send(master)

    assert len(seen) == 1


async def test_an_addon_that_is_added_by_a_handler_still_gets_the_event_that_is_under_way(master):
    late = Listener("late")

    class Adding:
        async def request(self, flow):
            master.addons.add(late)

    master.addons.add(Adding())
    await send(master)

    assert late.counts["request"] == 1


async def test_a_handler_that_fails_is_reported_as_stock_reports_it_and_ends_nobody_elses_turn(master, caplog):
    class Failing:
        def request(self, flow):
            raise ValueError("no such thing")

    last = Listener("last")
    master.addons.add(Failing(), last)
    with caplog.at_level(logging.ERROR):
        await send(master)

    assert last.counts["request"] == 1
    [report] = [record for record in caplog.records if record.getMessage() == "Addon error: no such thing"]
    assert report.name == "mitmproxy.addonmanager"
    assert report.exc_info[2].tb_frame.f_code.co_name == "request"


async def test_whatever_can_be_awaited_is_awaited(master):
    reached = []

    class Later:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            reached.append("later")

    class Returning:
        def request(self, flow):
            return Later()

    master.addons.add(Returning())
    await send(master)

    assert reached == ["later"]


async def test_a_halt_keeps_the_event_from_those_that_come_after(master):
    class Halting:
        def request(self, flow):
            raise exceptions.AddonHalt

    last = Listener("last")
    master.addons.add(Halting(), last)
    await send(master)

    assert last.counts["request"] == 0
    assert last.counts["update"] == 1


@pytest.mark.parametrize("fault", [exceptions.OptionsError("no"), asyncio.CancelledError()], ids=repr)
async def test_what_stock_lets_out_gets_out(master, fault):
    class Raising:
        async def request(self, flow):
            raise fault

    master.addons.add(Raising())

    with pytest.raises(type(fault)):
        await send(master)


async def test_an_event_that_carries_no_flow_is_no_update(master):
    listener = Listener("only")
    master.addons.add(listener)
    await master.addons.handle_lifecycle(server_hooks.ClientConnectedHook(tflow.tclient_conn()))

    assert listener.counts == {"client_connected": 1}


@pytest.mark.parametrize("breakage", ["version", "self-test"])
async def test_in_doubt_mitmproxys_own_dispatch_stays_and_one_line_says_so(tmp_path, monkeypatch, caplog, breakage):
    master = DumpMaster(options.Options(confdir=str(tmp_path)), with_termlog=False, with_dumper=False)
    stock = type(master.addons)
    if breakage == "version":
        monkeypatch.setattr(dispatch.version, "VERSION", "12.2.4")
    else:
        monkeypatch.setattr(dispatch.RememberingAddons, "handle_lifecycle", dispatch.RememberingAddons.trigger_event)

    with caplog.at_level(logging.WARNING):
        assert not dispatch.speed_up(master.addons)

    assert type(master.addons) is stock
    assert len([record for record in caplog.records if "fast dispatch is off" in record.getMessage()]) == 1
