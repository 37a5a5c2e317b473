"""What a client gets of Governor's own: refusals, at once where they must not wait, and the verdict for mitmweb."""

from __future__ import annotations

import asyncio
from weakref import WeakSet

from mitmproxy import http
from mitmproxy.proxy.server import ConnectionHandler

from addons import refusal
from addons.extract import method_of
from addons.gate import cut
from addons.holds import answerable
from addons.judge import Judge
from addons.judged import Judged
from addons.outcomes import OpenFlow, Outcomes
from addons.sweeps import LINGER_SECONDS
from kernel.verdict import Action, Verdict

_MARKS = {Action.ALLOW: ":white_check_mark:", Action.DENY: ":red_circle:", Action.THROTTLE: ":hourglass:",
          Action.ASK: ":question:", Action.HALT: ":black_circle:"}


class Replies:
    """The replies of one process."""

    def __init__(self, judge: Judge, outcomes: Outcomes) -> None:
        self._judge, self._outcomes = judge, outcomes
        # Flows whose response waits neither for the end of the request nor for its origin.
        self._early: WeakSet[http.HTTPFlow] = WeakSet()

    def is_early(self, flow: http.HTTPFlow) -> bool:
        """True when the flow's response goes out at once, whatever is still to come."""
        return flow in self._early

    def refusal_of(self, judged: Judged, flow: http.HTTPFlow) -> http.Response:
        """The refusal of a flow by its verdict."""
        return refusal.response(
            self._judge.refused(judged, flow), flow.request, self._judge.is_llm_host(judged.target))

    def send_now(self, handler: ConnectionHandler, flow: http.HTTPFlow, response: http.Response, *,
                  request_is_whole: bool = False) -> None:
        """Have this answer sent at once, whatever is still to come of the request or from the origin."""
        flow.response = response
        self._early.add(flow)
        if not request_is_whole and not flow.request.is_http2:
            response.headers["connection"] = "close"
            # Closed at once, the answer could be lost with what the client is still sending.
            asyncio.get_running_loop().call_later(LINGER_SECONDS, close_client, handler)

    def told(self, flow: http.HTTPFlow, opened: OpenFlow, verdict: Verdict) -> refusal.Refused:
        """What is told of a flow that was let through and does not go on."""
        return refusal.Refused(verdict, method_of(flow.request), flow.request.host, opened.agent, flow.id,
                               opened.decision, self._judge.contact)

    def taken_back(self, handler: ConnectionHandler, flow: http.HTTPFlow, opened: OpenFlow,
                    verdict: Verdict) -> http.Response:
        """The refusal of a flow that was let through, which ends here."""
        cut(handler, flow.server_conn)
        self._outcomes.refused(flow, verdict.code)
        answerable(flow)
        return refusal.response(
            self.told(flow, opened, verdict), flow.request, self._judge.is_llm_host(flow.request.host))

    def show(self, flow: http.HTTPFlow, judged: Judged) -> None:
        """Say the verdict where mitmweb shows it."""
        verdict = judged.verdict
        where = self._judge.entry_of(judged) or "-"
        flow.marked = _MARKS[verdict.action]
        would = "would " if judged.lets_through and not verdict.lets_through else ""
        flow.comment = f"{would}{verdict.action} {verdict.rule or '-'} {verdict.code} {where}"
        flow.metadata.update({
            "governor.verdict": str(verdict.action), "governor.mode": str(judged.mode),
            "governor.rule": verdict.rule, "governor.code": str(verdict.code),
            "governor.entry": where, "governor.agent": judged.agent.id if judged.agent else None})


def close_client(handler: ConnectionHandler) -> None:
    """Close the client's connection once what was written to it is sent."""
    if handler.client in handler.transports:
        handler.close_connection(handler.client)
