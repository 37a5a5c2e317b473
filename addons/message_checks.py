"""mitmproxy compares the types of all fields of every message with their annotations; here each combination once.

The check is a debugging aid of mitmproxy's (`python -O` leaves it out) and costs a tenth of its time. What it finds
depends on the types of the values alone, so a combination that passed passes again; one that fails is never remembered.
"""

from __future__ import annotations

from typing import Any

from mitmproxy.http import MessageData


def remember() -> None:
    """Have the check remember what passed, in this process. Doing it again changes nothing."""
    original = MessageData.__post_init__
    if hasattr(original, "unremembered"):
        return
    passed: set[tuple[type, ...]] = set()

    def check(self: Any) -> None:
        kinds = (type(self), *map(type, vars(self).values()))
        if kinds not in passed:
            original(self)  # type: ignore[no-untyped-call]
            passed.add(kinds)

    check.unremembered = original  # type: ignore[attr-defined]
    MessageData.__post_init__ = check  # type: ignore[method-assign]
