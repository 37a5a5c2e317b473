"""Crashes of mitmproxy's layers: every connection of that client ends at once, and the fault is counted.

mitmproxy catches what a layer raises, writes a line and goes on: the client of that layer waits for ever, and what the
layer does next is anyone's guess.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.proxy import events, layer
from mitmproxy.proxy.server import ConnectionHandler

from addons.gate import end

type Report = Callable[[ConnectionHandler, BaseException], None]

_report: Report | None = None


def install(report: Report) -> None:
    """Have `report` told of every crash once. Installing again replaces it."""
    global _report
    _report = report
    # A replay's handler has a `log` of its own.
    for handler in (ConnectionHandler, ReplayHandler):
        if not hasattr(handler.log, "ungoverned"):
            handler.log = _around(handler.log)  # type: ignore[method-assign]


def _around(original: Any) -> Any:
    def log(handler: ConnectionHandler, message: str, level: int = logging.INFO, exc_info: Any = None) -> None:
        original(handler, message, level, exc_info)
        # The one place that logs an exception it is just handling is the one that caught a layer's.
        if exc_info is True and isinstance(fault := sys.exception(), Exception):
            _crashed(handler, fault)

    log.ungoverned = original  # type: ignore[attr-defined]
    return log


def _crashed(handler: ConnectionHandler, fault: Exception) -> None:
    handler.layer = CrashedLayer(handler.layer.context)
    end(handler)
    if isinstance(handler, ReplayHandler):
        handler.done.set()
    if _report is not None:
        _report(handler, fault)


class CrashedLayer(layer.Layer):
    """Takes the place of a layer that has crashed: whatever happens now, it does nothing."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from ()
