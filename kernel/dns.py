"""What a policy says of names that are looked up: its `dns:` section, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ADDRESS_TYPES = frozenset({"A", "AAAA"})
SERVICE_TYPES = frozenset({"HTTPS", "SVCB"})
"""What these records would tell, keys for an encrypted hello among it, is never told: they are answered as absent."""
ANSWERED_TYPES = ADDRESS_TYPES | SERVICE_TYPES
# A label more than the deepest names of the large clouds, and room for their longest.
MOST_LABELS = 6
MOST_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Dns:
    """Which names are answered, and how. What a name may be is its share in what can leak by asking for it."""

    answers: bool = True
    types: frozenset[str] = ADDRESS_TYPES
    most_labels: int = MOST_LABELS
    most_characters: int = MOST_CHARACTERS


NOTHING_SAID = Dns()


def narrowed(said: Sequence[Dns]) -> Dns:
    """The sections of several tiers together: the strictest of each."""
    if not said:
        return NOTHING_SAID
    return Dns(
        all(each.answers for each in said),
        frozenset.intersection(*(each.types for each in said)),
        min(each.most_labels for each in said),
        min(each.most_characters for each in said),
    )
