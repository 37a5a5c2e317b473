"""SOCKS5 (RFC 1928, RFC 1929) as Governor speaks it: the verdict on a destination stands before the success reply.

mitmproxy's own layer asks for credentials only under an option that keeps them with every flow, says "succeeded" before
anybody was asked, waits for ever for the rest of a handshake and quotes what it could not read, passwords included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from mitmproxy import http
from mitmproxy.connection import Client, Server
from mitmproxy.proxy import commands, events, layer, mode_servers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import modes

from kernel.verdict import Code

HANDSHAKE_SECONDS = 10.0

_VERSION, _AUTH_VERSION = 5, 1
_NO_CREDENTIALS, _USER_PASSWORD, _NONE_ACCEPTABLE = 0x00, 0x02, 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4


class Reply(IntEnum):
    """What a CONNECT is answered: the values of RFC 1928 that Governor uses."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


@dataclass
class Wanted:
    """What a client asks for, as the HTTP CONNECT that would ask for the same. It fails unless it is granted."""

    flow: http.HTTPFlow
    reply: Reply = Reply.GENERAL_FAILURE


@dataclass
class Socks5ConnectHook(commands.StartHook):
    """A client waits for the reply to its CONNECT."""

    wanted: Wanted


def connect_flow(client: Client, host: str = "", port: int = 0) -> http.HTTPFlow:
    """A SOCKS5 CONNECT as an HTTP one, so that both are judged by the same words."""
    now = time.time()
    flow = http.HTTPFlow(client, Server(address=None))
    flow.request = http.Request(host, port, b"CONNECT", b"", b"", b"", b"HTTP/1.1", (), None, None, now, now)
    return flow


class Socks5(modes.Socks5Proxy):
    """One client's handshake, then whatever its tunnel carries. `refused` says why a handshake led nowhere."""

    refused: Code | None = None

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._patience = commands.RequestWakeup(HANDSHAKE_SECONDS)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        match event:
            case events.Start():
                yield self._patience
            case events.DataReceived():
                self.buf += event.data
                yield from self.state()
            case events.Wakeup():
                yield from self._refuse(Code.DEADLINE)
            case events.ConnectionClosed():
                yield from self._end()

    def state_greet(self) -> layer.CommandGenerator[None]:
        """The client's version and the ways in which it would say who it is."""
        if self.buf[0] != _VERSION:
            yield from self._refuse(Code.MALFORMED)
            return
        if len(self.buf) < 2 or len(self.buf) < 2 + self.buf[1]:
            return
        offered, self.buf = self.buf[2:2 + self.buf[1]], self.buf[2 + self.buf[1]:]
        if _USER_PASSWORD in offered:
            yield from self._chosen(_USER_PASSWORD, self.state_auth)
        elif _NO_CREDENTIALS in offered:
            yield from self._chosen(_NO_CREDENTIALS, self.state_connect)
        else:
            yield from self._refuse(Code.PROTOCOL_REFUSED, bytes((_VERSION, _NONE_ACCEPTABLE)))

    state: Callable[..., layer.CommandGenerator[None]] = state_greet

    def _chosen(self, method: int, then: Callable[..., layer.CommandGenerator[None]]) -> layer.CommandGenerator[None]:
        yield commands.SendData(self.context.client, bytes((_VERSION, method)))
        yield from self._go_on(then)

    def _go_on(self, then: Callable[..., layer.CommandGenerator[None]]) -> layer.CommandGenerator[None]:
        self.state = then
        if self.buf:
            yield from self.state()

    def state_auth(self) -> layer.CommandGenerator[None]:
        """User name and password (RFC 1929): the agent's id and its token."""
        if self.buf[0] != _AUTH_VERSION:
            yield from self._refuse(Code.MALFORMED)
            return
        user, rest = _prefixed(self.buf[1:])
        password, rest = (None, b"") if user is None else _prefixed(rest)
        if user is None or password is None:
            return
        self.buf = rest
        said = modes.Socks5AuthData(self.context.client, _text(user), _text(password))
        yield modes.Socks5AuthHook(said)
        if said.valid is not True:
            yield from self._refuse(None, bytes((_AUTH_VERSION, 1)))
            return
        yield commands.SendData(self.context.client, bytes((_AUTH_VERSION, 0)))
        yield from self._go_on(self.state_connect)

    def state_connect(self) -> layer.CommandGenerator[None]:
        """The command and its destination."""
        if len(self.buf) < 5:
            return
        version, command, reserved, kind, first = self.buf[:5]
        if version != _VERSION or reserved != 0:
            yield from self._refuse(Code.MALFORMED)
        elif command != _CONNECT:
            yield from self._refuse(Code.PROTOCOL_REFUSED, _reply(Reply.COMMAND_NOT_SUPPORTED))
        elif kind not in (_IPV4, _NAME, _IPV6):
            yield from self._refuse(Code.MALFORMED, _reply(Reply.ADDRESS_TYPE_NOT_SUPPORTED))
        else:
            end = 4 + {_IPV4: 4, _NAME: 1 + first, _IPV6: 16}[kind]
            if len(self.buf) >= end + 2:
                destination = _host(kind, self.buf[4:end]), int.from_bytes(self.buf[end:end + 2])
                self.buf = self.buf[end + 2:]
                yield from self._connect(*destination)

    def _connect(self, host: str, port: int) -> layer.CommandGenerator[None]:
        wanted = Wanted(connect_flow(self.context.client, host, port))
        yield Socks5ConnectHook(wanted)
        if wanted.reply is not Reply.SUCCEEDED:
            yield from self._refuse(None, _reply(wanted.reply))
            return
        self.context.server.address = (wanted.flow.request.data.host, wanted.flow.request.data.port)
        yield commands.SendData(self.context.client, _reply(Reply.SUCCEEDED))
        early, self.buf = self.buf, b""
        self.child_layer = layer.NextLayer(self.context)
        self._handle_event = self._relay  # type: ignore[method-assign]
        yield from self.child_layer.handle_event(events.Start())
        if early:
            yield from self.child_layer.handle_event(events.DataReceived(self.context.client, early))

    def _relay(self, event: events.Event) -> layer.CommandGenerator[None]:
        if not isinstance(event, events.Wakeup) or event.command is not self._patience:
            yield from self.child_layer.handle_event(event)

    def _refuse(self, code: Code | None, answer: bytes = b"") -> layer.CommandGenerator[None]:
        """End the handshake. No code: the refusal has an entry of its own."""
        self.refused = code
        if answer:
            yield commands.SendData(self.context.client, answer)
        yield from self._end()

    def _end(self) -> layer.CommandGenerator[None]:
        self._handle_event = self._ended  # type: ignore[method-assign]
        yield commands.CloseConnection(self.context.client)

    def _ended(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from ()


def refused(top: layer.Layer) -> Code | None:
    """Why a client's SOCKS5 handshake led nowhere; None where it did not end so, and for every other client."""
    return top.refused if isinstance(top, Socks5) else None


def install() -> None:
    """Let mitmproxy's socks5 mode speak this. Installing again changes nothing."""
    if not hasattr(mode_servers.Socks5Instance.make_top_layer, "ungoverned"):
        mode_servers.Socks5Instance.make_top_layer = _around(  # type: ignore[method-assign]
            mode_servers.Socks5Instance.make_top_layer)


def _around(original: Any) -> Any:
    def make_top_layer(_: Any, context: Context) -> layer.Layer:
        return Socks5(context)

    make_top_layer.ungoverned = original  # type: ignore[attr-defined]
    return make_top_layer


def _prefixed(content: bytes) -> tuple[bytes | None, bytes]:
    """The text behind a length byte, and what follows it; None while it is not complete."""
    if not content or len(content) <= content[0]:
        return None, b""
    end = 1 + content[0]
    return content[1:end], content[end:]


def _host(kind: int, content: bytes) -> str:
    if kind == _NAME:
        # The RFC knows no encoding of names: what is not ASCII becomes a character that no host name has.
        return content[1:].decode("ascii", "replace")
    return str(IPv4Address(content) if kind == _IPV4 else IPv6Address(content))


def _text(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")


def _reply(reply: Reply) -> bytes:
    return bytes((_VERSION, reply, 0, _IPV4, 0, 0, 0, 0, 0, 0))
