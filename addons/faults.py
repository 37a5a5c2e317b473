"""Faults: what the gate makes of one, in the log, in the metrics and for the client."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mitmproxy import http
from mitmproxy.proxy.server import ConnectionHandler

from addons.errors import AuditUnavailable
from addons.gate import Refuse, cut
from addons.holds import EndedWhileHeld
from addons.lane import Lane
from addons.metrics import Metrics
from kernel import entry
from kernel.verdict import Action, Code, Verdict

logger = logging.getLogger(__name__)


class Ungoverned(Exception):
    """Something reached a hook that only ungoverned traffic reaches."""


class Edited(Exception):
    """A request was changed between its verdict and its way out."""


def verdict_of(error: BaseException) -> Verdict:
    """What the client is told of a fault."""
    if isinstance(error, AuditUnavailable):
        return Verdict(Action.DENY, Code.AUDIT_UNAVAILABLE, reason="the audit log cannot be written")
    if isinstance(error, TimeoutError):
        return Verdict(Action.DENY, Code.DEADLINE, reason="the verdict took too long")
    if isinstance(error, EndedWhileHeld):
        return Verdict(Action.DENY, Code.EDITED, reason="the request was ended while it was held")
    return Verdict(Action.DENY, Code.FAULT, reason="an internal fault")


class Faults:
    """Counts and writes down the faults of one process, and ends what cannot be answered."""

    def __init__(self, lane: Lane, metrics: Metrics) -> None:
        self._lane, self._metrics = lane, metrics

    def note(self, handler: ConnectionHandler, data: Any, error: BaseException) -> None:
        """Count a fault and write it down. The log gets the class only: messages may quote what an agent sent."""
        self.count(type(data).__name__, error, data.id if isinstance(data, http.HTTPFlow) else None)

    def count(self, where: str, error: BaseException, flow: str | None = None) -> None:
        """The same for what no hook is about. `where` is the name of a class."""
        # That an operator ends a flow, or a client leaves, is nobody's fault; the log has no other place for it.
        if not isinstance(error, EndedWhileHeld):
            self._metrics.fault(where)
        if isinstance(error, AuditUnavailable) or self._lane.stopped:
            return
        logger.error("governor: %s in %s: refused", type(error).__name__, where)
        try:
            self._lane.record("fault", entry.fault(where, type(error).__name__, verdict_of(error).code, flow))
        except AuditUnavailable:
            return

    def despite(self, act: Callable[[ConnectionHandler, Any], None]) -> Refuse:
        """Where there is nothing to refuse: count the fault, and do what is done without one."""
        def refuse(handler: ConnectionHandler, data: Any, error: BaseException) -> None:
            self.note(handler, data, error)
            act(handler, data)

        return refuse

    def end_tunnel(self, handler: ConnectionHandler, data: Any, error: BaseException) -> None:
        """Within a handshake nobody can be answered."""
        cut(handler, handler.client)
        self.note(handler, data, error)

    def end_all(self, handler: ConnectionHandler, data: Any, error: BaseException) -> None:
        # A message of such a protocol is sent on whatever its hook says, unless there is no connection left.
        for end in tuple(handler.transports):
            cut(handler, end)
        self.note(handler, data, error)
