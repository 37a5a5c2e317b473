"""What Governor does at each of mitmproxy's hooks: the table that the gate goes by, and what it needs put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mitmproxy.connection import Client
from mitmproxy.proxy.server import ConnectionHandler

from addons.admission import Admission
from addons.answer_hooks import AnswerHooks
from addons.client_hooks import ClientHooks
from addons.connections import Clients
from addons.faults import Faults, Ungoverned
from addons.gate import Guard, client_left
from addons.judge import Judge
from addons.lane import Lane
from addons.metrics import Metrics
from addons.origin_hooks import OriginHooks
from addons.outcomes import Outcomes
from addons.rejections import Rejections
from addons.replies import Replies
from addons.request_bodies import RequestBodies
from addons.request_hooks import RequestHooks
from addons.tunnel_hooks import TunnelHooks

# What these hooks tell of is over, or is asked about again at another one.
_HARMLESS = ("dns_error", "dns_response", "http_connect_error", "http_connect_upstream", "server_connect_error",
             "server_disconnected", "tcp_end", "tcp_error", "udp_end", "udp_error")
_UNGOVERNED = ("tcp_start", "tcp_message", "udp_start", "udp_message", "quic_start_client", "quic_start_server")


class Hooks:
    """The hooks of one process."""

    def __init__(self, judge: Judge, outcomes: Outcomes, lane: Lane, metrics: Metrics, bodies: RequestBodies,
                 admission: Admission, sandbox: str | None = None) -> None:
        self.clients, self.rejections, self.faults = Clients(), Rejections(), Faults(lane, metrics)
        self.replies = Replies(judge, outcomes)
        self.connections = ClientHooks(
            self.clients, judge, outcomes, bodies, admission, self.rejections, self.replies, self.faults, sandbox)
        self.answers = AnswerHooks(self.clients, judge, outcomes, bodies, self.replies, self.faults)
        self._tunnels = TunnelHooks(self.clients, judge, metrics, self.rejections, self.replies, self.faults)
        self._requests = RequestHooks(self.clients, judge, outcomes, bodies, self.replies, self.faults)
        self._origins = OriginHooks(self.clients, outcomes, metrics, self.faults)

    def guards(self) -> Mapping[str, Guard]:
        """Every hook by its name. What is not named here cannot let anything out."""
        connections, tunnels, requests = self.connections, self._tunnels, self._requests
        answers, origins, faults = self.answers, self._origins, self.faults
        return {
            **{name: Guard(faults.note) for name in _HARMLESS},
            "client_connected": Guard(connections.refuse_client, after=connections.client_connected),
            "client_disconnected": Guard(faults.despite(connections.client_disconnected), before=_wake_holds,
                                         after=connections.client_disconnected),
            "governor_unreadable": Guard(connections.refuse_unreadable, after=connections.unreadable),
            "socks5_auth": Guard(tunnels.refuse_socks5_auth, before=tunnels.take_socks5_credentials,
                                 after=tunnels.socks5_auth),
            "socks5_connect": Guard(tunnels.refuse_socks5_connect, after=tunnels.socks5_connect),
            "http_connect": Guard(requests.refuse_flow, before=tunnels.take_credentials, after=tunnels.http_connect),
            "http_connected": Guard(faults.end_tunnel),
            "next_layer": Guard(tunnels.refuse_layer, after=tunnels.next_layer),
            "tls_clienthello": Guard(tunnels.refuse_hello, after=tunnels.tls_clienthello),
            "tls_start_client": Guard(faults.end_tunnel, before=tunnels.tls_start_client),
            "tls_established_client": Guard(faults.end_tunnel, after=tunnels.tls_established_client),
            "tls_failed_client": Guard(faults.note, after=tunnels.tls_failed_client),
            "requestheaders": Guard(requests.refuse_early, before=tunnels.take_credentials,
                                    after=requests.requestheaders),
            "governor_body_refused": Guard(requests.refuse_early, after=requests.body_refused),
            "governor_body_sent": Guard(requests.refuse_sending, after=requests.body_sent, patient=True),
            "governor_stream_started": Guard(requests.refuse_started, after=requests.stream_started),
            "request": Guard(requests.refuse_flow, after=requests.request),
            "server_connect": Guard(origins.refuse_server, after=origins.server_connect),
            "server_connected": Guard(origins.refuse_connected, after=origins.server_connected),
            "tls_start_server": Guard(origins.refuse_tls, before=origins.tls_start_server),
            "tls_established_server": Guard(origins.refuse_tls, after=origins.tls_established_server),
            "tls_failed_server": Guard(faults.note, after=origins.tls_failed_server),
            "responseheaders": Guard(answers.refuse_response, after=answers.responseheaders),
            "response": Guard(answers.refuse_whole, after=answers.response),
            "error": Guard(faults.despite(answers.error), after=answers.error),
            "dns_request": Guard(self._refuse_dns, before=_ungoverned),
            # What they may carry is the layer's to judge (websocket_layer.py).
            "websocket_start": Guard(faults.end_all),
            "websocket_message": Guard(faults.end_all),
            "websocket_end": Guard(faults.note, after=answers.websocket_end),
            **{name: Guard(faults.end_all, before=_ungoverned) for name in _UNGOVERNED},
        }

    def crashed(self, handler: ConnectionHandler, error: BaseException) -> None:
        """A layer of mitmproxy's has crashed, and its connections are closed."""
        self.faults.note(handler, handler.layer, error)

    def _refuse_dns(self, handler: ConnectionHandler, flow: Any, error: BaseException) -> None:
        flow.response = flow.request.fail(5)
        self.faults.note(handler, flow, error)


def _ungoverned(_handler: ConnectionHandler, _data: Any) -> None:
    raise Ungoverned("a protocol that is not governed")


def _wake_holds(handler: ConnectionHandler, _: Client) -> None:
    client_left(handler)
