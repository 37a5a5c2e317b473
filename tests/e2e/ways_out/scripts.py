"""Other scripts in the same mitmproxy: one misbehaves as a request's header says, one breaks Governor itself."""

from __future__ import annotations

import json
from pathlib import Path

# `act@hook` in the script's header: what it does at that hook, for this request or, from a CONNECT on, for everything
# of this client.
UNRULY = '''
import asyncio
import sys

from mitmproxy import ctx, exceptions, hooks, http
from mitmproxy.addons.mapremote import MapRemote, parse_map_remote_spec
from mitmproxy.addons.modifybody import ModifyBody
from mitmproxy.addons.modifyheaders import parse_modify_spec
from mitmproxy.proxy import layers

HEADER, ELSEWHERE = {header!r}, {elsewhere}


class Unruly:
    name = HEADER

    def __init__(self):
        self.clients = {{}}

    def told(self, event, data):
        client = client_of(data)
        if isinstance(data, http.HTTPFlow) and HEADER in data.request.headers:
            self.clients[client] = data.request.headers[HEADER]
        act, _, where = self.clients.get(client, "").partition("@")
        return act if where == event else ""


def client_of(data):
    if hasattr(data, "context"):
        return data.context.client.id
    if hasattr(data, "client_conn"):
        return data.client_conn.id
    return getattr(getattr(data, "client", data), "id", None)


def do(act, data):
    match act:
        case "raise":
            raise RuntimeError("another script fails")
        case "cancel":
            raise asyncio.CancelledError
        case "halt":
            raise exceptions.AddonHalt
        case "exit":
            sys.exit(3)
        case "shutdown":
            ctx.master.shutdown()
        case "clear":
            data.response = None
        case "answer":
            data.response = http.Response.make(200, b"answered by another script")
        case "stream":
            data.request.stream = True
        case "hold":
            data.intercept()
        case "edit":
            data.request.path = "/denied/edited"
        case "edit-later":
            asyncio.get_running_loop().call_soon(setattr, data.request, "path", "/denied/edited")
        case "map-remote":
            addon = MapRemote()
            elsewhere = "http://localhost:%d/x" % ELSEWHERE
            addon.replacements = [parse_map_remote_spec("|^http://localhost:[0-9]+/mapped|" + elsewhere)]
            addon.request(data)
        case "map-silently":
            data.request.data.host, data.request.data.port = "localhost", ELSEWHERE
        case "modify-body":
            addon = ModifyBody()
            addon.replacements = [parse_modify_spec("|good|secret", True)]
            addon.request(data)
        case "modify-body-later":
            asyncio.get_running_loop().call_soon(setattr, data.request, "content", b"secret")
        case "unload":
            ctx.options.update(scripts=[])
        case "set-command":
            ctx.master.commands.execute("set scripts ''")
        case "remove":
            ctx.master.addons.remove(governor())
        case "unload-and-replay":
            replayed = data.copy()
            try:
                ctx.options.update(scripts=[])
            finally:
                ctx.master.commands.call("replay.client", [replayed])
        case "ignore":
            data.ignore_connection = True
        case "raw":
            data.layer = layers.TCPLayer(data.context)
        case "dns":
            data.layer = layers.DNSLayer(data.context)
        case "udp":
            data.layer = layers.UDPLayer(data.context)
        case "redirect":
            data.server.address = ("127.0.0.1", ELSEWHERE)
        case "via":
            data.server.via = ("http", ("127.0.0.1", ELSEWHERE))


def governor():
    return next(addon for addon in ctx.master.addons.lookup.values() if type(addon).__name__ == "Enforcer")


def hook(event):
    def act(self, data):
        do(self.told(event, data), data)
    return act


async def hang(self, data):
    """Where the header says `hang`, never return; async hooks are possible only where mitmproxy awaits them."""
    told = self.told(self.hanging, data)
    if told == "hang":
        await asyncio.sleep(3600)
    do(told, data)


class Hanging(Unruly):
    """`hang` at one hook each."""


addons = []
for event in hooks.all_hooks:
    if event in ("load", "configure", "running", "done", "update", "add_log"):
        continue
    if {hanging}:
        kind = type("Hanging" + event, (Hanging,), {{"name": HEADER + event, "hanging": event, event: hang}})
        addons.append(kind())
    else:
        setattr(Unruly, event, hook(event))
addons = addons or [Unruly()]
'''

# What Governor itself does at each hook, replaced by a fault while a file names the hook. A request whose path says so
# meets a judge that hangs, dies or is slow.
SABOTAGE = '''
import asyncio
import dataclasses
import json
import sys
from pathlib import Path

FILE = Path({file!r})


def sabotaged(name, guard):
    async def fault(act):
        if act == "hang":
            await asyncio.sleep(3600)

    def after(handler, data):
        match json.loads(FILE.read_text()).get(name):
            case "raise":
                raise MemoryError
            case "cancel":
                raise asyncio.CancelledError
            case "exit":
                raise SystemExit(3)
            case "hang":
                return asyncio.sleep(3600)
        return guard.after(handler, data) if guard.after else None

    return dataclasses.replace(guard, after=after)


def judged_so(original):
    async def judged(self, handler, connection, flow, *more):
        act = flow.request.path.partition("?judge=")[2]
        if act == "hangs":
            await asyncio.sleep(3600)
        if act == "dies":
            raise RecursionError
        if act == "is-cancelled":
            raise asyncio.CancelledError
        if act == "is-slow":
            await asyncio.sleep(2)
        return await original(self, handler, connection, flow, *more)

    return judged


class Sabotage:
    def running(self):
        gate, judge = sys.modules["addons.gate"], sys.modules["addons.judge"].Judge
        gate._guards = {{name: sabotaged(name, guard) for name, guard in gate._guards.items()}}
        judge._judged = judged_so(judge._judged)


addons = [Sabotage()]
'''


def unruly(folder: Path, header: str, elsewhere: int, hanging: bool = False) -> Path:
    """The misbehaving script; `elsewhere` is the port to which it leads requests."""
    script = folder / f"{header}.py"
    script.write_text(UNRULY.format(header=header, elsewhere=elsewhere, hanging=hanging))
    return script


class Sabotage:
    """The script that breaks Governor, and the file that says where."""

    def __init__(self, folder: Path) -> None:
        self.script, self._file = folder / "sabotage.py", folder / "sabotage.json"
        self.script.write_text(SABOTAGE.format(file=str(self._file)))
        self.nowhere()

    def at(self, hook: str, act: str) -> None:
        self._file.write_text(json.dumps({hook: act}))

    def nowhere(self) -> None:
        self._file.write_text("{}")
