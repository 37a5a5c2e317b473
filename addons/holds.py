"""Holds: a flow that an operator or an addon holds waits as long as its client does, and then gets an answer.

mitmproxy forgets whoever waits for a flow that is killed: `Flow.kill` ends the hold and wakes nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitmproxy.flow import Error, Flow


class EndedWhileHeld(Exception):
    """A held flow was killed, by an operator or because its client left. It does not go on."""


def install() -> None:
    """Have killing a held flow wake it. Installing again changes nothing."""
    if not hasattr(Flow.kill, "ungoverned"):
        Flow.kill = _around(Flow.kill)  # type: ignore[method-assign]


def _around(original: Callable[[Flow], None]) -> Any:
    def kill(flow: Flow) -> None:
        original(flow)
        if flow._resume_event is not None:
            flow._resume_event.set()

    kill.ungoverned = original  # type: ignore[attr-defined]
    return kill


async def wait(flow: Flow) -> None:
    """Wait until this flow may go on; raises `EndedWhileHeld` when it may not."""
    await flow.wait_for_resume()
    if _killed(flow):
        raise EndedWhileHeld


def end(flow: Flow) -> None:
    """End this hold, without the flow."""
    if flow.killable:
        flow.kill()
    else:
        flow.resume()


def answerable(flow: Flow) -> None:
    """Let the client of a killed flow have an answer: mitmproxy would close its connection without a word."""
    if _killed(flow):
        flow.error = None
        flow.live = True


def _killed(flow: Flow) -> bool:
    return flow.error is not None and flow.error.msg == Error.KILLED_MESSAGE
