"""Every place where Governor reaches into mitmproxy's own code, put into effect together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons import (
    backlog,
    chunks,
    closing,
    crashes,
    cutting,
    early_answer,
    framing,
    gate,
    heads,
    http2_limits,
    origin_failure,
    origin_heads,
    request_bodies,
    slow_readers,
    socks5,
    trailers,
    websocket_layer,
)

if TYPE_CHECKING:
    from addons.deadlines import Deadlines
    from addons.hooks import Hooks
    from addons.outcomes import Outcomes
    from addons.request_bodies import RequestBodies


def install(hooks: Hooks, outcomes: Outcomes, bodies: RequestBodies, deadlines: Deadlines) -> None:
    """Have mitmproxy ask these. Installing again replaces them."""
    gate.install(hooks.guards(), deadlines)
    crashes.install(hooks.crashed)
    early_answer.install(hooks.replies.is_early)
    request_bodies.install(bodies, hooks.answers.is_stopped)
    cutting.install(hooks.answers.ending_of, outcomes.waits)
    origin_failure.install(hooks.answers.origin_failed)
    trailers.install()
    framing.install()
    origin_heads.install()
    backlog.install()
    heads.install(hooks.connections.head_begun, hooks.connections.head_abandoned)
    http2_limits.install(hooks.connections.protocol_broken)
    chunks.install(hooks.connections.next_turn)
    slow_readers.install(hooks.connections.hold, hooks.connections.release)
    closing.install()
    websocket_layer.install(outcomes.watch)
    socks5.install()
