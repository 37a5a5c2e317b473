"""What a running Governor says of itself."""

from __future__ import annotations

from collections.abc import Iterator

from addons.control import ControlError, ControlTimeout, NotRunning, request
from addons.doctor.check import Check, State
from addons.home import Paths

_ASKED_SECONDS = 3.0
_REJECTED = "rejected our certificate"


def checks(paths: Paths) -> Iterator[Check]:
    """Ready or not, and its hints; clients that refuse the CA among them."""
    try:
        reply = request(paths.folder, "status", _ASKED_SECONDS)
    except NotRunning:
        yield Check("running", State.OK, "no Governor runs on this home")
        return
    except ControlTimeout as silence:
        yield Check("running", State.FAIL, str(silence), "restart it; its log recovers at the start")
        return
    except ControlError as fault:
        yield Check("running", State.WARN, str(fault), "run governor doctor as the user that Governor runs as")
        return
    hints = [str(hint) for hint in reply.get("hints", [])]
    if reply.get("ready"):
        yield Check("running", State.OK, f"a Governor runs and is ready (mode {reply.get('mode')})")
    else:
        yield Check("running", State.FAIL, "a Governor runs and is not ready", "governor status says why")
    for hint in hints:
        fix = 'eval "$(governor ca env --shell)"' if _REJECTED in hint else ""
        yield Check("clients" if fix else "hint", State.WARN, hint.partition(": see ")[0] if fix else hint, fix)
