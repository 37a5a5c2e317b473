"""Header fields that only Governor may set: no client and no origin speaks in its name."""

from __future__ import annotations

type Fields = tuple[tuple[bytes, bytes], ...]

_OURS = b"x-governor-"


def not_ours(fields: Fields) -> Fields:
    """These header fields without those that only Governor may set."""
    if any(name.lower().startswith(_OURS) for name, _ in fields):
        return tuple(pair for pair in fields if not pair[0].lower().startswith(_OURS))
    return fields
