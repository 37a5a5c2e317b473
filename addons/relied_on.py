"""What Governor relies on in mitmproxy without being promised it: names and shapes of its private parts.

Another build of the same version (a distribution's, a patched one) may have others. Then nothing is to start: a patch
that silently fits nowhere would be a gap in the gate.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import CodeType
from typing import Any

from mitmproxy import addonmanager, connection, flow, hooks, http, tls
from mitmproxy.addons import clientplayback, tlsconfig
from mitmproxy.net import tls as net_tls
from mitmproxy.proxy import commands, layer, mode_servers, server, server_hooks
from mitmproxy.proxy.layers import http as http_layer
from mitmproxy.proxy.layers import modes, websocket
from mitmproxy.proxy.layers.http import _http1, _http2, _http_h2

_CALLS: dict[Any, dict[str, str]] = {
    addonmanager.AddonManager: {
        "handle_lifecycle": "self event", "trigger_event": "self event", "invoke_addon": "self addon event",
        "invoke_addon_sync": "self addon event"},
    addonmanager: {"traverse": "chain", "safecall": "", "cut_traceback": "tb func_name"},
    clientplayback.ReplayHandler: {
        "__init__": "self flow options", "handle_hook": "self hook", "log": "self message level exc_info"},
    net_tls: {
        "create_client_proxy_context":
            "method min_version max_version cipher_list ecdh_curve chain_file alpn_select_callback request_client_cert"
            " extra_chain_certs dhparams"},
    tlsconfig: {"_default_ciphers": "min_tls_version", "alpn_select_callback": "conn options"},
    tlsconfig.TlsConfig: {"get_cert": "self conn_context", "tls_start_client": "self tls_start"},
    flow.Flow: {"intercept": "self", "kill": "self", "resume": "self", "wait_for_resume": "self"},
    http.MessageData: {"__post_init__": "self"},
    http_layer.HttpStream: {
        "_handle_event": "self event", "check_body_size": "self request", "check_invalid": "self request",
        "check_killed": "self emit_error_hook", "handle_protocol_error": "self event",
        "send_response": "self already_streamed", "start_request_stream": "self", "start_response_stream": "self",
        "state_consume_request_body": "self event", "state_done": "self _", "state_errored": "self _",
        "state_stream_request_body": "self event", "state_stream_response_body": "self event",
        "state_wait_for_request_headers": "self event", "state_wait_for_response_headers": "self event"},
    _http1.Http1Connection: {"read_body": "self event", "read_headers": "self event"},
    _http1.Http1Client: {"read_headers": "self event", "send": "self event"},
    _http1.Http1Server: {"read_headers": "self event", "mark_done": "self request response", "wait": "self event"},
    _http2.Http2Server: {"protocol_error": "self message error_code"},
    _http_h2.BufferedH2Connection: {"__init__": "self config", "receive_data": "self data"},
    layer.Layer: {"handle_event": "self event", "_handle_event": "self event"},
    mode_servers.Socks5Instance: {"make_top_layer": "self context"},
    mode_servers.DnsInstance: {"listen": "self host port", "start": "self", "stop": "self"},
    mode_servers.ProxyConnectionHandler: {"__init__": "self master r w options mode", "handle_hook": "self hook"},
    modes.Socks5Proxy: {"state_greet": "self", "state_auth": "self", "state_connect": "self"},
    server.ConnectionHandler: {
        "close_connection": "self connection half_close", "handle_client": "self", "hook_task": "self hook",
        "log": "self message level exc_info", "open_connection": "self command", "server_event": "self event"},
    websocket.WebsocketLayer: {"__init__": "self context flow", "relay_messages": "self event", "start": "self _"},
    websocket.WebsocketConnection: {"send2": "self event"},
}
_FIELDS: dict[type, str] = {
    connection.Client: "alpn error peername proxy_mode sni sockname state timestamp_start tls transport_protocol",
    connection.Server: "address alpn_offers error peername state timestamp_start timestamp_tcp_setup tls via",
    http.RequestData: "authority content headers host http_version method path port scheme trailers",
    http.ResponseData: "content headers http_version reason status_code trailers",
    layer.NextLayer: "context layer",
    server.ConnectionIO: "handler reader writer",
    server_hooks.ServerConnectionHookData: "client server",
    tls.ClientHelloData: "client_hello context ignore_connection",
    tls.TlsData: "conn context ssl_conn",
}
# What a flow and a connection handler carry beyond their methods is set in their constructors.
_CARRIED: dict[type, str] = {
    flow.Flow: "_resume_event client_conn id intercepted live metadata server_conn",
    layer.NextLayer: "layer",
    server.ConnectionHandler: "client layer timeout_watchdog transports",
    clientplayback.ReplayHandler: "done flow layer",
}
# Text and names in code that a patch finds its place by.
_MENTIONED: dict[tuple[type, str], tuple[str, ...]] = {
    (server.ConnectionHandler, "server_event"): ("mitmproxy has crashed!", "exc_info", "handle_event"),
    (mode_servers.TransparentInstance, "handle_stream"): ("TransparentMode", "original_addr", "sockname"),
    (mode_servers.ProxyConnectionHandler, "handle_hook"): ("disarm", "handle_lifecycle", "wait_for_resume"),
    (clientplayback.ReplayHandler, "handle_hook"): ("handle_lifecycle", "wait_for_resume", "done"),
    (http_layer.HttpStream, "check_killed"): ("KILLED_MESSAGE",),
    (_http1.Http1Server, "read_headers"): ("maybe_extract_lines", "make_error_response"),
    (_http2.Http2Connection, "__init__"): ("BufferedH2Connection",),
    (flow.Flow, "kill"): ("KILLED_MESSAGE", "error", "intercepted", "live"),
}
_LIFECYCLE = frozenset({"configure", "done", "running", "update"})


def missing(guarded: frozenset[str]) -> list[str]:
    """What the running mitmproxy does not have, and the hooks it has beyond those `guarded`; empty when all is well."""
    return [*_changed_calls(), *_missing_fields(), *_missing_mentions(), *_unguarded(guarded)]


def _changed_calls() -> Iterator[str]:
    for owner, calls in _CALLS.items():
        for name, wanted in calls.items():
            found = _original(getattr(owner, name, None))
            if not callable(found) or " ".join(inspect.signature(found).parameters) != wanted:
                yield f"{owner.__name__}.{name}({wanted})"


def _missing_fields() -> Iterator[str]:
    for kind, wanted in _FIELDS.items():
        has = {field.name for field in fields(kind)} if is_dataclass(kind) else _names(getattr(kind, "__init__", None))
        yield from (f"{kind.__name__}.{name}" for name in wanted.split() if name not in has)
    for kind, wanted in _CARRIED.items():
        has = _names(getattr(kind, "__init__", None))
        yield from (f"{kind.__name__}.{name}" for name in wanted.split() if name not in has)


def _missing_mentions() -> Iterator[str]:
    for (owner, function), wanted in _MENTIONED.items():
        has = _names(_original(getattr(owner, function, None)))
        yield from (f"{name!r} in {owner.__name__}.{function}" for name in wanted if name not in has)


def _unguarded(guarded: frozenset[str]) -> Iterator[str]:
    for name, kind in sorted(hooks.all_hooks.items()):
        if issubclass(kind, commands.StartHook) and name not in guarded | _LIFECYCLE:
            yield f"a guard for the hook {name}"


def _names(function: Any) -> set[str]:
    """Every name and text that a function's code mentions, nested code included."""
    found: set[str] = set()
    waiting = [function.__code__] if inspect.isfunction(function) else []
    while waiting:
        each = waiting.pop()
        found.update(each.co_names, each.co_varnames)
        for constant in each.co_consts:
            if isinstance(constant, CodeType):
                waiting.append(constant)
            elif isinstance(constant, str):
                found.add(constant)
            elif isinstance(constant, tuple):
                found.update(item for item in constant if isinstance(item, str))
    return found


def _original(found: Any) -> Any:
    """mitmproxy's own, under whatever Governor has put around it."""
    while (under := getattr(found, "ungoverned", None) or getattr(found, "unremembered", None)) is not None:
        found = under
    return found
